/*
 * Caches of objects (kmem_cache) of Linux, in user space. docs/compat.md of the project says, for every
 * function and flag, what it does here and where that differs.
 */
#ifndef UMA_LINUX_SLAB_H
#define UMA_LINUX_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uma/bind.h>
#include <uma/hit.h>
#include <uma/linux/gfp.h>

typedef unsigned int slab_flags_t;

#define SLAB_CONSISTENCY_CHECKS 0x00000100u
#define SLAB_RED_ZONE 0x00000400u
#define SLAB_POISON 0x00000800u
#define SLAB_HWCACHE_ALIGN 0x00002000u
#define SLAB_CACHE_DMA 0x00004000u
#define SLAB_CACHE_DMA32 0x00008000u
#define SLAB_STORE_USER 0x00010000u
#define SLAB_RECLAIM_ACCOUNT 0x00020000u
#define SLAB_TEMPORARY SLAB_RECLAIM_ACCOUNT
#define SLAB_PANIC 0x00040000u
#define SLAB_TYPESAFE_BY_RCU 0x00080000u
#define SLAB_DESTROY_BY_RCU SLAB_TYPESAFE_BY_RCU
#define SLAB_TRACE 0x00200000u
#define SLAB_NOLEAKTRACE 0x00800000u
#define SLAB_NO_MERGE 0x01000000u
#define SLAB_FAILSLAB 0x02000000u
#define SLAB_ACCOUNT 0x04000000u
#define SLAB_NO_USER_FLAGS 0x10000000u
#define SLAB_SKIP_KFENCE 0x20000000u
#define SLAB_NO_OBJ_EXT 0x40000000u

struct kmem_cache;
struct slab_sheaf;

struct kmem_cache_args {
	unsigned int align;
	unsigned int useroffset;
	unsigned int usersize;
	unsigned int freeptr_offset;
	bool use_freeptr_offset;
	void (*ctor)(void *object);
	unsigned int sheaf_capacity;
};

UMA_C_BEGIN

/*
 * Both forms: kmem_cache_create(name, size, align, flags, ctor), and with what is rarer in a structure,
 * kmem_cache_create(name, size, &args, flags), where &args may be NULL.
 */
struct kmem_cache *kmem_cache_create(const char *name, unsigned int size, unsigned int align,
				     slab_flags_t flags, void (*ctor)(void *object))
	UMA_SYMBOL(uma_linux_kmem_cache_create);
struct kmem_cache *__kmem_cache_create_args(const char *name, unsigned int size,
					    struct kmem_cache_args *args, slab_flags_t flags)
	UMA_SYMBOL(uma_linux_kmem_cache_create_args);
struct kmem_cache *kmem_cache_create_usercopy(const char *name, unsigned int size,
					      unsigned int align, slab_flags_t flags,
					      unsigned int useroffset, unsigned int usersize,
					      void (*ctor)(void *object))
	UMA_SYMBOL(uma_linux_kmem_cache_create_usercopy);
void kmem_cache_destroy(struct kmem_cache *cache) UMA_SYMBOL(uma_linux_kmem_cache_destroy);
int kmem_cache_shrink(struct kmem_cache *cache) UMA_SYMBOL(uma_linux_kmem_cache_shrink);
unsigned int kmem_cache_size(struct kmem_cache *cache) UMA_SYMBOL(uma_linux_kmem_cache_size);
const char *kmem_cache_name(struct kmem_cache *cache) UMA_SYMBOL(uma_linux_kmem_cache_name);

void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t gfp) UMA_SYMBOL(uma_linux_kmem_cache_alloc);
void *kmem_cache_zalloc(struct kmem_cache *cache, gfp_t gfp)
	UMA_SYMBOL(uma_linux_kmem_cache_zalloc);
void kmem_cache_free(struct kmem_cache *cache, void *object) UMA_SYMBOL(uma_linux_kmem_cache_free);
int kmem_cache_alloc_bulk(struct kmem_cache *cache, gfp_t gfp, size_t count, void **objects)
	UMA_SYMBOL(uma_linux_kmem_cache_alloc_bulk);
void kmem_cache_free_bulk(struct kmem_cache *cache, size_t count, void **objects)
	UMA_SYMBOL(uma_linux_kmem_cache_free_bulk);

/* Objects set aside: taking them cannot fail. */
struct slab_sheaf *kmem_cache_prefill_sheaf(struct kmem_cache *cache, gfp_t gfp, unsigned int count)
	UMA_SYMBOL(uma_linux_kmem_cache_prefill_sheaf);
int kmem_cache_refill_sheaf(struct kmem_cache *cache, gfp_t gfp, struct slab_sheaf **sheaf,
			    unsigned int count) UMA_SYMBOL(uma_linux_kmem_cache_refill_sheaf);
void *kmem_cache_alloc_from_sheaf(struct kmem_cache *cache, gfp_t gfp, struct slab_sheaf *sheaf)
	UMA_SYMBOL(uma_linux_kmem_cache_alloc_from_sheaf);
void kmem_cache_return_sheaf(struct kmem_cache *cache, gfp_t gfp, struct slab_sheaf *sheaf)
	UMA_SYMBOL(uma_linux_kmem_cache_return_sheaf);
unsigned int kmem_cache_sheaf_size(struct slab_sheaf *sheaf)
	UMA_SYMBOL(uma_linux_kmem_cache_sheaf_size);

/* Memory of any size. */
void *kmalloc(size_t size, gfp_t gfp) UMA_SYMBOL(uma_linux_kmalloc);
void *kmalloc_array(size_t count, size_t size, gfp_t gfp) UMA_SYMBOL(uma_linux_kmalloc_array);
void *krealloc(const void *memory, size_t size, gfp_t gfp)
	UMA_SYMBOL(uma_linux_krealloc) UMA_MUST_CHECK;
void *krealloc_array(void *memory, size_t count, size_t size, gfp_t gfp)
	UMA_SYMBOL(uma_linux_krealloc_array) UMA_MUST_CHECK;
void kfree(const void *memory) UMA_SYMBOL(uma_linux_kfree);
void kfree_bulk(size_t count, void **all) UMA_SYMBOL(uma_linux_kfree_bulk);
void kfree_sensitive(const void *memory) UMA_SYMBOL(uma_linux_kfree_sensitive);
void kfree_rcu_mightsleep(const void *memory) UMA_SYMBOL(uma_linux_kfree_rcu_mightsleep);
size_t ksize(const void *memory) UMA_SYMBOL(uma_linux_ksize);
size_t kmalloc_size_roundup(size_t size) UMA_SYMBOL(uma_linux_kmalloc_size_roundup);
/* Reports what is known of a pointer. */
void kmem_dump_obj(void *memory) UMA_SYMBOL(uma_linux_kmem_dump_obj);

/* Not of Linux: how many objects are in use, of a cache and of kmalloc. */
uint64_t uma_linux_kmalloc_active(void);
uint64_t uma_linux_kmem_cache_active(struct kmem_cache *cache);
/*
 * Not of Linux: what a grace period is, for SLAB_TYPESAFE_BY_RCU, as synchronize_rcu of liburcu. Until it is
 * known, pages of such caches stay with them.
 */
void uma_linux_set_grace_period(void (*synchronize)(void));

UMA_C_END

#if defined(UMA_HITS_)

#define UMA_LINUX_MARK_ UMA_MARK_('l', 'c')

static inline void *uma_linux_hit_alloc_(struct kmem_cache *cache, gfp_t gfp)
{
	void *object = (gfp & __GFP_ZERO) != 0 ? NULL : uma_pop_(cache, UMA_LINUX_MARK_);

	return object != NULL ? object : kmem_cache_alloc(cache, gfp);
}

static inline void uma_linux_hit_free_(struct kmem_cache *cache, void *object)
{
	if (!uma_push_(cache, UMA_LINUX_MARK_, object))
		kmem_cache_free(cache, object);
}

#define kmem_cache_alloc(...) uma_linux_hit_alloc_(__VA_ARGS__)
#define kmem_cache_free(...) uma_linux_hit_free_(__VA_ARGS__)

#endif

/* There is one node, and no list of least recently used objects. */
static inline void *kmem_cache_alloc_node(struct kmem_cache *cache, gfp_t gfp, int node)
{
	(void)node;
	return kmem_cache_alloc(cache, gfp);
}

/* What kmalloc returns for a size of 0. */
#define ZERO_SIZE_PTR ((void *)16)
#define ZERO_OR_NULL_PTR(memory) ((uintptr_t)(memory) <= (uintptr_t)ZERO_SIZE_PTR)

#define ARCH_KMALLOC_MINALIGN 8
#define KMALLOC_MIN_SIZE 8
#define KMALLOC_MAX_CACHE_SIZE 8192u
#define KMALLOC_MAX_SIZE (1ul << 22)

static inline void *kzalloc(size_t size, gfp_t gfp)
{
	return kmalloc(size, gfp | __GFP_ZERO);
}

static inline void *kcalloc(size_t count, size_t size, gfp_t gfp)
{
	return kmalloc_array(count, size, gfp | __GFP_ZERO);
}

static inline void *kmalloc_node(size_t size, gfp_t gfp, int node)
{
	(void)node;
	return kmalloc(size, gfp);
}

static inline void *kzalloc_node(size_t size, gfp_t gfp, int node)
{
	(void)node;
	return kzalloc(size, gfp);
}

static inline void *kmalloc_array_node(size_t count, size_t size, gfp_t gfp, int node)
{
	(void)node;
	return kmalloc_array(count, size, gfp);
}

static inline void *kcalloc_node(size_t count, size_t size, gfp_t gfp, int node)
{
	(void)node;
	return kcalloc(count, size, gfp);
}

/* Takes no lock and may fail at any time, in Linux; here, never waits. */
static inline void *kmalloc_nolock(size_t size, gfp_t gfp, int node)
{
	(void)node;
	return kmalloc(size, gfp & (gfp_t)(__GFP_ZERO | __GFP_ACCOUNT));
}

static inline void kfree_nolock(const void *memory)
{
	kfree(memory);
}

static inline void kzfree(const void *memory)
{
	kfree_sensitive(memory);
}

/* All memory is contiguous here, so these are the same. */
static inline void *kvmalloc(size_t size, gfp_t gfp)
{
	return kmalloc(size, gfp);
}

static inline void *kvzalloc(size_t size, gfp_t gfp)
{
	return kzalloc(size, gfp);
}

static inline void *kvmalloc_node(size_t size, gfp_t gfp, int node)
{
	return kmalloc_node(size, gfp, node);
}

static inline void *kvzalloc_node(size_t size, gfp_t gfp, int node)
{
	return kzalloc_node(size, gfp, node);
}

static inline void *kvmalloc_array(size_t count, size_t size, gfp_t gfp)
{
	return kmalloc_array(count, size, gfp);
}

static inline void *kvcalloc(size_t count, size_t size, gfp_t gfp)
{
	return kcalloc(count, size, gfp);
}

static inline UMA_MUST_CHECK void *kvrealloc(const void *memory, size_t size, gfp_t gfp)
{
	return krealloc(memory, size, gfp);
}

static inline void kvfree(const void *memory)
{
	kfree(memory);
}

static inline void kvfree_sensitive(const void *memory, size_t size)
{
	(void)size;
	kfree_sensitive(memory);
}

static inline void kvfree_rcu_mightsleep(const void *memory)
{
	kfree_rcu_mightsleep(memory);
}

struct list_lru;

static inline void *kmem_cache_alloc_lru(struct kmem_cache *cache, struct list_lru *lru, gfp_t gfp)
{
	(void)lru;
	return kmem_cache_alloc(cache, gfp);
}

static inline bool slab_is_available(void)
{
	return true;
}

#if defined(__cplusplus)

static inline struct kmem_cache *kmem_cache_create(const char *name, unsigned int size,
						   struct kmem_cache_args *args, slab_flags_t flags)
{
	return __kmem_cache_create_args(name, size, args, flags);
}

static inline struct kmem_cache *kmem_cache_create(const char *name, unsigned int size,
						   decltype(nullptr), slab_flags_t flags)
{
	return __kmem_cache_create_args(name, size, nullptr, flags);
}

#define UMA_ALIGNOF_(type) alignof(type)

#else

static inline struct kmem_cache *uma_linux_create_default_(const char *name, unsigned int size,
							   void *args, slab_flags_t flags)
{
	return __kmem_cache_create_args(name, size, (struct kmem_cache_args *)args, flags);
}

#define kmem_cache_create(name, size, args, ...)                   \
	_Generic((args),                                           \
		struct kmem_cache_args *: __kmem_cache_create_args, \
		void *: uma_linux_create_default_,                 \
		default: kmem_cache_create)(name, size, args, __VA_ARGS__)

#define UMA_ALIGNOF_(type) _Alignof(type)

#endif

/* A cache of objects of a structure, by its name. */
#define KMEM_CACHE(structure, flags)                                         \
	(kmem_cache_create)(#structure, (unsigned int)sizeof(struct structure), \
			    (unsigned int)UMA_ALIGNOF_(struct structure), flags, NULL)

/* The same, of whose objects the member may be copied to and from user space. */
#define KMEM_CACHE_USERCOPY(structure, flags, member)                                     \
	kmem_cache_create_usercopy(#structure, (unsigned int)sizeof(struct structure),    \
				   (unsigned int)UMA_ALIGNOF_(struct structure), flags,   \
				   (unsigned int)offsetof(struct structure, member),      \
				   (unsigned int)sizeof(((struct structure *)0)->member), \
				   NULL)

#endif

/*
 * kmem_cache_create(9F), kmem_alloc(9F) and what illumos adds to them, with the values of illumos.
 * docs/compat.md of the project has a table of what each does here.
 */
#ifndef UMA_SOLARIS_KMEM_H
#define UMA_SOLARIS_KMEM_H

#include <stddef.h>
#include <stdint.h>

#include <uma/bind.h>
#include <uma/hit.h>

#define KM_SLEEP 0x0000
#define KM_NOSLEEP 0x0001
#define KM_PANIC 0x0002
#define KM_PUSHPAGE 0x0004
#define KM_NORMALPRI 0x0008
#define KM_VMFLAGS 0x00ff
#define KM_FLAGS 0xffff
/* Of the ports to Linux (SPL), with their values. */
#define KM_ZERO 0x1000
#define KM_VMEM 0x2000

#define KMC_NOTOUCH 0x00010000
#define KMC_NODEBUG 0x00020000
#define KMC_NOMAGAZINE 0x00040000
#define KMC_NOHASH 0x00080000
#define KMC_QCACHE 0x00100000
#define KMC_KMEM_ALLOC 0x00200000
#define KMC_IDENTIFIER 0x00400000
#define KMC_PREFILL 0x00800000
/* Of the ports to Linux; their values are taken by others here. */
#define KMC_KVMEM 0x01000000
#define KMC_SLAB 0x02000000
#define KMC_RECLAIMABLE 0x04000000

/* What a move callback returns. */
typedef enum kmem_cbrc {
	KMEM_CBRC_YES,
	KMEM_CBRC_NO,
	KMEM_CBRC_LATER,
	KMEM_CBRC_DONT_NEED,
	KMEM_CBRC_DONT_KNOW
} kmem_cbrc_t;

typedef struct kmem_cache kmem_cache_t;

/* vmem_t *, as uma/solaris/vmem.h has it. */
struct vmem;

UMA_C_BEGIN

kmem_cache_t *kmem_cache_create(const char *name, size_t bufsize, size_t align,
				int (*constructor)(void *, void *, int),
				void (*destructor)(void *, void *), void (*reclaim)(void *),
				void *private_, void *vmp, int cflags)
	UMA_SYMBOL(uma_solaris_kmem_cache_create);
void kmem_cache_destroy(kmem_cache_t *cache) UMA_SYMBOL(uma_solaris_kmem_cache_destroy);
void *kmem_cache_alloc(kmem_cache_t *cache, int kmflag) UMA_SYMBOL(uma_solaris_kmem_cache_alloc);
void kmem_cache_free(kmem_cache_t *cache, void *object) UMA_SYMBOL(uma_solaris_kmem_cache_free);

void kmem_cache_set_move(kmem_cache_t *cache, kmem_cbrc_t (*move)(void *, void *, size_t, void *))
	UMA_SYMBOL(uma_solaris_kmem_cache_set_move);
void kmem_cache_move_notify(kmem_cache_t *cache, void *object)
	UMA_SYMBOL(uma_solaris_kmem_cache_move_notify);
void kmem_cache_reap_now(kmem_cache_t *cache) UMA_SYMBOL(uma_solaris_kmem_cache_reap_now);
void kmem_cache_reap_soon(kmem_cache_t *cache) UMA_SYMBOL(uma_solaris_kmem_cache_reap_soon);
int kmem_cache_reap_active(void) UMA_SYMBOL(uma_solaris_kmem_cache_reap_active);
/* The field has the name that it has in the cache's kstat, as "buf_inuse". */
uint64_t kmem_cache_stat(kmem_cache_t *cache, const char *field)
	UMA_SYMBOL(uma_solaris_kmem_cache_stat);
void kmem_reap(void) UMA_SYMBOL(uma_solaris_kmem_reap);
void kmem_reap_idspace(void) UMA_SYMBOL(uma_solaris_kmem_reap_idspace);

void *kmem_alloc(size_t size, int kmflag) UMA_SYMBOL(uma_solaris_kmem_alloc);
void *kmem_zalloc(size_t size, int kmflag) UMA_SYMBOL(uma_solaris_kmem_zalloc);
void *kmem_alloc_tryhard(size_t size, size_t *asize, int kmflag)
	UMA_SYMBOL(uma_solaris_kmem_alloc_tryhard);
void kmem_free(const void *memory, size_t size) UMA_SYMBOL(uma_solaris_kmem_free);
/* Bytes that are free, 1 GiB at most, and without that bound; whether new caches are checked. */
size_t kmem_avail(void) UMA_SYMBOL(uma_solaris_kmem_avail);
size_t kmem_maxavail(void) UMA_SYMBOL(uma_solaris_kmem_maxavail);
int kmem_debugging(void) UMA_SYMBOL(uma_solaris_kmem_debugging);

/* Ours: pieces of memory of kmem_alloc in use. */
uint64_t uma_solaris_kmem_alloc_active(void) UMA_SYMBOL(uma_solaris_kmem_alloc_active);

/* Of the ports to Linux: objects in use, and bytes of one. */
static inline uint64_t spl_kmem_cache_inuse(kmem_cache_t *cache)
{
	return kmem_cache_stat(cache, "buf_inuse");
}

static inline uint64_t spl_kmem_cache_entry_size(kmem_cache_t *cache)
{
	return kmem_cache_stat(cache, "buf_size");
}

UMA_C_END

#if defined(UMA_HITS_)

#define UMA_SOLARIS_MARK_ UMA_MARK_('s', 'c')

static inline void *uma_solaris_hit_alloc_(kmem_cache_t *cache, int kmflag)
{
	void *object = uma_pop_(cache, UMA_SOLARIS_MARK_);

	return object != NULL ? object : kmem_cache_alloc(cache, kmflag);
}

static inline void uma_solaris_hit_free_(kmem_cache_t *cache, void *object)
{
	if (!uma_push_(cache, UMA_SOLARIS_MARK_, object))
		kmem_cache_free(cache, object);
}

#define kmem_cache_alloc(...) uma_solaris_hit_alloc_(__VA_ARGS__)
#define kmem_cache_free(...) uma_solaris_hit_free_(__VA_ARGS__)

#endif

#endif

/*
 * libumem: umem_alloc(3MALLOC), umem_cache_create(3MALLOC). The library has libumem's own symbols as well, so
 * that programs that were compiled for libumem can be linked with it.
 */
#ifndef UMA_UMEM_UMEM_H
#define UMA_UMEM_UMEM_H

#include <stddef.h>
#include <stdint.h>

#include <uma/bind.h>
#include <uma/hit.h>

#define UMEM_DEFAULT 0x0000
#define UMEM_NOFAIL 0x0100
#define UMEM_FLAGS 0xffff

#define UMC_NOTOUCH 0x00010000
#define UMC_NODEBUG 0x00020000
#define UMC_NOMAGAZINE 0x00040000
#define UMC_NOHASH 0x00080000

/* What a nofail callback returns. */
#define UMEM_CALLBACK_RETRY (0)
#define UMEM_CALLBACK_EXIT(status) (0x100 | ((status)&0xFF))

typedef struct umem_cache umem_cache_t;
typedef struct vmem vmem_t;
typedef int umem_constructor_t(void *, void *, int);
typedef void umem_destructor_t(void *, void *);
typedef void umem_reclaim_t(void *);
typedef int umem_nofail_callback_t(void);

UMA_C_BEGIN

void *umem_alloc(size_t size, int flags) UMA_SYMBOL(uma_umem_alloc);
void *umem_zalloc(size_t size, int flags) UMA_SYMBOL(uma_umem_zalloc);
void umem_free(void *memory, size_t size) UMA_SYMBOL(uma_umem_free);
void *umem_alloc_align(size_t size, size_t align, int flags) UMA_SYMBOL(uma_umem_alloc_align);
void umem_free_align(void *memory, size_t size) UMA_SYMBOL(uma_umem_free_align);
#define umem_alloc_aligned umem_alloc_align
#define umem_free_aligned umem_free_align

void umem_nofail_callback(umem_nofail_callback_t *callback) UMA_SYMBOL(uma_umem_nofail_callback);

umem_cache_t *umem_cache_create(const char *name, size_t bufsize, size_t align,
				umem_constructor_t *constructor, umem_destructor_t *destructor,
				umem_reclaim_t *reclaim, void *callback_data, vmem_t *source,
				int cflags) UMA_SYMBOL(uma_umem_cache_create);
void umem_cache_destroy(umem_cache_t *cache) UMA_SYMBOL(uma_umem_cache_destroy);
void *umem_cache_alloc(umem_cache_t *cache, int flags) UMA_SYMBOL(uma_umem_cache_alloc);
void umem_cache_free(umem_cache_t *cache, void *object) UMA_SYMBOL(uma_umem_cache_free);
void umem_cache_reap_now(umem_cache_t *cache) UMA_SYMBOL(uma_umem_cache_reap_now);
void umem_reap(void) UMA_SYMBOL(uma_umem_reap);

/* Ours: objects of a cache, and pieces of memory of umem_alloc, in use. */
uint64_t uma_umem_cache_active(umem_cache_t *cache) UMA_SYMBOL(uma_umem_cache_active);
uint64_t uma_umem_alloc_active(void) UMA_SYMBOL(uma_umem_alloc_active);

UMA_C_END

#if defined(UMA_HITS_)

#define UMA_UMEM_MARK_ UMA_MARK_('u', 'c')

static inline void *uma_umem_hit_alloc_(umem_cache_t *cache, int flags)
{
	void *object = uma_pop_(cache, UMA_UMEM_MARK_);

	return object != NULL ? object : umem_cache_alloc(cache, flags);
}

static inline void uma_umem_hit_free_(umem_cache_t *cache, void *object)
{
	if (!uma_push_(cache, UMA_UMEM_MARK_, object))
		umem_cache_free(cache, object);
}

#define umem_cache_alloc(...) uma_umem_hit_alloc_(__VA_ARGS__)
#define umem_cache_free(...) uma_umem_hit_free_(__VA_ARGS__)

#endif

#endif

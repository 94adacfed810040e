/*
 * Pools with a reserve (mempool) of Linux, in user space: an allocation that may block never fails, as long as
 * users free what they have.
 */
#ifndef UMA_LINUX_MEMPOOL_H
#define UMA_LINUX_MEMPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uma/bind.h>
#include <uma/linux/slab.h>

typedef void *(mempool_alloc_t)(gfp_t gfp, void *pool_data);
typedef void(mempool_free_t)(void *element, void *pool_data);

/* Zero it before mempool_exit may be called, if mempool_init may not have been. */
typedef struct mempool {
	struct uma_linux_mempool *uma_pool;
} mempool_t;

UMA_C_BEGIN

mempool_t *mempool_create_node(int min_nr, mempool_alloc_t *alloc_fn, mempool_free_t *free_fn,
			       void *pool_data, gfp_t gfp, int node)
	UMA_SYMBOL(uma_linux_mempool_create_node);
int mempool_init_node(mempool_t *pool, int min_nr, mempool_alloc_t *alloc_fn,
		      mempool_free_t *free_fn, void *pool_data, gfp_t gfp, int node)
	UMA_SYMBOL(uma_linux_mempool_init_node);
void mempool_destroy(mempool_t *pool) UMA_SYMBOL(uma_linux_mempool_destroy);
void mempool_exit(mempool_t *pool) UMA_SYMBOL(uma_linux_mempool_exit);
int mempool_resize(mempool_t *pool, int new_min_nr) UMA_SYMBOL(uma_linux_mempool_resize);
bool mempool_is_saturated(mempool_t *pool) UMA_SYMBOL(uma_linux_mempool_is_saturated);

void *mempool_alloc(mempool_t *pool, gfp_t gfp) UMA_SYMBOL(uma_linux_mempool_alloc);
void *mempool_alloc_preallocated(mempool_t *pool)
	UMA_SYMBOL(uma_linux_mempool_alloc_preallocated);
/* Fills the places that are NULL, of which `allocated` say how many are not. */
int mempool_alloc_bulk(mempool_t *pool, void **elements, unsigned int count, unsigned int allocated)
	UMA_SYMBOL(uma_linux_mempool_alloc_bulk);
void mempool_free(void *element, mempool_t *pool) UMA_SYMBOL(uma_linux_mempool_free);
/* Returns how many went into the reserve, whose places are NULL now; the others are still the caller's. */
unsigned int mempool_free_bulk(mempool_t *pool, void **elements, unsigned int count)
	UMA_SYMBOL(uma_linux_mempool_free_bulk);

/* Functions for pools whose elements come from a cache; pool_data is the cache. */
void *mempool_alloc_slab(gfp_t gfp, void *pool_data) UMA_SYMBOL(uma_linux_mempool_alloc_slab);
void mempool_free_slab(void *element, void *pool_data) UMA_SYMBOL(uma_linux_mempool_free_slab);
/* The same, from kmalloc; pool_data is the size. */
void *mempool_kmalloc(gfp_t gfp, void *pool_data) UMA_SYMBOL(uma_linux_mempool_kmalloc);
void mempool_kfree(void *element, void *pool_data) UMA_SYMBOL(uma_linux_mempool_kfree);

UMA_C_END

static inline mempool_t *mempool_create(int min_nr, mempool_alloc_t *alloc_fn,
					mempool_free_t *free_fn, void *pool_data)
{
	return mempool_create_node(min_nr, alloc_fn, free_fn, pool_data, GFP_KERNEL, NUMA_NO_NODE);
}

static inline int mempool_init(mempool_t *pool, int min_nr, mempool_alloc_t *alloc_fn,
			       mempool_free_t *free_fn, void *pool_data)
{
	return mempool_init_node(pool, min_nr, alloc_fn, free_fn, pool_data, GFP_KERNEL,
				 NUMA_NO_NODE);
}

static inline bool mempool_initialized(const mempool_t *pool)
{
	return pool->uma_pool != NULL;
}

static inline mempool_t *mempool_create_slab_pool(int min_nr, struct kmem_cache *cache)
{
	return mempool_create(min_nr, mempool_alloc_slab, mempool_free_slab, cache);
}

static inline int mempool_init_slab_pool(mempool_t *pool, int min_nr, struct kmem_cache *cache)
{
	return mempool_init(pool, min_nr, mempool_alloc_slab, mempool_free_slab, cache);
}

static inline mempool_t *mempool_create_kmalloc_pool(int min_nr, size_t size)
{
	return mempool_create(min_nr, mempool_kmalloc, mempool_kfree, (void *)(uintptr_t)size);
}

static inline int mempool_init_kmalloc_pool(mempool_t *pool, int min_nr, size_t size)
{
	return mempool_init(pool, min_nr, mempool_kmalloc, mempool_kfree,
			    (void *)(uintptr_t)size);
}

#endif

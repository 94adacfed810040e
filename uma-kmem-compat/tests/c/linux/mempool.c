/* mempool: an allocation that may block never fails while others free what they have. */
#include "../check.h"

#include <pthread.h>
#include <time.h>

#include <uma/compat.h>
#include <uma/linux/mempool.h>

/* An allocator that fails on demand, and counts. */
static int failing, allocated, freed;
static gfp_t last_gfp;

static void *take(gfp_t gfp, void *data)
{
	last_gfp = gfp;
	CHECK(data == &failing);
	if (__atomic_load_n(&failing, __ATOMIC_SEQ_CST))
		return NULL;
	__atomic_add_fetch(&allocated, 1, __ATOMIC_SEQ_CST);
	return malloc(32);
}

static void give(void *element, void *data)
{
	CHECK(data == &failing);
	__atomic_add_fetch(&freed, 1, __ATOMIC_SEQ_CST);
	free(element);
}

/* Two in reserve: two more than the allocator has, then none; the first that is freed refills it. */
static void reserve(void)
{
	mempool_t *pool = mempool_create(2, take, give, &failing);
	void *elements[5];

	CHECK(pool != NULL);
	CHECK_EQ(allocated, 2);
	CHECK(mempool_is_saturated(pool));
	elements[0] = mempool_alloc(pool, GFP_KERNEL);
	elements[1] = mempool_alloc(pool, GFP_KERNEL);
	CHECK_EQ(allocated, 4);
	CHECK(mempool_is_saturated(pool));
	/* The allocator was asked not to try hard: there is a reserve. */
	CHECK_EQ(last_gfp & (__GFP_DIRECT_RECLAIM | __GFP_IO), 0);
	CHECK_EQ(last_gfp & (__GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC),
		 __GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC);

	failing = 1;
	elements[2] = mempool_alloc(pool, GFP_NOWAIT);
	elements[3] = mempool_alloc(pool, GFP_KERNEL);
	CHECK(elements[2] != NULL && elements[3] != NULL);
	CHECK(mempool_alloc(pool, GFP_NOWAIT) == NULL);
	CHECK(mempool_alloc(pool, GFP_ATOMIC) == NULL);
	CHECK(mempool_alloc_preallocated(pool) == NULL);
	CHECK(!mempool_is_saturated(pool));

	mempool_free(elements[0], pool);
	CHECK_EQ(freed, 0);
	elements[0] = mempool_alloc_preallocated(pool);
	CHECK(elements[0] != NULL);
	for (int i = 0; i < 4; i++)
		mempool_free(elements[i], pool);
	/* Two stay in reserve. */
	CHECK_EQ(freed, 2);
	mempool_free(NULL, pool);
	mempool_destroy(pool);
	CHECK_EQ(freed, 4);
	CHECK_EQ(allocated, 4);
	failing = 0;
	mempool_destroy(NULL);
}

/* One that may block waits until somebody frees. */
static void *free_later(void *argument)
{
	void **both = argument;
	struct timespec moment = { 0, 50 * 1000 * 1000 };

	nanosleep(&moment, NULL);
	mempool_free(both[1], both[0]);
	return NULL;
}

static void waiting(void)
{
	mempool_t *pool = mempool_create(1, take, give, &failing);
	void *only, *again, *both[2];
	pthread_t thread;

	failing = 1;
	only = mempool_alloc(pool, GFP_KERNEL);
	both[0] = pool;
	both[1] = only;
	CHECK_EQ(pthread_create(&thread, NULL, free_later, both), 0);
	again = mempool_alloc(pool, GFP_KERNEL);
	CHECK(again == only);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	mempool_free(again, pool);
	mempool_destroy(pool);
	failing = 0;
}

/* Many threads that each need two of a reserve of four, one after the other is too little: in bulk. */
static void *take_in_bulk(void *argument)
{
	mempool_t *pool = argument;

	for (int round = 0; round < 200; round++) {
		void *elements[3] = { NULL, NULL, NULL };
		unsigned int taken;

		CHECK_EQ(mempool_alloc_bulk(pool, elements, 3, 0), 0);
		for (int i = 0; i < 3; i++)
			CHECK(elements[i] != NULL);
		CHECK(elements[0] != elements[1] && elements[1] != elements[2]);
		taken = mempool_free_bulk(pool, elements, 3);
		for (unsigned int i = 0; i < 3; i++) {
			CHECK_EQ(elements[i] == NULL, i < taken);
			mempool_free(elements[i], pool);
		}
	}
	return NULL;
}

static void bulk(void)
{
	mempool_t *pool = mempool_create(4, take, give, &failing);
	void *elements[3] = { NULL, NULL, NULL }, *kept;
	pthread_t threads[4];

	/* Places that are taken are left alone. */
	elements[1] = kept = mempool_alloc(pool, GFP_KERNEL);
	CHECK_EQ(mempool_alloc_bulk(pool, elements, 3, 1), 0);
	CHECK(elements[1] == kept && elements[0] != NULL && elements[2] != NULL);
	for (int i = 0; i < 3; i++)
		mempool_free(elements[i], pool);
	CHECK_EQ(mempool_alloc_bulk(pool, NULL, 0, 0), 0);

	failing = 1;
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, take_in_bulk, pool), 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK(mempool_is_saturated(pool));
	failing = 0;
	mempool_destroy(pool);
}

static void resizing(void)
{
	mempool_t pool;

	memset(&pool, 0, sizeof(pool));
	CHECK(!mempool_initialized(&pool));
	mempool_exit(&pool);
	allocated = freed = 0;
	CHECK_EQ(mempool_init(&pool, 2, take, give, &failing), 0);
	CHECK(mempool_initialized(&pool));
	CHECK_EQ(mempool_resize(&pool, 5), 0);
	CHECK_EQ(allocated, 5);
	CHECK_EQ(mempool_resize(&pool, 1), 0);
	CHECK_EQ(freed, 4);
	/* Where there is no memory now, it comes with frees. */
	void *element = mempool_alloc(&pool, GFP_KERNEL);
	failing = 1;
	CHECK_EQ(mempool_resize(&pool, 2), 0);
	CHECK(!mempool_is_saturated(&pool));
	mempool_free(element, &pool);
	CHECK(mempool_is_saturated(&pool));
	failing = 0;
	mempool_exit(&pool);
	CHECK_EQ(allocated, freed);
	mempool_exit(&pool);
	CHECK(!mempool_initialized(&pool));
}

static void creation_fails(void)
{
	mempool_t pool;

	failing = 1;
	CHECK(mempool_create(3, take, give, &failing) == NULL);
	CHECK_EQ(mempool_init(&pool, 3, take, give, &failing), -12);
	failing = 0;
	mempool_exit(&pool);
	CHECK_REPORTS(0, "");
}

static void construct(void *object)
{
	memset(object, 0, 64);
}

static void of_a_cache(void)
{
	struct kmem_cache *cache = kmem_cache_create("elements", 64, 0, 0, NULL);
	struct kmem_cache *constructed = kmem_cache_create("constructed", 64, 0, 0, construct);
	mempool_t *pool = mempool_create_slab_pool(8, cache), other;
	void *element;

	CHECK_EQ(uma_linux_kmem_cache_active(cache), 8);
	element = mempool_alloc(pool, GFP_KERNEL);
	CHECK_EQ(uma_linux_kmem_cache_active(cache), 9);
	mempool_free(element, pool);
	CHECK_EQ(uma_linux_kmem_cache_active(cache), 8);
	mempool_destroy(pool);
	CHECK_EQ(uma_linux_kmem_cache_active(cache), 0);
	CHECK_EQ(mempool_init_slab_pool(&other, 2, cache), 0);
	mempool_exit(&other);
	CHECK_REPORTS(0, "");
	/* Elements in reserve would not be constructed. */
	CHECK(mempool_create_slab_pool(8, constructed) == NULL);
	CHECK_REPORTS(1, "mempool_alloc_slab: cache \"constructed\" has a constructor");
	kmem_cache_destroy(cache);
	kmem_cache_destroy(constructed);
}

/* A node means nothing; the functions for pools of caches and of kmalloc can be called as they are. */
static void nodes(void)
{
	struct kmem_cache *cache = kmem_cache_create("elements", 64, 0, 0, NULL);
	mempool_t *pool = mempool_create_node(2, mempool_alloc_slab, mempool_free_slab, cache,
					      GFP_KERNEL, 0), *sized, own;
	void *element;

	CHECK(pool != NULL);
	CHECK_EQ(uma_linux_kmem_cache_active(cache), 2);
	mempool_destroy(pool);
	CHECK_EQ(mempool_init_node(&own, 3, mempool_kmalloc, mempool_kfree, (void *)(uintptr_t)100,
				   GFP_KERNEL, NUMA_NO_NODE), 0);
	element = mempool_alloc(&own, GFP_KERNEL);
	CHECK(ksize(element) >= 100);
	mempool_free(element, &own);
	mempool_exit(&own);
	sized = mempool_create_kmalloc_pool(1, 30);
	mempool_destroy(sized);
	CHECK_EQ(mempool_init_kmalloc_pool(&own, 1, 30), 0);
	mempool_exit(&own);
	element = mempool_alloc_slab(GFP_KERNEL, cache);
	CHECK_EQ(uma_linux_kmem_cache_active(cache), 1);
	mempool_free_slab(element, cache);
	element = mempool_kmalloc(GFP_KERNEL | __GFP_ZERO, (void *)(uintptr_t)200);
	CHECK_EQ(*(char *)element, 0);
	mempool_kfree(element, (void *)(uintptr_t)200);
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
}

static void mistakes(void)
{
	mempool_t *pool = mempool_create(0, take, give, &failing), own;
	void *element, *places[2] = { NULL, NULL };

	/* A reserve of none is one of one. */
	CHECK(mempool_is_saturated(pool));
	CHECK(mempool_create(-1, take, give, &failing) == NULL);
	CHECK_REPORTS(1, "a reserve of -1 elements");
	CHECK(mempool_create(1, NULL, give, &failing) == NULL);
	CHECK_REPORTS(1, "is null");
	CHECK(mempool_create(1, take, NULL, &failing) == NULL);
	CHECK_REPORTS(1, "is null");
	CHECK(mempool_resize(pool, 0) != 0);
	CHECK_REPORTS(1, "a reserve of 0 elements");
	element = mempool_alloc(pool, GFP_KERNEL | __GFP_ZERO);
	CHECK_REPORTS(1, "__GFP_ZERO is not for elements of pools");
	mempool_free(element, pool);
	CHECK_EQ(mempool_alloc_bulk(pool, places, 2, 0), 0);
	CHECK_REPORTS(1, "2 elements are more than the 1 in reserve");
	mempool_free(places[0], pool);
	mempool_free(places[1], pool);
	/* Null in an array is nothing: it does not come out of the reserve again. */
	CHECK(mempool_is_saturated(pool));
	element = mempool_alloc_preallocated(pool);
	CHECK(element != NULL && !mempool_is_saturated(pool));
	places[0] = NULL;
	places[1] = element;
	CHECK_EQ(mempool_free_bulk(pool, places, 2), 2);
	CHECK(mempool_is_saturated(pool));
	CHECK(mempool_alloc_preallocated(pool) == element);
	mempool_free(element, pool);
	CHECK_EQ(mempool_free_bulk(pool, NULL, 0), 0);
	CHECK_REPORTS(0, "");
	CHECK_EQ(mempool_free_bulk(pool, NULL, 2), 0);
	CHECK_REPORTS(1, "mempool_free_bulk: the array is null");
	CHECK_EQ(mempool_free_bulk(pool, (void *)((char *)places + 1), 1), 0);
	CHECK_REPORTS(1, "mempool_free_bulk: the array is misaligned");
	CHECK(mempool_alloc_bulk(pool, (void *)((char *)places + 1), 1, 0) != 0);
	CHECK_REPORTS(1, "mempool_alloc_bulk: the array is misaligned");
	mempool_exit((void *)((char *)&own + 1));
	CHECK_REPORTS(1, "mempool_exit: bad pool");
	mempool_exit(NULL);
	CHECK(mempool_alloc(NULL, GFP_KERNEL) == NULL);
	CHECK_REPORTS(1, "mempool_alloc: bad pool: the pointer is null");
	mempool_free(&own, NULL);
	CHECK_REPORTS(1, "mempool_free: bad pool");
	CHECK_EQ(mempool_init(&own, 1, take, give, &failing), 0);
	mempool_destroy(&own);
	CHECK_REPORTS(1, "made by mempool_init");
	mempool_exit(&own);
	mempool_destroy(pool);
	CHECK_REPORTS(0, "");
	mempool_destroy(pool);
	CHECK_REPORTS(1, "mempool_destroy: bad pool: it was destroyed before");
	CHECK(mempool_alloc(pool, GFP_KERNEL) == NULL);
	CHECK_REPORTS(1, "destroyed before");
}

int main(void)
{
	uma_compat_set_reporter(check_reporter);
	reserve();
	waiting();
	bulk();
	resizing();
	creation_fails();
	of_a_cache();
	nodes();
	mistakes();
	CHECK_REPORTS(0, "");
	return 0;
}

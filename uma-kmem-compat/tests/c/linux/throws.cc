// Callbacks that throw: no exception leaves a function of the library, whichever it is.
#include "../check.h"

#include <stdexcept>

#include <uma/linux/mempool.h>
#include <uma/linux/slab.h>

/* How often the callbacks are to throw. */
static int throwing;

static void maybe()
{
	if (throwing > 0 && throwing-- > 0)
		throw std::runtime_error("no");
}

static void construct(void *)
{
	maybe();
}

static void *take(gfp_t, void *)
{
	maybe();
	return malloc(16);
}

static void give(void *element, void *)
{
	maybe();
	free(element);
}

static void synchronize()
{
	maybe();
}

static void caches()
{
	kmem_cache *cache = kmem_cache_create("plus", 64, 0, SLAB_TYPESAFE_BY_RCU, construct);
	void *object, *objects[200];

	CHECK_ABORTS("linux: kmem_cache_alloc: an exception thrown by a callback", throwing = 1;
		     kmem_cache_alloc(cache, GFP_KERNEL));
	CHECK_ABORTS("linux: kmem_cache_alloc_bulk: an exception", throwing = 1;
		     kmem_cache_alloc_bulk(cache, GFP_KERNEL, 200, objects));
	CHECK_ABORTS("linux: kmem_cache_prefill_sheaf: an exception", throwing = 1;
		     kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 200));
	object = kmem_cache_alloc(cache, GFP_KERNEL);
	kmem_cache_free(cache, object);
	uma_linux_set_grace_period(synchronize);
	CHECK_ABORTS("linux: synchronize_rcu: an exception", throwing = 1; kmem_cache_shrink(cache));
	CHECK_ABORTS("linux: synchronize_rcu: an exception", throwing = 1;
		     kfree_rcu_mightsleep(kmalloc(8, GFP_KERNEL)));
	kmem_cache_destroy(cache);
	uma_linux_set_grace_period(nullptr);
}

static void pools()
{
	mempool_t *pool = mempool_create(2, take, give, nullptr);
	void *element;

	CHECK_ABORTS("linux: mempool_create: an exception", throwing = 1;
		     mempool_create(2, take, give, nullptr));
	CHECK_ABORTS("linux: mempool_alloc: an exception", throwing = 1;
		     mempool_alloc(pool, GFP_KERNEL));
	element = mempool_alloc(pool, GFP_KERNEL);
	CHECK_ABORTS("linux: mempool_free: an exception", throwing = 1; mempool_free(element, pool));
	CHECK_ABORTS("linux: mempool_resize: an exception", throwing = 1; mempool_resize(pool, 9));
	CHECK_ABORTS("linux: mempool_destroy: an exception", throwing = 1; mempool_destroy(pool));
	mempool_free(element, pool);
	mempool_destroy(pool);
}

int main()
{
	caches();
	pools();
	return 0;
}

// The headers in C++; and callbacks that throw: no exception leaves a function of the library, whichever it is.
#include "../check.h"

#include <stdexcept>

#include <uma/netbsd/kmem.h>
#include <uma/netbsd/pool.h>
#include <uma/netbsd/uvm.h>
#include <uma/netbsd/vmem.h>

/* How often the callbacks are to throw. */
static int throwing;

static void maybe()
{
	if (throwing > 0 && throwing-- > 0)
		throw std::runtime_error("no");
}

static int construct(void *, void *, int)
{
	maybe();
	return 0;
}

static void destruct(void *, void *)
{
	maybe();
}

static void hook(void *, int)
{
	maybe();
}

static void *page(struct pool *pool, int flags)
{
	maybe();
	return pool_page_alloc(pool, flags);
}

static void no_page(struct pool *pool, void *page)
{
	maybe();
	pool_page_free(pool, page);
}

static void serialize()
{
	maybe();
}

static uma_netbsd_paddr_t translate(uintptr_t)
{
	throw std::runtime_error("no");
}

static void visit(void *, vmem_addr_t, vmem_size_t)
{
	maybe();
}

static int import(vmem_t *source, vmem_size_t size, vm_flag_t flags, vmem_addr_t *at)
{
	maybe();
	return vmem_alloc(source, size, flags, at);
}

static void release(vmem_t *source, vmem_addr_t at, vmem_size_t size)
{
	maybe();
	vmem_free(source, at, size);
}

static void caches()
{
	pool_cache_t cache = pool_cache_init(64, 0, 0, 0, "plus", nullptr, IPL_NONE, construct,
					     destruct, nullptr);
	void *object;

	CHECK_ABORTS("netbsd: pool_cache_get: an exception thrown by a callback", throwing = 1;
		     pool_cache_get(cache, PR_WAITOK));
	object = pool_cache_get(cache, PR_WAITOK);
	CHECK(object != nullptr);
	CHECK_ABORTS("exception", throwing = 1; pool_cache_destruct_object(cache, object));
	pool_cache_put(cache, object);
	CHECK_ABORTS("netbsd: pool_cache_invalidate: an exception", throwing = 1;
		     pool_cache_invalidate(cache));
	CHECK_ABORTS("netbsd: pool_cache_destroy: an exception", throwing = 1;
		     pool_cache_destroy(cache));
	CHECK_ABORTS("netbsd: pool_cache_get_paddr: an exception", uma_netbsd_set_vtophys(translate);
		     pool_cache_get_paddr(cache, PR_WAITOK, (uma_netbsd_paddr_t *)&object));
	/* One more, while the first is under way: the end all the same. */
	CHECK_ABORTS("", throwing = 1000; pool_cache_destroy(cache));
	pool_cache_destroy(cache);
}

static void pools()
{
	static const struct pool_allocator pages = { page, no_page, 4096 };
	struct pool pool;
	void *item;

	pool_init(&pool, 64, 0, 0, PR_PSERIALIZE, "plus", &pages, IPL_NONE);
	uma_netbsd_set_pserialize(serialize);
	pool_set_drain_hook(&pool, hook, nullptr);
	CHECK_ABORTS("netbsd: pa_alloc: an exception", throwing = 1; pool_get(&pool, PR_WAITOK));
	pool_sethardlimit(&pool, 1, nullptr, 0);
	item = pool_get(&pool, PR_WAITOK);
	CHECK_ABORTS("netbsd: pool_get: an exception", throwing = 1; pool_get(&pool, PR_NOWAIT));
	pool_put(&pool, item);
	CHECK_ABORTS("netbsd: pool_reclaim: an exception", throwing = 1; pool_reclaim(&pool));
	pool_set_drain_hook(&pool, nullptr, nullptr);
	CHECK_ABORTS("netbsd: pserialize_perform: an exception", throwing = 1; pool_reclaim(&pool));
	uma_netbsd_set_pserialize(nullptr);
	CHECK_ABORTS("netbsd: pa_free: an exception", throwing = 1; pool_destroy(&pool));
	pool_destroy(&pool);
}

static void arenas()
{
	vmem_t *parent =
		vmem_create("parent", 0, 0x10000, 1, nullptr, nullptr, nullptr, 0, VM_SLEEP, IPL_NONE);
	vmem_t *child = vmem_create("child", 0, 0, 1, import, release, parent, 0, VM_SLEEP, IPL_NONE);
	vmem_addr_t at;

	CHECK_ABORTS("netbsd: vmem_alloc: an exception", throwing = 1;
		     vmem_alloc(child, 1, VM_NOSLEEP | VM_BESTFIT, &at));
	CHECK_EQ(vmem_alloc(child, 1, VM_NOSLEEP | VM_BESTFIT, &at), 0);
	CHECK_ABORTS("netbsd: vmem_walk: an exception", throwing = 1;
		     vmem_walk(child, VMEM_ALLOC, visit, nullptr));
	CHECK_ABORTS("netbsd: vmem_free: an exception", throwing = 1; vmem_free(child, at, 1));
	vmem_free(child, at, 1);
	vmem_destroy(child);
	vmem_destroy(parent);
}

int main()
{
	caches();
	pools();
	arenas();
	return 0;
}

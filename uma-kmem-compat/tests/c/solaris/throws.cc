// The headers in C++; and callbacks that throw: no exception leaves a function of the library, whichever it is.
#include "../check.h"

#include <stdexcept>

#include <uma/solaris/ddi.h>
#include <uma/solaris/sys/kmem.h>
#include <uma/solaris/sys/vmem.h>

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

static void reclaim(void *)
{
	maybe();
}

static kmem_cbrc_t move(void *, void *, size_t, void *)
{
	maybe();
	return KMEM_CBRC_NO;
}

static void visit(void *, void *, size_t)
{
	maybe();
}

static void *import(vmem_t *source, size_t size, int flag)
{
	maybe();
	return vmem_alloc(source, size, flag);
}

static void release(vmem_t *source, void *at, size_t size)
{
	maybe();
	vmem_free(source, at, size);
}

static void caches()
{
	kmem_cache_t *cache = (kmem_cache_create)("plus", 64, 0, construct, destruct, reclaim, nullptr,
						  nullptr, 0);
	void *object = kmem_cache_alloc(cache, KM_SLEEP);

	CHECK(object != nullptr);
	CHECK_ABORTS("solaris: kmem_cache_alloc: an exception thrown by a callback", throwing = 1;
		     for (int i = 0; i < 1000; i++) kmem_cache_alloc(cache, KM_SLEEP));
	kmem_cache_free(cache, object);
	CHECK_ABORTS("solaris: kmem_cache_reap_now: an exception", throwing = 1;
		     kmem_cache_reap_now(cache));
	CHECK_ABORTS("solaris: kmem_reap: an exception", throwing = 1; kmem_reap());
	CHECK_ABORTS("solaris: kmem_cache_destroy: an exception", throwing = 1;
		     kmem_cache_destroy(cache));
	/* One more, while the first is under way: the end all the same. */
	CHECK_ABORTS("", throwing = 1000; kmem_cache_destroy(cache));
	kmem_cache_destroy(cache);
}

/* On the thread that looks after caches there is no function of the library to leave. */
static void moves()
{
	kmem_cache_t *cache = (kmem_cache_create)("moving", 64, 0, nullptr, nullptr, nullptr, nullptr,
						  nullptr, 0);
	static void *objects[2000];

	kmem_cache_set_move(cache, move);
	for (int i = 0; i < 2000; i++)
		objects[i] = kmem_cache_alloc(cache, KM_SLEEP);
	for (int i = 0; i < 2000; i++)
		if (i % 8 != 0)
			kmem_cache_free(cache, objects[i]);
	CHECK_ABORTS("exception", throwing = 1; kmem_cache_reap_now(cache); sleep(150));
	for (int i = 0; i < 2000; i += 8)
		kmem_cache_free(cache, objects[i]);
	kmem_cache_destroy(cache);
}

static void arenas()
{
	vmem_t *parent = vmem_create("parent", (void *)0x1000, 0x10000, 0x1000, nullptr, nullptr,
				     nullptr, 0, VM_SLEEP | VMC_IDENTIFIER);
	vmem_t *child = vmem_create("child", nullptr, 0, 0x1000, import, release, parent, 0, VM_SLEEP);
	void *at;

	CHECK_ABORTS("solaris: vmem_alloc: an exception", throwing = 1;
		     vmem_alloc(child, 0x1000, VM_SLEEP));
	at = vmem_alloc(child, 0x1000, VM_SLEEP);
	CHECK_ABORTS("solaris: vmem_walk: an exception", throwing = 1;
		     vmem_walk(child, VMEM_ALLOC, visit, nullptr));
	CHECK_ABORTS("solaris: vmem_free: an exception", throwing = 1;
		     vmem_free(child, at, 0x1000));
	vmem_free(child, at, 0x1000);
	vmem_destroy(child);
	vmem_destroy(parent);
}

/* A cache over an arena whose memory comes from functions that throw. */
static void backed()
{
	vmem_t *arena = vmem_create("backed", nullptr, 0, 4096, import, release, heap_arena, 0, VM_SLEEP);
	kmem_cache_t *cache =
		(kmem_cache_create)("backed", 64, 0, nullptr, nullptr, nullptr, nullptr, arena, 0);

	CHECK_ABORTS("solaris: vmem_alloc: an exception", throwing = 1;
		     kmem_cache_alloc(cache, KM_SLEEP));
	kmem_cache_free(cache, kmem_cache_alloc(cache, KM_SLEEP));
	CHECK_ABORTS("solaris: vmem_free: an exception", throwing = 1; kmem_cache_reap_now(cache));
	kmem_cache_destroy(cache);
	vmem_destroy(arena);
}

int main()
{
	caches();
	moves();
	arenas();
	backed();
	return 0;
}

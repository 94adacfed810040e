// Callbacks that throw: no exception leaves a function of the library, whichever it is.
#include "../check.h"

#include <stdexcept>

#include <uma/freebsd/uma.h>

/* How often the callbacks are to throw. */
static int throwing;

static void maybe()
{
	if (throwing > 0 && throwing-- > 0)
		throw std::runtime_error("no");
}

static int ctor(void *, int, void *, int)
{
	maybe();
	return 0;
}

static void dtor(void *, int, void *)
{
	maybe();
}

static int init(void *, int, int)
{
	maybe();
	return 0;
}

static void fini(void *, int)
{
	maybe();
}

static void maxaction(uma_zone_t, int)
{
	maybe();
}

static void *pages(uma_zone_t, size_t size, int, uint8_t *flag, int)
{
	maybe();
	*flag = UMA_SLAB_PRIV;
	return aligned_alloc(4096, size);
}

static void no_pages(void *memory, size_t, uint8_t)
{
	maybe();
	free(memory);
}

static char stock[64];

static int import(void *, void **store, int, int, int)
{
	maybe();
	store[0] = stock;
	return 1;
}

static void release(void *, void **, int)
{
	maybe();
}

static void items()
{
	uma_zone_t inits = uma_zcreate("init", 64, nullptr, nullptr, init, fini, 7, 0);
	uma_zone_t ctors = uma_zcreate("ctor", 64, ctor, dtor, nullptr, nullptr, 7, 0);
	void *item;

	CHECK_ABORTS("freebsd: uma_zalloc_arg: an exception thrown by a callback", throwing = 1;
		     uma_zalloc(inits, M_WAITOK));
	CHECK_ABORTS("freebsd: uma_zalloc_arg: an exception", throwing = 1;
		     uma_zalloc(ctors, M_WAITOK));
	item = uma_zalloc(ctors, M_WAITOK);
	CHECK_ABORTS("freebsd: uma_zfree_arg: an exception", throwing = 1; uma_zfree(ctors, item));
	uma_zone_set_max(ctors, 1);
	uma_zone_set_maxaction(ctors, maxaction);
	CHECK_ABORTS("freebsd: uma_zalloc_arg: an exception", throwing = 1;
		     uma_zalloc(ctors, M_NOWAIT));
	uma_zfree(ctors, item);
	uma_zfree(inits, uma_zalloc(inits, M_WAITOK));
	CHECK_ABORTS("freebsd: uma_zone_reclaim: an exception", throwing = 1;
		     uma_zone_reclaim(inits, UMA_RECLAIM_DRAIN_CPU));
	CHECK_ABORTS("freebsd: uma_zdestroy: an exception", throwing = 1; uma_zdestroy(inits));
	uma_zdestroy(inits);
	uma_zdestroy(ctors);
}

static void sources()
{
	uma_zone_t paged = uma_zcreate("paged", 64, nullptr, nullptr, nullptr, nullptr, 7, 0);
	uma_zone_t cache = uma_zcache_create("cache", 64, nullptr, nullptr, nullptr, nullptr, import,
					     release, nullptr, 0);

	uma_zone_set_allocf(paged, pages);
	uma_zone_set_freef(paged, no_pages);
	CHECK_ABORTS("freebsd: uma_alloc: an exception", throwing = 1; uma_zalloc(paged, M_WAITOK));
	uma_zfree(paged, uma_zalloc(paged, M_WAITOK));
	CHECK_ABORTS("freebsd: uma_free: an exception", throwing = 1; uma_zdestroy(paged));
	uma_zdestroy(paged);
	CHECK_ABORTS("freebsd: uma_zalloc_arg: an exception", throwing = 1;
		     uma_zalloc(cache, M_WAITOK));
	uma_zfree(cache, uma_zalloc(cache, M_WAITOK));
	CHECK_ABORTS("freebsd: uma_zdestroy: an exception", throwing = 1; uma_zdestroy(cache));
	uma_zdestroy(cache);
}

int main()
{
	items();
	sources();
	return 0;
}

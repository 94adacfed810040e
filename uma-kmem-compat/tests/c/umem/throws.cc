// The header in C++; and callbacks that throw: no exception leaves a function of the library, whichever it is.
#include "../check.h"

#include <stdexcept>

#include <umem.h>

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

static int nofail()
{
	throw std::runtime_error("no");
}

static void callbacks()
{
	umem_cache_t *cache =
		umem_cache_create("plus", 64, 0, construct, destruct, reclaim, nullptr, nullptr, 0);
	void *object = umem_cache_alloc(cache, UMEM_NOFAIL);

	CHECK(object != nullptr);
	CHECK_ABORTS("umem: umem_cache_alloc: an exception thrown by a callback", throwing = 1;
		     for (int i = 0; i < 1000; i++) umem_cache_alloc(cache, UMEM_DEFAULT));
	umem_cache_free(cache, object);
	CHECK_ABORTS("umem: umem_cache_reap_now: an exception", throwing = 1;
		     umem_cache_reap_now(cache));
	CHECK_ABORTS("umem: umem_reap: an exception", throwing = 1; umem_reap());
	CHECK_ABORTS("umem: umem_cache_destroy: an exception", throwing = 1;
		     umem_cache_destroy(cache));
	CHECK_ABORTS("umem: umem_alloc: an exception", umem_nofail_callback(nofail);
		     umem_alloc((size_t)1 << 60, UMEM_NOFAIL));
	/* One more, while the first is under way: the end all the same. */
	CHECK_ABORTS("", throwing = 1000; umem_cache_destroy(cache));
	umem_cache_destroy(cache);
}

int main()
{
	callbacks();
	umem_free(umem_zalloc(10, UMEM_DEFAULT), 10);
	umem_free_aligned(umem_alloc_aligned(10, 64, UMEM_DEFAULT), 10);
	return 0;
}

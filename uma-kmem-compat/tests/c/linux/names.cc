// The headers from C++: both forms of kmem_cache_create; and an exception does not cross the library.
#include "../check.h"

#include <stdexcept>

#include <uma/compat.h>
#include <uma/linux/mempool.h>
#include <uma/linux/slab.h>

struct node {
	double value;
	char rest[56];
};

static void construct(void *memory)
{
	static_cast<node *>(memory)->value = 0.5;
}

static void throws(void *)
{
	throw std::runtime_error("no");
}

int main()
{
	kmem_cache_args args = {};
	args.ctor = construct;
	kmem_cache *one = kmem_cache_create("one", sizeof(node), alignof(node), 0u, construct);
	kmem_cache *two = kmem_cache_create("two", sizeof(node), &args, 0u);
	kmem_cache *three = kmem_cache_create("three", sizeof(node), nullptr, 0u);
	kmem_cache *four = KMEM_CACHE(node, SLAB_PANIC);
	for (kmem_cache *cache : { one, two, three, four }) {
		CHECK(cache != nullptr);
		node *object = static_cast<node *>(kmem_cache_alloc(cache, GFP_KERNEL));
		if (cache == one || cache == two)
			CHECK(object->value == 0.5);
		kmem_cache_free(cache, object);
		kmem_cache_destroy(cache);
	}
	kmem_cache *bad = kmem_cache_create("bad", 64, 0, 0, throws);
	CHECK_ABORTS("kmem_cache_alloc: an exception thrown by a callback would leave the function",
		     try { kmem_cache_alloc(bad, GFP_KERNEL); } catch (...) { _exit(2); });
	kmem_cache_destroy(bad);
	return 0;
}

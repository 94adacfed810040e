/* A library of the same functions that do nothing: what calls into a shared library cost by themselves. */
#include <uma/linux/slab.h>

static char place[64];

#undef kmem_cache_create
struct kmem_cache *kmem_cache_create(const char *name, unsigned int size, unsigned int align,
				     slab_flags_t flags, void (*ctor)(void *))
{
	(void)name, (void)size, (void)align, (void)flags, (void)ctor;
	return (struct kmem_cache *)place;
}

void kmem_cache_destroy(struct kmem_cache *cache)
{
	(void)cache;
}

void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t gfp)
{
	(void)gfp;
	return cache;
}

void kmem_cache_free(struct kmem_cache *cache, void *object)
{
	(void)cache, (void)object;
}

#include "../check.h"

#include "mixed.h"

#include <uma/linux/mempool.h>
#include <uma/linux/slab.h>

/* Linux has no destructors, so what was constructed is not counted. */
static int64_t constructed, none;
static struct kmem_cache *objects, *plain;
static mempool_t *reserve;

static void construct(void *object)
{
	built_by(&constructed, object);
}

static void start(void)
{
	objects = kmem_cache_create("mixed_objects", sizeof(struct built), 0, SLAB_PANIC, construct);
	plain = kmem_cache_create("mixed_plain", 192, 0, SLAB_HWCACHE_ALIGN | SLAB_PANIC, NULL);
	reserve = mempool_create_slab_pool(8, plain);
	CHECK(reserve != NULL);
}

static void *get_object(uint64_t random, size_t *size)
{
	return built(kmem_cache_alloc(objects, random & 1 ? GFP_KERNEL : GFP_ATOMIC), size);
}

static void put_object(void *object, size_t size)
{
	kmem_cache_free(objects, built(object, &size));
}

static uint64_t used_objects(void)
{
	return uma_linux_kmem_cache_active(objects);
}

/* Eight at once, of which seven go back at once. */
static void *get_bulk(uint64_t random, size_t *size)
{
	void *all[8];

	(void)random;
	*size = 192;
	CHECK_EQ(kmem_cache_alloc_bulk(plain, GFP_KERNEL, 8, all), 8);
	kmem_cache_free_bulk(plain, 7, all);
	return all[7];
}

static void put_bulk(void *object, size_t size)
{
	(void)size;
	kmem_cache_free(plain, object);
}

/* Beside what the mempool keeps. */
static uint64_t used_plain(void)
{
	return uma_linux_kmem_cache_active(plain) - 8;
}

static void *get_zeros(uint64_t random, size_t *size)
{
	int asked = random & 1;

	*size = 192;
	return zeros(kmem_cache_alloc(plain, asked ? GFP_KERNEL | __GFP_ZERO : GFP_KERNEL), *size,
		     asked);
}

static void *get_pooled(uint64_t random, size_t *size)
{
	(void)random;
	*size = 192;
	return mempool_alloc(reserve, GFP_KERNEL);
}

static void put_pooled(void *object, size_t size)
{
	(void)size;
	mempool_free(object, reserve);
}

static void *get_any(uint64_t random, size_t *size)
{
	*size = 16 + random % 6000;
	if (random & 1024)
		return zeros(kzalloc(*size, GFP_KERNEL), *size, 1);
	/* It grows to its size. */
	return krealloc(kmalloc(16 + *size / 2, GFP_KERNEL), *size, GFP_KERNEL);
}

static void put_any(void *memory, size_t size)
{
	CHECK(ksize(memory) >= size);
	kfree(memory);
}

static void reap(void)
{
	kmem_cache_shrink(objects);
	kmem_cache_shrink(plain);
}

static void end(void)
{
	mempool_destroy(reserve);
	kmem_cache_destroy(objects);
	kmem_cache_destroy(plain);
}

HITS(plain, UMA_LINUX_MARK_, kmem_cache_alloc(plain, GFP_KERNEL), kmem_cache_free(plain, object))

static const struct kind kinds[] = {
	{ "kmem_cache, constructed", get_object, put_object, used_objects, 0 },
	{ "kmem_cache, in bulk", get_bulk, put_bulk, used_plain, 0 },
	{ "kmem_cache", get_zeros, put_bulk, used_plain, 0 },
	{ "mempool", get_pooled, put_pooled, used_plain, 0 },
	{ "kmalloc", get_any, put_any, uma_linux_kmalloc_active, 0 },
};

const struct dialect linux_ = { "linux", kinds, COUNT(kinds), start, reap, end,
				&none, hits };

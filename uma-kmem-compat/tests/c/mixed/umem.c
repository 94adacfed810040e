#include "../check.h"

#include "mixed.h"

#include <umem.h>

static int64_t constructed;
static umem_cache_t *objects, *plain;

static int construct(void *object, void *private, int flags)
{
	(void)private, (void)flags;
	built_by(&constructed, object);
	return 0;
}

static void destruct(void *object, void *private)
{
	(void)private;
	unbuilt_by(&constructed, object);
}

static void start(void)
{
	objects = umem_cache_create("mixed_objects", sizeof(struct built), 0, construct, destruct,
				    NULL, NULL, NULL, 0);
	plain = umem_cache_create("mixed_plain", 24, 0, NULL, NULL, NULL, NULL, NULL, 0);
}

static void *get_object(uint64_t random, size_t *size)
{
	return built(umem_cache_alloc(objects, random & 1 ? UMEM_NOFAIL : UMEM_DEFAULT), size);
}

static void put_object(void *object, size_t size)
{
	umem_cache_free(objects, built(object, &size));
}

static uint64_t used_objects(void)
{
	return uma_umem_cache_active(objects);
}

static void *get_plain(uint64_t random, size_t *size)
{
	(void)random;
	*size = 24;
	return umem_cache_alloc(plain, UMEM_DEFAULT);
}

static void put_plain(void *object, size_t size)
{
	(void)size;
	umem_cache_free(plain, object);
}

static uint64_t used_plain(void)
{
	return uma_umem_cache_active(plain);
}

static void *get_any(uint64_t random, size_t *size)
{
	*size = 16 + random % 3000;
	if (random & 1024)
		return umem_alloc(*size, UMEM_NOFAIL);
	return zeros(umem_zalloc(*size, UMEM_DEFAULT), *size, 1);
}

static void put_any(void *memory, size_t size)
{
	umem_free(memory, size);
}

static void *get_aligned(uint64_t random, size_t *size)
{
	size_t align = (size_t)16 << random % 8;
	void *memory;

	*size = 16 + random % 2000;
	memory = umem_alloc_align(*size, align, UMEM_NOFAIL);
	CHECK_EQ((uintptr_t)memory % align, 0);
	return memory;
}

static void put_aligned(void *memory, size_t size)
{
	umem_free_align(memory, size);
}

static void reap(void)
{
	umem_cache_reap_now(objects);
	umem_reap();
}

static void end(void)
{
	umem_cache_destroy(objects);
	umem_cache_destroy(plain);
}

HITS(plain, UMA_UMEM_MARK_, umem_cache_alloc(plain, UMEM_NOFAIL), umem_cache_free(plain, object))

static const struct kind kinds[] = {
	{ "umem_cache, constructed", get_object, put_object, used_objects, 0 },
	{ "umem_cache", get_plain, put_plain, used_plain, 0 },
	{ "umem_alloc", get_any, put_any, uma_umem_alloc_active, 0 },
	{ "umem_alloc_align", get_aligned, put_aligned, uma_umem_alloc_active, 0 },
};

const struct dialect umem = { "umem", kinds, COUNT(kinds), start, reap, end,
				&constructed, hits };

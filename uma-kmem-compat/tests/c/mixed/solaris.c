#include "../check.h"

#include "mixed.h"

#include <uma/solaris/kmem.h>
#include <uma/solaris/vmem.h>

static int64_t constructed;
static kmem_cache_t *objects, *plain;
static vmem_t *arena;

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
	arena = vmem_create("mixed", NULL, 0, 4096, vmem_alloc, vmem_free, heap_arena, 0, VM_SLEEP);
	objects = kmem_cache_create("mixed_objects", sizeof(struct built), 0, construct, destruct,
				    NULL, NULL, NULL, 0);
	plain = kmem_cache_create("mixed_plain", 64, 64, NULL, NULL, NULL, NULL, arena, 0);
}

static void *get_object(uint64_t random, size_t *size)
{
	return built(kmem_cache_alloc(objects, random & 1 ? KM_SLEEP : KM_NOSLEEP), size);
}

static void put_object(void *object, size_t size)
{
	kmem_cache_free(objects, built(object, &size));
}

static uint64_t used_objects(void)
{
	return kmem_cache_stat(objects, "buf_inuse");
}

static void *get_plain(uint64_t random, size_t *size)
{
	(void)random;
	*size = 64;
	return kmem_cache_alloc(plain, KM_SLEEP);
}

static void put_plain(void *object, size_t size)
{
	(void)size;
	kmem_cache_free(plain, object);
}

static uint64_t used_plain(void)
{
	return kmem_cache_stat(plain, "buf_inuse");
}

static void *get_any(uint64_t random, size_t *size)
{
	*size = 16 + random % 5000;
	if (random & 1024)
		return kmem_alloc(*size, KM_SLEEP);
	return zeros(kmem_zalloc(*size, KM_SLEEP), *size, 1);
}

static void put_any(void *memory, size_t size)
{
	kmem_free(memory, size);
}

static void *get_pages(uint64_t random, size_t *size)
{
	*size = 4096 * (1 + random % 3);
	return vmem_alloc(arena, *size, VM_SLEEP);
}

static void put_pages(void *memory, size_t size)
{
	vmem_free(arena, memory, size);
}

/* Beside what the plain cache has of it: none, when that has been reaped. */
static uint64_t used_pages(void)
{
	kmem_cache_reap_now(plain);
	return uma_solaris_vmem_stat(arena, "mem_inuse");
}

static void reap(void)
{
	kmem_cache_reap_now(objects);
	kmem_cache_reap_soon(plain);
	kmem_reap();
}

static void end(void)
{
	kmem_cache_destroy(objects);
	kmem_cache_destroy(plain);
	vmem_destroy(arena);
}

HITS(plain, UMA_SOLARIS_MARK_, kmem_cache_alloc(plain, KM_SLEEP), kmem_cache_free(plain, object))

static const struct kind kinds[] = {
	{ "kmem_cache, constructed", get_object, put_object, used_objects, 0 },
	{ "kmem_cache over an arena", get_plain, put_plain, used_plain, 0 },
	{ "kmem_alloc", get_any, put_any, uma_solaris_kmem_alloc_active, 0 },
	{ "vmem", get_pages, put_pages, used_pages, 0 },
};

const struct dialect solaris = { "solaris", kinds, COUNT(kinds), start, reap, end,
				&constructed, hits };

#include "../check.h"

#include "mixed.h"

#include <uma/freebsd/malloc9.h>
#include <uma/freebsd/uma.h>

MALLOC_DEFINE(M_MIXED, "mixed", "of all sizes");

static int64_t initialised;
static int64_t constructed;
static uma_zone_t objects, second, plain;

static int init(void *item, int size, int flags)
{
	(void)size, (void)flags;
	built_by(&initialised, item);
	return 0;
}

static void fini(void *item, int size)
{
	(void)size;
	unbuilt_by(&initialised, item);
}

static int ctor(void *item, int size, void *argument, int flags)
{
	(void)item, (void)flags;
	CHECK_EQ(size, sizeof(struct built));
	CHECK(argument == &constructed);
	__atomic_add_fetch(&constructed, 1, __ATOMIC_RELAXED);
	return 0;
}

static void dtor(void *item, int size, void *argument)
{
	(void)item, (void)size;
	CHECK(argument == &constructed);
	__atomic_sub_fetch(&constructed, 1, __ATOMIC_RELAXED);
}

static void start(void)
{
	objects = uma_zcreate("mixed objects", sizeof(struct built), ctor, dtor, init, fini,
			      UMA_ALIGN_PTR, 0);
	second = uma_zsecond_create("mixed second", NULL, NULL, NULL, NULL, objects);
	plain = uma_zcreate("mixed plain", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_CACHE, 0);
}

static void *get_object(uint64_t random, size_t *size)
{
	return built(uma_zalloc_arg(objects, &constructed, random & 1 ? M_WAITOK : M_NOWAIT), size);
}

static void put_object(void *item, size_t size)
{
	uma_zfree_arg(objects, built(item, &size), &constructed);
}

/* The figures of the zone and the count of its ctor agree. */
static uint64_t used_objects(void)
{
	uint64_t used = (uint64_t)uma_zone_get_cur(objects);

	CHECK_EQ(used, constructed);
	return used;
}

static void *get_second(uint64_t random, size_t *size)
{
	return built(uma_zalloc(second, random & 1 ? M_WAITOK : M_NOWAIT), size);
}

static void put_second(void *item, size_t size)
{
	uma_zfree(second, built(item, &size));
}

static uint64_t used_second(void)
{
	return (uint64_t)uma_zone_get_cur(second);
}

static void *get_plain(uint64_t random, size_t *size)
{
	int asked = random & 1;

	*size = 64;
	return zeros(uma_zalloc(plain, asked ? M_WAITOK | M_ZERO : M_WAITOK), *size, asked);
}

static void put_plain(void *item, size_t size)
{
	(void)size;
	uma_zfree(plain, item);
}

static uint64_t used_plain(void)
{
	return (uint64_t)uma_zone_get_cur(plain);
}

static void *get_any(uint64_t random, size_t *size)
{
	*size = 16 + random % 7000;
	if (random & 1024)
		return zeros(malloc(*size, M_MIXED, M_WAITOK | M_ZERO), *size, 1);
	/* It grows to its size. */
	return realloc(malloc(16, M_MIXED, M_WAITOK), *size, M_MIXED, M_WAITOK);
}

static void put_any(void *memory, size_t size)
{
	(void)size;
	free(memory, M_MIXED);
}

static uint64_t used_any(void)
{
	struct uma_freebsd_malloc_stats stats;

	uma_freebsd_malloc_type_stats(M_MIXED, &stats);
	CHECK_EQ(stats.bytes == 0, stats.allocs == stats.frees);
	return stats.allocs - stats.frees;
}

static void reap(void)
{
	uma_zone_reclaim(second, UMA_RECLAIM_DRAIN);
	uma_zone_reclaim(plain, UMA_RECLAIM_DRAIN_CPU);
	uma_reclaim(UMA_RECLAIM_TRIM);
}

static void end(void)
{
	uma_zdestroy(second);
	uma_zdestroy(objects);
	uma_zdestroy(plain);
}

HITS(plain, UMA_FREEBSD_MARK_, uma_zalloc(plain, M_WAITOK), uma_zfree(plain, object))

static const struct kind kinds[] = {
	{ "zone with ctor and dtor", get_object, put_object, used_objects, 0 },
	{ "secondary zone", get_second, put_second, used_second, 0 },
	{ "zone", get_plain, put_plain, used_plain, 0 },
	{ "malloc(9)", get_any, put_any, used_any, 0 },
};

const struct dialect freebsd = { "freebsd", kinds, COUNT(kinds), start, reap, end,
				&initialised, hits };

#include "../check.h"

#include "mixed.h"

#include <uma/netbsd/kmem.h>
#include <uma/netbsd/pool.h>

enum { LIMIT = 100 };

static int64_t constructed;
static pool_cache_t objects;
static struct pool plain, limited;

static int construct(void *argument, void *object, int flags)
{
	(void)argument, (void)flags;
	built_by(&constructed, object);
	return 0;
}

static void destruct(void *argument, void *object)
{
	(void)argument;
	unbuilt_by(&constructed, object);
}

static void start(void)
{
	objects = pool_cache_init(sizeof(struct built), 0, 0, 0, "mixed objects", NULL, IPL_NONE,
				  construct, destruct, NULL);
	pool_init(&plain, 72, 0, 0, 0, "mixed plain", NULL, IPL_NONE);
	pool_init(&limited, 100, 0, 0, 0, "mixed limited", NULL, IPL_NONE);
	pool_sethardlimit(&limited, LIMIT, NULL, 0);
}

static void *get_object(uint64_t random, size_t *size)
{
	return built(pool_cache_get(objects, random & 1 ? PR_WAITOK : PR_NOWAIT), size);
}

static void put_object(void *object, size_t size)
{
	pool_cache_put(objects, built(object, &size));
}

static uint64_t used_objects(void)
{
	return uma_netbsd_pool_nout(&objects->pc_pool);
}

static void *get_plain(uint64_t random, size_t *size)
{
	int asked = random & 1;

	*size = 72;
	return zeros(pool_get(&plain, asked ? PR_WAITOK | PR_ZERO : PR_WAITOK), *size, asked);
}

static void put_plain(void *item, size_t size)
{
	(void)size;
	pool_put(&plain, item);
}

static uint64_t used_plain(void)
{
	return uma_netbsd_pool_nout(&plain);
}

static void *get_limited(uint64_t random, size_t *size)
{
	(void)random;
	*size = 100;
	return pool_get(&limited, PR_NOWAIT);
}

static void put_limited(void *item, size_t size)
{
	(void)size;
	CHECK(uma_netbsd_pool_nout(&limited) <= LIMIT);
	pool_put(&limited, item);
}

static uint64_t used_limited(void)
{
	return uma_netbsd_pool_nout(&limited);
}

static void *get_any(uint64_t random, size_t *size)
{
	*size = 16 + random % 9000;
	if (random & 1024)
		return kmem_alloc(*size, KM_SLEEP);
	return zeros(kmem_zalloc(*size, KM_SLEEP), *size, 1);
}

static void put_any(void *memory, size_t size)
{
	kmem_free(memory, size);
}

static void reap(void)
{
	pool_cache_invalidate(objects);
	pool_reclaim(&plain);
	pool_drain(NULL);
}

static void end(void)
{
	pool_cache_destroy(objects);
	pool_destroy(&plain);
	pool_destroy(&limited);
}

HITS(objects->pc_pool.uma_pool, UMA_NETBSD_MARK_, pool_cache_get(objects, PR_WAITOK),
     pool_cache_put(objects, object))

static const struct kind kinds[] = {
	{ "pool_cache", get_object, put_object, used_objects, 0 },
	{ "pool", get_plain, put_plain, used_plain, 0 },
	{ "pool with a limit", get_limited, put_limited, used_limited, 1 },
	{ "kmem_alloc", get_any, put_any, uma_netbsd_kmem_active, 0 },
};

const struct dialect netbsd = { "netbsd", kinds, COUNT(kinds), start, reap, end,
				&constructed, hits };

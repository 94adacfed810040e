/* Misuse of pools: a report, and the end of the process; or by policy the least harm. */
#include "../check.h"

#include <uma/compat.h>
#include <uma/netbsd/pool.h>

static void *no_page(struct pool *pool, int flags)
{
	(void)pool;
	(void)flags;
	return NULL;
}

static void no_free(struct pool *pool, void *page)
{
	(void)pool;
	(void)page;
}

static void bad_descriptions(void)
{
	struct pool_allocator half = { no_page, NULL, 4096 }, small = { no_page, no_free, 4096 },
			      odd = { no_page, no_free, 5000 };
	struct pool pool;

	CHECK_ABORTS("pool_init: no pool \"zero\"", pool_init(&pool, 0, 0, 0, 0, "zero", NULL, 0));
	CHECK_ABORTS("pool_init: pool \"offset\": an item offset of 8",
		     pool_init(&pool, 8, 8, 8, 0, "offset", NULL, 0));
	CHECK_EQ(uma_compat_set_policy("netbsd.misuse", "report"), 0);
	uma_compat_set_reporter(check_reporter);
	pool_init(&pool, 64, 24, 0, 0, "odd", NULL, 0);
	CHECK_REPORTS(1, "the alignment is not a power of two");
	CHECK(pool_get(&pool, PR_NOWAIT) == NULL);
	CHECK_REPORTS(1, "pool_get: bad pool: it was destroyed before");
	pool_init(&pool, SIZE_MAX, 0, 0, 0, "huge", NULL, 0);
	CHECK_REPORTS(1, "no pool \"huge\"");
	pool_init(&pool, (size_t)1 << 40, 0, 0, 0, "huge", NULL, 0);
	CHECK_REPORTS(1, "no pool \"huge\": the size is above");
	pool_init(&pool, 64, 1u << 31, 0, 0, "wide", NULL, 0);
	CHECK_REPORTS(1, "no pool \"wide\"");
	pool_init(&pool, 64, 0, 0, 0, NULL, NULL, 0);
	CHECK_REPORTS(1, "the name is null");
	pool_init(NULL, 64, 0, 0, 0, "null", NULL, 0);
	CHECK_REPORTS(1, "the pool is null");
	pool_init(&pool, 64, 0, 0, 0, "half", &half, 0);
	CHECK_REPORTS(1, "a page allocator and no functions in it exclude each other");
	pool_init(&pool, 5000, 0, 0, 0, "too large", &small, 0);
	CHECK_REPORTS(1, "no pool \"too large\": the size is above 4096 bytes");
	pool_init(&pool, 64, 0, 0, 0, "odd pages", &odd, 0);
	CHECK_REPORTS(1, "no pool \"odd pages\"");
	CHECK(pool_cache_init(64, 0, 4, 0, "offset", NULL, 0, NULL, NULL, NULL) == NULL);
	CHECK_REPORTS(1, "pool_cache_init: pool \"offset\": an item offset of 4");
	CHECK(pool_cache_init(0, 0, 0, 0, "zero", NULL, 0, NULL, NULL, NULL) == NULL);
	CHECK_REPORTS(1, "no pool \"zero\"");
	pool_cache_bootstrap(NULL, 64, 0, 0, 0, "null", NULL, 0, NULL, NULL, NULL);
	CHECK_REPORTS(1, "the cache is null");

	pool_init(&pool, 64, 0, 0, 0, "twice", NULL, 0);
	pool_init(&pool, 64, 0, 0, 0, "twice", NULL, 0);
	CHECK_REPORTS(1, "pool \"twice\": it is initialised already");
	pool_put(&pool, pool_get(&pool, PR_NOWAIT));
	pool_destroy(&pool);
	CHECK_REPORTS(0, "");
}

static void bad_handles(void)
{
	pool_cache_t cache = pool_cache_init(64, 0, 0, 0, "gone", NULL, 0, NULL, NULL, NULL);
	struct pool pool, *misaligned = (struct pool *)((uintptr_t)&pool + 1);
	struct pool_cache in_place;
	long zeros[16] = { 0 };
	void *item;

	pool_init(&pool, 64, 0, 0, 0, "gone", NULL, 0);
	pool_destroy(&pool);
	CHECK_REPORTS(0, "");
	pool_destroy(&pool);
	CHECK_REPORTS(1, "pool_destroy: bad pool: it was destroyed before");
	pool_put(&pool, zeros);
	CHECK_REPORTS(1, "pool_put: bad pool");
	CHECK_EQ(pool_prime(&pool, 1), 12);
	CHECK_REPORTS(1, "pool_prime: bad pool");
	CHECK_EQ(pool_reclaim(&pool), 0);
	CHECK_REPORTS(1, "pool_reclaim: bad pool");
	pool_setlowat(&pool, 1);
	pool_sethiwat(&pool, 1);
	pool_sethardlimit(&pool, 1, "none", 1);
	pool_set_drain_hook(&pool, NULL, NULL);
	CHECK_EQ(pool_nget(&pool), 0);
	CHECK_EQ(pool_nput(&pool), 0);
	CHECK_EQ(pool_chk(&pool, "none"), 1);
	pool_print(&pool, NULL);
	CHECK_EQ(uma_netbsd_pool_nout(&pool), 0);
	CHECK_EQ(uma_netbsd_pool_get_stats(&pool, NULL), -1);
	CHECK_REPORTS(10, "bad pool");
	CHECK(pool_get(NULL, PR_NOWAIT) == NULL);
	CHECK_REPORTS(1, "the pointer is null");
	CHECK(pool_get(misaligned, PR_NOWAIT) == NULL);
	CHECK_REPORTS(1, "misaligned");
	CHECK(pool_get((struct pool *)zeros, PR_NOWAIT) == NULL);
	CHECK_REPORTS(1, "bad pool");

	pool_cache_destroy(cache);
	CHECK_REPORTS(0, "");
	CHECK(pool_cache_get(cache, PR_WAITOK) == NULL);
	CHECK_REPORTS(1, "pool_cache_get: bad pool: it was destroyed before");
	pool_cache_put(cache, zeros);
	CHECK_REPORTS(1, "pool_cache_put: bad pool: it was destroyed before");
	pool_cache_destroy(cache);
	CHECK_REPORTS(1, "destroyed before");
	CHECK(pool_cache_get(NULL, PR_WAITOK) == NULL);
	CHECK_REPORTS(1, "the pointer is null");
	pool_cache_invalidate(NULL);
	CHECK_REPORTS(1, "the pointer is null");

	pool_cache_bootstrap(&in_place, 64, 0, 0, 0, "in place", NULL, 0, NULL, NULL, NULL);
	item = pool_cache_get(&in_place, 0);
	CHECK(item == NULL);
	CHECK_REPORTS(1, "pool_cache_get: pool \"in place\": flags 0x0");
	CHECK(pool_cache_get(&in_place, PR_WAITOK | PR_NOWAIT) == NULL);
	CHECK_REPORTS(1, "exactly one of PR_WAITOK and PR_NOWAIT");
	CHECK(pool_get(&in_place.pc_pool, PR_ZERO) == NULL);
	CHECK_REPORTS(1, "exactly one of PR_WAITOK and PR_NOWAIT");
	pool_cache_destroy(&in_place);
	CHECK_REPORTS(1, "was made by pool_cache_bootstrap");
}

static void bad_items(void)
{
	static char foreign[64] __attribute__((aligned(64)));
	struct pool pool, other;
	char *item, *more;

	pool_init(&pool, 64, 64, 0, 0, "items", NULL, 0);
	pool_init(&other, 64, 64, 0, 0, "others", NULL, 0);
	item = pool_get(&pool, PR_NOWAIT);
	more = pool_get(&pool, PR_NOWAIT);
	pool_put(&pool, NULL);
	CHECK_REPORTS(1, "pool_put: pool \"items\": the item is null");
	pool_put(&pool, item + 8);
	CHECK_REPORTS(1, "is not aligned to 64 bytes");
	pool_put(&pool, foreign);
	CHECK_REPORTS(1, "which is no item of this keg");
	pool_put(&pool, (void *)0x7000000000000000);
	CHECK_REPORTS(1, "which is no item of this keg");
	pool_put(&other, item);
	CHECK_REPORTS(1, "pool \"others\"");
	pool_put(&pool, item);
	CHECK_REPORTS(0, "");
	pool_put(&pool, item);
	CHECK_REPORTS(1, "double free");
	/* It goes on to work, and tells that something was wrong. */
	CHECK_EQ(pool_chk(&pool, "misused"), 1);
	CHECK_REPORTS(1, "pool_chk: misused: pool \"items\": counts and pages do not agree");
	CHECK_EQ(uma_netbsd_pool_nout(&pool), 1);
	item = pool_get(&pool, PR_NOWAIT);
	CHECK(item != NULL && item != more);

	CHECK_EQ(uma_compat_set_policy("netbsd.misuse", "abort"), 0);
	pool_put(&pool, item);
	CHECK_ABORTS("double free", uma_compat_set_reporter(NULL); pool_put(&pool, item));
	CHECK_ABORTS("pool_destroy: pool \"items\" busy: still out: 1; it stays:",
		     uma_compat_set_reporter(NULL);
		     pool_destroy(&pool));
	CHECK_EQ(uma_compat_set_policy("netbsd.misuse", "report"), 0);
	pool_destroy(&pool);
	CHECK_REPORTS(1, "busy: still out: 1");
	pool_put(&pool, more);
	pool_destroy(&pool);
	pool_destroy(&other);
	CHECK_REPORTS(0, "");
}

/* What a cache does not look at is found when it gets back to its page, which ends the process. */
static void found_late(void)
{
	pool_cache_t cache = pool_cache_init(64, 0, 0, 0, "late", NULL, 0, NULL, NULL, NULL);
	pool_cache_t other = pool_cache_init(64, 0, 0, 0, "other", NULL, 0, NULL, NULL, NULL);
	char *object = pool_cache_get(cache, PR_WAITOK), *foreign = pool_cache_get(other, PR_WAITOK);
	static char mine[64] __attribute__((aligned(64)));

	uma_compat_set_reporter(NULL);
	CHECK_ABORTS("double free of the item", pool_cache_put(cache, object);
		     pool_cache_put(cache, object); pool_cache_invalidate(cache));
	CHECK_ABORTS("netbsd: pool_cache_destroy: a panic", pool_cache_put(cache, object);
		     pool_cache_put(cache, object); pool_cache_destroy(cache));
	CHECK_ABORTS("which is no item", pool_cache_put(cache, foreign); pool_cache_invalidate(cache));
	CHECK_ABORTS("which is no item", pool_cache_put(cache, mine); pool_cache_reclaim(cache));
	CHECK_ABORTS("is not the start of an item", pool_cache_put(cache, object + 8);
		     pool_cache_invalidate(cache));
	uma_compat_set_reporter(check_reporter);
	/* Past the caches, at once. */
	pool_cache_destruct_object(cache, foreign);
	CHECK_REPORTS(1, "which is no item");
	pool_cache_destruct_object(cache, NULL);
	CHECK_REPORTS(1, "the item is null");
	pool_cache_put(cache, NULL);
	CHECK_REPORTS(1, "the item is null");
	pool_cache_put(cache, object + 1);
	CHECK_REPORTS(1, "is not aligned to 8 bytes");
	pool_cache_put(cache, object);
	pool_cache_put(other, foreign);
	pool_cache_destroy(cache);
	pool_cache_destroy(other);
	check_count = 0;
}

/* With diagnostics caches look at every put, too, and behind every item. */
static void diagnostic(void)
{
	pool_cache_t cache;
	char *one, *two;

	CHECK_EQ(uma_compat_set_policy("netbsd.diagnostic", "on"), 0);
	cache = pool_cache_init(60, 0, 0, 0, "checked", NULL, 0, NULL, NULL, NULL);
	one = pool_cache_get(cache, PR_WAITOK);
	two = pool_cache_get(cache, PR_WAITOK);
	pool_cache_put(cache, one);
	pool_cache_put(cache, one);
	CHECK_REPORTS(1, "double free");
	two[60] = 1;
	pool_cache_put(cache, two);
	CHECK_REPORTS(1, "");
	pool_cache_destroy(cache);
	CHECK_EQ(uma_compat_set_policy("netbsd.diagnostic", "off"), 0);
	check_count = 0;
}

int main(void)
{
	bad_descriptions();
	bad_handles();
	bad_items();
	found_late();
	diagnostic();
	return 0;
}

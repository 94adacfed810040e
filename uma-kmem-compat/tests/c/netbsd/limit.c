/* The hard limit, the drain hook, and waiting: for an item, and for memory. */
#include "../check.h"

#include <pthread.h>
#include <time.h>

#include <uma/compat.h>
#include <uma/netbsd/pool.h>

static void nap(long milliseconds)
{
	struct timespec moment = { 0, milliseconds * 1000 * 1000 };

	nanosleep(&moment, NULL);
}

static uint64_t fails_of(struct pool *pool)
{
	struct uma_netbsd_pool_stats stats;

	CHECK_EQ(uma_netbsd_pool_get_stats(pool, &stats), 0);
	return stats.nfail;
}

/* A pool, and an item that another thread is to put. */
struct later {
	struct pool *pool;
	void *item;
	int put;
};

static void *put_later(void *argument)
{
	struct later *later = argument;
	struct uma_netbsd_pool_stats stats;

	/* When somebody waits: at the limit, or for memory, which is said. */
	do {
		nap(10);
		CHECK_EQ(uma_netbsd_pool_get_stats(later->pool, &stats), 0);
	} while (stats.nwaiting == 0 && !__atomic_load_n(&check_count, __ATOMIC_ACQUIRE));
	__atomic_store_n(&later->put, 1, __ATOMIC_RELEASE);
	pool_put(later->pool, later->item);
	return NULL;
}

/* A limit of 3: the fourth fails, or waits until one is put; it is said once a minute. */
static void limit(void)
{
	struct pool pool;
	void *items[4];
	struct later later = { &pool, NULL, 0 };
	pthread_t thread;

	pool_init(&pool, 128, 0, 0, 0, "limited", NULL, IPL_NONE);
	pool_sethardlimit(&pool, 3, "limit reached, sir", 60);
	for (int i = 0; i < 3; i++)
		CHECK((items[i] = pool_get(&pool, PR_WAITOK)) != NULL);
	CHECK(pool_get(&pool, PR_NOWAIT) == NULL);
	CHECK(pool_get(&pool, PR_NOWAIT) == NULL);
	CHECK_REPORTS(1, "pool \"limited\": limit reached, sir");
	CHECK_EQ(fails_of(&pool), 2);
	CHECK(pool_get(&pool, PR_WAITOK | PR_LIMITFAIL) == NULL);
	CHECK_REPORTS(0, "");
	CHECK_EQ(fails_of(&pool), 3);

	/* Who waits says nothing. */
	later.item = items[2];
	CHECK_EQ(pthread_create(&thread, NULL, put_later, &later), 0);
	items[3] = pool_get(&pool, PR_WAITOK | PR_ZERO);
	CHECK(items[3] != NULL);
	CHECK(__atomic_load_n(&later.put, __ATOMIC_ACQUIRE));
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_REPORTS(0, "");
	CHECK_EQ(uma_netbsd_pool_nout(&pool), 3);

	/* Lowered below what is out: nothing more goes out until enough came back. */
	pool_sethardlimit(&pool, 2, NULL, 0);
	CHECK(pool_get(&pool, PR_NOWAIT) == NULL);
	pool_put(&pool, items[0]);
	CHECK(pool_get(&pool, PR_NOWAIT) == NULL);
	pool_put(&pool, items[1]);
	CHECK((items[0] = pool_get(&pool, PR_NOWAIT)) != NULL);
	CHECK(pool_get(&pool, PR_NOWAIT) == NULL);
	CHECK_REPORTS(0, "");

	/* Nothing at all; said each time; and no limit. */
	pool_put(&pool, items[0]);
	pool_put(&pool, items[3]);
	pool_sethardlimit(&pool, 0, "shut", 0);
	CHECK(pool_get(&pool, PR_NOWAIT) == NULL);
	CHECK(pool_get(&pool, PR_WAITOK | PR_LIMITFAIL) == NULL);
	CHECK_REPORTS(2, "shut");
	pool_sethardlimit(&pool, -1, "never", 0);
	for (int i = 0; i < 4; i++)
		CHECK((items[i] = pool_get(&pool, PR_NOWAIT)) != NULL);
	for (int i = 0; i < 4; i++)
		pool_put(&pool, items[i]);
	pool_destroy(&pool);
}

static struct {
	struct pool *pool;
	void *item;
	int calls, flags;
} hooked;

static void hook(void *argument, int flags)
{
	CHECK(argument == &hooked);
	hooked.calls++;
	hooked.flags = flags;
	if (hooked.item != NULL)
		pool_put(hooked.pool, hooked.item);
	hooked.item = NULL;
}

/* The hook is called at the limit, once a get, and by a reclaim; what it puts is had. */
static void drain_hook(void)
{
	struct pool pool;
	void *items[2];

	pool_init(&pool, 128, 0, 0, 0, "hooked", NULL, IPL_NONE);
	pool_set_drain_hook(&pool, hook, &hooked);
	pool_sethardlimit(&pool, 2, "limit", 0);
	hooked.pool = &pool;
	items[0] = pool_get(&pool, PR_NOWAIT);
	items[1] = pool_get(&pool, PR_NOWAIT);
	CHECK_EQ(hooked.calls, 0);
	hooked.item = items[0];
	CHECK((items[0] = pool_get(&pool, PR_NOWAIT)) != NULL);
	CHECK_EQ(hooked.calls, 1);
	CHECK_EQ(hooked.flags, PR_NOWAIT);
	hooked.item = items[1];
	CHECK((items[1] = pool_get(&pool, PR_WAITOK)) != NULL);
	CHECK_EQ(hooked.calls, 2);
	CHECK_EQ(hooked.flags, PR_WAITOK);
	CHECK_REPORTS(0, "");
	CHECK(pool_get(&pool, PR_NOWAIT) == NULL);
	CHECK_EQ(hooked.calls, 3);
	CHECK_REPORTS(1, "limit");
	hooked.item = items[1];
	pool_reclaim(&pool);
	CHECK_EQ(hooked.calls, 4);
	CHECK_EQ(hooked.flags, PR_NOWAIT);
	CHECK_EQ(uma_netbsd_pool_nout(&pool), 1);
	pool_put(&pool, items[0]);
	pool_destroy(&pool);
}

/* Many wait at a small limit, none gets more than there is, and none waits for ever. */
enum { THREADS = 6, ROUNDS = 2000, FEW = 3 };

static struct pool shared;
static int holders;
static int rounds = ROUNDS;

static void *contend(void *argument)
{
	for (int round = 0; round < rounds; round++) {
		int *item = pool_get(&shared, PR_WAITOK);

		CHECK(item != NULL);
		CHECK(__atomic_add_fetch(&holders, 1, __ATOMIC_ACQ_REL) <= FEW);
		*item = round;
		__atomic_sub_fetch(&holders, 1, __ATOMIC_ACQ_REL);
		pool_put(&shared, item);
	}
	return argument;
}

static void contention(void)
{
	pthread_t threads[THREADS];

	pool_init(&shared, 64, 0, 0, 0, "shared", NULL, IPL_NONE);
	pool_sethardlimit(&shared, FEW, "never said", 0);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, contend, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(uma_netbsd_pool_nout(&shared), 0);
	CHECK_EQ(pool_nget(&shared), THREADS * rounds);
	CHECK_REPORTS(0, "");
	pool_destroy(&shared);
}

/* Memory, bounded: a page allocator with few pages. */
static int pages_left;

static void *bounded_alloc(struct pool *pool, int flags)
{
	if (__atomic_sub_fetch(&pages_left, 1, __ATOMIC_ACQ_REL) < 0) {
		__atomic_add_fetch(&pages_left, 1, __ATOMIC_ACQ_REL);
		return NULL;
	}
	return pool_page_alloc(pool, flags);
}

static void bounded_free(struct pool *pool, void *page)
{
	__atomic_add_fetch(&pages_left, 1, __ATOMIC_ACQ_REL);
	pool_page_free(pool, page);
}

/* Gets until there is none; then one that may wait is served by what another thread puts. */
static void memory(void)
{
	static const struct pool_allocator bounded = { bounded_alloc, bounded_free, 4096 };
	struct pool pool;
	static void *items[1000];
	struct later later = { &pool, NULL, 0 };
	pthread_t thread;
	int count = 0;
	void *item;

	pages_left = 8;
	pool_init(&pool, 1024, 0, 0, 0, "uvmwait", &bounded, IPL_NONE);
	while ((items[count] = pool_get(&pool, PR_NOWAIT)) != NULL)
		count++;
	CHECK_EQ(count, 32);
	CHECK_EQ(pages_left, 0);
	CHECK_EQ(fails_of(&pool), 1);
	/* The hook is asked where memory is wanted that may not be waited for. */
	pool_set_drain_hook(&pool, hook, &hooked);
	hooked.pool = &pool;
	hooked.calls = 0;
	hooked.item = items[5];
	CHECK((items[5] = pool_get(&pool, PR_NOWAIT)) != NULL);
	CHECK_EQ(hooked.calls, 1);
	CHECK_EQ(pool_prime(&pool, 1), 12);

	later.item = items[7];
	CHECK_EQ(pthread_create(&thread, NULL, put_later, &later), 0);
	item = pool_get(&pool, PR_WAITOK);
	CHECK(item == later.item);
	CHECK(__atomic_load_n(&later.put, __ATOMIC_ACQUIRE));
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_REPORTS(1, "no memory for pool \"uvmwait\"; waiting");
	CHECK_EQ(uma_compat_set_policy("netbsd.waitok", "fail"), 0);
	CHECK(pool_get(&pool, PR_WAITOK) == NULL);
	CHECK_EQ(uma_compat_set_policy("netbsd.waitok", "wait"), 0);
	for (int i = 0; i < count; i++)
		pool_put(&pool, items[i]);
	pool_destroy(&pool);
	CHECK_EQ(pages_left, 8);
}

/*
 * As NetBSD's test of waiting for memory (uvmwait): all there is in the machine goes to one pool; then who waits at
 * it is served by what another thread puts into another.
 */
static struct pool rich, poor;
/* 2 MiB: enough also where the poor one has to make its table of slabs larger. */
static void *store[2048];

static void *put_elsewhere(void *unused)
{
	/* When somebody waits, which is said. */
	while (!__atomic_load_n(&check_count, __ATOMIC_ACQUIRE))
		nap(10);
	for (int i = 0; i < 2048; i++)
		pool_put(&rich, store[i]);
	return unused;
}

static void memory_of_another_pool(void)
{
	const struct rlimit bound = { 256ul << 20, 256ul << 20 };
	int status;
	pid_t child = fork();

	if (child == 0) {
		pthread_t thread;
		char *item;
		long count = 0;

		pool_init(&rich, 1024, 0, 0, 0, "rich", &pool_allocator_nointr, IPL_NONE);
		pool_init(&poor, 1024, 0, 0, 0, "poor", &pool_allocator_nointr, IPL_NONE);
		for (int i = 0; i < 2048; i++)
			CHECK((store[i] = pool_get(&rich, PR_NOWAIT)) != NULL);
		CHECK_EQ(pthread_create(&thread, NULL, put_elsewhere, NULL), 0);
		CHECK_EQ(setrlimit(RLIMIT_AS, &bound), 0);
		while ((item = pool_get(&poor, PR_NOWAIT)) != NULL) {
			CHECK(++count <= (256 << 20) / 1024);
			*item = 'a';
		}
		CHECK_REPORTS(0, "");
		/* What may wait has everything drained for it first, which may give some more. */
		do {
			CHECK((item = pool_get(&poor, PR_WAITOK)) != NULL);
			CHECK(++count <= (256 << 20) / 1024);
			*item = 'a';
		} while (check_count == 0);
		CHECK_EQ(pthread_join(thread, NULL), 0);
		CHECK_REPORTS(1, "no memory for pool \"poor\"; waiting");
		CHECK_EQ(uma_netbsd_pool_nout(&rich), 0);
		CHECK_EQ(uma_netbsd_pool_nout(&poor), count);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
}

/* What caches hold is had before anybody fails at a limit. */
static void limit_of_a_cache(void)
{
	pool_cache_t cache =
		pool_cache_init(64, 0, 0, 0, "limited cache", NULL, IPL_NONE, NULL, NULL, NULL);
	void *objects[20];

	pool_cache_sethardlimit(cache, 20, "cache limit", 0);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 20; i++)
			CHECK((objects[i] = pool_cache_get(cache, PR_NOWAIT)) != NULL);
		CHECK(pool_cache_get(cache, PR_NOWAIT) == NULL);
		CHECK_REPORTS(1, "cache limit");
		for (int i = 0; i < 20; i++)
			pool_cache_put(cache, objects[i]);
	}
	pool_cache_sethardlimit(cache, 0, NULL, 0);
	CHECK(pool_cache_get(cache, PR_NOWAIT) == NULL);
	pool_cache_destroy(cache);
}

int main(void)
{
	if (getenv("UMA_TEST_SHORT") && *getenv("UMA_TEST_SHORT"))
		rounds = 100;
	uma_compat_set_reporter(check_reporter);
	if (!getenv("UMA_TEST_SHORT") || !*getenv("UMA_TEST_SHORT"))
		memory_of_another_pool();
	limit();
	drain_hook();
	contention();
	memory();
	limit_of_a_cache();
	CHECK_REPORTS(0, "");
	return 0;
}

/* Objects are put by other threads than got them, and processes fork while others do so. */
#include "../check.h"

#include <pthread.h>

#include <uma/compat.h>
#include <uma/netbsd/kmem.h>
#include <uma/netbsd/pool.h>

enum { THREADS = 4, SLOTS = 256, WORDS = 8 };

static pool_cache_t cache;
static struct pool pool;
static uint64_t *slots[2][SLOTS];
static int stop;
static long rounds = 40000;
static int forks = 20;

static uint64_t *get(int kind)
{
	return kind ? pool_get(&pool, PR_WAITOK) : pool_cache_get(cache, PR_WAITOK);
}

static void put(int kind, uint64_t *object)
{
	for (int word = 0; word < WORDS; word++)
		CHECK_EQ(object[word], object[0] + (uint64_t)word);
	if (kind)
		pool_put(&pool, object);
	else
		pool_cache_put(cache, object);
}

/* Puts an object of its own into a slot, and takes what was there, which is whole. */
static void *churn(void *argument)
{
	uint64_t me = (uintptr_t)argument, random = me * 2654435761u + 1;

	for (long round = 0; round < rounds && !__atomic_load_n(&stop, __ATOMIC_RELAXED); round++) {
		int kind = (int)(round % 2);
		uint64_t *mine = get(kind), *old;

		random = random * 6364136223846793005u + 1442695040888963407u;
		CHECK(mine != NULL);
		for (int word = 0; word < WORDS; word++)
			mine[word] = random + (uint64_t)word;
		old = __atomic_exchange_n(&slots[kind][(random >> 33) % SLOTS], mine, __ATOMIC_ACQ_REL);
		if (old != NULL)
			put(kind, old);
		if (round % 64 == 0)
			kmem_free(kmem_alloc(1 + random % 5000, KM_SLEEP), 1 + random % 5000);
		if (round % 8192 == 0)
			pool_cache_invalidate(cache);
	}
	return argument;
}

/* A child has all that its parent has, and goes on by itself. */
static void fork_meanwhile(void)
{
	for (int i = 0; i < forks; i++) {
		pid_t child = fork();
		int status;

		if (child == 0) {
			uint64_t *objects[100];

			for (int kind = 0; kind < 2; kind++) {
				for (int at = 0; at < 100; at++) {
					objects[at] = get(kind);
					memset(objects[at], 0, 64);
					for (int word = 0; word < WORDS; word++)
						objects[at][word] = (uint64_t)(at + word);
				}
				for (int at = 0; at < 100; at++)
					put(kind, objects[at]);
			}
			kmem_free(kmem_zalloc(100, KM_SLEEP), 100);
			/* Not _exit: a leak checker would find what the other threads had. */
			kill(getpid(), SIGKILL);
		}
		CHECK(waitpid(child, &status, 0) == child);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
}

int main(void)
{
	pthread_t threads[THREADS];

	if (getenv("UMA_TEST_SHORT") && *getenv("UMA_TEST_SHORT")) {
		rounds = 1000;
		forks = 2;
	}
	uma_compat_set_reporter(check_reporter);
	cache = pool_cache_init(64, 0, 0, 0, "churned", NULL, IPL_NONE, NULL, NULL, NULL);
	pool_init(&pool, 64, 0, 0, 0, "churned", NULL, IPL_NONE);
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, churn, (void *)i), 0);
	fork_meanwhile();
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	for (int kind = 0; kind < 2; kind++)
		for (int i = 0; i < SLOTS; i++)
			if (slots[kind][i] != NULL)
				put(kind, slots[kind][i]);
	CHECK_EQ(uma_netbsd_pool_nout(&pool), 0);
	CHECK_EQ(uma_netbsd_pool_nout(&cache->pc_pool), 0);
	pool_cache_destroy(cache);
	pool_destroy(&pool);
	CHECK_REPORTS(0, "");
	return 0;
}

/* What happens when there is no memory: KM_SLEEP, KM_NOSLEEP, KM_PUSHPAGE; and what goes back by itself. */
#include "../check.h"

#include <pthread.h>

#include <uma/compat.h>
#include <uma/solaris/kmem.h>

#define SIZE (1u << 20)
#define MANY 2048

static void *objects[MANY];
static int reclaims;
static void *given_up;
static kmem_cache_t *cache;

static void reclaim(void *private)
{
	(void)private;
	reclaims++;
	if (given_up != NULL) {
		kmem_cache_free(cache, given_up);
		given_up = NULL;
	}
}

static void *free_later(void *object)
{
	usleep(50000);
	kmem_cache_free(cache, object);
	return NULL;
}

/* Takes all there is, after so many. Returns how many there are. */
static int exhaust(int count, int flags)
{
	while (count < MANY && (objects[count] = kmem_cache_alloc(cache, flags)) != NULL)
		count++;
	CHECK(count < MANY);
	return count;
}

static void without_memory(void)
{
	struct rlimit bound = { 1ul << 30, 1ul << 30 };
	pthread_t thread;
	void *pushed[MANY];
	int count, reserved = 0;

	cache = kmem_cache_create("scarce", SIZE, 0, NULL, NULL, reclaim, NULL, NULL,
				  KMC_NOMAGAZINE);
	/* The first request that may use the reserve sets it aside. */
	kmem_cache_free(cache, kmem_cache_alloc(cache, KM_SLEEP | KM_PUSHPAGE));
	/* Threads take address space, too. */
	CHECK_EQ(pthread_create(&thread, NULL, free_later, kmem_cache_alloc(cache, KM_SLEEP)), 0);
	pthread_join(thread, NULL);
	CHECK_EQ(setrlimit(RLIMIT_AS, &bound), 0);
	count = exhaust(0, KM_NOSLEEP);
	CHECK_EQ(reclaims, 0);
	/* Not urgent: the reserve stays. */
	CHECK(kmem_cache_alloc(cache, KM_NOSLEEP | KM_PUSHPAGE | KM_NORMALPRI) == NULL);
	/* There is a reserve, and it ends. */
	while ((pushed[reserved] = kmem_cache_alloc(cache, KM_NOSLEEP | KM_PUSHPAGE)) != NULL)
		reserved++;
	CHECK(reserved >= 1 && reserved < 8);
	/* What comes back fills it up again, before others get any. */
	for (int i = 0; i < reserved; i++)
		kmem_cache_free(cache, pushed[i]);
	kmem_cache_reap_now(cache);
	count = exhaust(count, KM_NOSLEEP);
	/* Sleeping reaps: the owner gives something up. */
	CHECK(count > 2);
	given_up = objects[0];
	reclaims = 0;
	objects[0] = kmem_cache_alloc(cache, KM_SLEEP);
	CHECK(objects[0] != NULL);
	CHECK(reclaims >= 1);
	CHECK(given_up == NULL);
	/* Without that it waits until another thread frees one. */
	CHECK_EQ(pthread_create(&thread, NULL, free_later, objects[0]), 0);
	objects[0] = kmem_cache_alloc(cache, KM_SLEEP);
	CHECK(objects[0] != NULL);
	pthread_join(thread, NULL);
	/* Or it does something else, by policy. */
	CHECK_EQ(uma_compat_set_policy("solaris.sleep", "null"), 0);
	CHECK(kmem_cache_alloc(cache, KM_SLEEP) == NULL);
	CHECK(kmem_alloc(900u << 20, KM_SLEEP) == NULL);
	CHECK_EQ(uma_compat_set_policy("solaris.sleep", "panic"), 0);
	CHECK_ABORTS("KM_SLEEP: cache \"scarce\"", kmem_cache_alloc(cache, KM_SLEEP));
	CHECK_ABORTS("KM_PANIC: cache \"scarce\"", kmem_cache_alloc(cache, KM_NOSLEEP | KM_PANIC));
}

static long resident(void)
{
	long size, pages;
	FILE *file = fopen("/proc/self/statm", "r");

	CHECK(file != NULL && fscanf(file, "%ld %ld", &size, &pages) == 2);
	fclose(file);
	return pages * 4;
}

/* What is free leaves by itself, from caches and from kmem_alloc. */
static void aging(void)
{
	long before;
	int alive;

	cache = kmem_cache_create("aging", 4096, 0, NULL, NULL, NULL, NULL, NULL, 0);
	for (int i = 0; i < MANY; i++)
		memset(objects[i] = kmem_cache_alloc(cache, KM_SLEEP), 1, 4096);
	before = resident();
	for (int i = 0; i < MANY; i++)
		kmem_cache_free(cache, objects[i]);
	for (int i = 0; i < MANY; i++)
		memset(objects[i] = kmem_alloc(2048, KM_SLEEP), 1, 2048);
	for (int i = 0; i < MANY; i++)
		kmem_free(objects[i], 2048);
	for (alive = 0; alive < 1000 && kmem_cache_stat(cache, "slab_create") != 0; alive++)
		usleep(100000);
	CHECK_EQ(kmem_cache_stat(cache, "slab_create"), 0);
	CHECK_EQ(kmem_cache_stat(cache, "reap"), 0);
	if (getenv("UMA_TEST_SHORT") == NULL || *getenv("UMA_TEST_SHORT") == '\0') {
		for (alive = 0; alive < 500 && resident() > before - 6000; alive++)
			usleep(100000);
		CHECK(resident() <= before - 6000);
	}
	kmem_cache_destroy(cache);
}

int main(void)
{
	pid_t child;
	int status;

	CHECK_EQ(uma_compat_set_policy("solaris.update", "1"), 0);
	child = fork();
	if (child == 0) {
		if (getenv("UMA_TEST_SHORT") == NULL || *getenv("UMA_TEST_SHORT") == '\0')
			without_memory();
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	aging();
	return 0;
}

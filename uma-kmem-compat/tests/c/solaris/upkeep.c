/* How often caches are looked after: solaris.update. Each interval in a process of its own, all at once. */
#include "../check.h"

#include <time.h>

#include <uma/compat.h>
#include <uma/solaris/kmem.h>

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/*
 * Within so many tenths of a second what is free leaves a cache by itself, or it does not. After a whole interval it may
 * have left in any case: a busy machine may take that long for tenths of a second.
 */
static int as_told(const char *interval, double seconds, int tenths, int leaves)
{
	double begin = now();
	kmem_cache_t *cache;
	void *objects[500];

	if (interval != NULL)
		CHECK_EQ(uma_compat_set_policy("solaris.update", interval), 0);
	cache = kmem_cache_create("upkeep", 4096, 0, NULL, NULL, NULL, NULL, NULL, 0);
	for (int i = 0; i < 500; i++)
		objects[i] = kmem_cache_alloc(cache, KM_SLEEP);
	for (int i = 0; i < 500; i++)
		kmem_cache_free(cache, objects[i]);
	for (int i = 0; i < tenths && kmem_cache_stat(cache, "slab_create") != 0; i++)
		usleep(100000);
	if (kmem_cache_stat(cache, "slab_create") != 0)
		return !leaves;
	return leaves || (seconds > 0 && now() - begin >= seconds);
}

static void intervals(void)
{
	/* The default is 15 seconds. */
	static const char *const longer[] = { NULL, "15", "5", "30", "60", "off" };
	static const double seconds[] = { 15, 15, 5, 30, 60, 0 };
	pid_t children[7];
	int status;

	for (int i = 0; i < 7; i++) {
		children[i] = fork();
		if (children[i] == 0)
			_exit(i == 6 ? !as_told("1", 1, 1000, 1) : !as_told(longer[i], seconds[i], 20, 0));
	}
	for (int i = 0; i < 7; i++) {
		CHECK_EQ(waitpid(children[i], &status, 0), children[i]);
		CHECK_EQ(status, 0);
	}
	CHECK_EQ(uma_compat_set_policy("solaris.update", "7"), -1);
}

int main(void)
{
	intervals();
	return 0;
}

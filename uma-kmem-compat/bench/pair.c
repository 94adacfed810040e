/* Prints the nanoseconds of one kmem_cache_alloc and one kmem_cache_free, on hits. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <uma/linux/slab.h>

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

int main(int count, char **arguments)
{
	long pairs = count > 1 ? atol(arguments[1]) : 50000000;
	struct kmem_cache *cache = kmem_cache_create("pair", 64, 0, SLAB_PANIC, NULL);
	double start;

	for (long i = 0; i < 1000; i++)
		kmem_cache_free(cache, kmem_cache_alloc(cache, GFP_KERNEL));
	start = now();
	for (long i = 0; i < pairs; i++) {
		void *object = kmem_cache_alloc(cache, GFP_KERNEL);

		__asm__ volatile("" : "+r"(object) : : "memory");
		kmem_cache_free(cache, object);
	}
	printf("%.3f\n", (now() - start) / (double)pairs);
	kmem_cache_destroy(cache);
	return 0;
}

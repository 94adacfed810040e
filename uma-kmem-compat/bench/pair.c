/*
 * Prints the nanoseconds of the processor for one allocation of 64 bytes and one free, on hits: of the system that a
 * macro names.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(PAIR_LINUX)

#include <uma/linux/slab.h>

static struct kmem_cache *cache;
#define CREATE() cache = kmem_cache_create("pair", 64, 0, SLAB_PANIC, NULL)
#define ALLOC() kmem_cache_alloc(cache, GFP_KERNEL)
#define FREE(object) kmem_cache_free(cache, object)
#define DESTROY() kmem_cache_destroy(cache)

#elif defined(PAIR_SOLARIS)

#include <uma/solaris/kmem.h>

static kmem_cache_t *cache;
#define CREATE() cache = kmem_cache_create("pair", 64, 0, NULL, NULL, NULL, NULL, NULL, 0)
#define ALLOC() kmem_cache_alloc(cache, KM_SLEEP)
#define FREE(object) kmem_cache_free(cache, object)
#define DESTROY() kmem_cache_destroy(cache)

#elif defined(PAIR_UMEM)

#include <uma/umem/umem.h>

static umem_cache_t *cache;
#define CREATE() cache = umem_cache_create("pair", 64, 0, NULL, NULL, NULL, NULL, NULL, 0)
#define ALLOC() umem_cache_alloc(cache, UMEM_DEFAULT)
#define FREE(object) umem_cache_free(cache, object)
#define DESTROY() umem_cache_destroy(cache)

#elif defined(PAIR_NETBSD)

#include <uma/netbsd/pool.h>

static pool_cache_t cache;
#define CREATE() \
	cache = pool_cache_init(64, 0, 0, 0, "pair", NULL, IPL_NONE, NULL, NULL, NULL)
#define ALLOC() pool_cache_get(cache, PR_WAITOK)
#define FREE(object) pool_cache_put(cache, object)
#define DESTROY() pool_cache_destroy(cache)

#elif defined(PAIR_FREEBSD)

#include <uma/freebsd/uma.h>

static uma_zone_t cache;
#define CREATE() cache = uma_zcreate("pair", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0)
#define ALLOC() uma_zalloc(cache, M_WAITOK)
#define FREE(object) uma_zfree(cache, object)
#define DESTROY() uma_zdestroy(cache)

#elif defined(PAIR_LIBUMEM)

/* Another libumem, with its own symbols. */
struct umem_cache;
struct umem_cache *umem_cache_create(const char *, size_t, size_t, int (*)(void *, void *, int),
				     void (*)(void *, void *), void (*)(void *), void *, void *, int);
void *umem_cache_alloc(struct umem_cache *, int);
void umem_cache_free(struct umem_cache *, void *);
void umem_cache_destroy(struct umem_cache *);
static struct umem_cache *cache;
#define CREATE() cache = umem_cache_create("pair", 64, 0, NULL, NULL, NULL, NULL, NULL, 0)
#define ALLOC() umem_cache_alloc(cache, 0)
#define FREE(object) umem_cache_free(cache, object)
#define DESTROY() umem_cache_destroy(cache)

#elif defined(PAIR_MIMALLOC)

void *mi_malloc(size_t);
void mi_free(void *);
#define CREATE() (void)0
#define ALLOC() mi_malloc(64)
#define FREE(object) mi_free(object)
#define DESTROY() (void)0

#elif defined(PAIR_EMPTY)

void *empty_alloc(void *, int);
void empty_free(void *, void *);
static char cache[64];
#define CREATE() (void)0
#define ALLOC() empty_alloc(cache, 0)
#define FREE(object) empty_free(cache, object)
#define DESTROY() (void)0

#else
#error "which system?"
#endif

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

int main(int count, char **arguments)
{
	long pairs = count > 1 ? atol(arguments[1]) : 50000000;
	double start;

	CREATE();
	for (long i = 0; i < 1000; i++)
		FREE(ALLOC());
	start = now();
	for (long i = 0; i < pairs; i++) {
		void *object = ALLOC();

		__asm__ volatile("" : "+r"(object) : : "memory");
		FREE(object);
	}
	printf("%.3f\n", (now() - start) / (double)pairs);
	DESTROY();
	return 0;
}

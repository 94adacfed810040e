/* kmem_cache: made in each form, with each flag, used, and ended. */
#include "../check.h"

#include <pthread.h>
#include <time.h>

#include <uma/compat.h>
#include <uma/linux/slab.h>

struct node {
	uint64_t key;
	char text[40];
};

struct __attribute__((aligned(256))) wide {
	char bytes[300];
};

static void forms(void)
{
	struct kmem_cache_args args = { .align = 128, .sheaf_capacity = 32 };
	struct kmem_cache *cache;
	struct kmem_cache *(*function)(const char *, unsigned int, unsigned int, slab_flags_t,
				       void (*)(void *)) = kmem_cache_create;

	cache = kmem_cache_create("old form", 56, 0, 0, NULL);
	CHECK(cache != NULL);
	CHECK_EQ(kmem_cache_size(cache), 56);
	CHECK(strcmp(kmem_cache_name(cache), "old form") == 0);
	kmem_cache_destroy(cache);

	cache = kmem_cache_create("with arguments", 100, &args, SLAB_NO_MERGE);
	CHECK(cache != NULL);
	void *object = kmem_cache_alloc(cache, GFP_KERNEL);
	CHECK_EQ((uintptr_t)object % 128, 0);
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);

	cache = kmem_cache_create("without arguments", 100, NULL, 0);
	CHECK(cache != NULL);
	kmem_cache_destroy(cache);

	cache = kmem_cache_create_usercopy("user", 100, 8, 0, 16, 32, NULL);
	CHECK(cache != NULL);
	kmem_cache_destroy(cache);

	cache = function("by address", 100, 8, 0, NULL);
	CHECK(cache != NULL);
	kmem_cache_destroy(cache);

	cache = KMEM_CACHE(node, SLAB_PANIC);
	CHECK_EQ(kmem_cache_size(cache), sizeof(struct node));
	CHECK(strcmp(kmem_cache_name(cache), "node") == 0);
	kmem_cache_destroy(cache);

	cache = KMEM_CACHE(wide, 0);
	object = kmem_cache_alloc(cache, GFP_KERNEL);
	CHECK_EQ((uintptr_t)object % 256, 0);
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);

	cache = KMEM_CACHE_USERCOPY(node, 0, text);
	CHECK(cache != NULL);
	kmem_cache_destroy(cache);

	kmem_cache_destroy(NULL);
	CHECK(slab_is_available());
}

/* Every size and alignment that programs ask for: aligned as asked, whole, and not overlapping. */
static void sizes(void)
{
	static const unsigned int all[] = { 1,	 7,   8,   48,	 56,   64,   100,   128,    144,
					    200, 256, 512, 576, 1024, 4096, 5000, 65536, 1u << 20 };
	enum { OBJECTS = 24 };

	for (size_t at = 0; at < sizeof(all) / sizeof(all[0]); at++) {
		for (unsigned int align = 0; align <= 4096; align = align ? align * 4 : 1) {
			unsigned int size = all[at], least = align < 8 ? 8 : align;
			struct kmem_cache *cache = kmem_cache_create("sized", size, align, 0, NULL);
			unsigned char *objects[OBJECTS];
			int count = size > 100000 ? 3 : OBJECTS;

			CHECK(cache != NULL);
			CHECK_EQ(kmem_cache_size(cache), size);
			for (int i = 0; i < count; i++) {
				objects[i] = kmem_cache_alloc(cache, GFP_KERNEL);
				CHECK(objects[i] != NULL);
				CHECK_EQ((uintptr_t)objects[i] % least, 0);
				memset(objects[i], i, size);
			}
			CHECK_EQ(uma_linux_kmem_cache_active(cache), count);
			for (int i = 0; i < count; i++) {
				CHECK_EQ(objects[i][0], i);
				CHECK_EQ(objects[i][size - 1], i);
				kmem_cache_free(cache, objects[i]);
			}
			CHECK_EQ(uma_linux_kmem_cache_active(cache), 0);
			kmem_cache_destroy(cache);
		}
	}
}

static void flags(void)
{
	static const slab_flags_t all[] = {
		SLAB_CONSISTENCY_CHECKS, SLAB_RED_ZONE,	    SLAB_POISON,	SLAB_HWCACHE_ALIGN,
		SLAB_CACHE_DMA,		 SLAB_CACHE_DMA32,  SLAB_STORE_USER,	SLAB_RECLAIM_ACCOUNT,
		SLAB_TEMPORARY,		 SLAB_PANIC,	    SLAB_TYPESAFE_BY_RCU, SLAB_TRACE,
		SLAB_NOLEAKTRACE,	 SLAB_NO_MERGE,	    SLAB_FAILSLAB,	SLAB_ACCOUNT,
		SLAB_NO_USER_FLAGS,	 SLAB_SKIP_KFENCE,  SLAB_NO_OBJ_EXT,	SLAB_DESTROY_BY_RCU,
	};

	for (size_t at = 0; at < sizeof(all) / sizeof(all[0]); at++) {
		struct kmem_cache *cache = kmem_cache_create("flagged", 40, 0, all[at], NULL);
		void *object;

		CHECK(cache != NULL);
		object = kmem_cache_zalloc(cache, GFP_KERNEL);
		CHECK(object != NULL);
		memset(object, 1, 40);
		kmem_cache_free(cache, object);
		CHECK_EQ(kmem_cache_shrink(cache), 0);
		kmem_cache_destroy(cache);
	}
	CHECK_REPORTS(0, "");
	CHECK(kmem_cache_create("flagged", 40, 0, 1u << 31, NULL) == NULL);
	CHECK_REPORTS(1, "unknown flags 0x80000000");
}

/*
 * Small objects are aligned to as much of a cache line as they fill, and not more. (Of 100 bytes they lie 128
 * apart.)
 */
static void cache_lines(void)
{
	static const struct {
		unsigned int size, align;
	} want[] = { { 8, 8 }, { 9, 16 }, { 16, 16 }, { 20, 32 }, { 33, 64 }, { 64, 64 }, { 100, 128 } };

	for (size_t at = 0; at < sizeof(want) / sizeof(want[0]); at++) {
		struct kmem_cache *cache =
			kmem_cache_create("lines", want[at].size, 0, SLAB_HWCACHE_ALIGN, NULL);
		uintptr_t seen = 0;
		void *objects[64];

		for (int i = 0; i < 64; i++) {
			objects[i] = kmem_cache_alloc(cache, GFP_KERNEL);
			seen |= (uintptr_t)objects[i];
		}
		/* The lowest bit that any address has set. */
		CHECK_EQ(seen & -seen, want[at].align);
		for (int i = 0; i < 64; i++)
			kmem_cache_free(cache, objects[i]);
		kmem_cache_destroy(cache);
	}
}

/* Zeroed, also where an object was used before; by every way to ask for it. */
static void zeros(void)
{
	struct kmem_cache *cache = kmem_cache_create("zeroed", 72, 0, 0, NULL);
	static const char zero[72];
	void *object, *objects[8];

	for (int way = 0; way < 4; way++) {
		for (int i = 0; i < 8; i++) {
			objects[i] = kmem_cache_alloc(cache, GFP_NOWAIT);
			memset(objects[i], 0xff, 72);
		}
		kmem_cache_free_bulk(cache, 8, objects);
		if (way == 0)
			object = kmem_cache_zalloc(cache, GFP_KERNEL);
		else if (way == 1)
			object = kmem_cache_alloc(cache, GFP_ATOMIC | __GFP_ZERO);
		else if (way == 2)
			object = kmem_cache_alloc_node(cache, GFP_KERNEL | __GFP_ZERO, NUMA_NO_NODE);
		else
			object = kmem_cache_alloc_lru(cache, NULL, GFP_KERNEL | __GFP_ZERO);
		CHECK(memcmp(object, zero, 72) == 0);
		kmem_cache_free(cache, object);
	}
	CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL | __GFP_ZERO, 8, objects), 8);
	for (int i = 0; i < 8; i++)
		CHECK(memcmp(objects[i], zero, 72) == 0);
	kmem_cache_free_bulk(cache, 8, objects);
	kmem_cache_destroy(cache);
}

/* The values that programs were compiled with, and every flag of an allocation. */
static void gfp_flags(void)
{
	static const gfp_t all[] = {
		GFP_ATOMIC, GFP_NOWAIT, GFP_DMA, GFP_DMA32, GFP_KERNEL, GFP_KERNEL_ACCOUNT, GFP_USER,
		GFP_HIGHUSER, GFP_NOIO, GFP_NOFS, __GFP_DMA, __GFP_HIGHMEM, __GFP_DMA32, __GFP_MOVABLE,
		__GFP_RECLAIMABLE, __GFP_HIGH, __GFP_IO, __GFP_FS, __GFP_DIRECT_RECLAIM,
		__GFP_KSWAPD_RECLAIM, __GFP_RECLAIM, __GFP_WRITE, __GFP_NOWARN, __GFP_RETRY_MAYFAIL,
		__GFP_MEMALLOC, __GFP_COMP, __GFP_NOMEMALLOC, __GFP_HARDWALL, __GFP_THISNODE,
		__GFP_ACCOUNT, __GFP_NORETRY, __GFP_NOFAIL, (gfp_t)-1 & ~__GFP_ZERO,
	};
	struct kmem_cache *cache = kmem_cache_create("gfp", 72, 0, 0, NULL);
	cpu_set_t cpus;

	/* What a CPU's cache was given it has for the next. */
	CHECK_EQ(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	check_stay();

	CHECK_EQ(GFP_KERNEL, 0xcc0);
	CHECK_EQ(GFP_NOWAIT, 0x800);
	CHECK_EQ(__GFP_ZERO, 0x100);
	CHECK(gfpflags_allow_blocking(GFP_KERNEL) && gfpflags_allow_blocking(GFP_NOIO));
	CHECK(gfpflags_allow_blocking(GFP_NOFS) && gfpflags_allow_blocking(GFP_USER));
	CHECK(!gfpflags_allow_blocking(GFP_NOWAIT) && !gfpflags_allow_blocking(GFP_ATOMIC));
	for (size_t at = 0; at < sizeof(all) / sizeof(all[0]); at++) {
		char *object = kmem_cache_alloc(cache, all[at]), *memory = kmalloc(100, all[at]);

		CHECK(object != NULL && memory != NULL);
		/* None of them is taken for another: what was there stays. */
		memset(object, 0x5a, 72);
		kmem_cache_free(cache, object);
		CHECK(kmem_cache_alloc(cache, all[at]) == object);
		CHECK_EQ(object[71], 0x5a);
		kmem_cache_free(cache, object);
		kfree(memory);
	}
	(void)sched_setaffinity(0, sizeof(cpus), &cpus);
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
}

static void bulk(void)
{
	struct kmem_cache *cache = kmem_cache_create("bulk", 48, 0, 0, NULL);
	void *objects[300];

	for (size_t count = 1; count <= 300; count = count * 3 + 1) {
		CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, count, objects), count);
		for (size_t i = 0; i < count; i++) {
			memset(objects[i], (int)i, 48);
			for (size_t j = 0; j < i; j++)
				CHECK(objects[i] != objects[j]);
		}
		CHECK_EQ(uma_linux_kmem_cache_active(cache), count);
		kmem_cache_free_bulk(cache, count, objects);
		CHECK_EQ(uma_linux_kmem_cache_active(cache), 0);
	}
	CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 0, objects), 0);
	kmem_cache_free_bulk(cache, 0, NULL);
	kmem_cache_destroy(cache);
}

/* __GFP_NOFAIL waits for memory, here for what another thread frees. */
static int ready;

static void *free_later(void *argument)
{
	void **both = argument;
	struct timespec moment = { 0, 20 * 1000 * 1000 };

	/* What the C library has for a thread that comes here, it has while there is memory. */
	kfree(kmalloc(8, GFP_KERNEL));
	__atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
	/* When it was said that somebody waits. */
	do
		nanosleep(&moment, NULL);
	while (!__atomic_load_n(&check_count, __ATOMIC_ACQUIRE));
	kmem_cache_free(both[0], both[1]);
	return NULL;
}

static void without_fail(struct kmem_cache *cache, void **both, pthread_t thread)
{
	static void *all[4096];
	void *object;
	int count = 0;

	while ((all[count] = kmem_cache_alloc(cache, GFP_NOWAIT)) != NULL)
		count++;
	CHECK(kmem_cache_alloc(cache, GFP_KERNEL) == NULL);
	object = kmem_cache_alloc(cache, GFP_KERNEL | __GFP_NOFAIL);
	CHECK(object == both[1]);
	CHECK_REPORTS(1, "__GFP_NOFAIL: there is no memory for cache \"huge\"; waiting");
	CHECK_EQ(pthread_join(thread, NULL), 0);
	kmem_cache_free(cache, object);
	kmem_cache_free_bulk(cache, (size_t)count, all);
}

/* All or none, where there is no memory for all: the address space is bounded in a child. */
static void bulk_without_memory(void)
{
	enum { COUNT = 4096 };
	static void *objects[COUNT];
	pid_t child = fork();
	int status;

	if (child == 0) {
		struct kmem_cache *cache = kmem_cache_create("huge", 1u << 20, 0, 0, NULL);
		struct rlimit bound = { 1ul << 30, 1ul << 30 };
		void *one, *both[2];
		pthread_t thread;

		CHECK(cache != NULL);
		both[0] = cache;
		both[1] = kmem_cache_alloc(cache, GFP_KERNEL);
		CHECK_EQ(pthread_create(&thread, NULL, free_later, both), 0);
		while (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE))
			usleep(1000);
		CHECK_EQ(setrlimit(RLIMIT_AS, &bound), 0);
		CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_NOWAIT, COUNT, objects), 0);
		CHECK_EQ(uma_linux_kmem_cache_active(cache), 1);
		CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, COUNT, objects), 0);
		CHECK(kmem_cache_prefill_sheaf(cache, GFP_KERNEL, COUNT) == NULL);
		CHECK_EQ(uma_linux_kmem_cache_active(cache), 1);
		without_fail(cache, both, thread);
		/* What was tried went back. */
		one = kmem_cache_alloc(cache, GFP_KERNEL);
		CHECK(one != NULL);
		kmem_cache_free(cache, one);
		kmem_cache_destroy(cache);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
}

/* __GFP_NOFAIL is served by what another thread frees into another cache, and that keeps. */
enum { RICHES = 512 };
static struct kmem_cache *rich;
static void *riches[RICHES];

static void *free_elsewhere(void *unused)
{
	struct timespec moment = { 0, 10 * 1000 * 1000 };

	/* What the C library has for a thread that comes here, it has while there is memory. */
	kmem_cache_free(rich, kmem_cache_alloc(rich, GFP_NOWAIT));
	__atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
	/* When it was said that somebody waits. */
	do
		nanosleep(&moment, NULL);
	while (!__atomic_load_n(&check_count, __ATOMIC_ACQUIRE));
	for (int i = 0; i < RICHES; i++)
		kmem_cache_free(rich, riches[i]);
	return unused;
}

static void memory_of_another_cache(void)
{
	const struct rlimit bound = { 256ul << 20, 256ul << 20 };
	const int most = (256 << 20) / 4096;
	int status;
	pid_t child = fork();

	CHECK(child >= 0);
	if (child == 0) {
		struct kmem_cache *poor = kmem_cache_create("poor", 4096, 0, 0, NULL);
		pthread_t thread;
		char *object;
		int count = 0;

		alarm(120);
		rich = kmem_cache_create("rich", 4096, 0, 0, NULL);
		CHECK(rich != NULL && poor != NULL);
		for (int i = 0; i < RICHES; i++)
			CHECK((riches[i] = kmem_cache_alloc(rich, GFP_KERNEL)) != NULL);
		CHECK_EQ(pthread_create(&thread, NULL, free_elsewhere, NULL), 0);
		while (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE))
			usleep(1000);
		CHECK_EQ(setrlimit(RLIMIT_AS, &bound), 0);
		while ((object = kmem_cache_alloc(poor, GFP_NOWAIT)) != NULL) {
			CHECK(++count <= most);
			*object = 'a';
		}
		CHECK_REPORTS(0, "");
		/* Everything is drained before anybody waits, which may give some more. */
		do {
			CHECK((object = kmem_cache_alloc(poor, GFP_KERNEL | __GFP_NOFAIL)) != NULL);
			CHECK(++count <= most);
			*object = 'a';
		} while (check_count == 0);
		CHECK_EQ(pthread_join(thread, NULL), 0);
		CHECK_REPORTS(1, "__GFP_NOFAIL: there is no memory for cache \"poor\"; waiting");
		CHECK_EQ(uma_linux_kmem_cache_active(rich), 0);
		CHECK_EQ(uma_linux_kmem_cache_active(poor), count);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
}

/* Gives everything back, and says whether nothing is left. */
static void shrink(void)
{
	struct kmem_cache *cache = kmem_cache_create("shrunk", 1000, 0, 0, NULL);
	void *objects[200];

	CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 200, objects), 200);
	CHECK_EQ(kmem_cache_shrink(cache), 1);
	kmem_cache_free_bulk(cache, 199, objects);
	CHECK_EQ(kmem_cache_shrink(cache), 1);
	kmem_cache_free(cache, objects[199]);
	CHECK_EQ(kmem_cache_shrink(cache), 0);
	kmem_cache_destroy(cache);
}

int main(void)
{
	uma_compat_set_reporter(check_reporter);
	forms();
	sizes();
	flags();
	cache_lines();
	zeros();
	gfp_flags();
	bulk();
	if (!getenv("UMA_TEST_SHORT") || !*getenv("UMA_TEST_SHORT")) {
		bulk_without_memory();
		memory_of_another_cache();
	}
	shrink();
	CHECK_REPORTS(0, "");
	return 0;
}

/*
 * What a storage stack does: 71 caches from 32 bytes to 16 MiB with every alignment, some with constructors, and
 * memory of umem_alloc, from up to 100 threads; at the end of a pass all is freed.
 */
#include "../check.h"

#include <pthread.h>

#include <umem.h>

enum { CACHES = 71, HELD = 32 };

static umem_cache_t *caches[CACHES];
static size_t sizes[CACHES], aligns[CACHES];
static long constructed, destructed;
static int threads = 100, steps = 400;

struct head {
	uint64_t magic;
};

static int construct(void *memory, void *private, int flags)
{
	CHECK_EQ(flags, UMEM_DEFAULT);
	((struct head *)memory)->magic = 0xd0de ^ (uintptr_t)private;
	__atomic_add_fetch(&constructed, 1, __ATOMIC_RELAXED);
	return 0;
}

static void destruct(void *memory, void *private)
{
	CHECK_EQ(((struct head *)memory)->magic, 0xd0de ^ (uintptr_t)private);
	__atomic_add_fetch(&destructed, 1, __ATOMIC_RELAXED);
}

static void make(void)
{
	static const size_t all[] = { 0, 64, 512, 1024, 2048, 4096 };

	for (int i = 0; i < CACHES; i++) {
		char name[32];

		snprintf(name, sizeof(name), "storage_%d", i);
		sizes[i] = i == CACHES - 1 ? 16 << 20 : (size_t)32 << i / 5;
		sizes[i] += i % 5 * (sizes[i] / 8);
		aligns[i] = all[i % 6];
		caches[i] = umem_cache_create(name, sizes[i], aligns[i], i % 9 == 0 ? construct : NULL,
					      i % 9 == 0 ? destruct : NULL, NULL,
					      (void *)(uintptr_t)i, NULL, 0);
		CHECK(caches[i] != NULL);
	}
}

static void *pass(void *argument)
{
	uint64_t random = (uintptr_t)argument * 2654435761u + 1;
	struct {
		char *object, *memory;
		size_t size;
		int cache;
	} held[HELD];

	memset(held, 0, sizeof(held));
	for (int step = 0; step < steps + HELD; step++) {
		int at = step % HELD, cache;

		if (held[at].object != NULL) {
			CHECK_EQ(held[at].object[sizes[held[at].cache] - 1], (char)held[at].cache);
			umem_cache_free(caches[held[at].cache], held[at].object);
			umem_free(held[at].memory, held[at].size);
		}
		if (step >= steps)
			continue;
		random = random * 6364136223846793005u + 1442695040888963407u;
		/* The largest are rare. */
		cache = (int)((random >> 33) % (step % 64 ? 50 : CACHES));
		held[at].cache = cache;
		held[at].object = umem_cache_alloc(caches[cache], UMEM_NOFAIL);
		if (aligns[cache] != 0)
			CHECK_EQ((uintptr_t)held[at].object % aligns[cache], 0);
		if (cache % 9 == 0)
			CHECK_EQ(((struct head *)held[at].object)->magic, 0xd0de ^ (uintptr_t)cache);
		held[at].object[sizes[cache] - 1] = (char)cache;
		held[at].size = 1 + (random >> 40) % 3000;
		held[at].memory = umem_alloc(held[at].size, UMEM_NOFAIL);
		held[at].memory[held[at].size - 1] = 1;
	}
	return NULL;
}

static void passes(void)
{
	pthread_t all[100];

	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < threads; i++)
			CHECK_EQ(pthread_create(&all[i], NULL, pass, (void *)(uintptr_t)(i + 1)), 0);
		for (int i = 0; i < threads; i++)
			pthread_join(all[i], NULL);
		for (int i = 0; i < CACHES; i++)
			CHECK_EQ(uma_umem_cache_active(caches[i]), 0);
		CHECK_EQ(uma_umem_alloc_active(), 0);
	}
	for (int i = 0; i < CACHES; i++)
		umem_cache_destroy(caches[i]);
	CHECK(constructed > 0);
	CHECK_EQ(constructed, destructed);
}

int main(void)
{
	if (getenv("UMA_TEST_SHORT") != NULL && *getenv("UMA_TEST_SHORT") != '\0')
		threads = 6, steps = 100;
	make();
	passes();
	return 0;
}

/*
 * What the tests of a port of this interface to Linux ask, told anew: memory of growing sizes; objects of small and
 * large caches, aligned, constructed and destructed as often; caches that are emptied by reaping, by time, and by
 * a callback; threads that allocate at once; more than there is, with a callback that gives some back.
 */
#include "../check.h"

#include <pthread.h>

#include <uma/compat.h>
#include <uma/solaris/kmem.h>
#include <uma/solaris/vmem.h>

#define MAGIC 0xabcd9876

struct object {
	uint32_t magic;
	uint32_t mine;
	char rest[];
};

struct data {
	size_t size;
	int constructed, destructed, reclaimed;
	int count;
	void *held[8192];
	kmem_cache_t *cache;
};

static int construct(void *memory, void *private, int flag)
{
	struct data *data = private;
	struct object *object = memory;

	(void)flag;
	object->magic = MAGIC;
	__atomic_add_fetch(&data->constructed, 1, __ATOMIC_RELAXED);
	return 0;
}

static void destruct(void *memory, void *private)
{
	struct data *data = private;

	CHECK_EQ(((struct object *)memory)->magic, MAGIC);
	__atomic_add_fetch(&data->destructed, 1, __ATOMIC_RELAXED);
}

static void reclaim(void *private)
{
	struct data *data = private;

	data->reclaimed++;
	while (data->count > 0)
		kmem_cache_free(data->cache, data->held[--data->count]);
}

static struct data *begin(size_t size, size_t align, int flags)
{
	struct data *data = calloc(1, sizeof(*data));

	data->size = size;
	data->cache = kmem_cache_create("scenario", size, align, construct, destruct, reclaim, data,
					NULL, flags);
	CHECK(data->cache != NULL);
	return data;
}

static void hold(struct data *data, int count)
{
	while (data->count < count) {
		struct object *object = kmem_cache_alloc(data->cache, KM_SLEEP);

		CHECK(object != NULL);
		CHECK_EQ(object->magic, MAGIC);
		object->mine = (uint32_t)data->count;
		data->held[data->count++] = object;
	}
}

static void end(struct data *data)
{
	while (data->count > 0) {
		struct object *object = data->held[--data->count];

		CHECK_EQ(object->mine, data->count);
		kmem_cache_free(data->cache, object);
	}
	CHECK_EQ(kmem_cache_stat(data->cache, "buf_inuse"), 0);
	kmem_cache_destroy(data->cache);
	CHECK_EQ(data->constructed, data->destructed);
	free(data);
}

/* 1 and 2: memory of all sizes, and zeros. 3 and 4: the same from an arena. */
static void memory(void)
{
	char *held[16];

	for (size_t size = 32; size <= 16 << 20; size *= 2) {
		for (int i = 0; i < 16; i++) {
			held[i] = i % 2 ? kmem_zalloc(size, KM_SLEEP) : kmem_alloc(size, KM_SLEEP);
			if (i % 2)
				CHECK(held[i][0] == 0 && held[i][size / 2] == 0 &&
				      held[i][size - 1] == 0);
			held[i][size - 1] = (char)i;
		}
		for (int i = 0; i < 16; i++) {
			CHECK_EQ(held[i][size - 1], i);
			kmem_free(held[i], size);
		}
	}
	for (size_t size = 4096; size <= 16 << 20; size *= 2) {
		for (int i = 0; i < 4; i++) {
			held[i] = vmem_alloc(heap_arena, size, VM_SLEEP);
			held[i][0] = held[i][size - 1] = 1;
		}
		for (int i = 0; i < 4; i++)
			vmem_free(heap_arena, held[i], size);
	}
}

/* 5, 6 and 7: small objects, large ones, and all alignments. */
static void slabs(void)
{
	static const size_t sizes[] = { 128, 9999, 128 << 10, 1 << 20, 16 << 20 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct data *data = begin(sizes[i], 0, 0);

		hold(data, sizes[i] > 1 << 17 ? 4 : 200);
		CHECK(data->constructed >= data->count);
		end(data);
	}
	for (size_t align = 8; align <= 4096; align *= 2) {
		struct data *data = begin(157, align, 0);

		hold(data, 256);
		for (int i = 0; i < 256; i++)
			CHECK_EQ((uintptr_t)data->held[i] % align, 0);
		end(data);
	}
}

/* 8: filled, freed, and reaped until no slab is left. */
static void reaped(void)
{
	struct data *data = begin(128, 0, 0);

	hold(data, 8192);
	while (data->count > 0)
		kmem_cache_free(data->cache, data->held[--data->count]);
	for (int i = 0; i < 60 && kmem_cache_stat(data->cache, "slab_create") != 0; i++)
		kmem_cache_reap_now(data->cache);
	CHECK_EQ(kmem_cache_stat(data->cache, "slab_create"), 0);
	CHECK_EQ(kmem_cache_stat(data->cache, "buf_total"), 0);
	end(data);
}

/* 9: the same, by time alone. */
static void aged(void)
{
	struct data *data = begin(128, 0, 0);

	hold(data, 8192);
	while (data->count > 0)
		kmem_cache_free(data->cache, data->held[--data->count]);
	for (int i = 0; i < 100 && kmem_cache_stat(data->cache, "slab_create") != 0; i++)
		usleep(100000);
	CHECK_EQ(kmem_cache_stat(data->cache, "slab_create"), 0);
	CHECK_EQ(data->reclaimed, 0);
	CHECK_EQ(data->constructed, data->destructed);
	end(data);
}

/* 10: many threads, each holding many objects at once. */
static int rounds = 20;

static void *worker(void *private)
{
	struct data *data = private;
	struct object *mine[256];

	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < 256; i++) {
			mine[i] = kmem_cache_alloc(data->cache, KM_SLEEP);
			CHECK_EQ(mine[i]->magic, MAGIC);
			mine[i]->mine = (uint32_t)(uintptr_t)&mine[i];
		}
		for (int i = 0; i < 256; i++) {
			CHECK_EQ(mine[i]->mine, (uint32_t)(uintptr_t)&mine[i]);
			kmem_cache_free(data->cache, mine[i]);
		}
		if (round % 8 == 0)
			kmem_cache_reap_soon(data->cache);
	}
	return NULL;
}

static void threads(void)
{
	static const size_t sizes[] = { 32, 1024, 32768 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct data *data = begin(sizes[i], 0, 0);
		pthread_t all[32];

		for (int t = 0; t < 32; t++)
			CHECK_EQ(pthread_create(&all[t], NULL, worker, data), 0);
		for (int t = 0; t < 32; t++)
			pthread_join(all[t], NULL);
		end(data);
	}
}

/* 11: more than there is, again and again: sleeping calls the callback, which gives back what is held. */
static void overcommitted(void)
{
	struct rlimit bound = { 1ul << 30, 1ul << 30 };
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct data *data = begin(1 << 20, 0, 0);

		CHECK_EQ(setrlimit(RLIMIT_AS, &bound), 0);
		for (int i = 0; i < 3000; i++) {
			/* First, because the callback may empty the list. */
			void *object = kmem_cache_alloc(data->cache, KM_SLEEP);

			CHECK(object != NULL);
			data->held[data->count++] = object;
		}
		CHECK(data->reclaimed >= 2);
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
}

/* 13: under pressure a cache shrinks to a quarter, and its memory goes back to the system. */
static long resident(void)
{
	long size, pages;
	FILE *file = fopen("/proc/self/statm", "r");

	CHECK(file != NULL && fscanf(file, "%ld %ld", &size, &pages) == 2);
	fclose(file);
	return pages;
}

static void reclaimed(int memory_too)
{
	struct data *data = begin(8192, 0, 0);
	uint64_t before;
	long pages;

	hold(data, 4096);
	for (int i = 0; i < data->count; i++)
		memset(((struct object *)data->held[i])->rest, 1, 8192 - sizeof(struct object));
	before = kmem_cache_stat(data->cache, "buf_total");
	pages = resident();
	kmem_reap();
	CHECK(data->reclaimed >= 1);
	CHECK(kmem_cache_stat(data->cache, "buf_total") <= before / 4);
	if (memory_too)
		CHECK(resident() <= pages / 2);
	end(data);
}

int main(void)
{
	int brief = getenv("UMA_TEST_SHORT") != NULL && *getenv("UMA_TEST_SHORT") != '\0';

	CHECK_EQ(uma_compat_set_policy("solaris.update", "1"), 0);
	if (brief)
		rounds = 2;
	memory();
	slabs();
	reaped();
	aged();
	threads();
	if (!brief)
		overcommitted();
	reclaimed(!brief);
	return 0;
}

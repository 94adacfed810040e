/*
 * What the tests of a port of this interface to Linux ask (splat, 1 to 13), told anew: memory of growing sizes; objects
 * of small and large caches, aligned, constructed and destructed as often; caches that are emptied by reaping, by
 * time, and by a callback; threads that allocate at once; more than there is, with a callback that gives some back;
 * what arenas say of their size.
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

/* 8: filled, freed, and reaped until no slab is left. What the upkeep has in hand is there a moment later. */
static void reaped(void)
{
	struct data *data = begin(128, 0, 0);

	hold(data, 8192);
	while (data->count > 0)
		kmem_cache_free(data->cache, data->held[--data->count]);
	for (int i = 0; i < 10000 && kmem_cache_stat(data->cache, "slab_create") != 0; i++) {
		kmem_cache_reap_now(data->cache);
		if (i >= 60)
			usleep(1000);
	}
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
	for (int i = 0; i < 1000 && kmem_cache_stat(data->cache, "slab_create") != 0; i++)
		usleep(100000);
	CHECK_EQ(kmem_cache_stat(data->cache, "slab_create"), 0);
	CHECK_EQ(data->reclaimed, 0);
	CHECK_EQ(data->constructed, data->destructed);
	end(data);
}

/* 10: 32 threads, each of which holds from 1 to 1024 objects at once, of 32 bytes to 1 MiB. */
enum { THREADS = 32 };

struct crew {
	struct data *data;
	int each, rounds;
};

static void *worker(void *private)
{
	struct crew *crew = private;
	struct object *mine[1024];

	for (int round = 0; round < crew->rounds; round++) {
		for (int i = 0; i < crew->each; i++) {
			mine[i] = kmem_cache_alloc(crew->data->cache, KM_SLEEP);
			CHECK_EQ(mine[i]->magic, MAGIC);
			mine[i]->mine = (uint32_t)(uintptr_t)&mine[i];
		}
		for (int i = 0; i < crew->each; i++) {
			CHECK_EQ(mine[i]->mine, (uint32_t)(uintptr_t)&mine[i]);
			kmem_cache_free(crew->data->cache, mine[i]);
		}
		if (round % 8 == 0)
			kmem_cache_reap_soon(crew->data->cache);
	}
	return NULL;
}

static void at_once(size_t size, int each, int rounds)
{
	struct crew crew = { begin(size, 0, 0), each, rounds };
	pthread_t all[THREADS];

	for (int t = 0; t < THREADS; t++)
		CHECK_EQ(pthread_create(&all[t], NULL, worker, &crew), 0);
	for (int t = 0; t < THREADS; t++)
		CHECK_EQ(pthread_join(all[t], NULL), 0);
	CHECK(crew.data->constructed >= each);
	CHECK(kmem_cache_stat(crew.data->cache, "alloc") == (uint64_t)THREADS * each * rounds);
	end(crew.data);
}

static void threads(int brief)
{
	/* What all hold together fits into a small machine. */
	for (size_t size = 32; size <= 1 << 20; size *= brief ? 32 : 2)
		for (int each = 1; each <= 1024; each *= brief ? 32 : 2)
			if (size * each * THREADS <= 128 << 20)
				at_once(size, each, 1);
	at_once(1024, 256, brief ? 2 : 20);
}

/*
 * 11: four times what there is, by threads that give nothing back themselves: sleeping calls the callback, which
 * takes it from them.
 */
enum { MEMORY = 1 << 30, PIECE = 256 << 10, EATERS = 4 };

static pthread_mutex_t eaten_lock = PTHREAD_MUTEX_INITIALIZER;
static void *eaten[4 * (MEMORY / PIECE)];
static int eaten_count, taken_back;
static kmem_cache_t *overcommit;

static void take_back(void *private)
{
	void *object;

	(void)private;
	for (;;) {
		pthread_mutex_lock(&eaten_lock);
		object = eaten_count > 0 ? eaten[--eaten_count] : NULL;
		taken_back += object != NULL;
		pthread_mutex_unlock(&eaten_lock);
		if (object == NULL)
			return;
		kmem_cache_free(overcommit, object);
	}
}

static pthread_barrier_t hungry;

static void *eat(void *unused)
{
	/* What the C library has for a thread that comes here, it has while there is memory. */
	kmem_free(kmem_alloc(8, KM_SLEEP), 8);
	pthread_barrier_wait(&hungry);
	for (int i = 0; i < 4 * (MEMORY / PIECE) / EATERS; i++) {
		void *object = kmem_cache_alloc(overcommit, KM_SLEEP);

		CHECK(object != NULL);
		pthread_mutex_lock(&eaten_lock);
		eaten[eaten_count++] = object;
		pthread_mutex_unlock(&eaten_lock);
	}
	return unused;
}

/* Runs `body` in a process that may have no more addresses than MEMORY. */
static void within_memory(void (*body)(void))
{
	struct rlimit bound = { MEMORY, MEMORY };
	int status;
	pid_t child = fork();

	if (child == 0) {
		CHECK_EQ(setrlimit(RLIMIT_AS, &bound), 0);
		body();
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
}

static void overcommitted(void)
{
	pthread_t all[EATERS];

	CHECK_EQ(pthread_barrier_init(&hungry, NULL, EATERS), 0);
	overcommit = kmem_cache_create("overcommit", PIECE, 0, NULL, NULL, take_back, NULL, NULL, 0);
	for (int t = 0; t < EATERS; t++)
		CHECK_EQ(pthread_create(&all[t], NULL, eat, NULL), 0);
	for (int t = 0; t < EATERS; t++)
		CHECK_EQ(pthread_join(all[t], NULL), 0);
	/* Three quarters cannot have been there at the end. */
	CHECK(taken_back >= 3 * (MEMORY / PIECE));
	CHECK_EQ(kmem_cache_stat(overcommit, "alloc"), 4 * (MEMORY / PIECE));
	take_back(NULL);
	CHECK_EQ(kmem_cache_stat(overcommit, "buf_inuse"), 0);
	kmem_cache_destroy(overcommit);
}

/* 12: what is allocated of an arena, what is free, and both. */
static void sizes_of_arenas(void)
{
	enum { ALL = 64 << 20, SOME = 8 << 20 };
	size_t before = vmem_size(heap_arena, VMEM_ALLOC);
	char *span = vmem_alloc(heap_arena, ALL, VM_SLEEP), *some;
	vmem_t *arena = vmem_create("sized", span, ALL, 4096, NULL, NULL, NULL, 0, VM_SLEEP);

	CHECK_EQ(vmem_size(heap_arena, VMEM_ALLOC), before + ALL);
	CHECK_EQ(vmem_size(arena, VMEM_ALLOC), 0);
	CHECK_EQ(vmem_size(arena, VMEM_FREE), ALL);
	some = vmem_alloc(arena, SOME, VM_SLEEP);
	CHECK(some >= span && some + SOME <= span + ALL);
	some[0] = some[SOME - 1] = 1;
	CHECK_EQ(vmem_size(arena, VMEM_ALLOC), SOME);
	CHECK_EQ(vmem_size(arena, VMEM_FREE), ALL - SOME);
	CHECK_EQ(vmem_size(arena, VMEM_ALLOC | VMEM_FREE), ALL);
	CHECK_EQ(vmem_size(heap_arena, VMEM_ALLOC), before + ALL);
	vmem_free(arena, some, SOME);
	CHECK_EQ(vmem_size(arena, VMEM_ALLOC), 0);
	CHECK_EQ(vmem_size(arena, VMEM_FREE), ALL);
	vmem_destroy(arena);
	vmem_free(heap_arena, span, ALL);
	CHECK_EQ(vmem_size(heap_arena, VMEM_ALLOC), before);
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

/* The same by want: others sleep for memory until three quarters of the cache have gone to them. */
static void pressed(void)
{
	struct data *data = begin(128 << 10, 0, 0);
	static void *pressure[MEMORY >> 20];
	int count = 0;
	uint64_t before;

	hold(data, (MEMORY / 4) / (128 << 10));
	CHECK_EQ(data->reclaimed, 0);
	before = kmem_cache_stat(data->cache, "buf_total");
	while (kmem_cache_stat(data->cache, "buf_total") > before / 4) {
		CHECK(count < MEMORY >> 20);
		CHECK((pressure[count++] = kmem_alloc(1 << 20, KM_SLEEP)) != NULL);
	}
	/* Nobody asked for a reap before there was need. */
	CHECK(count > (MEMORY >> 20) / 4);
	CHECK(data->reclaimed >= 1);
	while (count > 0)
		kmem_free(pressure[--count], 1 << 20);
	end(data);
}

/* Who sleeps for memory gets what another thread frees into another cache: it is reaped again and again. */
static kmem_cache_t *rich;
static void *riches[64];

static void *free_elsewhere(void *unused)
{
	/* When somebody waits, which is said. */
	while (!__atomic_load_n(&check_count, __ATOMIC_ACQUIRE))
		usleep(10000);
	for (int i = 0; i < 64; i++)
		kmem_cache_free(rich, riches[i]);
	return unused;
}

static void elsewhere(void)
{
	kmem_cache_t *poor;
	pthread_t thread;
	int count = 0;

	/* Nobody else looks after caches. */
	CHECK_EQ(uma_compat_set_policy("solaris.update", "off"), 0);
	uma_compat_set_reporter(check_reporter);
	rich = kmem_cache_create("rich", 128 << 10, 0, NULL, NULL, NULL, NULL, NULL, 0);
	poor = kmem_cache_create("poor", 128 << 10, 0, NULL, NULL, NULL, NULL, NULL, 0);
	for (int i = 0; i < 64; i++)
		CHECK((riches[i] = kmem_cache_alloc(rich, KM_SLEEP)) != NULL);
	CHECK_EQ(pthread_create(&thread, NULL, free_elsewhere, NULL), 0);
	while (kmem_cache_alloc(poor, KM_NOSLEEP) != NULL)
		CHECK(++count <= MEMORY / (128 << 10));
	do {
		CHECK(kmem_cache_alloc(poor, KM_SLEEP) != NULL);
		CHECK(++count <= MEMORY / (128 << 10));
	} while (check_count == 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_REPORTS(1, "KM_SLEEP: cache \"poor\"");
	CHECK_EQ(kmem_cache_stat(rich, "buf_inuse"), 0);
}

int main(void)
{
	int brief = getenv("UMA_TEST_SHORT") != NULL && *getenv("UMA_TEST_SHORT") != '\0';

	CHECK_EQ(uma_compat_set_policy("solaris.update", "1"), 0);
	if (!brief) {
		/* First, while the process has few addresses of its own. */
		within_memory(overcommitted);
		within_memory(pressed);
		within_memory(elsewhere);
	}
	memory();
	slabs();
	reaped();
	aged();
	threads(brief);
	sizes_of_arenas();
	reclaimed(!brief);
	return 0;
}

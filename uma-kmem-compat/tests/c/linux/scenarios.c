/*
 * What Linux' own tests of its allocator try, in our terms: something is done wrong on purpose, it is found as
 * often as it was done and no oftener, and then all is well again.
 */
#include "../check.h"

#include <pthread.h>

#include <uma/compat.h>
#include <uma/linux/slab.h>

/* Writing a free pointer over would break the free list: there is none in the objects. */
static void free_objects_hold_no_pointers(void)
{
	struct kmem_cache *cache = kmem_cache_create("next pointer", 64, 0, 0, NULL);
	void *objects[50], *again[50];

	CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 50, objects), 50);
	kmem_cache_free_bulk(cache, 50, objects);
	/* The memory is still there, since nothing was drained; a late writer ruins every word of it. */
	for (int i = 0; i < 50; i++)
		memset(objects[i], 0xee, 64);
	CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 50, again), 50);
	for (int i = 0; i < 50; i++) {
		memset(again[i], i, 64);
		for (int j = 0; j < i; j++)
			CHECK(again[i] != again[j]);
	}
	for (int i = 0; i < 50; i++)
		CHECK_EQ(*(char *)again[i], i);
	kmem_cache_free_bulk(cache, 50, again);
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
}

/* Freed three times: two reports; after that the cache is as good as new. */
static void errors_are_counted(void)
{
	struct kmem_cache *cache =
		kmem_cache_create("counted", 64, 0, SLAB_CONSISTENCY_CHECKS, NULL);
	void *object = kmem_cache_alloc(cache, GFP_KERNEL), *other = kmem_cache_alloc(cache, GFP_KERNEL);

	kmem_cache_free(cache, object);
	kmem_cache_free(cache, object);
	kmem_cache_free(cache, object);
	CHECK_REPORTS(2, "double free");
	object = kmem_cache_alloc(cache, GFP_KERNEL);
	CHECK(object != other);
	kmem_cache_free(cache, object);
	kmem_cache_free(cache, other);
	CHECK_REPORTS(0, "");
	CHECK_EQ(kmem_cache_shrink(cache), 0);
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
}

/* Destroyed with an object in use: one report, with its address. */
static void leak_at_destroy(void)
{
	struct kmem_cache *cache = kmem_cache_create("leaky", 64, 0, SLAB_NO_MERGE, NULL);
	void *object = kmem_cache_alloc(cache, GFP_KERNEL);
	char address[32];

	kmem_cache_destroy(cache);
	snprintf(address, sizeof(address), "%#jx", (intmax_t)(intptr_t)object);
	CHECK_REPORTS(1, address);
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
}

/* An object that another thread frees later, as after a grace period; then the cache is destroyed. */
static struct kmem_cache *later;

static void *free_it(void *object)
{
	kmem_cache_free(later, object);
	return NULL;
}

static void freed_by_a_thread_that_is_gone(void)
{
	for (int i = 0; i < 20; i++) {
		pthread_t thread;
		void *object;

		later = kmem_cache_create("later", 64, 0, 0, NULL);
		object = kmem_cache_alloc(later, GFP_KERNEL);
		CHECK_EQ(pthread_create(&thread, NULL, free_it, object), 0);
		CHECK_EQ(pthread_join(thread, NULL), 0);
		kmem_cache_destroy(later);
		CHECK_REPORTS(0, "");
	}
}

/* The same while that thread lives on, with whatever it has cached. */
static int freed, ended;

static void *free_it_and_stay(void *object)
{
	kmem_cache_free(later, object);
	__atomic_store_n(&freed, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&ended, __ATOMIC_ACQUIRE))
		usleep(1000);
	return NULL;
}

static void freed_by_a_thread_that_lives(void)
{
	pthread_t thread;

	later = kmem_cache_create("later", 64, 0, 0, NULL);
	CHECK_EQ(pthread_create(&thread, NULL, free_it_and_stay, kmem_cache_alloc(later, GFP_KERNEL)), 0);
	while (!__atomic_load_n(&freed, __ATOMIC_ACQUIRE))
		usleep(1000);
	kmem_cache_destroy(later);
	CHECK_REPORTS(0, "");
	__atomic_store_n(&ended, 1, __ATOMIC_RELEASE);
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* Zeros behind memory that shrank and grew again, as far as its class goes and beyond. */
static void zeros_behind_memory(void)
{
	unsigned char *memory = kzalloc(48, GFP_KERNEL);

	memset(memory, 0xff, 48);
	memory = krealloc(memory, 40, GFP_KERNEL | __GFP_ZERO);
	memory = krealloc(memory, 56, GFP_KERNEL | __GFP_ZERO);
	for (int i = 0; i < 40; i++)
		CHECK_EQ(memory[i], 0xff);
	for (int i = 40; i < 56; i++)
		CHECK_EQ(memory[i], 0);
	memory = krealloc(memory, 112, GFP_KERNEL | __GFP_ZERO);
	for (int i = 40; i < 112; i++)
		CHECK_EQ(memory[i], 0);
	kfree(memory);
}

/* A free in the middle of an object, and of one of another cache, is refused; the right one is not. */
static void frees_in_the_wrong_place(void)
{
	struct kmem_cache *cache = kmem_cache_create("one", 32, 0, SLAB_RED_ZONE, NULL);
	struct kmem_cache *other = kmem_cache_create("two", 32, 0, SLAB_RED_ZONE, NULL);
	char *object = kmem_cache_alloc(cache, GFP_KERNEL);

	kmem_cache_free(cache, object + 8);
	kmem_cache_free(cache, object + 1);
	kmem_cache_free(other, object);
	CHECK_REPORTS(3, "which is an item of zone \"one\"");
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
	kmem_cache_destroy(other);
	CHECK_REPORTS(0, "");
}

/* A byte behind the object is found when it is freed, once, and the object can be used again. */
static void clobbered_red_zone(void)
{
	struct kmem_cache *cache = kmem_cache_create("red zone", 64, 0, SLAB_RED_ZONE, NULL);
	volatile char *object = kmem_cache_alloc(cache, GFP_KERNEL);

	object[64] = 0x12;
	kmem_cache_free(cache, (void *)object);
	CHECK_REPORTS(1, "overflow of the item");
	object = kmem_cache_alloc(cache, GFP_KERNEL);
	memset((void *)object, 1, 64);
	kmem_cache_free(cache, (void *)object);
	CHECK_REPORTS(0, "");
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
}

/* The same where the object does not fill its place: each byte behind what was asked for counts. */
static void clobbered_behind_an_odd_size(void)
{
	struct kmem_cache *cache = kmem_cache_create("odd size", 18, 0, SLAB_RED_ZONE, NULL);

	for (int at = 18; at <= 20; at++) {
		volatile char *object = kmem_cache_alloc(cache, GFP_KERNEL);

		for (int i = 0; i < 18; i++)
			object[i] = (char)i;
		object[at] = 0x12;
		kmem_cache_free(cache, (void *)object);
		CHECK_REPORTS(1, "overflow of the item");
	}
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
}

/* A write behind an object that is free is found as well, by when it has been used once more. */
static void clobbered_red_zone_while_free(void)
{
	struct kmem_cache *cache =
		kmem_cache_create("free red zone", 64, 0, SLAB_RED_ZONE | SLAB_POISON, NULL);
	volatile char *object = kmem_cache_alloc(cache, GFP_KERNEL);
	void *all[200];
	int count = 0;

	kmem_cache_free(cache, (void *)object);
	object[64] = 0x12;
	do
		all[count] = kmem_cache_alloc(cache, GFP_KERNEL);
	while (all[count++] != object && count < 200);
	CHECK(count < 200);
	for (int i = 0; i < count; i++)
		kmem_cache_free(cache, all[i]);
	CHECK_REPORTS(1, "overflow of the item");
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
}

/* A free object that was written to is found when it is allocated: its first byte, its 50th, its last. */
static void clobbered_while_free(void)
{
	static const int at[] = { 0, 50, 63 };

	for (int i = 0; i < 3; i++) {
		struct kmem_cache *cache = kmem_cache_create("poison", 64, 0, SLAB_POISON, NULL);
		volatile char *object = kmem_cache_alloc(cache, GFP_KERNEL);
		void *all[200];
		int count = 0;

		kmem_cache_free(cache, (void *)object);
		object[at[i]] = 0x78;
		do
			all[count] = kmem_cache_alloc(cache, GFP_KERNEL);
		while (all[count++] != object && count < 200);
		CHECK_REPORTS(1, "memory modified after free");
		for (int j = 0; j < count; j++)
			kmem_cache_free(cache, all[j]);
		kmem_cache_destroy(cache);
		CHECK_REPORTS(0, "");
	}
}

int main(void)
{
	uma_compat_set_reporter(check_reporter);
	free_objects_hold_no_pointers();
	errors_are_counted();
	clobbered_red_zone();
	clobbered_behind_an_odd_size();
	clobbered_red_zone_while_free();
	clobbered_while_free();
	leak_at_destroy();
	freed_by_a_thread_that_is_gone();
	freed_by_a_thread_that_lives();
	zeros_behind_memory();
	frees_in_the_wrong_place();
	return 0;
}

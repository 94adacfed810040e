/* Misuse of caches: reported in Linux's way, which is to go on, or by policy the end of the process. */
#include "../check.h"

#include <uma/compat.h>
#include <uma/linux/slab.h>

static void bad_descriptions(void)
{
	static char long_name[1000];
	struct kmem_cache_args args = { .use_freeptr_offset = true, .freeptr_offset = 8 };
	struct kmem_cache *cache;
	void *object;

	CHECK(kmem_cache_create(NULL, 64, 0, 0, NULL) == NULL);
	CHECK_REPORTS(2, "no cache \"\": it has no name");
	CHECK(kmem_cache_create("none", 0, 0, 0, NULL) == NULL);
	CHECK_REPORTS(1, "no cache \"none\"");
	CHECK(kmem_cache_create("odd", 64, 24, 0, NULL) == NULL);
	CHECK_REPORTS(1, "the alignment is not a power of two");
	CHECK(kmem_cache_create("odd", 64, 3, 0, NULL) == NULL);
	CHECK_REPORTS(1, "the alignment is not a power of two");
	CHECK(kmem_cache_create("huge", 0xffffffff, 0, 0, NULL) == NULL);
	CHECK_REPORTS(1, "no cache \"huge\"");
	CHECK(kmem_cache_create("wide", 64, 0x80000000, 0, NULL) == NULL);
	CHECK_REPORTS(1, "no cache \"wide\"");
	CHECK(kmem_cache_create("both", 0xffffffff, 0x80000000, SLAB_TYPESAFE_BY_RCU, NULL) == NULL);
	CHECK_REPORTS(1, "no cache \"both\"");

	/* A part for users that is not inside is none, and the cache is made. */
	cache = kmem_cache_create_usercopy("user", 64, 0, 0, 60, 8, NULL);
	CHECK(cache != NULL);
	CHECK_REPORTS(1, "no part of 8 bytes at 60");
	kmem_cache_destroy(cache);
	cache = kmem_cache_create_usercopy("user", 64, 0, 0, 0xffffffff, 0xffffffff, NULL);
	CHECK(cache != NULL);
	CHECK_REPORTS(1, "none may be copied");
	kmem_cache_destroy(cache);
	cache = kmem_cache_create_usercopy("user", 64, 0, 0, 8, 0, NULL);
	CHECK(cache != NULL);
	CHECK_REPORTS(1, "none may be copied");
	kmem_cache_destroy(cache);

	/* A free pointer is for caches whose memory stays what it is, and lies inside. */
	CHECK(kmem_cache_create("pointer", 64, &args, 0) == NULL);
	CHECK_REPORTS(1, "no free pointer can lie at offset 8");
	cache = kmem_cache_create("pointer", 64, &args, SLAB_TYPESAFE_BY_RCU);
	CHECK(cache != NULL);
	kmem_cache_destroy(cache);
	args.freeptr_offset = 57;
	CHECK(kmem_cache_create("pointer", 64, &args, SLAB_TYPESAFE_BY_RCU) == NULL);
	CHECK_REPORTS(1, "offset 57");

	/* Any name will do. */
	memset(long_name, 'n', sizeof(long_name) - 1);
	cache = kmem_cache_create(long_name, 64, 0, 0, NULL);
	CHECK(cache != NULL);
	CHECK(strncmp(kmem_cache_name(cache), long_name, 200) == 0);
	kmem_cache_destroy(cache);
	cache = kmem_cache_create("", 64, 0, 0, NULL);
	CHECK(cache != NULL);
	kmem_cache_destroy(cache);
	cache = kmem_cache_create("\xff\xfe caf\xc3\xa9 %s%n \n", 64, 0, 0, NULL);
	CHECK(cache != NULL);
	object = kmem_cache_alloc(cache, GFP_KERNEL);
	kmem_cache_destroy(cache);
	CHECK_REPORTS(1, "caf\xc3\xa9 %s%n");
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);

	/* Sheaves of any capacity. */
	args = (struct kmem_cache_args){ .sheaf_capacity = 0xffffffff };
	cache = kmem_cache_create("sheaves", 64, &args, 0);
	CHECK(cache != NULL);
	object = kmem_cache_alloc(cache, GFP_KERNEL);
	CHECK(object != NULL);
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
	CHECK_ABORTS("SLAB_PANIC: no cache \"panic\"", uma_compat_set_reporter(NULL);
		     kmem_cache_create("panic", 0, 0, SLAB_PANIC, NULL));
}

static void bad_handles(void)
{
	struct kmem_cache *cache = kmem_cache_create("gone", 64, 0, 0, NULL);
	struct kmem_cache *misaligned = (struct kmem_cache *)((uintptr_t)cache + 1);
	char object[64] __attribute__((aligned(64)));
	static long zeros[64];
	void *objects[1] = { object };

	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
	kmem_cache_destroy(cache);
	CHECK_REPORTS(1, "kmem_cache_destroy: bad cache: it was destroyed before");
	CHECK(kmem_cache_alloc(cache, GFP_KERNEL) == NULL);
	CHECK_REPORTS(1, "kmem_cache_alloc: bad cache: it was destroyed before");
	kmem_cache_free(cache, object);
	CHECK_REPORTS(1, "kmem_cache_free: bad cache: it was destroyed before");
	CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 1, objects), 0);
	CHECK_REPORTS(1, "destroyed before");
	kmem_cache_free_bulk(cache, 1, objects);
	CHECK_REPORTS(1, "destroyed before");
	CHECK_EQ(kmem_cache_size(cache), 0);
	CHECK_REPORTS(1, "destroyed before");
	CHECK(kmem_cache_name(cache) == NULL);
	CHECK_REPORTS(1, "destroyed before");
	CHECK_EQ(kmem_cache_shrink(cache), 0);
	CHECK_REPORTS(1, "destroyed before");

	CHECK(kmem_cache_alloc(NULL, GFP_KERNEL) == NULL);
	CHECK_REPORTS(1, "the pointer is null");
	kmem_cache_free(NULL, object);
	CHECK_REPORTS(1, "the pointer is null");
	CHECK(kmem_cache_alloc(misaligned, GFP_KERNEL) == NULL);
	CHECK_REPORTS(1, "misaligned");
	kmem_cache_destroy(misaligned);
	CHECK_REPORTS(1, "misaligned");
	CHECK(kmem_cache_zalloc((struct kmem_cache *)zeros, GFP_KERNEL) == NULL);
	CHECK_REPORTS(1, "");
	CHECK_ABORTS("bad cache", uma_compat_set_reporter(NULL);
		     uma_compat_set_policy("linux.misuse", "abort");
		     kmem_cache_alloc(cache, GFP_KERNEL));
}

static void bad_objects(void)
{
	struct kmem_cache *cache = kmem_cache_create("objects", 64, 64, 0, NULL);
	char *object = kmem_cache_alloc(cache, GFP_KERNEL);
	void *objects[3] = { object, object + 1, NULL };

	kmem_cache_free(cache, NULL);
	CHECK_REPORTS(1, "cache \"objects\": the object is null");
	kmem_cache_free(cache, object + 8);
	CHECK_REPORTS(1, "is not aligned to 64 bytes");
	CHECK_EQ(uma_linux_kmem_cache_active(cache), 1);
	kmem_cache_free_bulk(cache, 3, objects);
	CHECK_REPORTS(2, "the object is null");
	CHECK_EQ(uma_linux_kmem_cache_active(cache), 0);
	CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 1, NULL), 0);
	CHECK_REPORTS(1, "the array is null");
	kmem_cache_free_bulk(cache, 1, NULL);
	CHECK_REPORTS(1, "the array is null");
	CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 1, (void *)((char *)objects + 1)), 0);
	CHECK_REPORTS(1, "the array is misaligned");
	kmem_cache_free_bulk(cache, 1, (void *)((char *)objects + 1));
	CHECK_REPORTS(1, "the array is misaligned");
	CHECK(kmem_cache_create("odd", 64, (struct kmem_cache_args *)(void *)((char *)objects + 1), 0) == NULL);
	CHECK_REPORTS(1, "the arguments are misaligned");
	CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, (size_t)-1, objects), 0);
	CHECK_REPORTS(1, "more than can be told");
	kmem_cache_free_bulk(cache, SIZE_MAX, objects);
	CHECK_REPORTS(1, "cache \"objects\": no array holds 18446744073709551615 pointers");
	kmem_cache_free_bulk(cache, SIZE_MAX / 8, objects);
	CHECK_REPORTS(1, "no array holds");
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
}

/* A cache with debug flags finds a free of what is no object in use out at once, and goes on. */
static void checked_frees(void)
{
	static const slab_flags_t flags[] = { SLAB_CONSISTENCY_CHECKS, SLAB_RED_ZONE, SLAB_POISON,
					      SLAB_STORE_USER };

	for (int i = 0; i < 4; i++) {
		struct kmem_cache *cache = kmem_cache_create("checked", 64, 8, flags[i], NULL);
		struct kmem_cache *other = kmem_cache_create("other", 64, 8, flags[i], NULL);
		char *one = kmem_cache_alloc(cache, GFP_KERNEL);
		char *two = kmem_cache_alloc(cache, GFP_KERNEL);
		char *foreign = kmem_cache_alloc(other, GFP_KERNEL);
		void *both[2] = { one, two };

		kmem_cache_free(cache, one + 8);
		CHECK_REPORTS(1, "8 bytes into the item");
		kmem_cache_free(cache, foreign);
		CHECK_REPORTS(1, "which is an item of zone \"other\"");
		kmem_cache_free(cache, two);
		CHECK_REPORTS(0, "");
		kmem_cache_free(cache, two);
		CHECK_REPORTS(1, "zone \"checked\" of 64-byte items: double free");
		kmem_cache_free_bulk(cache, 2, both);
		CHECK_REPORTS(1, "double free");
		kmem_cache_free(other, foreign);
		kmem_cache_destroy(cache);
		kmem_cache_destroy(other);
		CHECK_REPORTS(0, "");
	}
}

/* What an ordinary cache does not look at is found when it gets back to its slab, which ends the process. */
static void found_late(void)
{
	struct kmem_cache *cache = kmem_cache_create("late", 64, 8, 0, NULL);
	struct kmem_cache *other = kmem_cache_create("other", 64, 8, 0, NULL);
	char *object = kmem_cache_alloc(cache, GFP_KERNEL);
	char *foreign = kmem_cache_alloc(other, GFP_KERNEL);
	static char mine[64] __attribute__((aligned(64)));
	void *twice[2] = { object, object };

	uma_compat_set_reporter(NULL);
	CHECK_ABORTS("double free of the item", kmem_cache_free(cache, object);
		     kmem_cache_free(cache, object); kmem_cache_shrink(cache));
	CHECK_ABORTS("linux: kmem_cache_destroy: a panic", kmem_cache_free_bulk(cache, 2, twice);
		     kmem_cache_destroy(cache));
	CHECK_ABORTS("which is no item", kmem_cache_free(cache, foreign); kmem_cache_shrink(cache));
	CHECK_ABORTS("which is no item", kmem_cache_free(cache, mine); kmem_cache_shrink(cache));
	CHECK_ABORTS("is not the start of an item", kmem_cache_free(cache, object + 8);
		     kmem_cache_shrink(cache));
	uma_compat_set_reporter(check_reporter);
	kmem_cache_free(cache, object);
	kmem_cache_free(other, foreign);
	kmem_cache_destroy(cache);
	kmem_cache_destroy(other);
	CHECK_REPORTS(0, "");
}

/* By policy all caches check, but those that will not have it. */
static void checked_by_policy(void)
{
	struct kmem_cache *cache;
	void *object;

	CHECK_EQ(uma_compat_set_policy("linux.slab_debug", "on"), 0);
	cache = kmem_cache_create("by policy", 64, 0, 0, NULL);
	object = kmem_cache_alloc(cache, GFP_KERNEL);
	kmem_cache_free(cache, object);
	kmem_cache_free(cache, object);
	CHECK_REPORTS(1, "zone \"by policy\" of 64-byte items: double free");
	kmem_cache_destroy(cache);
	CHECK_EQ(uma_compat_set_policy("linux.slab_debug", "off"), 0);
	CHECK_REPORTS(0, "");
}

/* Objects in use keep a cache alive, which goes on to work. */
static void objects_that_remain(void)
{
	struct kmem_cache *cache = kmem_cache_create("remain", 64, 0, 0, NULL);
	void *objects[3];

	CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 3, objects), 3);
	kmem_cache_destroy(cache);
	CHECK_REPORTS(1, "kmem_cache_destroy: cache \"remain\" still has 3 objects in use");
	memset(objects[0], 1, 64);
	kmem_cache_free_bulk(cache, 3, objects);
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
}

int main(void)
{
	uma_compat_set_reporter(check_reporter);
	bad_descriptions();
	bad_handles();
	bad_objects();
	checked_frees();
	found_late();
	checked_by_policy();
	objects_that_remain();
	return 0;
}

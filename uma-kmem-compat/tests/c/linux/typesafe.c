/* SLAB_TYPESAFE_BY_RCU: freed objects can be looked at until a grace period has passed. */
#include "../check.h"

#include <uma/compat.h>
#include <uma/linux/slab.h>

enum { OBJECTS = 3000, MAGIC = 0x7e57 };

struct object {
	uint32_t magic;
	uint32_t generation;
	char rest[992];
};

static int constructed, periods;
static struct object *objects[OBJECTS];
static int dead;

static void construct(void *memory)
{
	struct object *object = memory;

	object->magic = MAGIC;
	object->generation = 0;
	constructed++;
}

static void grace_period(void)
{
	/* Readers may look at freed objects until we return. */
	for (int i = 0; !dead && i < OBJECTS; i++)
		CHECK_EQ(objects[i]->magic, MAGIC);
	periods++;
}

static void fill(struct kmem_cache *cache)
{
	CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, OBJECTS, (void **)objects), OBJECTS);
	for (int i = 0; i < OBJECTS; i++)
		CHECK_EQ(objects[i]->magic, MAGIC);
}

int main(void)
{
	struct kmem_cache *cache = kmem_cache_create("typesafe", sizeof(struct object), 0,
						     SLAB_TYPESAFE_BY_RCU, construct);
	int before;

	uma_compat_set_reporter(check_reporter);
	fill(cache);
	for (int i = 0; i < OBJECTS; i++) {
		objects[i]->generation = 7;
		kmem_cache_free(cache, objects[i]);
	}

	/* Nobody has said what a grace period is: the memory stays, and what is in it. */
	kmem_cache_shrink(cache);
	for (int i = 0; i < OBJECTS; i++) {
		CHECK_EQ(objects[i]->magic, MAGIC);
		CHECK_EQ(objects[i]->generation, 7);
	}
	/* It is used again, and not constructed again: somebody may hold a lock in there. */
	before = constructed;
	fill(cache);
	CHECK_EQ(constructed, before);
	for (int i = 0; i < OBJECTS; i++)
		CHECK_EQ(objects[i]->generation, 7);
	for (int i = 0; i < OBJECTS; i++)
		kmem_cache_free(cache, objects[i]);

	/* Now there is one: it passes before pages go. */
	uma_linux_set_grace_period(grace_period);
	CHECK_EQ(periods, 0);
	/* A few batches of pages: after the first, objects[] leads to memory that is gone. */
	for (int i = 0; i < OBJECTS; i++)
		CHECK_EQ(objects[i]->magic, MAGIC);
	dead = 1;
	CHECK_EQ(kmem_cache_shrink(cache), 0);
	CHECK(periods > 0);

	/* And fresh memory is constructed. */
	before = constructed;
	fill(cache);
	CHECK(constructed > before);
	for (int i = 0; i < OBJECTS; i++) {
		CHECK_EQ(objects[i]->generation, 0);
		kmem_cache_free(cache, objects[i]);
	}
	dead = 0;
	before = periods;
	kmem_cache_destroy(cache);
	CHECK(periods > before);
	CHECK_REPORTS(0, "");
	return 0;
}

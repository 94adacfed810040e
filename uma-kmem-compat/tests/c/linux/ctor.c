/* Constructors: an object stays constructed while it is free, and is constructed once in between. */
#include "../check.h"

#include <setjmp.h>

#include <uma/compat.h>
#include <uma/linux/slab.h>

struct object {
	uint32_t magic;
	uint32_t lock;
	char rest[120];
};

static int constructed;

static void construct(void *memory)
{
	struct object *object = memory;

	object->magic = 0x600d;
	object->lock = 0;
	constructed++;
}

static void kept_constructed(void)
{
	struct kmem_cache *cache =
		kmem_cache_create("constructed", sizeof(struct object), 0, 0, construct);
	struct object *objects[100];
	int before;

	for (int round = 0; round < 50; round++) {
		before = constructed;
		CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL, 100, (void **)objects), 100);
		for (int i = 0; i < 100; i++) {
			CHECK_EQ(objects[i]->magic, 0x600d);
			CHECK_EQ(objects[i]->lock, 0);
			memset(objects[i]->rest, round, sizeof(objects[i]->rest));
		}
		for (int i = 0; i < 100; i++)
			kmem_cache_free(cache, objects[i]);
		/* Once the caches are warm, nothing is constructed any more. */
		if (round > 2)
			CHECK_EQ(constructed, before);
	}
	/* What left the cache comes back constructed again. */
	CHECK_EQ(kmem_cache_shrink(cache), 0);
	before = constructed;
	objects[0] = kmem_cache_alloc(cache, GFP_KERNEL);
	CHECK(constructed > before);
	CHECK_EQ(objects[0]->magic, 0x600d);
	kmem_cache_free(cache, objects[0]);
	kmem_cache_destroy(cache);
}

/* Zeros would undo the constructor's work: Linux warns and leaves the object as it is, and so do we. */
static void no_zeros(void)
{
	struct kmem_cache_args args = { .ctor = construct };
	struct kmem_cache *cache =
		kmem_cache_create("no zeros", sizeof(struct object), &args, 0);
	struct object *object;
	void *objects[3];

	object = kmem_cache_zalloc(cache, GFP_KERNEL);
	CHECK_REPORTS(1, "__GFP_ZERO has no effect on cache \"no zeros\"");
	CHECK_EQ(object->magic, 0x600d);
	kmem_cache_free(cache, object);
	/* Once is enough. */
	CHECK_EQ(kmem_cache_alloc_bulk(cache, GFP_KERNEL | __GFP_ZERO, 3, objects), 3);
	object = objects[2];
	CHECK_EQ(object->magic, 0x600d);
	kmem_cache_free_bulk(cache, 3, objects);
	CHECK_REPORTS(0, "");
	kmem_cache_destroy(cache);
}

/* A constructor may use caches, this one included. */
static struct kmem_cache *inner, *outer;

static void construct_by_allocating(void *memory)
{
	static int depth;
	void *other = kmem_cache_alloc(inner, GFP_KERNEL);

	*(void **)memory = other;
	if (depth++ == 0)
		kmem_cache_free(outer, kmem_cache_alloc(outer, GFP_KERNEL));
}

static void constructors_may_allocate(void)
{
	void **object;

	inner = kmem_cache_create("inner", 24, 0, 0, NULL);
	outer = kmem_cache_create("outer", 24, 0, 0, construct_by_allocating);
	object = kmem_cache_alloc(outer, GFP_KERNEL);
	CHECK(*object != NULL);
	kmem_cache_free(outer, object);
	kmem_cache_destroy(outer);
	/* There is no destructor, so what constructors allocated is left. */
	kmem_cache_destroy(inner);
	CHECK_REPORTS(1, "still has");
}

/* A constructor that jumps away leaks the objects of its batch, and nothing else. */
static jmp_buf away;
static int jumps;

static void construct_or_jump(void *memory)
{
	memset(memory, 1, 64);
	if (jumps-- > 0)
		longjmp(away, 1);
}

static void constructors_that_jump(void)
{
	struct kmem_cache *cache = kmem_cache_create("jump", 64, 0, 0, construct_or_jump);
	void *object = NULL;
	volatile int jumped = 0;

	jumps = 3;
	while (setjmp(away) != 0)
		jumped = jumped + 1;
	object = kmem_cache_alloc(cache, GFP_KERNEL);
	CHECK_EQ(jumped, 3);
	CHECK(object != NULL);
	CHECK_EQ(*(char *)object, 1);
	kmem_cache_free(cache, object);
	CHECK_EQ(uma_linux_kmem_cache_active(cache), 0);
	kmem_cache_shrink(cache);
}

int main(void)
{
	uma_compat_set_reporter(check_reporter);
	/* Another CPU's cache would have objects constructed. */
	check_stay();
	kept_constructed();
	no_zeros();
	constructors_may_allocate();
	constructors_that_jump();
	return 0;
}

/* Objects that move: sparse slabs become free, and every answer does what it says. */
#include "../check.h"

#include <uma/compat.h>
#include <uma/solaris/kmem.h>
#include <uma/solaris/sys/vmem.h>

#define COUNT 2000
#define SIZE 256
/* What an object is filled with: never zero, as memory is that was given back. */
#define PATTERN(i) ((char)(((i) & 0x3f) + 1))

struct object {
	struct object **owner; /* Null while nobody uses it. */
	char rest[SIZE - sizeof(struct object **)];
};

static struct object *objects[COUNT];
static int constructed, destructed, moved, asked;
static kmem_cbrc_t answer;
static kmem_cache_t *cache;
static struct object *refused;
/* Slabs when the first object was offered. */
static uint64_t slabs_offered;

static uint64_t stat_of(const char *field)
{
	return kmem_cache_stat(cache, field);
}

static int construct(void *memory, void *private, int flag)
{
	struct object *object = memory;

	(void)private, (void)flag;
	object->owner = NULL;
	constructed++;
	return 0;
}

static void destruct(void *memory, void *private)
{
	(void)private;
	CHECK(((struct object *)memory)->owner == NULL);
	destructed++;
}

static kmem_cbrc_t move(void *old, void *new, size_t size, void *private)
{
	struct object *from = old, *to = new;

	CHECK_EQ(size, SIZE);
	CHECK(private == &moved);
	/* The new one is constructed, and is another. */
	CHECK(to->owner == NULL && to != from);
	if (asked++ == 0)
		slabs_offered = stat_of("slab_create");
	if (from->owner == NULL)
		return KMEM_CBRC_DONT_KNOW;
	CHECK(*from->owner == from);
	switch (answer) {
	case KMEM_CBRC_YES:
		memcpy(to->rest, from->rest, sizeof(to->rest));
		to->owner = from->owner;
		*to->owner = to;
		from->owner = NULL;
		moved++;
		break;
	case KMEM_CBRC_DONT_NEED:
		*from->owner = NULL;
		from->owner = NULL;
		break;
	default:
		refused = from;
		break;
	}
	return answer;
}

static void take(int i)
{
	objects[i] = kmem_cache_alloc(cache, KM_SLEEP);
	objects[i]->owner = &objects[i];
	memset(objects[i]->rest, PATTERN(i), sizeof(objects[i]->rest));
}

static void put(int i)
{
	objects[i]->owner = NULL;
	kmem_cache_free(cache, objects[i]);
	objects[i] = NULL;
}

static void create(int flags)
{
	constructed = destructed = moved = asked = 0;
	slabs_offered = 0;
	cache = kmem_cache_create("moving", SIZE, 0, construct, destruct, NULL, &moved, NULL, flags);
	kmem_cache_set_move(cache, move);
	for (int i = 0; i < COUNT; i++)
		take(i);
}

/* One object in eight is left, all over the slabs. */
static void begin(int flags)
{
	create(flags);
	for (int i = 0; i < COUNT; i++)
		if (i % 8 != 0)
			put(i);
}

static void settle(void)
{
	for (int i = 0; i < 50000 && kmem_cache_reap_active(); i++)
		usleep(1000);
	CHECK_EQ(kmem_cache_reap_active(), 0);
}

static void reap(void)
{
	kmem_cache_reap_now(cache);
	settle();
}

static void end(void)
{
	for (int i = 0; i < COUNT; i++)
		if (objects[i] != NULL) {
			CHECK(objects[i]->owner == &objects[i]);
			for (size_t byte = 0; byte < sizeof(objects[i]->rest); byte++)
				CHECK_EQ(objects[i]->rest[byte], PATTERN(i));
			put(i);
		}
	CHECK_EQ(stat_of("buf_inuse"), 0);
	kmem_cache_destroy(cache);
	CHECK_EQ(destructed, constructed);
}

static void yes(void)
{
	uint64_t before, after, each;

	answer = KMEM_CBRC_YES;
	begin(0);
	before = stat_of("slab_create");
	each = stat_of("slab_size") / stat_of("chunk_size");
	reap();
	after = stat_of("slab_create");
	CHECK(moved > 0);
	CHECK_EQ(stat_of("move_yes"), moved);
	CHECK_EQ(stat_of("move_callbacks"), asked);
	/*
	 * Those that were free as soon as the caches were empty did not go by moves: there are such if this thread changed
	 * to another CPU, and left objects in the cache of the first.
	 */
	CHECK(slabs_offered <= before);
	CHECK_EQ(stat_of("move_slabs_freed"), slabs_offered - after);
	CHECK(stat_of("move_reclaimable") > 0);
	CHECK(stat_of("defrag") >= 1 && stat_of("scan") >= 1);
	CHECK_EQ(stat_of("buf_inuse"), COUNT / 8);
	/* As few slabs as the objects need, and one. */
	CHECK(after <= COUNT / 8 / (each - 1) + 2);
	CHECK(after < before / 3);
	end();
}

/* Slabs of which nothing is in use but by the caches go first, and do not count as freed by moves. */
static void no_need_to_move(void)
{
	uint64_t before, after;

	answer = KMEM_CBRC_YES;
	create(0);
	/* Of the first half nothing is left. */
	for (int i = 0; i < COUNT; i++)
		if (i < COUNT / 2 || i % 8 != 0)
			put(i);
	before = stat_of("slab_create");
	reap();
	after = stat_of("slab_create");
	CHECK(moved > 0);
	CHECK(after < slabs_offered && slabs_offered < before);
	CHECK_EQ(stat_of("move_slabs_freed"), slabs_offered - after);
	end();
}

static void dont_need(void)
{
	answer = KMEM_CBRC_DONT_NEED;
	begin(0);
	reap();
	CHECK(stat_of("move_dont_need") > 0);
	CHECK_EQ(stat_of("buf_inuse"), COUNT / 8 - stat_of("move_dont_need"));
	end();
}

static void no(void)
{
	int first;

	answer = KMEM_CBRC_NO;
	begin(0);
	reap();
	first = asked;
	CHECK(first > 0);
	CHECK_EQ(stat_of("move_no"), first);
	/* A slab with one that cannot be moved is left alone, until its owner says otherwise. */
	for (int i = 0; i < 20; i++)
		reap();
	first = asked;
	reap();
	CHECK_EQ(asked, first);
	answer = KMEM_CBRC_YES;
	reap();
	CHECK_EQ(asked, first);
	kmem_cache_move_notify(cache, refused);
	settle();
	CHECK(asked > first);
	CHECK(moved > 0);
	CHECK_EQ(stat_of("buf_inuse"), COUNT / 8);
	end();
}

/* The third "later" for an object is a no. */
static void later(void)
{
	int last;

	answer = KMEM_CBRC_LATER;
	begin(0);
	for (int i = 0; i < 100; i++)
		reap();
	last = asked;
	CHECK(last > 0);
	CHECK_EQ(stat_of("move_later"), last);
	reap();
	CHECK_EQ(asked, last);
	CHECK(last <= 3 * (COUNT / 8));
	CHECK_EQ(stat_of("buf_inuse"), COUNT / 8);
	end();
}

/* An object that its owner does not know stays, and is asked about again. */
static void dont_know(void)
{
	int last;

	answer = KMEM_CBRC_DONT_KNOW;
	begin(0);
	for (int i = 0; i < 5; i++)
		reap();
	last = asked;
	CHECK(last > 0);
	CHECK_EQ(stat_of("move_dont_know"), last);
	CHECK_EQ(stat_of("move_hunt_found"), 0);
	reap();
	CHECK(asked > last);
	CHECK_EQ(stat_of("buf_inuse"), COUNT / 8);
	end();
}

/* The owner frees objects, and with them whole slabs, while one of them is offered: it can be looked at. */
static kmem_cbrc_t vanish(void *old, void *new, size_t size, void *private)
{
	struct object *from = old;
	char before[sizeof(from->rest)];

	(void)new, (void)size, (void)private;
	asked++;
	memcpy(before, from->rest, sizeof(before));
	for (int i = 0; i < COUNT; i++)
		if (objects[i] != NULL)
			put(i);
	kmem_cache_reap_now(cache);
	/* Pages that had gone back to the system would be zeros by now. */
	CHECK_EQ(memcmp(before, from->rest, sizeof(before)), 0);
	CHECK(from->rest[0] != 0);
	return from->owner == NULL ? KMEM_CBRC_DONT_KNOW : KMEM_CBRC_LATER;
}

static void vanishing(void)
{
	constructed = destructed = asked = 0;
	cache = kmem_cache_create("moving", SIZE, 0, construct, destruct, NULL, &moved, NULL, 0);
	kmem_cache_set_move(cache, vanish);
	for (int i = 0; i < COUNT; i++)
		take(i);
	for (int i = 0; i < COUNT; i++)
		if (i % 8 != 0)
			put(i);
	reap();
	CHECK(asked > 0);
	/* What was held meanwhile is gone now. */
	CHECK_EQ(stat_of("slab_create"), 0);
	end();
}

/* A copy of the process is made while an object is offered. There, nobody is at it, and it can be done anew. */
static int inside, go_on;

static kmem_cbrc_t slow(void *old, void *new, size_t size, void *private)
{
	__atomic_store_n(&inside, 1, __ATOMIC_RELAXED);
	while (!__atomic_load_n(&go_on, __ATOMIC_RELAXED))
		usleep(1000);
	return move(old, new, size, private);
}

static void in_the_copy(vmem_t *arena)
{
	/* With what the scan that is no more had in hand. */
	uint64_t slabs = stat_of("slab_create"), used = stat_of("buf_inuse");

	CHECK_EQ(kmem_cache_reap_active(), 0);
	go_on = 1;
	reap();
	CHECK(moved > 0);
	CHECK(stat_of("move_slabs_freed") > 0);
	CHECK(stat_of("slab_create") < slabs);
	/* What is free went back, and is not held for that scan. */
	CHECK_EQ(vmem_size(arena, VMEM_ALLOC), stat_of("slab_create") * stat_of("slab_size"));
	CHECK_EQ(stat_of("buf_inuse"), used);
}

/* The same without another scan. */
static void freed_in_the_copy(vmem_t *arena)
{
	uint64_t slabs = stat_of("slab_create");

	for (int i = 0; i < COUNT; i++)
		if (objects[i] != NULL)
			put(i);
	kmem_reap();
	CHECK(stat_of("slab_create") < slabs);
	CHECK_EQ(vmem_size(arena, VMEM_ALLOC), stat_of("slab_create") * stat_of("slab_size"));
	CHECK_EQ(asked, 0);
}

static void copied(void)
{
	vmem_t *arena = vmem_create("copied", NULL, 0, 4096, vmem_alloc, vmem_free, heap_arena, 0, VM_SLEEP);

	constructed = destructed = moved = asked = 0;
	answer = KMEM_CBRC_YES;
	cache = kmem_cache_create("copied", SIZE, 0, construct, destruct, NULL, &moved, arena, 0);
	kmem_cache_set_move(cache, slow);
	for (int i = 0; i < COUNT; i++)
		take(i);
	for (int i = 0; i < COUNT; i++)
		if (i % 8 != 0)
			put(i);
	kmem_cache_reap_now(cache);
	while (!__atomic_load_n(&inside, __ATOMIC_RELAXED))
		usleep(1000);
	CHECK_COPIES(1, in_the_copy(arena));
	CHECK_COPIES(1, freed_in_the_copy(arena));
	__atomic_store_n(&go_on, 1, __ATOMIC_RELAXED);
	settle();
	CHECK_EQ(stat_of("buf_inuse"), COUNT / 8);
	end();
	vmem_destroy(arena);
}

static kmem_cbrc_t nonsense(void *old, void *new, size_t size, void *private)
{
	(void)old, (void)new, (void)size, (void)private;
	return (kmem_cbrc_t)17;
}

static void misuse(void)
{
	void *object;

	cache = kmem_cache_create("untouched", SIZE, 0, NULL, NULL, NULL, NULL, NULL, KMC_NOTOUCH);
	CHECK_ABORTS("KMC_NOTOUCH", kmem_cache_set_move(cache, move));
	kmem_cache_destroy(cache);
	cache = kmem_cache_create("late", SIZE, 0, NULL, NULL, NULL, NULL, NULL, 0);
	CHECK_ABORTS("the callback is null", kmem_cache_set_move(cache, NULL));
	object = kmem_cache_alloc(cache, KM_SLEEP);
	CHECK_ABORTS("has allocated objects already", kmem_cache_set_move(cache, move));
	CHECK_ABORTS("the object is null", kmem_cache_move_notify(cache, NULL));
	/* Without a callback there is nothing to be told. */
	kmem_cache_move_notify(cache, object);
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
	/* Too large for two to a slab: accepted, and nothing moves. */
	cache = kmem_cache_create("large", 4 << 20, 0, NULL, NULL, NULL, NULL, NULL, 0);
	kmem_cache_set_move(cache, nonsense);
	object = kmem_cache_alloc(cache, KM_SLEEP);
	reap();
	CHECK_EQ(stat_of("move_callbacks"), 0);
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
	/* An answer that is none is misuse; if life goes on it is a no. */
	CHECK_EQ(uma_compat_set_policy("solaris.misuse", "report"), 0);
	uma_compat_set_reporter(check_reporter);
	cache = kmem_cache_create("nonsense", SIZE, 0, construct, NULL, NULL, NULL, NULL, 0);
	kmem_cache_set_move(cache, nonsense);
	for (int i = 0; i < COUNT; i++)
		take(i);
	for (int i = 0; i < COUNT; i++)
		if (i % 8 != 0)
			put(i);
	reap();
	CHECK(check_count > 0);
	CHECK(strstr(check_last, "returned 17, which is no answer") != NULL);
	constructed = destructed = 0;
	end();
	uma_compat_set_reporter(NULL);
}

int main(void)
{
	/* What is counted here happens when it is asked for, and not by time. */
	CHECK_EQ(uma_compat_set_policy("solaris.update", "off"), 0);
	yes();
	no_need_to_move();
	dont_need();
	no();
	later();
	dont_know();
	vanishing();
	copied();
	misuse();
	return 0;
}

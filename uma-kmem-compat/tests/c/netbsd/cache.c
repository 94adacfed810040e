/* pool_cache: objects that stay constructed, and everything that takes them apart. */
#include "../check.h"

#include <setjmp.h>

#include <uma/compat.h>
#include <uma/netbsd/pool.h>

struct object {
	uint64_t magic;
	uint64_t uses;
	char rest[48];
};

static struct counts {
	long made, ended;
	int flags, refuse;
} counts;

static int make(void *argument, void *memory, int flags)
{
	struct object *object = memory;

	CHECK(argument == &counts);
	counts.flags = flags;
	if (counts.refuse)
		return 12;
	memset(object, 0, sizeof(*object));
	object->magic = 0x6f626a;
	counts.made++;
	return 0;
}

static void end(void *argument, void *memory)
{
	struct object *object = memory;

	CHECK(argument == &counts);
	CHECK_EQ(object->magic, 0x6f626a);
	object->magic = 0;
	counts.ended++;
}

static pool_cache_t begin(unsigned int flags)
{
	counts = (struct counts){ 0 };
	return pool_cache_init(sizeof(struct object), 0, 0, flags, "objects", NULL, IPL_NONE, make, end,
			       &counts);
}

/* Constructed at every get, with what was in it at the put; made as often as ended. */
static void constructed(unsigned int flags)
{
	pool_cache_t cache = begin(flags);
	struct object *objects[200];

	CHECK(cache != NULL);
	CHECK_EQ(counts.made, 0);
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 200; i++) {
			objects[i] = pool_cache_get(cache, PR_WAITOK);
			CHECK_EQ(objects[i]->magic, 0x6f626a);
			objects[i]->uses++;
		}
		for (int i = 0; i < 200; i++)
			pool_cache_put(cache, objects[i]);
	}
	CHECK(counts.made >= 200);
	CHECK_EQ(pool_cache_nget(cache), 1000);
	CHECK_EQ(pool_cache_nput(cache), 1000);
	pool_cache_destroy(cache);
	CHECK_EQ(counts.made, counts.ended);
}

/* Two groups of 15, or 63, are at hand: one more than that had and put are had again, without a constructor. */
static void regroup(unsigned int flags, int count)
{
	pool_cache_t cache = begin(flags);
	void *objects[PCG_NOBJECTS_LARGE + 1];
	long made;

	for (int i = 0; i < count; i++)
		objects[i] = pool_cache_get(cache, PR_WAITOK);
	made = counts.made;
	for (int i = 0; i < count; i++)
		pool_cache_put(cache, objects[i]);
	CHECK_EQ(counts.ended, 0);
	for (int i = 0; i < count; i++)
		objects[i] = pool_cache_get(cache, PR_WAITOK);
	CHECK_EQ(counts.made, made);
	for (int i = 0; i < count; i++)
		pool_cache_put(cache, objects[i]);
	pool_cache_destroy(cache);
}

static void groups(void)
{
	CHECK_EQ(PCG_NOBJECTS_NORMAL, 15);
	CHECK_EQ(PCG_NOBJECTS_LARGE, 63);
	regroup(0, PCG_NOBJECTS_NORMAL + 1);
	regroup(PR_LARGECACHE, PCG_NOBJECTS_LARGE + 1);
}

static void taken_apart(void)
{
	struct uma_netbsd_pool_stats stats;
	pool_cache_t cache = begin(0);
	struct object *one = pool_cache_get(cache, PR_NOWAIT), *two = pool_cache_get(cache, PR_NOWAIT);
	long ended;

	CHECK_EQ(counts.flags, PR_NOWAIT);
	/* One object, past the cache. */
	CHECK_EQ(counts.ended, 0);
	pool_cache_destruct_object(cache, one);
	CHECK_EQ(counts.ended, 1);
	CHECK_EQ(uma_netbsd_pool_nout(&cache->pc_pool), 1);
	/* All that are in caches, and none that is in use. */
	pool_cache_invalidate(cache);
	CHECK_EQ(counts.ended, counts.made - 1);
	CHECK_EQ(uma_netbsd_pool_get_stats(&cache->pc_pool, &stats), 0);
	CHECK_EQ(stats.ncached, 0);
	CHECK_EQ(two->magic, 0x6f626a);
	pool_cache_put(cache, two);
	ended = counts.ended;
	CHECK_EQ(pool_cache_reclaim(cache), true);
	CHECK_EQ(counts.ended, ended + 1);
	CHECK_EQ(counts.ended, counts.made);
	CHECK_EQ(pool_cache_reclaim(cache), false);
	two = pool_cache_get(cache, PR_WAITOK);
	CHECK_EQ(counts.flags, PR_WAITOK);
	CHECK_EQ(two->magic, 0x6f626a);
	pool_cache_put(cache, two);
	pool_cache_destroy(cache);
	CHECK_EQ(counts.ended, counts.made);
}

/* A constructor that fails is the one reason for a get that may wait to fail; nothing is taken apart. */
static void refused(void)
{
	pool_cache_t cache = begin(0);
	void *object;

	counts.refuse = 1;
	CHECK(pool_cache_get(cache, PR_WAITOK) == NULL);
	CHECK(pool_cache_get(cache, PR_NOWAIT) == NULL);
	CHECK_EQ(counts.ended, 0);
	CHECK_EQ(uma_netbsd_pool_nout(&cache->pc_pool), 0);
	counts.refuse = 0;
	object = pool_cache_get(cache, PR_WAITOK);
	CHECK(object != NULL);
	pool_cache_put(cache, object);
	pool_cache_destroy(cache);
}

/* Each may be missing: what was never constructed is taken apart all the same. */
static int any_construct(void *argument, void *memory, int flags)
{
	(void)memory, (void)flags;
	++*(int *)argument;
	return 0;
}

static void any_destruct(void *argument, void *memory)
{
	(void)memory;
	++*(int *)argument;
}

static void missing_callbacks(void)
{
	for (int which = 0; which < 3; which++) {
		int called = 0;
		pool_cache_t cache = pool_cache_init(64, 0, 0, 0, "missing", NULL, IPL_NONE,
						     which == 0 ? any_construct : NULL,
						     which == 1 ? any_destruct : NULL, &called);

		CHECK(cache != NULL);
		pool_cache_put(cache, pool_cache_get(cache, PR_WAITOK));
		pool_cache_destroy(cache);
		CHECK_EQ(called > 0, which < 2);
	}
}

/* One that jumps away leaks what was being constructed, and nothing else. */
static jmp_buf away;
static int jumps;

static int construct_or_jump(void *argument, void *memory, int flags)
{
	(void)argument, (void)flags;
	memset(memory, 1, 64);
	if (jumps-- > 0)
		longjmp(away, 1);
	return 0;
}

static void jumping(void)
{
	pool_cache_t cache = pool_cache_init(64, 0, 0, 0, "jumping", NULL, IPL_NONE, construct_or_jump,
					     NULL, NULL);
	char *volatile object = NULL;
	volatile int jumped = 0;

	jumps = 3;
	while (setjmp(away) != 0)
		jumped = jumped + 1;
	object = pool_cache_get(cache, PR_WAITOK);
	CHECK_EQ(jumped, 3);
	CHECK(object != NULL && object[63] == 1);
	pool_cache_put(cache, object);
	/* What was leaked counts as out, so the cache cannot end. */
	CHECK(uma_netbsd_pool_nout(&cache->pc_pool) <= 3 * PCG_NOBJECTS_NORMAL);
	pool_cache_invalidate(cache);
	object = pool_cache_get(cache, PR_NOWAIT);
	CHECK(object != NULL);
	pool_cache_put(cache, object);
	CHECK_REPORTS(0, "");
}

/* In memory of the program's; and as a pool. */
static void in_place(void)
{
	static struct pool_cache cache;
	void *object;

	counts = (struct counts){ 0 };
	pool_cache_bootstrap(&cache, sizeof(struct object), 64, 0, PR_LARGECACHE, "in place",
			     &pool_allocator_kmem, IPL_VM, make, end, &counts);
	pool_cache_cpu_init(NULL);
	object = pool_cache_get(&cache, PR_WAITOK);
	CHECK_EQ((uintptr_t)object % 64, 0);
	pool_cache_put(&cache, object);
	object = pool_get(&cache.pc_pool, PR_WAITOK);
	CHECK(object != NULL);
	pool_put(&cache.pc_pool, object);
	CHECK_EQ(pool_chk(&cache.pc_pool, "in place"), 0);
	pool_cache_bootstrap_destroy(&cache);
	CHECK_EQ(counts.made, counts.ended);
	/* And once more. */
	pool_cache_bootstrap(&cache, 8, 0, 0, 0, "again", NULL, IPL_NONE, NULL, NULL, NULL);
	pool_cache_put(&cache, pool_cache_get(&cache, PR_NOWAIT));
	pool_cache_bootstrap_destroy(&cache);
}

static uma_netbsd_paddr_t translate(uintptr_t address)
{
	return address ^ 0x1000;
}

static void physical(void)
{
	pool_cache_t cache = pool_cache_init(128, 0, 0, 0, "buffers", NULL, IPL_NONE, NULL, NULL, NULL);
	uma_netbsd_paddr_t at = POOL_PADDR_INVALID;
	void *object = pool_cache_get_paddr(cache, PR_WAITOK, &at);

	CHECK_EQ(at, (uintptr_t)object);
	pool_cache_put_paddr(cache, object, at);
	uma_netbsd_set_vtophys(translate);
	object = pool_cache_get_paddr(cache, PR_WAITOK, &at);
	CHECK_EQ(at, (uintptr_t)object ^ 0x1000);
	pool_cache_put(cache, object);
	CHECK((object = pool_cache_get_paddr(cache, PR_NOWAIT, NULL)) != NULL);
	pool_cache_put(cache, object);
	uma_netbsd_set_vtophys(NULL);
	pool_cache_destroy(cache);
}

/* PR_ZERO: zeros without a constructor, or by policy nothing; with one it has no effect. */
static void zeros(void)
{
	static const char zero[64];
	pool_cache_t cache = pool_cache_init(64, 0, 0, 0, "zeroed", NULL, IPL_NONE, NULL, NULL, NULL);
	struct object *object = pool_cache_get(cache, PR_WAITOK);

	memset(object, 0xff, 64);
	pool_cache_put(cache, object);
	object = pool_cache_get(cache, PR_WAITOK | PR_ZERO);
	CHECK(memcmp(object, zero, 64) == 0);
	memset(object, 0xff, 64);
	pool_cache_put(cache, object);
	CHECK_EQ(uma_compat_set_policy("netbsd.pool_cache_zero", "ignore"), 0);
	object = pool_cache_get(cache, PR_WAITOK | PR_ZERO);
	CHECK_EQ(object->rest[0], (char)0xff);
	CHECK_EQ(uma_compat_set_policy("netbsd.pool_cache_zero", "zero"), 0);
	pool_cache_put(cache, object);
	pool_cache_destroy(cache);
	CHECK_REPORTS(0, "");

	cache = begin(0);
	object = pool_cache_get(cache, PR_WAITOK | PR_ZERO);
	CHECK_EQ(object->magic, 0x6f626a);
	pool_cache_put(cache, object);
	object = pool_cache_get(cache, PR_WAITOK | PR_ZERO);
	CHECK_EQ(object->magic, 0x6f626a);
	CHECK_REPORTS(1, "PR_ZERO has no effect on pool \"objects\"");
	pool_cache_put(cache, object);
	pool_cache_destroy(cache);
}

static int serializations;

static void serialize(void)
{
	serializations++;
}

/* With PR_PSERIALIZE, the serialization comes before an object is taken apart. */
static void passively(void)
{
	pool_cache_t cache = begin(PR_PSERIALIZE);

	uma_netbsd_set_pserialize(serialize);
	pool_cache_put(cache, pool_cache_get(cache, PR_WAITOK));
	CHECK_EQ(serializations, 0);
	pool_cache_invalidate(cache);
	CHECK(serializations >= 1);
	CHECK_EQ(counts.ended, counts.made);
	pool_cache_destroy(cache);
	uma_netbsd_set_pserialize(NULL);
}

static int hooks;

static void hook(void *argument, int flags)
{
	CHECK(argument == &hooks);
	CHECK_EQ(flags, PR_NOWAIT);
	hooks++;
}

/* What the pool below can do. */
static void as_a_pool(void)
{
	struct uma_netbsd_pool_stats stats;
	pool_cache_t cache = begin(0);

	CHECK_EQ(pool_cache_prime(cache, 100), 0);
	CHECK_EQ(counts.made, 0);
	CHECK_EQ(uma_netbsd_pool_get_stats(&cache->pc_pool, &stats), 0);
	CHECK(stats.nitems >= 100);
	pool_cache_setlowat(cache, 10);
	pool_cache_sethiwat(cache, 1000);
	pool_cache_set_drain_hook(cache, hook, &hooks);
	CHECK_EQ(pool_cache_reclaim(cache), false);
	CHECK_EQ(hooks, 1);
	pool_cache_sethardlimit(cache, 1, NULL, 0);
	void *object = pool_cache_get(cache, PR_WAITOK);
	CHECK(pool_cache_get(cache, PR_NOWAIT) == NULL);
	CHECK_EQ(hooks, 2);
	pool_cache_put(cache, object);
	pool_cache_destroy(cache);
}

int main(void)
{
	uma_compat_set_reporter(check_reporter);
	constructed(0);
	constructed(PR_LARGECACHE);
	constructed(PR_NOTOUCH | PR_NOALIGN | PR_RECURSIVE);
	groups();
	taken_apart();
	refused();
	missing_callbacks();
	jumping();
	in_place();
	physical();
	zeros();
	passively();
	as_a_pool();
	CHECK_REPORTS(0, "");
	return 0;
}

/* What is wrong is told, and ends the process, or by policy does not. */
#include "../check.h"

#include <setjmp.h>

#include <uma/compat.h>
#include <uma/solaris/kmem.h>
#include <uma/solaris/vmem.h>

static kmem_cache_t *plain(const char *name)
{
	return kmem_cache_create(name, 64, 0, NULL, NULL, NULL, NULL, NULL, 0);
}

static kmem_cache_t *with(size_t size, size_t align, int flags)
{
	return kmem_cache_create("bad", size, align, NULL, NULL, NULL, NULL, NULL, flags);
}

static void names(void)
{
	kmem_cache_t *cache = plain("any name, at all!");

	CHECK(cache != NULL);
	kmem_cache_destroy(cache);
	CHECK_ABORTS("it has no name", plain(NULL));
	/* As the manual of 2003 has it. */
	CHECK_EQ(uma_compat_set_policy("solaris.name", "manual"), 0);
	uma_compat_set_reporter(check_reporter);
	CHECK(plain("not so-good") == NULL);
	CHECK_REPORTS(1, "the name is not alphanumeric");
	uma_compat_set_reporter(NULL);
	cache = plain("foo3_cache");
	CHECK(cache != NULL);
	kmem_cache_destroy(cache);
	CHECK_EQ(uma_compat_set_policy("solaris.name", "any"), 0);
}

static void descriptions(void)
{
	CHECK_ABORTS("must have a size", with(0, 0, 0));
	CHECK_ABORTS("not a power of two", with(8, 24, 0));
	CHECK_ABORTS("not a power of two", with(2 << 20, 24, 0));
	CHECK_ABORTS("alignment is above", with(8, (size_t)1 << 40, 0));
	CHECK_ABORTS("overflows", with(SIZE_MAX, 0, 0));
	CHECK_ABORTS("flags", with(8, 0, KMC_NOTOUCH | KMC_NOHASH));
	CHECK_ABORTS("flags", with(8, 0, KMC_IDENTIFIER));
	CHECK_ABORTS("flags", with(8, 0, KMC_KMEM_ALLOC));
	uma_compat_set_reporter(check_reporter);
	kmem_cache_destroy(with(8, 0, 0x8000000));
	CHECK_REPORTS(1, "unknown flags 0x8000000");
	uma_compat_set_reporter(NULL);
}

static void handles(void)
{
	kmem_cache_t *cache = plain("gone");
	vmem_t *arena = vmem_create("arena", NULL, 0, 8, NULL, NULL, NULL, 0, VM_SLEEP);
	void *object = kmem_cache_alloc(cache, KM_SLEEP);

	CHECK_ABORTS("bad cache: the pointer is none", kmem_cache_alloc((kmem_cache_t *)arena, 0));
	CHECK_ABORTS("bad cache: the pointer is none", kmem_cache_free((kmem_cache_t *)arena, object));
	CHECK_ABORTS("bad arena: the pointer is none", vmem_alloc((vmem_t *)cache, 8, VM_NOSLEEP));
	CHECK_ABORTS("misaligned", kmem_cache_reap_now((kmem_cache_t *)((char *)cache + 1)));
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
	vmem_destroy(arena);
	CHECK_ABORTS("destroyed before", kmem_cache_alloc(cache, KM_SLEEP));
	CHECK_ABORTS("destroyed before", kmem_cache_free(cache, object));
	CHECK_ABORTS("destroyed before", kmem_cache_destroy(cache));
	CHECK_ABORTS("destroyed before", kmem_cache_stat(cache, "alloc"));
	CHECK_ABORTS("destroyed before", vmem_free(arena, object, 8));
	CHECK_ABORTS("bad cache: the pointer is null", kmem_cache_destroy(NULL));
	CHECK_ABORTS("bad cache: the pointer is null", kmem_cache_alloc(NULL, KM_SLEEP));
	CHECK_ABORTS("bad cache: the pointer is null", kmem_cache_free(NULL, object));
	CHECK_ABORTS("bad cache: the pointer is null", kmem_cache_reap_now(NULL));
	CHECK_ABORTS("bad cache: the pointer is null", kmem_cache_reap_soon(NULL));
	CHECK_ABORTS("bad cache: the pointer is null", kmem_cache_set_move(NULL, NULL));
	CHECK_ABORTS("bad cache: the pointer is null", kmem_cache_move_notify(NULL, object));
	CHECK_ABORTS("bad arena: the pointer is null", vmem_destroy(NULL));
	CHECK_ABORTS("bad arena: the pointer is null", vmem_alloc(NULL, 8, VM_SLEEP));
}

static void objects(void)
{
	kmem_cache_t *cache = plain("objects");
	char *object = kmem_cache_alloc(cache, KM_SLEEP);

	CHECK_ABORTS("the object is null", kmem_cache_free(cache, NULL));
	CHECK_ABORTS("not aligned to 8 bytes", kmem_cache_free(cache, object + 1));
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
}

/* kmem_flags: what is not found out by an ordinary cache. */
static void checked(const char *tier)
{
	kmem_cache_t *cache, *other;
	char *object, *third;

	CHECK_EQ(uma_compat_set_policy("solaris.kmem_flags", tier), 0);
	cache = plain("checked");
	other = plain("other");
	object = kmem_cache_alloc(cache, KM_SLEEP);
	third = kmem_cache_alloc(other, KM_SLEEP);
	CHECK_ABORTS("solaris: checks: ", kmem_cache_free(cache, object); kmem_cache_free(cache, object));
	CHECK_ABORTS("solaris: checks: ", kmem_cache_free(cache, third));
	CHECK_ABORTS("solaris: checks: ", kmem_cache_free(cache, object + 8));
	CHECK_ABORTS("solaris: checks: ", object[64] = 1; kmem_cache_free(cache, object));
	if (strcmp(tier, "on") == 0)
		CHECK_ABORTS("solaris: checks: ", kmem_cache_free(cache, object); object[9] = 7;
			     for (int i = 0; i < 10000; i++) kmem_cache_alloc(cache, KM_SLEEP));
	kmem_cache_free(cache, object);
	kmem_cache_free(other, third);
	kmem_cache_destroy(cache);
	kmem_cache_destroy(other);
	CHECK_EQ(uma_compat_set_policy("solaris.kmem_flags", "off"), 0);
}

/*
 * What an ordinary cache does not look at when it is freed is found when it gets back to its slab, and is the end of the
 * process whatever the policy.
 */
static void found_late(void)
{
	kmem_cache_t *cache = plain("late"), *other = plain("other");
	char *object = kmem_cache_alloc(cache, KM_SLEEP), *foreign = kmem_cache_alloc(other, KM_SLEEP);
	static char mine[64] __attribute__((aligned(64)));

	for (int report = 0; report < 2; report++) {
		CHECK_EQ(uma_compat_set_policy("solaris.misuse", report ? "report" : "abort"), 0);
		CHECK_ABORTS("double free of the item", kmem_cache_free(cache, object);
			     kmem_cache_free(cache, object); kmem_cache_reap_now(cache));
		CHECK_ABORTS("solaris: kmem_cache_destroy: a panic", kmem_cache_free(cache, object);
			     kmem_cache_free(cache, object); kmem_cache_destroy(cache));
		CHECK_ABORTS("which is no item", kmem_cache_free(cache, foreign);
			     kmem_cache_reap_now(cache));
		CHECK_ABORTS("which is no item", kmem_cache_free(cache, mine); kmem_reap());
		CHECK_ABORTS("is not the start of an item", kmem_cache_free(cache, object + 8);
			     kmem_cache_reap_now(cache));
	}
	CHECK_EQ(uma_compat_set_policy("solaris.misuse", "abort"), 0);
	kmem_cache_free(cache, object);
	kmem_cache_free(other, foreign);
	kmem_cache_destroy(cache);
	kmem_cache_destroy(other);
}

/* A cache that is not empty is told of, and destroyed; or not, by policy. */
static void not_empty(void)
{
	kmem_cache_t *cache = plain("leaky");
	char *object = kmem_cache_alloc(cache, KM_SLEEP);

	CHECK_EQ(uma_compat_set_policy("solaris.destroy", "panic"), 0);
	CHECK_ABORTS("\"leaky\" is not empty: 1 objects", kmem_cache_destroy(cache));
	CHECK_EQ(uma_compat_set_policy("solaris.destroy", "refuse"), 0);
	uma_compat_set_reporter(check_reporter);
	kmem_cache_destroy(cache);
	CHECK_REPORTS(1, "it stays");
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
	CHECK_EQ(uma_compat_set_policy("solaris.destroy", "warn"), 0);
	cache = plain("leaky");
	object = kmem_cache_alloc(cache, KM_SLEEP);
	memset(object, 1, 64);
	kmem_cache_destroy(cache);
	CHECK(check_count >= 1);
	uma_compat_set_reporter(NULL);
	/* Its memory is there still. */
	CHECK_EQ(object[63], 1);
	CHECK_ABORTS("destroyed before", kmem_cache_free(cache, object));
}

/* Each callback may be missing. */
static int called;

static int construct(void *memory, void *private, int flag)
{
	(void)memory, (void)private, (void)flag;
	called++;
	return 0;
}

static void destruct(void *memory, void *private)
{
	(void)memory, (void)private;
	called++;
}

static void missing_callbacks(void)
{
	kmem_cache_t *caches[3] = {
		kmem_cache_create("constructor", 64, 0, construct, NULL, NULL, NULL, NULL, 0),
		kmem_cache_create("destructor", 64, 0, NULL, destruct, NULL, NULL, NULL, 0),
		kmem_cache_create("neither", 64, 0, NULL, NULL, NULL, NULL, NULL, 0),
	};

	for (int i = 0; i < 3; i++) {
		called = 0;
		kmem_cache_free(caches[i], kmem_cache_alloc(caches[i], KM_SLEEP));
		kmem_cache_reap_now(caches[i]);
		kmem_cache_destroy(caches[i]);
		CHECK_EQ(called > 0, i < 2);
	}
}

static jmp_buf away;
static int jumps;

static int jump(void *memory, void *private, int flag)
{
	(void)private, (void)flag;
	memset(memory, 1, 64);
	if (jumps)
		longjmp(away, 1);
	return 0;
}

/* A constructor that jumps leaks what was being constructed, and nothing else. */
static void jumping(void)
{
	kmem_cache_t *cache = kmem_cache_create("jumping", 64, 0, jump, NULL, NULL, NULL, NULL, 0);
	void *volatile object = NULL;

	jumps = 1;
	if (setjmp(away) == 0) {
		object = kmem_cache_alloc(cache, KM_SLEEP);
		CHECK(0);
	}
	jumps = 0;
	object = kmem_cache_alloc(cache, KM_SLEEP);
	CHECK(object != NULL);
	kmem_cache_free(cache, object);
	CHECK_EQ(kmem_cache_stat(cache, "buf_inuse"), 0);
	uma_compat_set_reporter(check_reporter);
	kmem_cache_destroy(cache);
	uma_compat_set_reporter(NULL);
}

int main(void)
{
	names();
	descriptions();
	handles();
	objects();
	checked("lite");
	checked("on");
	found_late();
	not_empty();
	missing_callbacks();
	jumping();
	return 0;
}

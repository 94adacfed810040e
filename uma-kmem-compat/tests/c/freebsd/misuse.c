/* Misuse: reported, and the end of the process unless the policy is to go on. */
#include "../check.h"

#include <setjmp.h>

#include <uma/compat.h>
#include <uma/freebsd/uma.h>

static void bad_descriptions(void)
{
	CHECK_ABORTS("the name is null", uma_zcreate(NULL, 64, NULL, NULL, NULL, NULL, 7, 0));
	CHECK_ABORTS("no zone \"none\"", uma_zcreate("none", 0, NULL, NULL, NULL, NULL, 7, 0));
	CHECK_ABORTS("no zone \"huge\"",
		     uma_zcreate("huge", (size_t)-1, NULL, NULL, NULL, NULL, 7, 0));
	CHECK_ABORTS("not a power of two", uma_zcreate("odd", 64, NULL, NULL, NULL, NULL, 5, 0));
	CHECK_ABORTS("not a power of two", uma_zcreate("low", 64, NULL, NULL, NULL, NULL, -2, 0));
}

static void bad_handles(void)
{
	uma_zone_t zone = uma_zcreate("gone", 64, NULL, NULL, NULL, NULL, 7, 0);
	static char none[4096] __attribute__((aligned(64)));

	CHECK_ABORTS("uma_zalloc_arg: bad zone: the pointer is null", uma_zalloc(NULL, M_WAITOK));
	CHECK_ABORTS("none that was handed out here", uma_zalloc((uma_zone_t)(void *)none, M_WAITOK));
	uma_zdestroy(zone);
	CHECK_ABORTS("uma_zdestroy: bad zone: it was destroyed before", uma_zdestroy(zone));
	CHECK_ABORTS("uma_zfree_arg: bad zone", uma_zfree(zone, none));
	CHECK_ABORTS("uma_zone_get_cur: bad zone", uma_zone_get_cur(zone));
}

/* The flags are to say whether it may wait, and only once. */
static void unclear_flags(void)
{
	uma_zone_t zone = uma_zcreate("unclear", 64, NULL, NULL, NULL, NULL, 7, 0);

	uma_compat_set_reporter(check_reporter);
	uma_zfree(zone, uma_zalloc(zone, 0));
	CHECK_REPORTS(1, "M_WAITOK or M_NOWAIT");
	for (int i = 0; i < 20; i++)
		uma_zfree(zone, uma_zalloc(zone, M_WAITOK | M_NOWAIT));
	CHECK_REPORTS(9, "flags 0x3");
	uma_compat_set_reporter(NULL);
	uma_zdestroy(zone);
}

static void leak_at_destroy(void)
{
	uma_zone_t zone = uma_zcreate("leak", 64, NULL, NULL, NULL, NULL, 7, 0);
	char *item = uma_zalloc(zone, M_WAITOK);

	uma_compat_set_reporter(check_reporter);
	uma_zdestroy(zone);
	CHECK_REPORTS(1, "uma_zdestroy: zone \"leak\" was destroyed with 1 items in use");
	/* Its memory stays. */
	memset(item, 1, 64);
	uma_compat_set_reporter(NULL);
}

/* A pointer that cannot be an item is told at once, the others when they get back to their slab. */
static void bad_items(void)
{
	uma_zone_t zone = uma_zcreate("items", 64, NULL, NULL, NULL, NULL, 7, 0);
	uma_zone_t second = uma_zsecond_create("second", NULL, NULL, NULL, NULL, zone);
	uma_zone_t other = uma_zcreate("other", 64, NULL, NULL, NULL, NULL, 7, 0);
	char *item = uma_zalloc(zone, M_WAITOK), *foreign = uma_zalloc(other, M_WAITOK);
	static char mine[64] __attribute__((aligned(64)));

	CHECK_ABORTS("uma_zfree_arg: zone \"items\": 0x", uma_zfree(zone, item + 1));
	CHECK_ABORTS("is not aligned to 8 bytes, so it is no item of it", uma_zfree(zone, item + 1));
	CHECK_ABORTS("zone \"second\": 0x", uma_zfree(second, item + 4));
	CHECK_ABORTS("double free of the item", uma_zfree(zone, item); uma_zfree(zone, item);
		     uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN_CPU));
	CHECK_ABORTS("freebsd: uma_zdestroy: a panic", uma_zfree(zone, item); uma_zfree(zone, item);
		     uma_zdestroy(second); uma_zdestroy(zone));
	CHECK_ABORTS("which is no item", uma_zfree(zone, foreign);
		     uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN_CPU));
	CHECK_ABORTS("which is no item", uma_zfree(zone, mine); uma_reclaim(UMA_RECLAIM_DRAIN_CPU));
	CHECK_ABORTS("is not the start of an item", uma_zfree(zone, item + 8);
		     uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN_CPU));
	uma_zfree(zone, NULL);
	uma_zfree(zone, item);
	uma_zfree(other, foreign);
	uma_zdestroy(second);
	uma_zdestroy(zone);
	uma_zdestroy(other);
}

/* A ctor or an init that jumps away leaks what was being made, and nothing else. */
static jmp_buf away;
static int jumps;

static int ctor_or_jump(void *mem, int size, void *arg, int flags)
{
	(void)arg, (void)flags;
	memset(mem, 1, (size_t)size);
	if (jumps-- > 0)
		longjmp(away, 1);
	return 0;
}

static int init_or_jump(void *mem, int size, int flags)
{
	return ctor_or_jump(mem, size, NULL, flags);
}

static void jump_from(uma_ctor ctor, uma_init init)
{
	uma_zone_t zone = uma_zcreate("jumping", 64, ctor, NULL, init, NULL, 7, 0);
	char *volatile item = NULL;
	volatile int jumped = 0;

	jumps = 3;
	while (setjmp(away) != 0)
		jumped = jumped + 1;
	item = uma_zalloc(zone, M_WAITOK);
	CHECK_EQ(jumped, 3);
	CHECK(item != NULL && item[63] == 1);
	uma_zfree(zone, item);
	uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN_CPU);
	item = uma_zalloc(zone, M_NOWAIT);
	CHECK(item != NULL);
	uma_zfree(zone, item);
	uma_compat_set_reporter(check_reporter);
	uma_zdestroy(zone);
	uma_compat_set_reporter(NULL);
	check_count = 0;
}

static void jumping(void)
{
	jump_from(ctor_or_jump, NULL);
	jump_from(NULL, init_or_jump);
}

static void going_on(void)
{
	uma_zone_t zone;

	CHECK_EQ(uma_compat_set_policy("freebsd.misuse", "report"), 0);
	uma_compat_set_reporter(check_reporter);
	CHECK(uma_zcreate("none", 0, NULL, NULL, NULL, NULL, 7, 0) == NULL);
	CHECK_REPORTS(1, "no zone \"none\"");
	CHECK(uma_zalloc(NULL, M_WAITOK) == NULL);
	uma_zfree(NULL, &zone);
	uma_zwait(NULL);
	uma_prealloc(NULL, 1);
	CHECK_EQ(uma_zone_get_max(NULL), 0);
	CHECK_EQ(uma_zone_set_max(NULL, 1), 0);
	CHECK_EQ(uma_zone_memory(NULL), 0);
	CHECK(uma_zone_get_smr(NULL) == NULL);
	uma_zone_set_warning(NULL, "");
	uma_zdestroy(NULL);
	CHECK_REPORTS(10, "bad zone: the pointer is null");
	zone = uma_zcreate("limit", 64, NULL, NULL, NULL, NULL, 7, 0);
	uma_zone_set_max(zone, 10);
	CHECK_EQ(uma_zone_set_max(zone, 0), 10);
	CHECK_REPORTS(1, "a limit of 0 items");
	uma_zone_set_warning(zone, NULL);
	CHECK_REPORTS(1, "the text is null");
	uma_zdestroy(zone);
	uma_compat_set_reporter(NULL);
	CHECK_EQ(uma_compat_set_policy("freebsd.misuse", "abort"), 0);
}

int main(void)
{
	bad_descriptions();
	bad_handles();
	unclear_flags();
	leak_at_destroy();
	bad_items();
	jumping();
	going_on();
	return 0;
}

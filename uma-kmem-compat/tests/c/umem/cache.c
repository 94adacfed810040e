/* umem_cache: forms, errors, callbacks, reaping. */
#include "../check.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>

#include <uma/compat.h>
#include <umem.h>

static umem_cache_t *with(const char *name, size_t size, size_t align, int flags)
{
	errno = 0;
	return umem_cache_create(name, size, align, NULL, NULL, NULL, NULL, NULL, flags);
}

static void forms(void)
{
	static const size_t sizes[] = { 1, 8, 9, 100, 4096, 5000, 1 << 20, 16 << 20 };
	static const int flags[] = { 0, UMC_NODEBUG, UMC_NOTOUCH, UMC_NOHASH, UMC_NOMAGAZINE };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		for (size_t align = 1; align <= 4096; align *= 2)
			for (int f = 0; f < 5; f++) {
				umem_cache_t *cache = with("form", sizes[i], align, flags[f]);
				char *one, *two;

				CHECK(cache != NULL);
				one = umem_cache_alloc(cache, UMEM_DEFAULT);
				two = umem_cache_alloc(cache, UMEM_NOFAIL);
				CHECK(one != NULL && two != NULL && one != two);
				CHECK_EQ(((uintptr_t)one | (uintptr_t)two) % (align < 8 ? 8 : align), 0);
				one[0] = two[sizes[i] - 1] = 1;
				CHECK_EQ(uma_umem_cache_active(cache), 2);
				umem_cache_free(cache, one);
				umem_cache_free(cache, two);
				CHECK_EQ(uma_umem_cache_active(cache), 0);
				umem_cache_destroy(cache);
			}
	/* No alignment is 16, or 8 for the small. */
	for (size_t size = 1; size < 100; size++) {
		umem_cache_t *cache = with("natural", size, 0, 0);
		void *one = umem_cache_alloc(cache, UMEM_DEFAULT);

		CHECK_EQ((uintptr_t)one % (size > 8 ? 16 : 8), 0);
		umem_cache_free(cache, one);
		umem_cache_destroy(cache);
	}
}

static void errors(void)
{
	CHECK(with(NULL, 8, 0, 0) == NULL && errno == EINVAL);
	CHECK(with("x", 0, 0, 0) == NULL && errno == EINVAL);
	CHECK(with("x", 8, 3, 0) == NULL && errno == EINVAL);
	CHECK(with("x", 8, 8192, 0) == NULL && errno == EINVAL);
	CHECK(with("x", 8, 0, UMC_NOHASH | UMC_NOTOUCH) == NULL && errno == EINVAL);
	CHECK(with("x", SIZE_MAX, 0, 0) == NULL && errno == ENOMEM);
	CHECK(with("x", SIZE_MAX - 100, 0, 0) == NULL && errno == ENOMEM);
	errno = 0;
	CHECK(umem_cache_create("x", 8, 0, NULL, NULL, NULL, NULL, (vmem_t *)&errno, 0) == NULL);
	CHECK_EQ(errno, EINVAL);
}

struct object {
	int magic;
	char rest[100];
};

static int constructed, destructed, reclaimed, failing, callbacks;
static umem_cache_t *hoarding;
static void *hoard[64];

static int construct(void *memory, void *private, int flag)
{
	CHECK(private == &constructed);
	/* Also when the allocation must not fail. */
	CHECK_EQ(flag, UMEM_DEFAULT);
	if (failing)
		return 1;
	((struct object *)memory)->magic = 0x600d;
	constructed++;
	return 0;
}

static void destruct(void *memory, void *private)
{
	CHECK(private == &constructed);
	CHECK_EQ(((struct object *)memory)->magic, 0x600d);
	destructed++;
}

static void reclaim(void *private)
{
	CHECK(private == &constructed);
	reclaimed++;
	for (int i = 0; i < 64; i++)
		if (hoard[i] != NULL) {
			umem_cache_free(hoarding, hoard[i]);
			hoard[i] = NULL;
		}
}

static int mend(void)
{
	callbacks++;
	if (callbacks == 3)
		failing = 0;
	return UMEM_CALLBACK_RETRY;
}

static void callback(void)
{
	struct object *object;

	hoarding = umem_cache_create("objects", sizeof(struct object), 0, construct, destruct, reclaim,
				     &constructed, NULL, 0);
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 64; i++) {
			object = hoard[i] = umem_cache_alloc(hoarding, UMEM_NOFAIL);
			CHECK_EQ(object->magic, 0x600d);
		}
		for (int i = 0; i < 64; i++)
			umem_cache_free(hoarding, hoard[i]);
	}
	/* The CPU keeps some, and so does every other to which the thread comes if it cannot be held. */
	CHECK(constructed < 50 * 64 / 4);
	for (int i = 0; i < 64; i++)
		hoard[i] = umem_cache_alloc(hoarding, UMEM_DEFAULT);
	umem_reap();
	CHECK_EQ(reclaimed, 1);
	CHECK_EQ(uma_umem_cache_active(hoarding), 0);
	CHECK_EQ(constructed, destructed);
	umem_cache_reap_now(hoarding);
	CHECK_EQ(reclaimed, 2);
	/* A constructor that fails: null, or the nofail callback. */
	failing = 1;
	errno = 0;
	CHECK(umem_cache_alloc(hoarding, UMEM_DEFAULT) == NULL);
	CHECK_EQ(errno, ENOMEM);
	umem_nofail_callback(mend);
	object = umem_cache_alloc(hoarding, UMEM_NOFAIL);
	CHECK(object != NULL);
	CHECK_EQ(callbacks, 3);
	umem_cache_free(hoarding, object);
	umem_cache_destroy(hoarding);
	CHECK_EQ(constructed, destructed);
}

static void misuse(void)
{
	umem_cache_t *cache = with("misuse", 64, 0, 0);
	char *object = umem_cache_alloc(cache, UMEM_DEFAULT);

	CHECK_ABORTS("bad cache: the pointer is null", umem_cache_alloc(NULL, 0));
	CHECK_ABORTS("bad cache: the pointer is null", umem_cache_free(NULL, object));
	CHECK_ABORTS("bad cache: the pointer is null", umem_cache_destroy(NULL));
	CHECK_ABORTS("bad cache: the pointer is null", umem_cache_reap_now(NULL));
	CHECK_ABORTS("bad cache: the pointer is none", umem_cache_alloc((umem_cache_t *)object, 0));
	CHECK_ABORTS("umem: umem_cache_free: cache \"misuse\": the object is null",
		     umem_cache_free(cache, NULL));
	CHECK_ABORTS("not aligned to 16 bytes", umem_cache_free(cache, object + 8));
	CHECK_EQ(uma_compat_set_policy("umem.destroy", "panic"), 0);
	CHECK_ABORTS("\"misuse\" is not empty: 1 objects", umem_cache_destroy(cache));
	CHECK_EQ(uma_compat_set_policy("umem.destroy", "refuse"), 0);
	uma_compat_set_reporter(check_reporter);
	umem_cache_destroy(cache);
	CHECK_REPORTS(1, "it stays");
	CHECK_EQ(uma_compat_set_policy("umem.destroy", "warn"), 0);
	umem_cache_destroy(cache);
	CHECK(check_count >= 1);
	object[63] = 1;
	uma_compat_set_reporter(NULL);
	CHECK_ABORTS("destroyed before", umem_cache_free(cache, object));
}

/* What an ordinary cache does not look at is found when it gets back to its slab. */
static void found_late(void)
{
	umem_cache_t *cache = with("late", 64, 0, 0), *other = with("other", 64, 0, 0);
	char *object = umem_cache_alloc(cache, UMEM_DEFAULT);
	char *foreign = umem_cache_alloc(other, UMEM_DEFAULT);
	static char mine[64] __attribute__((aligned(64)));

	CHECK_ABORTS("double free of the item", umem_cache_free(cache, object);
		     umem_cache_free(cache, object); umem_cache_reap_now(cache));
	CHECK_ABORTS("umem: umem_cache_destroy: a panic", umem_cache_free(cache, object);
		     umem_cache_free(cache, object); umem_cache_destroy(cache));
	CHECK_ABORTS("which is no item", umem_cache_free(cache, foreign); umem_cache_reap_now(cache));
	CHECK_ABORTS("which is no item", umem_cache_free(cache, mine); umem_reap());
	CHECK_ABORTS("is not the start of an item", umem_cache_free(cache, object + 16);
		     umem_cache_reap_now(cache));
	umem_cache_free(cache, object);
	umem_cache_free(other, foreign);
	umem_cache_destroy(cache);
	umem_cache_destroy(other);
}

/* Each callback may be missing: what was never constructed is taken apart all the same. */
static int called;

static int any_construct(void *memory, void *private, int flag)
{
	(void)memory, (void)private, (void)flag;
	called++;
	return 0;
}

static void any_destruct(void *memory, void *private)
{
	(void)memory, (void)private;
	called++;
}

static void missing_callbacks(void)
{
	for (int which = 0; which < 3; which++) {
		umem_cache_t *cache = umem_cache_create("missing", 64, 0,
							which == 0 ? any_construct : NULL,
							which == 1 ? any_destruct : NULL, NULL, NULL,
							NULL, 0);

		CHECK(cache != NULL);
		called = 0;
		umem_cache_free(cache, umem_cache_alloc(cache, UMEM_NOFAIL));
		umem_cache_destroy(cache);
		CHECK_EQ(called > 0, which < 2);
	}
}

/* A constructor that jumps away leaks what was being constructed, and nothing else. */
static jmp_buf away;
static int jumps;

static int construct_or_jump(void *memory, void *private, int flag)
{
	(void)private, (void)flag;
	memset(memory, 1, 64);
	if (jumps-- > 0)
		longjmp(away, 1);
	return 0;
}

static void jumping(void)
{
	umem_cache_t *cache =
		umem_cache_create("jumping", 64, 0, construct_or_jump, NULL, NULL, NULL, NULL, 0);
	char *volatile object = NULL;
	volatile int jumped = 0;

	jumps = 3;
	while (setjmp(away) != 0)
		jumped = jumped + 1;
	object = umem_cache_alloc(cache, UMEM_NOFAIL);
	CHECK_EQ(jumped, 3);
	CHECK(object != NULL && object[63] == 1);
	umem_cache_free(cache, object);
	CHECK_EQ(uma_umem_cache_active(cache), 0);
	umem_cache_reap_now(cache);
	uma_compat_set_reporter(check_reporter);
	umem_cache_destroy(cache);
	uma_compat_set_reporter(NULL);
}

int main(void)
{
	check_stay();
	forms();
	errors();
	callback();
	misuse();
	found_late();
	missing_callbacks();
	jumping();
	return 0;
}

/*
 * The example of kmem_cache_create(9F), as it stands there, but for what it leaves out: the arguments that are
 * "..." there, and what `use foo' is. Also its sentence: the constructor and the destructor are called only to
 * populate and to drain the cache.
 */
#include "../check.h"

#include <uma/solaris/ddi.h>

struct bar;

struct foo {
	kmutex_t foo_lock;
	kcondvar_t foo_cv;
	struct bar *foo_barlist;
	int foo_refcnt;
};

static int constructed, destructed;
static void *seen_arg;

static int foo_constructor(void *buf, void *arg, int tags)
{
	struct foo *foo = buf;

	mutex_init(&foo->foo_lock, NULL, MUTEX_DRIVER, NULL);
	cv_init(&foo->foo_cv, NULL, CV_DRIVER, NULL);
	foo->foo_refcnt = 0;
	foo->foo_barlist = NULL;
	constructed++;
	seen_arg = arg;
	CHECK_EQ(tags, KM_SLEEP);
	return (0);
}

static void foo_destructor(void *buf, void *arg)
{
	struct foo *foo = buf;

	ASSERT(foo->foo_barlist == NULL);
	ASSERT(foo->foo_refcnt == 0);
	cv_destroy(&foo->foo_cv);
	mutex_destroy(&foo->foo_lock);
	destructed++;
	CHECK(arg == seen_arg);
}

static void use(struct foo *foo)
{
	mutex_enter(&foo->foo_lock);
	foo->foo_refcnt++;
	cv_broadcast(&foo->foo_cv);
	foo->foo_refcnt--;
	mutex_exit(&foo->foo_lock);
}

int main(void)
{
	static dev_info_t device = { 3 };
	dev_info_t *dip = &device;
	int instance = ddi_get_instance(dip);
	void *foo_softc = NULL;
	kmem_cache_t *foo_cache;
	char buf[KSTAT_STRLEN];
	struct foo *foo;
	void *un;

	CHECK_EQ(ddi_soft_state_init(&foo_softc, 64, 4), 0);
	CHECK_EQ(ddi_soft_state_zalloc(foo_softc, instance), 0);

	un = ddi_get_soft_state(foo_softc, instance);
	(void) snprintf(buf, KSTAT_STRLEN, "foo%d_cache", ddi_get_instance(dip));
	foo_cache = kmem_cache_create(buf, sizeof (struct foo), 0, foo_constructor, foo_destructor,
				      NULL, un, 0);
	CHECK(foo_cache != NULL);

	for (int i = 0; i < 10000; i++) {
		foo = kmem_cache_alloc(foo_cache, KM_SLEEP);
		CHECK(foo != NULL);
		use(foo);
		kmem_cache_free(foo_cache, foo);
	}
	/* Ten thousand uses, and no more constructions than a slab or two has objects. */
	CHECK(constructed > 0 && constructed < 500);
	CHECK_EQ(destructed, 0);
	CHECK(seen_arg == un);
	kmem_cache_destroy(foo_cache);
	CHECK_EQ(destructed, constructed);
	ddi_soft_state_fini(&foo_softc);
	return 0;
}

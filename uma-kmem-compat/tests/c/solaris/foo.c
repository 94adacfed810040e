/*
 * The example of kmem_cache_create(9F), to the letter: what it leaves out, as "...", "use foo" and a kmem_free
 * without a size, is made of macros. Also its sentence: the constructor and the destructor are called only to
 * populate and to drain the cache. They are counted by what they call.
 */
#include "../check.h"

#include <uma/solaris/ddi.h>

static int constructed, destructed;

#define mutex_init(lock, ...) (constructed++, (mutex_init)(lock, NULL, MUTEX_DRIVER, NULL))
#define mutex_destroy(lock) (destructed++, (mutex_destroy)(lock))
#define cv_init(cv, ...) ((cv_init)(cv, NULL, CV_DRIVER, NULL))
#define kmem_free(memory) ((kmem_free)(memory, sizeof(*(memory))))
#define use used(foo); (void)

struct foo;
static void used(struct foo *foo);

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"

/* From here on it is the example. */

struct foo {
	kmutex_t foo_lock;
	kcondvar_t foo_cv;
	struct bar *foo_barlist;
	int foo_refcnt;
};

static void without_a_cache(void)
{
	struct foo *foo;

	foo = kmem_alloc(sizeof (struct foo), KM_SLEEP);
	mutex_init(&foo->foo_lock, ...);
	cv_init(&foo->foo_cv, ...);
	foo->foo_refcnt = 0;
	foo->foo_barlist = NULL;

	use foo;

	ASSERT(foo->foo_barlist == NULL);
	ASSERT(foo->foo_refcnt == 0);
	cv_destroy(&foo->foo_cv);
	mutex_destroy(&foo->foo_lock);
	kmem_free(foo);
}

int
foo_constructor(void *buf, void *arg, int tags)
{
	struct foo *foo = buf;

	mutex_init(&foo->foo_lock, ...);
	cv_init(&foo->foo_cv, ...);
	foo->foo_refcnt = 0;
	foo->foo_barlist = NULL;
	return(0);
}

void
foo_destructor(void *buf, void *arg)
{
	struct foo *foo = buf;

	ASSERT(foo->foo_barlist == NULL);
	ASSERT(foo->foo_refcnt == 0);
	cv_destroy(&foo->foo_cv);
	mutex_destroy(&foo->foo_lock);
}

static void *foo_softc;
static kmem_cache_t *foo_cache;

static void attach(dev_info_t *dip, int instance)
{
	char buf[KSTAT_STRLEN];
	void *un;

	un = ddi_get_soft_state(foo_softc, instance);
	(void) snprintf(buf, KSTAT_STRLEN, "foo%d_cache",
	    ddi_get_instance(dip));
	foo_cache = kmem_cache_create(buf,
	    sizeof (struct foo), 0,
	    foo_constructor, foo_destructor,
	    NULL, un, 0);
}

static void with_a_cache(void)
{
	struct foo *foo;

	foo = kmem_cache_alloc(foo_cache, KM_SLEEP);
	use foo;
	kmem_cache_free(foo_cache, foo);
}

/* Here it ends. */

#pragma GCC diagnostic pop

static void used(struct foo *foo)
{
	CHECK(foo != NULL && foo->foo_refcnt == 0 && foo->foo_barlist == NULL);
	mutex_enter(&foo->foo_lock);
	foo->foo_refcnt++;
	cv_broadcast(&foo->foo_cv);
	foo->foo_refcnt--;
	mutex_exit(&foo->foo_lock);
}

static void caches(void)
{
	static dev_info_t device = { 3 };

	CHECK_EQ(ddi_soft_state_init(&foo_softc, 64, 4), 0);
	CHECK_EQ(ddi_soft_state_zalloc(foo_softc, 3), 0);
	for (int i = 0; i < 100; i++)
		without_a_cache();
	CHECK_EQ(constructed, 100);
	CHECK_EQ(destructed, 100);
	constructed = destructed = 0;
	attach(&device, 3);
	CHECK(foo_cache != NULL);
	for (int i = 0; i < 10000; i++)
		with_a_cache();
	/* Ten thousand uses, and no more constructions than a slab or two has objects. */
	CHECK(constructed > 0 && constructed < 500);
	CHECK_EQ(destructed, 0);
	kmem_cache_destroy(foo_cache);
	CHECK_EQ(destructed, constructed);
	ddi_soft_state_fini(&foo_softc);
}

int main(void)
{
	caches();
	return 0;
}

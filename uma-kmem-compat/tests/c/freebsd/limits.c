/* Limits, warnings, actions, waiting, bounds on caches, reserves. */
#include "../check.h"

#include <pthread.h>
#include <uma/compat.h>
#include <uma/freebsd/uma.h>

static uma_zone_t make(const char *name, uint32_t flags)
{
	uma_zone_t zone = uma_zcreate(name, 256, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, flags);

	CHECK(zone != NULL);
	return zone;
}

static void exact(void)
{
	uma_zone_t zone = make("exact", 0);
	void *items[1000];

	CHECK_EQ(uma_zone_get_max(zone), 0);
	/* Less than a slab has: in 2002 that was rounded to 0, which was no limit. */
	CHECK_EQ(uma_zone_set_max(zone, 3), 3);
	CHECK_EQ(uma_zone_get_max(zone), 3);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 3; i++) {
			items[i] = uma_zalloc(zone, M_NOWAIT);
			CHECK(items[i] != NULL);
		}
		CHECK(uma_zalloc(zone, M_NOWAIT) == NULL);
		CHECK_EQ(uma_zone_get_cur(zone), 3);
		for (int i = 0; i < 3; i++)
			uma_zfree(zone, items[i]);
	}
	CHECK_EQ(uma_zone_set_max(zone, 1000), 1000);
	for (int i = 0; i < 1000; i++)
		items[i] = uma_zalloc(zone, M_NOWAIT);
	CHECK(items[999] != NULL && uma_zalloc(zone, M_NOWAIT) == NULL);
	for (int i = 0; i < 1000; i++)
		uma_zfree(zone, items[i]);
	CHECK_ABORTS("a limit of 0 items", uma_zone_set_max(zone, 0));
	CHECK_ABORTS("a limit of -1 items", uma_zone_set_max(zone, -1));
	uma_zdestroy(zone);
}

static int actions;
static uma_zone_t acting;
static void *to_free;

static void action(uma_zone_t zone, int pending)
{
	CHECK(zone == acting);
	CHECK_EQ(pending, 1);
	actions++;
	if (to_free != NULL) {
		uma_zfree(zone, to_free);
		to_free = NULL;
	}
}

static void warning_and_action(void)
{
	int off = 0, on = 1, now = -1;
	size_t length = sizeof(now);
	char text[] = "too many of them";
	void *items[2];

	uma_compat_set_reporter(check_reporter);
	acting = make("acting", 0);
	uma_zone_set_max(acting, 2);
	uma_zone_set_warning(acting, text);
	memset(text, 'x', 3);
	uma_zone_set_maxaction(acting, action);
	items[0] = uma_zalloc(acting, M_NOWAIT);
	items[1] = uma_zalloc(acting, M_NOWAIT);
	CHECK_REPORTS(0, "");
	CHECK(uma_zalloc(acting, M_NOWAIT) == NULL);
	CHECK_REPORTS(1, "[zone: acting] too many of them");
	CHECK_EQ(actions, 1);
	/* Every five minutes at most; the action every time, and what it frees serves. */
	to_free = items[0];
	items[0] = uma_zalloc(acting, M_NOWAIT);
	CHECK(items[0] != NULL);
	CHECK_EQ(actions, 2);
	CHECK_REPORTS(0, "");
	uma_zfree(acting, items[0]);
	uma_zfree(acting, items[1]);
	uma_zdestroy(acting);

	CHECK_EQ(uma_freebsd_sysctlbyname("vm.zone_warnings", &now, &length, &off, sizeof(off)), 0);
	CHECK_EQ(now, 1);
	acting = make("silent", 0);
	uma_zone_set_max(acting, 1);
	uma_zone_set_warning(acting, "not to be heard");
	items[0] = uma_zalloc(acting, M_NOWAIT);
	CHECK(uma_zalloc(acting, M_NOWAIT) == NULL);
	CHECK_REPORTS(0, "");
	uma_zfree(acting, items[0]);
	uma_zdestroy(acting);
	CHECK_EQ(uma_freebsd_sysctlbyname("vm.zone_warnings", NULL, NULL, &on, sizeof(on)), 0);
	uma_compat_set_reporter(NULL);
}

static void *allocate(void *zone)
{
	void *item = uma_zalloc(zone, M_WAITOK);

	CHECK(item != NULL);
	uma_zfree(zone, item);
	return NULL;
}

static void *wait_for_room(void *zone)
{
	uma_zwait(zone);
	return NULL;
}

/* Of several that sleep each is woken: in 2002 the wake-up went to an address at which nobody slept. */
static void sleepers_wake(void)
{
	uma_zone_t zone = make("sleep", 0);
	pthread_t threads[4];
	void *items[2];

	uma_zone_set_max(zone, 2);
	uma_zwait(zone);
	items[0] = uma_zalloc(zone, M_WAITOK);
	items[1] = uma_zalloc(zone, M_WAITOK);
	CHECK_EQ(uma_zone_exhausted(zone), 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, i == 3 ? wait_for_room : allocate, zone), 0);
	while (!uma_zone_exhausted(zone))
		usleep(1000);
	uma_zfree(zone, items[0]);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(uma_zone_exhausted(zone), 0);
	uma_zfree(zone, items[1]);
	CHECK_EQ(uma_zone_get_cur(zone), 0);
	uma_zdestroy(zone);
}

static int finis;

static void fini(void *mem, int size)
{
	(void)mem;
	(void)size;
	finis++;
}

static void maxcache(void)
{
	uma_zone_t zone =
		uma_zcreate("maxcache", 256, NULL, NULL, NULL, fini, UMA_ALIGN_PTR, 0);
	void *items[100];

	uma_zone_set_maxcache(zone, 0);
	for (int i = 0; i < 100; i++)
		items[i] = uma_zalloc(zone, M_WAITOK);
	for (int i = 0; i < 100; i++)
		uma_zfree(zone, items[i]);
	CHECK_EQ(finis, 100);
	uma_zone_set_maxcache(zone, 1000);
	uma_zfree(zone, uma_zalloc(zone, M_WAITOK));
	CHECK_EQ(finis, 100);
	uma_zdestroy(zone);
	CHECK_ABORTS("-1 items", uma_zone_set_maxcache(make("bad", 0), -1));
}

/* The last items are for those with M_USE_RESERVE. */
static void reserve(void)
{
	uma_zone_t zone = make("reserve", UMA_ZONE_NOBUCKET);
	void *items[500];
	int count = 0, more = 0;

	uma_zone_reserve(zone, 4);
	uma_prealloc(zone, 10);
	/* M_NOVM: with what is there. */
	while (count < 500 && (items[count] = uma_zalloc(zone, M_NOWAIT | M_NOVM)) != NULL)
		count++;
	CHECK(count >= 6);
	while (count + more < 500 &&
	       (items[count + more] = uma_zalloc(zone, M_NOWAIT | M_NOVM | M_USE_RESERVE)) != NULL)
		more++;
	CHECK_EQ(more, 4);
	for (int i = 0; i < count + more; i++)
		uma_zfree(zone, items[i]);
	CHECK_ABORTS("-1 items", uma_prealloc(zone, -1));
	uma_zdestroy(zone);
}

static void prealloc(void)
{
	uma_zone_t zone = make("prealloc", 0);

	uma_prealloc(zone, 1000);
	CHECK(uma_zone_memory(zone) >= 1000 * 256);
	CHECK_EQ(uma_zone_get_cur(zone), 0);
	uma_zdestroy(zone);
}

/* The soft limit on all memory wakes the thread that reclaims; who allocates gets his memory. */
static void *worker(void *unused)
{
	uma_reclaim_worker();
	return unused;
}

/*
 * Wakes the thread until the zone holds nothing: figures are exact because they have in hand, for a moment, what a
 * cache holds, and a reclaim in that moment does not find it.
 */
static void until_empty(uma_zone_t zone, void (*wake)(void))
{
	while (uma_zone_memory(zone) != 0) {
		wake();
		usleep(20000);
	}
}

/* By taking pages, beyond the limit. */
static void take_pages(void)
{
	uma_zone_t zone = make("taken", 0);

	uma_zfree(zone, uma_zalloc(zone, M_WAITOK));
	uma_zdestroy(zone);
}

static void soft_limit(void)
{
	uma_zone_t idle = make("idle", 0), zone = make("soft", 0);
	unsigned long before = uma_limit(), limit = 0;
	size_t length = sizeof(limit);
	pthread_t thread;
	void *item;

	CHECK_EQ(pthread_create(&thread, NULL, worker, NULL), 0);
	uma_zfree(idle, uma_zalloc(idle, M_WAITOK));
	CHECK(uma_zone_memory(idle) > 0 && uma_size() >= uma_zone_memory(idle));
	until_empty(idle, uma_reclaim_wakeup);
	uma_zfree(idle, uma_zalloc(idle, M_WAITOK));
	uma_set_limit(1);
	CHECK_EQ(uma_limit(), 1);
	CHECK(uma_avail() < 0);
	CHECK_EQ(uma_freebsd_sysctlbyname("vm.uma_kmem_limit", &limit, &length, NULL, 0), 0);
	CHECK_EQ(limit, 1);
	item = uma_zalloc(zone, M_WAITOK);
	CHECK(item != NULL);
	until_empty(idle, take_pages);
	uma_set_limit(before);
	CHECK(uma_avail() > 0);
	uma_zfree(zone, item);
	uma_zdestroy(zone);
	uma_zdestroy(idle);
	pthread_detach(thread);
}

int main(void)
{
	/* Whoever is never woken is a failure. */
	alarm(900);
	exact();
	warning_and_action();
	sleepers_wake();
	maxcache();
	reserve();
	prealloc();
	soft_limit();
	return 0;
}

/*
 * The exact limit, whatever caches hold: with the caches of every CPU full, so many items as the limit says can be
 * live, and no more; and who waits is served in the order of arrival.
 */
#include "../check.h"

#include <pthread.h>
#include <sched.h>
#include <uma/compat.h>
#include <uma/freebsd/uma.h>

#define MOST 10000

static void *items[MOST + 10];

static int take(uma_zone_t zone, int most)
{
	int count = 0;

	while (count < most && (items[count] = uma_zalloc(zone, M_NOWAIT)) != NULL)
		count++;
	return count;
}

static void give(uma_zone_t zone, int count)
{
	while (count > 0)
		uma_zfree(zone, items[--count]);
}

/* Leaves in the caches of every CPU what they hold. */
static void fill_caches(uma_zone_t zone)
{
	cpu_set_t before, one;

	CHECK_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &before))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		CHECK_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
		give(zone, take(zone, 1000));
	}
	CHECK_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

static void *free_later(void *zone)
{
	while (!uma_zone_exhausted(zone))
		sched_yield();
	uma_zfree(zone, items[0]);
	return NULL;
}

static void exactly(int limit)
{
	uma_zone_t zone = uma_zcreate("exactly", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	pthread_t thread;

	CHECK_EQ(uma_zone_set_max(zone, limit), limit);
	for (int round = 0; round < 2; round++) {
		fill_caches(zone);
		CHECK(uma_zone_memory(zone) > 0);
		CHECK_EQ(take(zone, limit + 10), limit);
		CHECK_EQ(uma_zone_get_cur(zone), limit);
		CHECK(uma_zalloc(zone, M_NOWAIT) == NULL);
		/* One more sleeps, until one is freed. */
		CHECK_EQ(pthread_create(&thread, NULL, free_later, zone), 0);
		items[0] = uma_zalloc(zone, M_WAITOK);
		CHECK(items[0] != NULL);
		CHECK_EQ(pthread_join(thread, NULL), 0);
		CHECK_EQ(uma_zone_get_cur(zone), limit);
		give(zone, limit);
	}
	/* Lowered below what is cached. */
	fill_caches(zone);
	CHECK_EQ(uma_zone_set_max(zone, 1), 1);
	CHECK_EQ(take(zone, 3), 1);
	give(zone, 1);
	CHECK_EQ(uma_zone_get_cur(zone), 0);
	uma_zdestroy(zone);
}

#define SLEEPERS 64

static uma_zone_t crowded;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int served[SLEEPERS], count;

static void *sleeper(void *number)
{
	void *item = uma_zalloc(crowded, M_WAITOK);

	CHECK(item != NULL);
	pthread_mutex_lock(&lock);
	served[count++] = (int)(intptr_t)number;
	pthread_mutex_unlock(&lock);
	uma_zfree(crowded, item);
	return NULL;
}

/* Sleepers at a zone, of which the stream of statistics tells how many went to sleep so far. */
static uint64_t slept(void)
{
	static char buffer[1 << 20];
	size_t length = sizeof(buffer);
	struct uma_stream_header *header = (struct uma_stream_header *)buffer;
	char *at = buffer + sizeof(*header);

	CHECK_EQ(uma_freebsd_sysctlbyname("vm.zone_stats", buffer, &length, NULL, 0), 0);
	for (uint32_t i = 0; i < header->ush_count; i++) {
		struct uma_type_header *type = (struct uma_type_header *)at;

		if (strncmp(type->uth_name, "crowded", UTH_MAX_NAME) == 0)
			return type->uth_sleeps;
		at += sizeof(*type) + header->ush_maxcpus * sizeof(struct uma_percpu_stat);
	}
	CHECK(!"the zone is in the stream");
	return 0;
}

/* With one item the order is exact; with more, as many as there are others may say so first. */
static void in_order(int limit)
{
	pthread_t threads[SLEEPERS];

	crowded = uma_zcreate("crowded", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	uma_zone_set_max(crowded, limit);
	CHECK_EQ(take(crowded, limit), limit);
	count = 0;
	for (int i = 0; i < SLEEPERS; i++) {
		CHECK_EQ(pthread_create(&threads[i], NULL, sleeper, (void *)(intptr_t)i), 0);
		while (slept() != (uint64_t)i + 1)
			sched_yield();
	}
	CHECK(uma_zone_exhausted(crowded));
	CHECK(uma_zalloc(crowded, M_NOWAIT) == NULL);
	give(crowded, limit);
	for (int i = 0; i < SLEEPERS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(count, SLEEPERS);
	for (int i = 0; i < SLEEPERS; i++) {
		int overtaken = 0;

		for (int later = i + 1; later < SLEEPERS; later++)
			overtaken += served[later] < served[i];
		CHECK(overtaken < limit);
	}
	CHECK_EQ(uma_zone_exhausted(crowded), 0);
	CHECK_EQ(uma_zone_get_cur(crowded), 0);
	uma_zdestroy(crowded);
}

int main(void)
{
	static const int limits[] = { 1, 2, 7, 100, MOST };

	/* Whoever is never woken is a failure. */
	alarm(900);
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		exactly(limits[i]);
	in_order(1);
	in_order(4);
	return 0;
}

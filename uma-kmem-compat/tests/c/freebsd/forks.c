/* Copies of the process are made while others read, defer frees, and have the locks of types and names. */
#include "../check.h"

#include <pthread.h>

#include <uma/compat.h>
#include <uma/freebsd/malloc9.h>
#include <uma/freebsd/smr.h>
#include <uma/freebsd/uma.h>

static smr_t smr;
static uma_zone_t zone;
static int stop, inside;

static void churn_once(void)
{
	struct malloc_type type = { "brief", "of a moment", NULL };
	void *item = uma_zalloc_smr(zone, M_WAITOK);
	int count;
	size_t length = sizeof(count);

	CHECK(item != NULL);
	uma_zfree_smr(zone, item);
	malloc_init(&type);
	free(malloc(100, &type, M_WAITOK), &type);
	malloc_uninit(&type);
	CHECK_EQ(uma_freebsd_sysctlbyname("vm.zone_count", &count, &length, NULL, 0), 0);
	uma_zone_set_warning(zone, "full");
	uma_reclaim_wakeup();
}

static void *churn(void *argument)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		churn_once();
	return argument;
}

static void *read_on(void *argument)
{
	smr_enter(smr);
	__atomic_store_n(&inside, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		usleep(1000);
	smr_exit(smr);
	return argument;
}

static void in_the_copy(void)
{
	for (int i = 0; i < 200; i++)
		churn_once();
	/* The reader is not here. This thread may read, of course. */
	smr_synchronize(smr);
	smr_enter(smr);
	CHECK(!smr_poll(smr, smr_advance(smr), false));
	smr_exit(smr);
	uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN_CPU);
}

/* What the thread that forks reads goes on in the copy. */
static void in_the_copy_inside(void)
{
	smr_seq_t goal = smr_advance(smr);

	CHECK(SMR_ENTERED(smr) && !smr_poll(smr, goal, false));
	smr_exit(smr);
	CHECK(smr_poll(smr, goal, false));
}

int main(void)
{
	int copies = getenv("UMA_TEST_SHORT") && *getenv("UMA_TEST_SHORT") ? 2 : 20;
	pthread_t churners[2], reader;

	uma_compat_set_reporter(check_reporter);
	zone = uma_zcreate("read", 64, NULL, NULL, NULL, NULL, 7, UMA_ZONE_SMR);
	smr = uma_zone_get_smr(zone);
	CHECK_EQ(pthread_create(&reader, NULL, read_on, NULL), 0);
	while (!__atomic_load_n(&inside, __ATOMIC_SEQ_CST))
		usleep(1000);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&churners[i], NULL, churn, NULL), 0);
	CHECK_COPIES(copies, in_the_copy());
	smr_enter(smr);
	CHECK_COPIES(1, in_the_copy_inside());
	smr_exit(smr);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(churners[i], NULL), 0);
	CHECK_EQ(pthread_join(reader, NULL), 0);
	uma_zdestroy(zone);
	CHECK_REPORTS(0, "");
	return 0;
}

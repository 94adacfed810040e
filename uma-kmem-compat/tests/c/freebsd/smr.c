/* smr(9), and zones with it: the stress test of FreeBSD (tools/uma/smrstress), smaller. */
#include "../check.h"

#include <pthread.h>
#include <time.h>
#include <uma/compat.h>
#include <uma/freebsd/smr.h>
#include <uma/freebsd/uma.h>

static smr_t other;
static volatile int stage;

static void *read_once(void *smr)
{
	smr_enter(smr);
	stage = 1;
	while (stage != 2)
		usleep(100);
	smr_exit(smr);
	return NULL;
}

static void sections(void)
{
	smr_t smr = smr_create("sections", 0, SMR_LAZY | SMR_DEFERRED);
	smr_seq_t goal;
	pthread_t thread;

	smr_init();
	other = smr_create("other", 0, 0);
	CHECK(!SMR_ENTERED(smr));
	smr_enter(smr);
	CHECK(SMR_ENTERED(smr) && !SMR_ENTERED(other));
	SMR_ASSERT_ENTERED(smr);
	smr_lazy_enter(other);
	CHECK(SMR_ENTERED(other));
	goal = smr_advance(smr);
	CHECK_EQ(smr_current(smr), goal);
	CHECK(!smr_poll(smr, goal, false));
	CHECK_ABORTS("the thread itself is in a section", smr_wait(smr, goal));
	CHECK_ABORTS("in a section already", smr_enter(smr));
	smr_lazy_exit(other);
	smr_exit(smr);
	SMR_ASSERT_NOT_ENTERED(smr);
	CHECK(smr_poll(smr, goal, false));
	CHECK(smr_poll(smr, goal + 1000, false));
	CHECK_ABORTS("the thread is in no section", smr_exit(smr));
	/* Another thread holds the writer up. */
	CHECK_EQ(pthread_create(&thread, NULL, read_once, smr), 0);
	while (stage != 1)
		usleep(100);
	goal = smr_advance(smr);
	CHECK(!smr_poll(smr, goal, false));
	stage = 2;
	CHECK(smr_poll(smr, goal, true));
	smr_synchronize(smr);
	smr_wait(smr, goal);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK(SMR_SEQ_INVALID == 0 && SMR_SEQ_INIT == 1);
	smr_destroy(other);
	smr_destroy(smr);
	CHECK_ABORTS("it was destroyed before", smr_enter(smr));
}

static void *end_smr(void *smr)
{
	smr_destroy(smr);
	return NULL;
}

static void *end_zone(void *zone)
{
	uma_zdestroy(zone);
	return NULL;
}

/* Who ends an SMR, or a zone with one, waits for readers; these leave by the name that they know. */
static void readers_leave_what_is_being_destroyed(void)
{
	smr_t smr = smr_create("ends", 0, 0);
	uma_zone_t zone = uma_zcreate("ends", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, UMA_ZONE_SMR);
	pthread_t reader, destroyer;

	for (int round = 0; round < 2; round++) {
		stage = 0;
		CHECK_EQ(pthread_create(&reader, NULL, read_once, round ? uma_zone_get_smr(zone) : smr), 0);
		while (stage != 1)
			usleep(100);
		CHECK_EQ(round ? pthread_create(&destroyer, NULL, end_zone, zone)
			       : pthread_create(&destroyer, NULL, end_smr, smr), 0);
		usleep(20000);
		stage = 2;
		CHECK_EQ(pthread_join(reader, NULL), 0);
		CHECK_EQ(pthread_join(destroyer, NULL), 0);
	}
}

/* The SMR of a zone goes with the last zone that has it: a secondary one may be destroyed later. */
static void a_secondary_zone_keeps_its_smr(void)
{
	uma_zone_t zone = uma_zcreate("first", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, UMA_ZONE_SMR);
	uma_zone_t second = uma_zsecond_create("second", NULL, NULL, NULL, NULL, zone);
	smr_t smr = uma_zone_get_smr(zone);
	void *item = uma_zalloc_smr(second, M_WAITOK);

	CHECK(smr != NULL && uma_zone_get_smr(second) == smr);
	uma_zdestroy(zone);
	CHECK(uma_zone_get_smr(second) == smr);
	smr_enter(smr);
	CHECK(SMR_ENTERED(smr));
	smr_exit(smr);
	uma_zfree_smr(second, item);
	uma_zdestroy(second);
	CHECK_ABORTS("it was destroyed before", smr_enter(smr));
}

static int dtors;

static void counting_dtor(void *mem, int size, void *arg)
{
	(void)mem;
	(void)size;
	CHECK(arg == NULL);
	dtors++;
}

static void frees_are_deferred(void)
{
	uma_zone_t zone = uma_zcreate("deferred", 64, NULL, counting_dtor, NULL, NULL, UMA_ALIGN_PTR,
				      UMA_ZONE_SMR);
	smr_t smr = uma_zone_get_smr(zone);
	void *item, *items[1000];

	CHECK(smr != NULL);
	for (int i = 0; i < 1000; i++)
		items[i] = uma_zalloc_smr(zone, M_WAITOK);
	CHECK_EQ(uma_zone_get_cur(zone), 1000);
	stage = 0;
	for (int reader = 0; reader < 2; reader++) {
		pthread_t thread;

		if (reader) {
			dtors = 0;
			CHECK_EQ(pthread_create(&thread, NULL, read_once, smr), 0);
			while (stage != 1)
				usleep(100);
		}
		for (int i = 0; i < 1000; i++) {
			uma_zfree_smr(zone, items[i]);
			CHECK_EQ(uma_zone_get_cur(zone), 999 - i);
		}
		/* While somebody reads, no dtor runs, and no item comes again. */
		CHECK(reader ? dtors == 0 : dtors > 500);
		uma_zone_reclaim(zone, UMA_RECLAIM_TRIM);
		CHECK(reader ? dtors == 0 : dtors == 1000);
		if (reader) {
			for (int i = 0; i < 1000; i++) {
				item = uma_zalloc_smr(zone, M_NOWAIT);
				for (int j = 0; j < 1000; j++)
					CHECK(item != items[j]);
				uma_zfree_smr(zone, item);
				if (i == 10)
					break;
			}
			stage = 2;
			CHECK_EQ(pthread_join(thread, NULL), 0);
			uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN_CPU);
			CHECK_EQ(dtors, 1011);
		} else {
			for (int i = 0; i < 1000; i++)
				items[i] = uma_zalloc_smr(zone, M_WAITOK);
		}
	}
	CHECK_ABORTS("is a zone with SMR", uma_zalloc(zone, M_WAITOK));
	CHECK_ABORTS("is a zone with SMR", uma_zfree(zone, items[0]));
	item = uma_zalloc_smr(zone, M_WAITOK);
	smr_enter(smr);
	CHECK_ABORTS("in a section of its SMR", uma_zfree_smr(zone, item));
	smr_exit(smr);
	uma_zfree_smr(zone, item);
	uma_zfree_smr(zone, NULL);
	uma_zdestroy(zone);
	CHECK_EQ(dtors, 1012);
}

/* Twice is told, and nothing is lost or had twice: in one batch always, later too if the zone's frees are looked up. */
static void freed_twice(const char *name, int checked)
{
	uma_zone_t zone = uma_zcreate(name, 64, NULL, counting_dtor, NULL, NULL, UMA_ALIGN_PTR,
				      UMA_ZONE_SMR);
	void *items[300];
	pthread_t thread;

	dtors = 0;
	for (int i = 0; i < 300; i++)
		items[i] = uma_zalloc_smr(zone, M_WAITOK);
	CHECK_ABORTS("double free of the item", uma_zfree_smr(zone, items[0]);
		     uma_zfree_smr(zone, items[0]));
	CHECK_EQ(uma_compat_set_policy("freebsd.misuse", "report"), 0);
	uma_compat_set_reporter(check_reporter);
	/* Nothing expires while somebody reads. */
	stage = 0;
	CHECK_EQ(pthread_create(&thread, NULL, read_once, uma_zone_get_smr(zone)), 0);
	while (stage != 1)
		usleep(100);
	for (int i = 0; i < 200; i++) {
		uma_zfree_smr(zone, items[i]);
		CHECK_EQ(uma_zone_get_cur(zone), 299 - i);
		/* The 64th ends the batch. */
		if (i % 64 != 63) {
			uma_zfree_smr(zone, items[i]);
			CHECK_REPORTS(1, "uma_zfree_smr: zone \"");
			CHECK(strstr(check_last, "double free of the item at 0x") != NULL);
			CHECK_EQ(uma_zone_get_cur(zone), 299 - i);
		}
	}
	if (checked) {
		for (int i = 0; i < 200; i++)
			uma_zfree_smr(zone, items[i]);
		CHECK_REPORTS(200, "double free of the item at 0x");
		CHECK_EQ(uma_zone_get_cur(zone), 100);
	}
	stage = 2;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN);
	CHECK_EQ(dtors, 200);
	CHECK_EQ(uma_zone_get_cur(zone), 100);
	/* When it is back in the zone, the zone finds it. */
	if (checked) {
		uma_zfree_smr(zone, items[0]);
		uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN);
		CHECK_REPORTS(1, "double free of the item at 0x");
		CHECK_EQ(uma_zone_get_cur(zone), 100);
	}
	/* Each of them comes once. */
	for (int i = 0; i < 200; i++) {
		items[i] = uma_zalloc_smr(zone, M_WAITOK);
		for (int j = 0; j < 300; j++)
			CHECK(i == j || (j > i && j < 200) || items[i] != items[j]);
	}
	CHECK_EQ(uma_zone_get_cur(zone), 300);
	for (int i = 0; i < 300; i++)
		uma_zfree_smr(zone, items[i]);
	CHECK_REPORTS(0, "");
	uma_compat_set_reporter(NULL);
	CHECK_EQ(uma_compat_set_policy("freebsd.misuse", "abort"), 0);
	uma_zdestroy(zone);
	CHECK_EQ(dtors, 500);
}

static void shared_smr(void)
{
	smr_t smr = smr_create("shared", 0, 0);
	uma_zone_t zone = uma_zcreate("shares", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	uma_zone_t second;

	CHECK(uma_zone_get_smr(zone) == NULL);
	CHECK_ABORTS("has no SMR", uma_zalloc_smr(zone, M_WAITOK));
	second = uma_zcreate("warm", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	uma_zfree(second, uma_zalloc(second, M_WAITOK));
	CHECK_ABORTS("was used already", uma_zone_set_smr(second, smr));
	uma_zdestroy(second);
	uma_zone_set_smr(zone, smr);
	CHECK(uma_zone_get_smr(zone) == smr);
	CHECK_ABORTS("has an SMR", uma_zone_set_smr(zone, smr));
	second = uma_zsecond_create("second", NULL, NULL, NULL, NULL, zone);
	CHECK(uma_zone_get_smr(second) == smr);
	uma_zfree_smr(zone, uma_zalloc_smr(zone, M_WAITOK));
	uma_zfree_smr(second, uma_zalloc_smr(second, M_WAITOK));
	uma_zdestroy(second);
	uma_zdestroy(zone);
	/* One that is ended too early is told where it is used. */
	zone = uma_zcreate("early", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	uma_zone_set_smr(zone, smr);
	smr_destroy(smr);
	CHECK(uma_zone_get_smr(zone) == smr);
	CHECK_ABORTS("smr_enter: bad smr: it was destroyed before", smr_enter(uma_zone_get_smr(zone)));
	uma_zdestroy(zone);
}

static void *alloc_and_free(void *zone)
{
	void *item = uma_zalloc_smr(zone, M_WAITOK);

	CHECK(item != NULL);
	uma_zfree_smr(zone, item);
	return NULL;
}

/* What is deferred counts, but nobody waits for it longer than for readers. */
static void at_the_limit(void)
{
	uma_zone_t zone = uma_zcreate("limit", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, UMA_ZONE_SMR);
	pthread_t threads[3];
	void *items[2];

	uma_zone_set_max(zone, 2);
	for (int i = 0; i < 100; i++) {
		items[0] = uma_zalloc_smr(zone, M_WAITOK);
		items[1] = uma_zalloc_smr(zone, i % 2 ? M_WAITOK : M_NOWAIT);
		CHECK(items[0] != NULL && items[1] != NULL);
		CHECK(uma_zalloc_smr(zone, M_NOWAIT) == NULL);
		uma_zfree_smr(zone, items[0]);
		uma_zfree_smr(zone, items[1]);
	}
	items[0] = uma_zalloc_smr(zone, M_WAITOK);
	items[1] = uma_zalloc_smr(zone, M_WAITOK);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, alloc_and_free, zone), 0);
	while (!uma_zone_exhausted(zone))
		usleep(1000);
	uma_zfree_smr(zone, items[0]);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	uma_zfree_smr(zone, items[1]);
	uma_zwait(zone);
	uma_zdestroy(zone);
}

/*
 * Writers replace a shared item and free the old one; readers look at it in a section and see that it stays
 * what it was: its generation changes to -1 when it is taken apart.
 */
struct node {
	int generation;
	int count;
};

static uma_zone_t nodes;
static smr_t nodes_smr;
static SMR_POINTER(struct node *) current;
static int generation, failures, done;

static int node_ctor(void *mem, int size, void *arg, int flags)
{
	struct node *node = mem;

	(void)size;
	(void)arg;
	(void)flags;
	__atomic_store_n(&node->count, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&node->generation, __atomic_add_fetch(&generation, 1, __ATOMIC_RELAXED),
			 __ATOMIC_RELAXED);
	return 0;
}

static void node_dtor(void *mem, int size, void *arg)
{
	struct node *node = mem;

	(void)size;
	(void)arg;
	if (__atomic_load_n(&node->count, __ATOMIC_RELAXED) != 0)
		__atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&node->generation, -1, __ATOMIC_RELAXED);
}

/* So many rounds, or fewer if they take long: on a busy machine each time that a thread yields may be a while. */
enum { FEW = 2000, SECONDS = 5 };

static time_t began;

static int long_enough(int round)
{
	struct timespec now;

	if (round < FEW || round % 64 != 0)
		return 0;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > began + SECONDS;
}

static void *reader(void *rounds)
{
	for (int i = 0; i < *(int *)rounds && !long_enough(i); i++) {
		struct node *node;
		int before;

		smr_enter(nodes_smr);
		node = smr_entered_load(&current, nodes_smr);
		__atomic_add_fetch(&node->count, 1, __ATOMIC_RELAXED);
		before = __atomic_load_n(&node->generation, __ATOMIC_RELAXED);
		if (before == -1)
			__atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
		for (int spin = 0; spin < 200; spin++)
			__asm__ volatile("" ::: "memory");
		if (i % 64 == 0)
			sched_yield();
		if (__atomic_load_n(&node->generation, __ATOMIC_RELAXED) != before)
			__atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
		__atomic_sub_fetch(&node->count, 1, __ATOMIC_RELAXED);
		smr_exit(nodes_smr);
	}
	return NULL;
}

static void *writer(void *unused)
{
	while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
		struct node *node = uma_zalloc_smr(nodes, M_WAITOK);

		node = smr_serialized_swap(&current, node, 1);
		uma_zfree_smr(nodes, node);
	}
	return unused;
}

static void stress(void)
{
	int rounds = getenv("UMA_TEST_SHORT") && *getenv("UMA_TEST_SHORT") ? FEW : 100000;
	pthread_t readers[3], writers[2];
	struct timespec now;

	nodes = uma_zcreate("nodes", sizeof(struct node), node_ctor, node_dtor, NULL, NULL,
			    UMA_ALIGN_PTR, UMA_ZONE_SMR);
	nodes_smr = uma_zone_get_smr(nodes);
	clock_gettime(CLOCK_MONOTONIC, &now);
	began = now.tv_sec;
	smr_unserialized_store(&current, uma_zalloc_smr(nodes, M_WAITOK), 1);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&readers[i], NULL, reader, &rounds), 0);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&writers[i], NULL, writer, NULL), 0);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(readers[i], NULL), 0);
	__atomic_store_n(&done, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(writers[i], NULL), 0);
	CHECK_EQ(failures, 0);
	CHECK(smr_serialized_load(&current, 1) == smr_unserialized_load(&current, 1));
	uma_zfree_smr(nodes, smr_serialized_load(&current, 1));
	smr_serialized_store(&current, NULL, 1);
	CHECK_EQ(uma_zone_get_cur(nodes), 0);
	uma_zdestroy(nodes);
}

int main(void)
{
	/* Whoever is never woken is a failure. */
	alarm(900);
	/* Before the first zone: it is read once. */
	CHECK_EQ(setenv("UMA_DEBUG", "debug:checked", 1), 0);
	sections();
	readers_leave_what_is_being_destroyed();
	a_secondary_zone_keeps_its_smr();
	frees_are_deferred();
	freed_twice("plain", 0);
	freed_twice("checked", 1);
	shared_smr();
	at_the_limit();
	stress();
	return 0;
}

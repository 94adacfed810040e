/* uma/solaris/ddi.h: locks, conditions, assertions, soft state. */
#include "../check.h"

#include <uma/solaris/ddi.h>

static kmutex_t mutex;
static kcondvar_t changed;
static int turn, rounds;

/* Two threads take turns. */
static void *takes_turns(void *argument)
{
	int mine = argument != NULL;

	for (int i = 0; i < 100; i++) {
		mutex_enter(&mutex);
		while (turn != mine)
			cv_wait(&changed, &mutex);
		turn = !mine;
		rounds++;
		if (i % 2)
			cv_signal(&changed);
		else
			cv_broadcast(&changed);
		mutex_exit(&mutex);
	}
	return NULL;
}

static void locks(void)
{
	static const kmutex_type_t kinds[] = { MUTEX_ADAPTIVE, MUTEX_SPIN, MUTEX_DRIVER, MUTEX_DEFAULT };
	static const kcv_type_t conditions[] = { CV_DEFAULT, CV_DRIVER, CV_DEFAULT, CV_DRIVER };

	for (int kind = 0; kind < 4; kind++) {
		pthread_t thread;

		mutex_init(&mutex, "mutex", kinds[kind], NULL);
		cv_init(&changed, "changed", conditions[kind], NULL);
		CHECK(mutex_tryenter(&mutex));
		CHECK(!mutex_tryenter(&mutex));
		mutex_exit(&mutex);
		turn = rounds = 0;
		CHECK_EQ(pthread_create(&thread, NULL, takes_turns, NULL), 0);
		takes_turns(&mutex);
		pthread_join(thread, NULL);
		CHECK_EQ(rounds, 200);
		cv_destroy(&changed);
		mutex_destroy(&mutex);
	}
	ASSERT(turn == 0);
	CHECK_ABORTS("assertion failed: turn == 1, file: ", ASSERT(turn == 1));
}

static void soft_state(void)
{
	dev_info_t device = { 2 };
	void *state = NULL, *one;

	CHECK_EQ(ddi_soft_state_init(&state, 100, 3), 0);
	CHECK(ddi_get_soft_state(state, ddi_get_instance(&device)) == NULL);
	CHECK_EQ(ddi_soft_state_zalloc(state, 2), 0);
	CHECK_EQ(ddi_soft_state_zalloc(state, 2), -1);
	CHECK_EQ(ddi_soft_state_zalloc(state, 3), -1);
	CHECK_EQ(ddi_soft_state_zalloc(state, -1), -1);
	one = ddi_get_soft_state(state, 2);
	CHECK(one != NULL && ((char *)one)[99] == 0);
	CHECK(ddi_get_soft_state(state, 1) == NULL);
	CHECK(ddi_get_soft_state(state, -1) == NULL && ddi_get_soft_state(state, 3) == NULL);
	ddi_soft_state_fini(&state);
	CHECK(state == NULL);
	CHECK_EQ(KSTAT_STRLEN, 31);
}

int main(void)
{
	locks();
	soft_state();
	return 0;
}

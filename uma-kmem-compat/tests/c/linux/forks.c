/* Copies of the process are made while others have the lock of a pool, and wait at it. */
#include "../check.h"

#include <pthread.h>

#include <uma/compat.h>
#include <uma/linux/mempool.h>

static mempool_t *busy, *empty;
static int stop, failing, waiting;

static void *take(gfp_t gfp, void *data)
{
	(void)gfp, (void)data;
	if (__atomic_load_n(&failing, __ATOMIC_SEQ_CST) == 0)
		return malloc(32);
	__atomic_add_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void give(void *element, void *data)
{
	(void)data;
	free(element);
}

static void *churn(void *argument)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		void *element = mempool_alloc_preallocated(busy);

		if (element != NULL)
			mempool_free(element, busy);
		CHECK_EQ(mempool_resize(busy, 4), 0);
	}
	return argument;
}

static void *wait_for_one(void *argument)
{
	mempool_free(mempool_alloc(empty, GFP_KERNEL), empty);
	return argument;
}

static void in_the_copy(void *last)
{
	void *elements[9];

	for (int i = 0; i < 9; i++)
		elements[i] = mempool_alloc(busy, GFP_KERNEL);
	for (int i = 0; i < 9; i++)
		mempool_free(elements[i], busy);
	CHECK_EQ(mempool_resize(busy, 2), 0);
	/* Nobody waits here, so the element is there for us. */
	mempool_free(last, empty);
	CHECK(mempool_alloc(empty, GFP_KERNEL) == last);
}

int main(void)
{
	int copies = getenv("UMA_TEST_SHORT") && *getenv("UMA_TEST_SHORT") ? 2 : 20;
	pthread_t churner, waiter;
	void *last;

	uma_compat_set_reporter(check_reporter);
	busy = mempool_create_kmalloc_pool(4, 64);
	empty = mempool_create(1, take, give, NULL);
	CHECK(busy != NULL && empty != NULL);
	failing = 1;
	last = mempool_alloc_preallocated(empty);
	CHECK(last != NULL);
	CHECK_EQ(pthread_create(&churner, NULL, churn, NULL), 0);
	CHECK_EQ(pthread_create(&waiter, NULL, wait_for_one, NULL), 0);
	/* It asks twice before it waits. */
	while (__atomic_load_n(&waiting, __ATOMIC_SEQ_CST) < 2)
		usleep(1000);
	CHECK_COPIES(copies, in_the_copy(last));
	mempool_free(last, empty);
	CHECK_EQ(pthread_join(waiter, NULL), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	CHECK_EQ(pthread_join(churner, NULL), 0);
	mempool_destroy(busy);
	mempool_destroy(empty);
	CHECK_REPORTS(0, "");
	return 0;
}

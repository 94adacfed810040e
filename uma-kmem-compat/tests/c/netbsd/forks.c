/* Copies of the process are made while others make and end pools, and have the locks of arenas, maps and books. */
#include "../check.h"

#include <pthread.h>

#include <uma/compat.h>
#include <uma/netbsd/kmem.h>
#include <uma/netbsd/pool.h>
#include <uma/netbsd/uvm.h>
#include <uma/netbsd/vmem.h>

enum { PAGE = 4096 };

static vmem_t *numbers, *full;
static struct pool settled;
static int stop, sleeping;

static void churn_once(void)
{
	struct pool pool;
	vmem_addr_t number;
	uintptr_t range;

	pool_init(&pool, 64, 0, 0, 0, "brief", NULL, IPL_NONE);
	pool_put(&pool, pool_get(&pool, PR_WAITOK));
	pool_sethardlimit(&settled, 10, "full", 60);
	pool_drain(NULL);
	pool_destroy(&pool);
	CHECK_EQ(vmem_alloc(numbers, 3, VM_SLEEP | VM_INSTANTFIT, &number), 0);
	vmem_free(numbers, number, 3);
	range = uvm_km_alloc(kernel_map, PAGE, 0, UVM_KMF_PAGEABLE | UVM_KMF_WAITVA);
	CHECK(range != 0);
	*(volatile char *)range = 1;
	uvm_km_free(kernel_map, range, PAGE, UVM_KMF_PAGEABLE);
	kmem_free(kmem_alloc(100, KM_SLEEP), 100);
}

static void *churn(void *argument)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		churn_once();
	return argument;
}

static void *wait_for_all(void *argument)
{
	vmem_addr_t at;

	__atomic_store_n(&sleeping, 1, __ATOMIC_SEQ_CST);
	CHECK_EQ(vmem_alloc(full, 10, VM_SLEEP | VM_INSTANTFIT, &at), 0);
	vmem_free(full, at, 10);
	return argument;
}

static void in_the_copy(vmem_addr_t all)
{
	for (int i = 0; i < 10; i++)
		churn_once();
	/* Nobody waits here, so all of it is there for us. */
	vmem_free(full, all, 10);
	CHECK_EQ(vmem_alloc(full, 10, VM_NOSLEEP | VM_INSTANTFIT, &all), 0);
	vmem_free(full, all, 10);
	/* Nobody looks at it here. */
	pool_destroy(&settled);
}

int main(void)
{
	int copies = getenv("UMA_TEST_SHORT") && *getenv("UMA_TEST_SHORT") ? 2 : 20;
	pthread_t churners[2], waiter;
	vmem_addr_t all;

	uma_compat_set_reporter(check_reporter);
	CHECK_EQ(uma_compat_set_policy("netbsd.diagnostic", "on"), 0);
	pool_init(&settled, 64, 0, 0, 0, "settled", NULL, IPL_NONE);
	pool_put(&settled, pool_get(&settled, PR_WAITOK));
	numbers = vmem_create("numbers", 0, 1000, 1, NULL, NULL, NULL, 0, VM_SLEEP, 0);
	full = vmem_create("full", 0, 10, 1, NULL, NULL, NULL, 0, VM_SLEEP, 0);
	CHECK_EQ(vmem_alloc(full, 10, VM_SLEEP | VM_INSTANTFIT, &all), 0);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&churners[i], NULL, churn, NULL), 0);
	CHECK_EQ(pthread_create(&waiter, NULL, wait_for_all, NULL), 0);
	while (!__atomic_load_n(&sleeping, __ATOMIC_SEQ_CST))
		usleep(1000);
	usleep(100000);
	CHECK_COPIES(copies, in_the_copy(all));
	vmem_free(full, all, 10);
	CHECK_EQ(pthread_join(waiter, NULL), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(churners[i], NULL), 0);
	vmem_destroy(full);
	vmem_destroy(numbers);
	pool_destroy(&settled);
	CHECK_REPORTS(0, "");
	return 0;
}

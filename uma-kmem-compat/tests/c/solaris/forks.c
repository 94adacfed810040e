/* Copies of the process are made while others have the locks of arenas, and wait at one. */
#include "../check.h"

#include <pthread.h>

#include <uma/compat.h>
#include <uma/solaris/kmem.h>
#include <uma/solaris/sys/vmem.h>

static vmem_t *numbers, *full, *child;
static int stop;

static void churn_once(void)
{
	void *number = vmem_alloc(numbers, 3, VM_SLEEP);
	void *memory = vmem_alloc(child, 0x3000, VM_SLEEP);
	vmem_t *arena = vmem_create("brief", (void *)1, 10, 1, NULL, NULL, NULL, 0,
				    VM_SLEEP | VMC_IDENTIFIER);

	CHECK(number != NULL && memory != NULL && arena != NULL);
	*(volatile char *)memory = 1;
	vmem_destroy(arena);
	vmem_free(numbers, number, 3);
	vmem_free(child, memory, 0x3000);
}

static void *churn(void *argument)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		churn_once();
	return argument;
}

static void *wait_for_all(void *argument)
{
	vmem_free(full, vmem_alloc(full, 10, VM_SLEEP), 10);
	return argument;
}

static void in_the_copy(void *all)
{
	for (int i = 0; i < 10; i++)
		churn_once();
	/* Nobody waits here, so all of it is there for us. */
	vmem_free(full, all, 10);
	CHECK(vmem_alloc(full, 10, VM_NOSLEEP) == all);
	kmem_free(kmem_alloc(100, KM_SLEEP), 100);
}

int main(void)
{
	int copies = getenv("UMA_TEST_SHORT") && *getenv("UMA_TEST_SHORT") ? 2 : 20;
	pthread_t churners[2], waiter;
	void *all;

	uma_compat_set_reporter(check_reporter);
	numbers = vmem_create("numbers", (void *)1, 1000, 1, NULL, NULL, NULL, 0,
			      VM_SLEEP | VMC_IDENTIFIER);
	full = vmem_create("full", (void *)1, 10, 1, NULL, NULL, NULL, 0, VM_SLEEP | VMC_IDENTIFIER);
	child = vmem_create("child", NULL, 0, 0x1000, vmem_alloc, vmem_free, heap_arena, 0, VM_SLEEP);
	all = vmem_alloc(full, 10, VM_SLEEP);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&churners[i], NULL, churn, NULL), 0);
	CHECK_EQ(pthread_create(&waiter, NULL, wait_for_all, NULL), 0);
	while (uma_solaris_vmem_stat(full, "wait") == 0)
		usleep(1000);
	CHECK_COPIES(copies, in_the_copy(all));
	vmem_free(full, all, 10);
	CHECK_EQ(pthread_join(waiter, NULL), 0);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(churners[i], NULL), 0);
	vmem_destroy(child);
	vmem_destroy(full);
	vmem_destroy(numbers);
	CHECK_REPORTS(0, "");
	return 0;
}

/*
 * Like NetBSD's radix tree, which asserts at every get that a node is in its constructed state: all slots empty.
 * Threads build trees and take them down, objects are put by other threads than got them, caches are
 * invalidated meanwhile.
 */
#include "../check.h"

#include <pthread.h>

#include <uma/compat.h>
#include <uma/netbsd/pool.h>

enum { SLOTS = 16, THREADS = 4, LEVELS = 3 };

struct node {
	void *slots[SLOTS];
};

static pool_cache_t nodes;
static long made, ended;
static int rounds = 60;
static struct node *handed;

static void check_empty(struct node *node)
{
	for (int i = 0; i < SLOTS; i++)
		CHECK(node->slots[i] == NULL);
}

static int node_ctor(void *argument, void *memory, int flags)
{
	(void)argument;
	CHECK(flags == PR_WAITOK || flags == PR_NOWAIT);
	memset(memory, 0, sizeof(struct node));
	__atomic_add_fetch(&made, 1, __ATOMIC_RELAXED);
	return 0;
}

static void node_dtor(void *argument, void *memory)
{
	(void)argument;
	check_empty(memory);
	memset(memory, 0xa5, sizeof(struct node));
	__atomic_add_fetch(&ended, 1, __ATOMIC_RELAXED);
}

static struct node *get(void)
{
	struct node *node = pool_cache_get(nodes, PR_WAITOK);

	CHECK(node != NULL);
	check_empty(node);
	return node;
}

static struct node *build(int level)
{
	struct node *node = get();

	for (int i = 0; level > 0 && i < SLOTS; i += 2)
		node->slots[i] = build(level - 1);
	return node;
}

static void take_down(struct node *node)
{
	for (int i = 0; i < SLOTS; i++) {
		if (node->slots[i] != NULL)
			take_down(node->slots[i]);
		node->slots[i] = NULL;
	}
	pool_cache_put(nodes, node);
}

static void *work(void *argument)
{
	for (int round = 0; round < rounds; round++) {
		struct node *tree = build(LEVELS);

		/* Mostly somebody else's. */
		tree = __atomic_exchange_n(&handed, tree, __ATOMIC_ACQ_REL);
		if (tree != NULL)
			take_down(tree);
		if (round % 16 == 0)
			pool_cache_invalidate(nodes);
	}
	return argument;
}

int main(void)
{
	pthread_t threads[THREADS];

	if (getenv("UMA_TEST_SHORT") && *getenv("UMA_TEST_SHORT"))
		rounds = 4;
	uma_compat_set_reporter(check_reporter);
	nodes = pool_cache_init(sizeof(struct node), 0, 0, PR_LARGECACHE, "radixnode", NULL, IPL_NONE,
				node_ctor, node_dtor, NULL);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, work, NULL), 0);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	take_down(handed);
	CHECK_EQ(uma_netbsd_pool_nout(&nodes->pc_pool), 0);
	CHECK_EQ(pool_chk(&nodes->pc_pool, "radix"), 0);
	pool_cache_destroy(nodes);
	CHECK_EQ(made, ended);
	CHECK_REPORTS(0, "");
	return 0;
}

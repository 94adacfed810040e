/* Objects are freed by other threads than allocate them, threads come and go, processes fork. */
#include "../check.h"

#include <pthread.h>

#include <uma/compat.h>
#include <uma/linux/slab.h>

enum { THREADS = 4, SLOTS = 512 };

static struct kmem_cache *cache;
static uint64_t *slots[SLOTS];
static int stop;
static long rounds = 60000;
static int forks = 20;

/* Puts an object of its own into a slot, and frees what was there, which is whole. */
static void *churn(void *argument)
{
	uint64_t me = (uintptr_t)argument, random = me * 2654435761u + 1;

	for (long round = 0; round < rounds && !__atomic_load_n(&stop, __ATOMIC_RELAXED); round++) {
		uint64_t *mine = kmem_cache_alloc(cache, GFP_KERNEL), *old;

		random = random * 6364136223846793005u + 1442695040888963407u;
		CHECK(mine != NULL);
		for (int word = 0; word < 8; word++)
			mine[word] = random + (uint64_t)word;
		old = __atomic_exchange_n(&slots[(random >> 33) % SLOTS], mine, __ATOMIC_ACQ_REL);
		if (old != NULL) {
			for (int word = 0; word < 8; word++)
				CHECK_EQ(old[word], old[0] + (uint64_t)word);
			kmem_cache_free(cache, old);
		}
	}
	return NULL;
}

static void start(pthread_t *threads)
{
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, churn, (void *)(i + 1)), 0);
}

static void join(pthread_t *threads)
{
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

static void empty(void)
{
	for (int i = 0; i < SLOTS; i++)
		if (slots[i] != NULL)
			kmem_cache_free(cache, slots[i]);
	memset(slots, 0, sizeof(slots));
}

static void *create_and_destroy(void *argument)
{
	(void)argument;
	for (int i = 0; i < 100; i++) {
		struct kmem_cache *mine = kmem_cache_create("mine", 96, 0, 0, NULL);
		void *object = kmem_cache_alloc(mine, GFP_KERNEL);

		kmem_cache_free(mine, object);
		kmem_cache_destroy(mine);
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS];

	uma_compat_set_reporter(check_reporter);
	if (getenv("UMA_TEST_SHORT") && *getenv("UMA_TEST_SHORT"))
		rounds = 3000, forks = 3;
	cache = kmem_cache_create("shared", 64, 0, SLAB_PANIC, NULL);
	start(threads);
	join(threads);
	empty();
	CHECK_EQ(uma_linux_kmem_cache_active(cache), 0);

	/* The child of a fork in the middle of it can go on, with this cache and with new ones. */
	rounds = 1l << 40;
	start(threads);
	for (int i = 0; i < forks; i++) {
		pid_t child = fork();
		int status;

		if (child == 0) {
			struct kmem_cache *mine = kmem_cache_create("child", 64, 0, 0, NULL);

			for (int j = 0; j < 100; j++) {
				kmem_cache_free(cache, kmem_cache_alloc(cache, GFP_KERNEL));
				kmem_cache_free(mine, kmem_cache_alloc(mine, GFP_KERNEL));
			}
			kmem_cache_shrink(cache);
			kmem_cache_destroy(mine);
			/* Not _exit: a leak checker would find what the other threads had. */
			kill(getpid(), SIGKILL);
		}
		CHECK(waitpid(child, &status, 0) == child);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	join(threads);
	empty();
	CHECK_EQ(uma_linux_kmem_cache_active(cache), 0);
	kmem_cache_destroy(cache);

	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, create_and_destroy, NULL), 0);
	join(threads);
	CHECK_REPORTS(0, "");
	return 0;
}

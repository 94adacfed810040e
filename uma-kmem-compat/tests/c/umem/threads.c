/* Threads: objects that change hands, thousands of short threads, and forks in the middle. */
#include "../check.h"

#include <pthread.h>

#include <umem.h>

#define CACHES 4
#define THREADS 4

static umem_cache_t *caches[CACHES];
static int constructed[CACHES], destructed[CACHES];
static int stop, rounds = 300, brief;
static void *mailbox[64];

static int construct(void *memory, void *private, int flag)
{
	int which = (int)(intptr_t)private;

	(void)flag;
	memset(memory, 'a' + which, 8);
	__atomic_add_fetch(&constructed[which], 1, __ATOMIC_RELAXED);
	return 0;
}

static void destruct(void *memory, void *private)
{
	int which = (int)(intptr_t)private;

	CHECK_EQ(((char *)memory)[0], 'a' + which);
	__atomic_add_fetch(&destructed[which], 1, __ATOMIC_RELAXED);
}

static void make(void)
{
	for (intptr_t i = 0; i < CACHES; i++) {
		caches[i] = umem_cache_create("strings", 50u << i, 0, construct, destruct, NULL,
					      (void *)i, NULL, 0);
		CHECK(caches[i] != NULL);
	}
}

static void *strings(void *which)
{
	umem_cache_t *cache = caches[(intptr_t)which];
	char *held[100], *memory;

	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < 100; i++) {
			held[i] = umem_cache_alloc(cache, UMEM_NOFAIL);
			CHECK_EQ(held[i][7], 'a' + (int)(intptr_t)which);
			snprintf(held[i] + 8, 40, "string %d of %d", i, round);
		}
		for (int i = 0; i < 100; i++) {
			char wanted[40];

			snprintf(wanted, sizeof(wanted), "string %d of %d", i, round);
			CHECK_EQ(strcmp(held[i] + 8, wanted), 0);
			umem_cache_free(cache, held[i]);
		}
		memory = umem_alloc(1000, UMEM_NOFAIL);
		memset(memory, 1, 1000);
		/* It goes to whoever comes next. */
		memory = __atomic_exchange_n(&mailbox[round % 64], memory, __ATOMIC_ACQ_REL);
		if (memory != NULL)
			umem_free(memory, 1000);
		if (round % 100 == 0)
			umem_reap();
	}
	return NULL;
}

static void *brief_life(void *unused)
{
	void *one = umem_alloc(64, UMEM_DEFAULT), *two = umem_cache_alloc(caches[0], UMEM_DEFAULT);

	CHECK(one != NULL && two != NULL);
	umem_free(one, 64);
	umem_cache_free(caches[0], two);
	return unused;
}

static void *busy(void *unused)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		strings((void *)1);
	return unused;
}

static void forks(void)
{
	pthread_t threads[2];
	int status;

	rounds = 10;
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, busy, NULL), 0);
	for (int i = 0; i < (brief ? 3 : 50); i++) {
		pid_t child = fork();

		if (child == 0) {
			umem_cache_t *mine;

			alarm(150);
			for (int j = 0; j < 100; j++) {
				void *one = umem_alloc(100 + (size_t)j, UMEM_DEFAULT);
				void *two = umem_cache_alloc(caches[2], UMEM_DEFAULT);

				CHECK(one != NULL && two != NULL);
				umem_free(one, 100 + (size_t)j);
				umem_cache_free(caches[2], two);
			}
			mine = umem_cache_create("child", 10, 0, NULL, NULL, NULL, NULL, NULL, 0);
			CHECK(mine != NULL);
			/* Not _exit: valgrind would find lost what the other threads had. */
			execl("/bin/true", "true", (char *)NULL);
			_exit(0);
		}
		CHECK_EQ(waitpid(child, &status, 0), child);
		CHECK_EQ(status, 0);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

int main(void)
{
	pthread_t threads[16];

	brief = getenv("UMA_TEST_SHORT") != NULL && *getenv("UMA_TEST_SHORT") != '\0';
	if (brief)
		rounds = 20;
	make();
	for (intptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, strings, (void *)(i % CACHES)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < (brief ? 5 : 200); i++) {
		for (int j = 0; j < 16; j++)
			CHECK_EQ(pthread_create(&threads[j], NULL, brief_life, NULL), 0);
		for (int j = 0; j < 16; j++)
			pthread_join(threads[j], NULL);
	}
	forks();
	for (int i = 0; i < 64; i++)
		if (mailbox[i] != NULL)
			umem_free(mailbox[i], 1000);
	for (int i = 0; i < CACHES; i++) {
		CHECK_EQ(uma_umem_cache_active(caches[i]), 0);
		umem_cache_destroy(caches[i]);
		CHECK_EQ(constructed[i], destructed[i]);
	}
	CHECK_EQ(uma_umem_alloc_active(), 0);
	return 0;
}

/* umem_nofail_callback: retry, exit, not returning, nonsense, and none at all. */
#include "../check.h"

#include <pthread.h>
#include <setjmp.h>

#include <umem.h>

#define HUGE_SIZE ((size_t)1 << 60)

static int calls;
static jmp_buf away;
static char *held[2000];
static int count;
static int brief;

static int retry_twice(void)
{
	calls++;
	/* A callback may allocate and free. */
	umem_free(umem_alloc(100, UMEM_DEFAULT), 100);
	if (calls == 2)
		umem_free(held[--count], 1 << 20);
	return UMEM_CALLBACK_RETRY;
}

static int exit_7(void)
{
	return UMEM_CALLBACK_EXIT(7);
}

static int exit_low_bits(void)
{
	return UMEM_CALLBACK_EXIT(0x1203);
}

static int nonsense(void)
{
	return 17;
}

static int jump(void)
{
	longjmp(away, 1);
}

static int leave_thread(void)
{
	pthread_exit(&calls);
}

static int fail_at_exit(void)
{
	return UMEM_CALLBACK_EXIT(3);
}

static void at_exit(void)
{
	umem_alloc(HUGE_SIZE, UMEM_NOFAIL);
}

/* The status of a child that runs this. */
static int status_of(umem_nofail_callback_t *callback)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		umem_nofail_callback(callback);
		umem_alloc(HUGE_SIZE, UMEM_NOFAIL);
		_exit(99);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void *fail(void *unused)
{
	umem_alloc(HUGE_SIZE, UMEM_NOFAIL);
	return unused;
}

static void retry(void)
{
	struct rlimit bound = { 1ul << 30, 1ul << 30 };
	int status;
	pid_t child = fork();

	if (child == 0) {
		CHECK_EQ(setrlimit(RLIMIT_AS, &bound), 0);
		while (count < 2000 && (held[count] = umem_alloc(1 << 20, UMEM_DEFAULT)) != NULL)
			count++;
		CHECK(count > 10 && count < 2000);
		umem_nofail_callback(retry_twice);
		CHECK(umem_alloc(1 << 20, UMEM_NOFAIL) != NULL);
		CHECK_EQ(calls, 2);
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
}

static void not_returning(void)
{
	pthread_t thread;
	void *result = NULL;

	umem_nofail_callback(jump);
	if (setjmp(away) == 0) {
		umem_alloc(HUGE_SIZE, UMEM_NOFAIL);
		CHECK(0);
	}
	/* Nothing is locked. */
	umem_free(umem_alloc(100, UMEM_NOFAIL), 100);
	umem_nofail_callback(leave_thread);
	CHECK_EQ(pthread_create(&thread, NULL, fail, NULL), 0);
	CHECK_EQ(pthread_join(thread, &result), 0);
	CHECK(result == &calls);
	umem_reap();
}

/* Many threads fail at once: one ends the process, the others wait for that. */
static void many(void)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		pthread_t threads[8];

		umem_nofail_callback(exit_7);
		for (int i = 0; i < 8; i++)
			CHECK_EQ(pthread_create(&threads[i], NULL, fail, NULL), 0);
		for (int i = 0; i < 8; i++)
			pthread_join(threads[i], NULL);
		_exit(99);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 7);
}

int main(void)
{
	brief = getenv("UMA_TEST_SHORT") != NULL && *getenv("UMA_TEST_SHORT") != '\0';
	CHECK_EQ(UMEM_NOFAIL & UMEM_FLAGS, UMEM_NOFAIL);
	CHECK_EQ((UMC_NOTOUCH | UMC_NODEBUG | UMC_NOMAGAZINE | UMC_NOHASH) & UMEM_FLAGS, 0);
	CHECK_EQ(UMEM_CALLBACK_RETRY, 0);
	CHECK_EQ(UMEM_CALLBACK_EXIT(5), 0x105);
	CHECK_EQ(status_of(exit_7), 7);
	CHECK_EQ(status_of(exit_low_bits), 3);
	CHECK_EQ(status_of(nonsense), 255);
	CHECK_EQ(status_of(NULL), 255);
	CHECK_ABORTS("while the process ends", atexit(at_exit); umem_nofail_callback(fail_at_exit);
		     umem_alloc(HUGE_SIZE, UMEM_NOFAIL));
	many();
	if (!brief)
		retry();
	not_returning();
	return 0;
}

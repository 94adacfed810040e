/*
 * What the C tests share. A test is a program: 0 if all is well. Include it before anything else.
 */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* The condition holds, or the program ends with a line that says where. */
#define CHECK(condition) \
	((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))

/* Two integers are equal; shows both if not. */
#define CHECK_EQ(have, want) \
	check_eq(__FILE__, __LINE__, #have, (intmax_t)(have), (intmax_t)(want))

/*
 * The statement, run in a child process, ends it by abort(3), after a line on the standard error output
 * that contains the text.
 */
#define CHECK_ABORTS(text, ...)                                               \
	do {                                                                  \
		int check_pipe[2];                                            \
		pid_t check_child = check_fork(check_pipe);                   \
		if (check_child == 0) {                                       \
			__VA_ARGS__;                                          \
			_exit(0);                                             \
		}                                                             \
		check_aborted(__FILE__, __LINE__, check_child, check_pipe[0], \
			      text);                                          \
	} while (0)

static inline void check_failed(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
	_exit(1);
}

static inline void check_eq(const char *file, int line, const char *what, intmax_t have, intmax_t want)
{
	if (have == want)
		return;
	fprintf(stderr, "%s:%d: %s is %jd and should be %jd\n", file, line, what, have, want);
	_exit(1);
}

static inline pid_t check_fork(int ends[2])
{
	pid_t child;

	if (pipe(ends) != 0)
		check_failed(__FILE__, __LINE__, "pipe");
	child = fork();
	if (child < 0)
		check_failed(__FILE__, __LINE__, "fork");
	if (child == 0) {
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
	}
	close(ends[1]);
	return child;
}

static inline void check_aborted(const char *file, int line, pid_t child, int end, const char *text)
{
	static char said[16384], rest[4096];
	size_t length = 0;
	ssize_t more;
	int status = 0;

	while (length < sizeof(said) - 1 &&
	       (more = read(end, said + length, sizeof(said) - 1 - length)) > 0)
		length += (size_t)more;
	said[length] = '\0';
	/* Traces may be longer; who writes them must not die of a closed pipe. */
	while (read(end, rest, sizeof(rest)) > 0)
		continue;
	close(end);
	waitpid(child, &status, 0);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) {
		fprintf(stderr, "%s:%d: no abort (status %#x); it said: %s\n", file, line,
			(unsigned int)status, said);
		_exit(1);
	}
	if (strstr(said, text) == NULL) {
		fprintf(stderr, "%s:%d: \"%s\" is not in: %s\n", file, line, text, said);
		_exit(1);
	}
}

/*
 * The thread stays on the CPU that it is on, for counts of what one CPU's cache holds. Where that is not allowed it
 * does not, and the counts hold unless it moves often.
 */
static inline void check_stay(void)
{
	cpu_set_t one;
	int cpu = sched_getcpu();

	CPU_ZERO(&one);
	if (cpu >= 0 && cpu < CPU_SETSIZE)
		CPU_SET(cpu, &one);
	(void)sched_setaffinity(0, sizeof(one), &one);
}

/*
 * The statement, run in so many copies of the process, one after the other, comes to an end there. It may use CHECK. A
 * copy ends by a signal, not by exit(3): a leak checker would find what the other threads had.
 */
#define CHECK_COPIES(count, ...)                                                       \
	do {                                                                           \
		for (int check_copy = 0; check_copy < (count); check_copy++) {         \
			pid_t check_child = fork();                                    \
			int check_status = 0;                                          \
			if (check_child == 0) {                                        \
				alarm(150);                                            \
				__VA_ARGS__;                                           \
				kill(getpid(), SIGKILL);                               \
			}                                                              \
			CHECK(check_child > 0);                                        \
			CHECK_EQ(waitpid(check_child, &check_status, 0), check_child); \
			CHECK_EQ(WIFSIGNALED(check_status), 1);                        \
			CHECK_EQ(WTERMSIG(check_status), SIGKILL);                     \
		}                                                                      \
	} while (0)

/* Reports, counted: see check_reports. The last is kept. */
static int check_count;
static char check_last[512];

static inline void check_reporter(const char *said)
{
	__atomic_add_fetch(&check_count, 1, __ATOMIC_RELAXED);
	snprintf(check_last, sizeof(check_last), "%s", said);
}

/* There were so many reports since the last such check, and the last of them contains the text. */
#define CHECK_REPORTS(count, text)                                                 \
	do {                                                                       \
		CHECK_EQ(check_count, count);                                      \
		if (check_count != 0 && strstr(check_last, text) == NULL)          \
			check_failed(__FILE__, __LINE__, check_last);              \
		check_count = 0;                                                   \
	} while (0)

#endif

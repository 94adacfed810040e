/*
 * All five dialects in one process, from four threads at once, for so many seconds: 5, or what the first
 * argument or UMA_TEST_SECONDS says; with UMA_TEST_SHORT=1, for some rounds. Whatever a thread gets it stamps
 * with a token and leaves in a slot, and what it finds there it looks at and puts back, whoever got it. In the end
 * every system's own figures say that nothing is in use, and all that was constructed is destructed.
 */
#include "../check.h"

#include "mixed.h"

#include <pthread.h>
#include <time.h>

#include <uma/compat.h>

enum { THREADS = 4, SLOTS = 2000 };

static const struct dialect *const dialects[] = { &solaris, &umem, &linux_, &netbsd, &freebsd };

struct held {
	const struct kind *kind;
	uint64_t *memory;
	size_t size;
	uint64_t token;
};

static struct slot {
	int taken;
	struct held held;
} slots[SLOTS];

static struct timespec deadline;
static long most = 1l << 40;
static uint64_t rounds, refused, foreign;

static int is_over(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > deadline.tv_sec ||
	       (now.tv_sec == deadline.tv_sec && now.tv_nsec >= deadline.tv_nsec);
}

static void stamp(const struct held *held)
{
	size_t words = held->size / 8;

	for (size_t word = 0; word < words; word++)
		held->memory[word] = held->token + word;
	for (size_t at = words * 8; at < held->size; at++)
		((uint8_t *)held->memory)[at] = (uint8_t)held->token;
}

static void look(const struct held *held)
{
	size_t words = held->size / 8;

	for (size_t word = 0; word < words; word++)
		if (held->memory[word] != held->token + word) {
			fprintf(stderr, "%s: word %zu of %zu bytes at %p is %#jx, not %#jx\n",
				held->kind->name, word, held->size, (void *)held->memory,
				(uintmax_t)held->memory[word], (uintmax_t)(held->token + word));
			_exit(1);
		}
	for (size_t at = words * 8; at < held->size; at++)
		CHECK_EQ(((uint8_t *)held->memory)[at], (uint8_t)held->token);
}

static void give_back(const struct held *held)
{
	if (held->kind != NULL) {
		look(held);
		held->kind->put(held->memory, held->size);
	}
}

/* Changes what is in a slot. */
static void exchange(struct slot *slot, struct held *held)
{
	struct held old;

	while (__atomic_exchange_n(&slot->taken, 1, __ATOMIC_ACQUIRE))
		sched_yield();
	old = slot->held;
	slot->held = *held;
	__atomic_store_n(&slot->taken, 0, __ATOMIC_RELEASE);
	*held = old;
}

static uint64_t next(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 29;
}

static void *work(void *argument)
{
	uint64_t me = (uintptr_t)argument, random = me * 0x9e3779b97f4a7c15u + 1;
	uint64_t mine = 0, others = 0, nothing = 0;

	for (long round = 0; round < most && (round % 256 != 0 || !is_over()); round++, mine++) {
		const struct dialect *dialect = dialects[next(&random) % COUNT(dialects)];
		struct held held = { &dialect->kinds[next(&random) % dialect->count], NULL, 0, 0 };

		held.memory = held.kind->get(next(&random), &held.size);
		/* Whose it is is in the token's lowest bits. */
		held.token = next(&random) * THREADS + me;
		if (held.memory == NULL) {
			CHECK(held.kind->may_fail);
			held.kind = NULL;
			nothing++;
		} else {
			CHECK_EQ((uintptr_t)held.memory % 8, 0);
			stamp(&held);
		}
		exchange(&slots[next(&random) % SLOTS], &held);
		others += held.kind != NULL && held.token % THREADS != me;
		give_back(&held);
		if (round % 4096 == (long)me)
			dialect->reap();
	}
	__atomic_add_fetch(&rounds, mine, __ATOMIC_RELAXED);
	__atomic_add_fetch(&foreign, others, __ATOMIC_RELAXED);
	__atomic_add_fetch(&refused, nothing, __ATOMIC_RELAXED);
	return NULL;
}

/* How much of every kind is in use. */
static uint64_t in_use(int say)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < COUNT(dialects); i++)
		for (size_t j = 0; j < dialects[i]->count; j++) {
			uint64_t used = dialects[i]->kinds[j].used();

			if (used != 0 && say)
				fprintf(stderr, "%s: %s: %ju in use\n", dialects[i]->name,
					dialects[i]->kinds[j].name, (uintmax_t)used);
			sum += used;
		}
	return sum;
}

/* Whether there is a short way, compiled into this program, in every dialect; or in none. */
static int short_ways(void)
{
	size_t hits = 0;

	for (size_t i = 0; i < COUNT(dialects); i++)
		hits += (size_t)dialects[i]->hits();
	CHECK(hits == 0 || hits == COUNT(dialects));
	return hits != 0;
}

int main(int count, char **arguments)
{
	const char *wish = count > 1 ? arguments[1] : getenv("UMA_TEST_SECONDS");
	long seconds = wish != NULL && *wish ? atol(wish) : 5;
	const char *brief = getenv("UMA_TEST_SHORT");
	pthread_t threads[THREADS];
	int hits;

	if (brief != NULL && *brief)
		most = 500;
	uma_compat_set_reporter(check_reporter);
	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += seconds;
	for (size_t i = 0; i < COUNT(dialects); i++)
		dialects[i]->start();
	CHECK_EQ(in_use(1), 0);
	hits = short_ways();
	CHECK_EQ(in_use(1), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, work, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	/* What the slots hold the figures must know of, too. */
	CHECK(in_use(0) > 0);
	for (int i = 0; i < SLOTS; i++)
		give_back(&slots[i].held);
	CHECK_EQ(in_use(1), 0);
	for (size_t i = 0; i < COUNT(dialects); i++) {
		dialects[i]->end();
		CHECK_EQ(*dialects[i]->constructed, 0);
	}
	CHECK_REPORTS(0, "");
	CHECK(foreign > 0);
	printf("%ju rounds, %ju frees of what another thread had got, %ju refusals at a limit: all balance\n"
	       "hits are %s\n",
	       (uintmax_t)rounds, (uintmax_t)foreign, (uintmax_t)refused,
	       hits ? "compiled in" : "calls");
	return 0;
}

/* malloc(9): types, sizes, flags, changes of size, figures; beside the C library's functions of that name. */
#include "../check.h"

#include <uma/compat.h>
#include <uma/freebsd/malloc9.h>
#include <uma/freebsd/uma.h>

MALLOC_DECLARE(M_MINE);
MALLOC_DEFINE(M_MINE, "mine", "what is mine");
MALLOC_DEFINE(M_OTHER, "other", "what is not");

static struct uma_freebsd_malloc_stats stats(struct malloc_type *type)
{
	struct uma_freebsd_malloc_stats stats;

	uma_freebsd_malloc_type_stats(type, &stats);
	return stats;
}

static void sizes(void)
{
	static const size_t all[][2] = {
		{ 0, 16 },     { 1, 16 },	{ 16, 16 },	{ 17, 32 },	{ 33, 64 },
		{ 65, 128 },   { 129, 256 },	{ 257, 384 },	{ 385, 512 },	{ 513, 1024 },
		{ 1025, 2048 }, { 2049, 4096 }, { 4097, 8192 }, { 65536, 65536 }, { 65537, 69632 },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		char *at = malloc(all[i][0], M_MINE, M_WAITOK);

		CHECK(at != NULL);
		CHECK_EQ(malloc_usable_size(at), all[i][1]);
		if ((all[i][1] & (all[i][1] - 1)) == 0)
			CHECK_EQ((uintptr_t)at & ((all[i][1] < 4096 ? all[i][1] : 4096) - 1), 0);
		memset(at, 0xa5, all[i][1]);
		free(at, M_MINE);
		at = malloc(all[i][0], M_MINE, M_NOWAIT | M_ZERO);
		for (size_t j = 0; j < all[i][1]; j++)
			CHECK_EQ(at[j], 0);
		free(at, M_MINE);
	}
	free(NULL, M_MINE);
	CHECK_EQ(malloc_usable_size(NULL), 0);
	CHECK(malloc((size_t)-1 / 2, M_MINE, M_NOWAIT) == NULL);
	/* Nobody waits for what no address space has. */
	CHECK_ABORTS("M_WAITOK, but", malloc((size_t)-1 / 2, M_MINE, M_WAITOK));
	CHECK_EQ(uma_compat_set_policy("freebsd.waitok", "abort"), 0);
	CHECK_ABORTS("M_WAITOK, but", malloc((size_t)-1 / 2, M_MINE, M_WAITOK));
	CHECK_EQ(uma_compat_set_policy("freebsd.waitok", "null"), 0);
	CHECK(malloc((size_t)-1 / 2, M_MINE, M_WAITOK) == NULL);
	CHECK_EQ(uma_compat_set_policy("freebsd.waitok", "wait"), 0);
}

static void changes_of_size(void)
{
	char *at = realloc(NULL, 100, M_MINE, M_WAITOK), *other;

	CHECK_EQ(malloc_usable_size(at), 128);
	memset(at, 1, 100);
	other = realloc(at, 128, M_MINE, M_WAITOK);
	CHECK(other == at);
	at = realloc(at, 5000, M_MINE, M_WAITOK);
	for (int i = 0; i < 100; i++)
		CHECK_EQ(at[i], 1);
	at = realloc(at, 10, M_MINE, M_WAITOK);
	CHECK_EQ(malloc_usable_size(at), 16);
	CHECK_EQ(at[9], 1);
	/* If it fails nothing has changed; reallocf frees. */
	CHECK(realloc(at, (size_t)-1 / 2, M_MINE, M_NOWAIT) == NULL);
	CHECK_EQ(at[9], 1);
	CHECK(reallocf(at, (size_t)-1 / 2, M_MINE, M_NOWAIT) == NULL);
	at = reallocf(NULL, 10, M_MINE, M_WAITOK);
	zfree(at, M_MINE);
	zfree(NULL, M_MINE);
	CHECK_EQ(stats(M_MINE).allocs, stats(M_MINE).frees);
	at = mallocarray(10, 10, M_MINE, M_WAITOK | M_ZERO);
	CHECK_EQ(malloc_usable_size(at), 128);
	free(at, M_MINE);
	CHECK_ABORTS("overflow", mallocarray((size_t)-1, 2, M_MINE, M_NOWAIT));
	at = malloc_aligned(100, 1024, M_MINE, M_WAITOK);
	CHECK_EQ((uintptr_t)at & 1023, 0);
	free(at, M_MINE);
}

static void figures(void)
{
	struct uma_freebsd_malloc_stats before = stats(M_OTHER), after;
	static char table[65536];
	size_t length = sizeof(table);
	void *at = malloc(100, M_OTHER, M_WAITOK), *temp = malloc(1, M_TEMP, M_WAITOK);

	after = stats(M_OTHER);
	CHECK_EQ(after.allocs - before.allocs, 1);
	CHECK_EQ(after.bytes - before.bytes, 128);
	CHECK_EQ(after.sizes, 1 << 7);
	CHECK_EQ(uma_freebsd_sysctlbyname("kern.malloc", table, &length, NULL, 0), 0);
	CHECK(strstr(table, "           other      1     1K        1 128\n") != NULL);
	CHECK(strstr(table, "temp") != NULL);
	uma_compat_set_reporter(check_reporter);
	malloc_uninit(M_OTHER);
	CHECK_REPORTS(1, "type \"other\" leaked 1 allocations of 128 bytes");
	uma_compat_set_reporter(NULL);
	/* It may be used again. */
	malloc_init(M_OTHER);
	CHECK_EQ(stats(M_OTHER).allocs, 0);
	free(at, M_TEMP);
	free(temp, M_TEMP);
	free(malloc(10, M_CACHE, M_WAITOK), M_CACHE);
	free(malloc(10, M_DEVBUF, M_WAITOK), M_DEVBUF);
	malloc_uninit(M_OTHER);
	malloc_uninit(M_OTHER);
}

static void flags_that_mean_nothing(void)
{
	static const int all[] = { M_NODUMP,  M_NORECLAIM, M_FIRSTFIT,	  M_BESTFIT,
				   M_NEXTFIT, M_EXEC,	   M_NEVERFREED };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		char *at = malloc(100, M_MINE, M_WAITOK | all[i]);

		CHECK_EQ(malloc_usable_size(at), 128);
		free(at, M_MINE);
	}
}

static void misuse(void)
{
	char *at = malloc(100, M_MINE, M_WAITOK);
	int here;

	CHECK_ABORTS("free", free(&here, M_MINE));
	CHECK_ABORTS("free", free(at + 16, M_MINE));
	CHECK_ABORTS("realloc", realloc(&here, 10, M_MINE, M_WAITOK));
	CHECK_ABORTS("malloc_usable_size", malloc_usable_size(&here));
	CHECK_ABORTS("the type is null", malloc(10, NULL, M_WAITOK));
	CHECK_ABORTS("the type is misaligned", malloc(10, (void *)((char *)M_MINE + 1), M_WAITOK));
	CHECK_ABORTS("the room for the figures is null", uma_freebsd_malloc_type_stats(M_MINE, NULL));
	free(at, M_MINE);
	CHECK_ABORTS("free", free(at, M_MINE));
	/* What is free is not zeroed: the mark by which that is found out lies there. */
	at = malloc(100, M_MINE, M_WAITOK);
	zfree(at, M_MINE);
	CHECK_ABORTS("free", zfree(at, M_MINE));
}

/* The C library's are there, too. */
static void the_other_malloc(void)
{
	char *at = malloc(10);

	CHECK(at != NULL);
	at = realloc(at, 20);
	CHECK(at != NULL);
	free(at);
}

int main(void)
{
	sizes();
	changes_of_size();
	figures();
	flags_that_mean_nothing();
	misuse();
	the_other_malloc();
	return 0;
}

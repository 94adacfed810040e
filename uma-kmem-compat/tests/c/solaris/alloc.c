/* kmem_alloc and its family. */
#include "../check.h"

#include <uma/compat.h>
#include <uma/solaris/kmem.h>

static void sizes(void)
{
	for (size_t size = 1; size <= 300000; size = size < 700 ? size + 1 : size + size / 3) {
		unsigned char *one = kmem_alloc(size, KM_SLEEP), *zeros;

		CHECK(one != NULL);
		CHECK_EQ((uintptr_t)one % 8, 0);
		if (size % 64 == 0)
			CHECK_EQ((uintptr_t)one % 64, 0);
		if (size % 4096 == 0)
			CHECK_EQ((uintptr_t)one % 4096, 0);
		memset(one, 0xff, size);
		kmem_free(one, size);
		zeros = kmem_zalloc(size, KM_NOSLEEP);
		for (size_t i = 0; i < size; i++)
			CHECK_EQ(zeros[i], 0);
		kmem_free(zeros, size);
	}
	for (size_t size = 1; size <= 16 << 20; size *= 2) {
		char *one = kmem_alloc(size, KM_SLEEP);

		one[0] = one[size - 1] = 1;
		kmem_free(one, size);
	}
	CHECK_EQ(uma_solaris_kmem_alloc_active(), 0);
}

static void nothing(void)
{
	size_t size = 7;

	CHECK(kmem_alloc(0, KM_SLEEP) == NULL);
	CHECK(kmem_zalloc(0, KM_NOSLEEP) == NULL);
	CHECK(kmem_alloc_tryhard(0, &size, KM_SLEEP) == NULL);
	CHECK_EQ(size, 0);
	kmem_free(NULL, 0);
}

static void tryhard(void)
{
	size_t size = 0;
	char *one = kmem_alloc_tryhard(100, &size, KM_SLEEP);

	CHECK(size >= 100 && size % 4 == 0);
	memset(one, 1, size);
	kmem_free(one, size);
	/* What cannot be is null without sleep. */
	CHECK(kmem_alloc_tryhard((size_t)1 << 60, &size, KM_NOSLEEP) == NULL);
	CHECK_EQ(size, (size_t)1 << 60);
}

static void absurd(void)
{
	CHECK(kmem_alloc((size_t)1 << 60, KM_NOSLEEP) == NULL);
	CHECK(kmem_zalloc(SIZE_MAX, KM_NOSLEEP) == NULL);
	CHECK(kmem_alloc(SIZE_MAX / 2, KM_NOSLEEP | KM_NORMALPRI | KM_PUSHPAGE) == NULL);
	CHECK_ABORTS("solaris: kmem_alloc: KM_SLEEP", kmem_alloc(SIZE_MAX, KM_SLEEP));
	CHECK_ABORTS("solaris: kmem_alloc: KM_PANIC", kmem_alloc(SIZE_MAX, KM_NOSLEEP | KM_PANIC));
}

/* The size at kmem_free must be that of kmem_alloc. */
static void wrong_sizes(void)
{
	for (size_t size = 9; size < 6000; size += 1 + size / 7) {
		char *one = kmem_alloc(size, KM_SLEEP);

		memset(one, 0xa5, size);
		CHECK_ABORTS("solaris: kmem_free", kmem_free(one, size - 1));
		CHECK_ABORTS("solaris: kmem_free", kmem_free(one, size / 2));
		CHECK_ABORTS("solaris: kmem_free", kmem_free(one, size + 8));
		CHECK_ABORTS("solaris: kmem_free", kmem_free(one, size * 2));
		CHECK_ABORTS("solaris: kmem_free", kmem_free(one, 0));
		kmem_free(one, size);
	}
	/* Where there is room to write it, it says what was right. */
	char *one = kmem_alloc(200, KM_SLEEP);

	CHECK_ABORTS("freed with 210 bytes, allocated with 200", kmem_free(one, 210));
	CHECK_ABORTS("freed with 224 bytes, allocated with 200", kmem_free(one, 224));
	/* A write past the end shows as well. */
	CHECK_ABORTS("written to past its end", one[223]++; kmem_free(one, 200));
	kmem_free(one, 200);
	/* What an earlier use left is not taken for a size. */
	for (int i = 0; i < 1000; i++) {
		one = kmem_alloc(i % 2 ? 224 : 200, KM_SLEEP);
		kmem_free(one, i % 2 ? 224 : 200);
	}
}

static void misuse(void)
{
	char *one = kmem_alloc(100, KM_SLEEP);
	int local = 0;

	CHECK_ABORTS("solaris: kmem_free: null with 8 bytes", kmem_free(NULL, 8));
	CHECK_ABORTS("solaris: kmem_free", kmem_free(one + 8, 100));
	CHECK_ABORTS("solaris: kmem_free", kmem_free(one + 1, 100));
	CHECK_ABORTS("solaris: kmem_free", kmem_free(&local, sizeof(local)));
	kmem_free(one, 100);
	CHECK_ABORTS("solaris: kmem_free", kmem_free(one, 100));
	/* By policy life goes on, and nothing is done. */
	CHECK_EQ(uma_compat_set_policy("solaris.misuse", "report"), 0);
	uma_compat_set_reporter(check_reporter);
	kmem_free(one, 100);
	CHECK_REPORTS(1, "solaris: kmem_free");
	CHECK(kmem_alloc(SIZE_MAX, KM_SLEEP) == NULL);
	CHECK_REPORTS(1, "KM_SLEEP");
	uma_compat_set_reporter(NULL);
	CHECK_EQ(uma_compat_set_policy("solaris.misuse", "abort"), 0);
}

int main(void)
{
	sizes();
	nothing();
	tryhard();
	absurd();
	wrong_sizes();
	misuse();
	return 0;
}

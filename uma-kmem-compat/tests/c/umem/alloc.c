/* umem_alloc and its family. */
#include "../check.h"

#include <errno.h>

#include <uma/compat.h>
#include <umem.h>

static void sizes(void)
{
	for (size_t size = 1; size <= 300000; size = size < 700 ? size + 1 : size + size / 3) {
		unsigned char *one = umem_alloc(size, UMEM_DEFAULT), *zeros;

		CHECK(one != NULL);
		CHECK_EQ((uintptr_t)one % (size > 8 ? 16 : 8), 0);
		memset(one, 0xff, size);
		umem_free(one, size);
		zeros = umem_zalloc(size, UMEM_NOFAIL);
		for (size_t i = 0; i < size; i++)
			CHECK_EQ(zeros[i], 0);
		umem_free(zeros, size);
	}
	CHECK_EQ(uma_umem_alloc_active(), 0);
}

static void nothing(void)
{
	CHECK(umem_alloc(0, UMEM_DEFAULT) == NULL);
	CHECK(umem_alloc(0, UMEM_NOFAIL) == NULL);
	CHECK(umem_zalloc(0, UMEM_DEFAULT) == NULL);
	CHECK(umem_alloc_align(0, 64, UMEM_DEFAULT) == NULL);
	umem_free(NULL, 0);
	umem_free_align(NULL, 0);
}

static void aligned(void)
{
	for (size_t align = 1; align <= 1 << 20; align *= 2)
		for (size_t size = 1; size < 20000; size = size * 3 + 1) {
			char *one = umem_alloc_align(size, align, UMEM_DEFAULT);
			char *two = umem_alloc_aligned(size, align, UMEM_NOFAIL);

			CHECK(one != NULL && two != NULL);
			CHECK_EQ(((uintptr_t)one | (uintptr_t)two) % align, 0);
			memset(one, 1, size);
			memset(two, 2, size);
			umem_free_align(one, size);
			umem_free_aligned(two, size);
		}
	errno = 0;
	CHECK(umem_alloc_align(100, 24, UMEM_DEFAULT) == NULL);
	CHECK_EQ(errno, EINVAL);
	errno = 0;
	CHECK(umem_alloc_align(100, 3, UMEM_NOFAIL) == NULL);
	CHECK_EQ(errno, EINVAL);
}

static void absurd(void)
{
	static const size_t sizes[] = { (size_t)1 << 60, SIZE_MAX / 2, SIZE_MAX / 2 + 1, SIZE_MAX - 4096,
					SIZE_MAX };

	for (int i = 0; i < 5; i++) {
		errno = 0;
		CHECK(umem_alloc(sizes[i], UMEM_DEFAULT) == NULL);
		CHECK_EQ(errno, ENOMEM);
		CHECK(umem_zalloc(sizes[i], UMEM_DEFAULT) == NULL);
		CHECK(umem_alloc_align(sizes[i], 4096, UMEM_DEFAULT) == NULL);
	}
}

static void misuse(void)
{
	char *one = umem_alloc(200, UMEM_DEFAULT);
	int local = 0;

	CHECK_ABORTS("umem: umem_free: null with 8 bytes", umem_free(NULL, 8));
	CHECK_ABORTS("freed with 100 bytes", umem_free(one, 100));
	CHECK_ABORTS("freed with 210 bytes, allocated with 200", umem_free(one, 210));
	CHECK_ABORTS("umem: umem_free", umem_free(one + 16, 200));
	CHECK_ABORTS("umem: umem_free_align", umem_free_align(&local, sizeof(local)));
	CHECK_ABORTS("written to past its end", one[223]++; umem_free(one, 200));
	umem_free(one, 200);
	CHECK_ABORTS("umem: umem_free", umem_free(one, 200));
	uma_compat_set_reporter(check_reporter);
	CHECK_EQ(uma_compat_set_policy("umem.misuse", "report"), 0);
	umem_free(one, 200);
	CHECK_REPORTS(1, "umem: umem_free");
	uma_compat_set_reporter(NULL);
}

int main(void)
{
	sizes();
	nothing();
	aligned();
	absurd();
	misuse();
	return 0;
}

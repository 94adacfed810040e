/* Prefilled sheaves: so many objects, without fail. */
#include "../check.h"

#include <uma/compat.h>
#include <uma/linux/slab.h>

static int constructed;

static void construct(void *memory)
{
	memset(memory, 0x5a, 256);
	constructed++;
}

int main(void)
{
	struct kmem_cache_args args = { .align = 256, .sheaf_capacity = 32 };
	struct kmem_cache *cache = kmem_cache_create("maple", 256, &args, SLAB_PANIC);
	struct kmem_cache *other = kmem_cache_create("other", 256, 0, 0, construct);
	struct slab_sheaf *sheaf, *second;
	unsigned char *objects[200];
	static const unsigned char zero[256];

	uma_compat_set_reporter(check_reporter);

	/* As many as asked for, then no more; more than a bucket holds, too. */
	for (unsigned int count = 0; count <= 150; count = count * 2 + 1) {
		sheaf = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, count);
		CHECK(sheaf != NULL);
		CHECK_EQ(kmem_cache_sheaf_size(sheaf), count);
		CHECK_EQ(uma_linux_kmem_cache_active(cache), count);
		for (unsigned int i = 0; i < count; i++) {
			objects[i] = kmem_cache_alloc_from_sheaf(cache, GFP_NOWAIT, sheaf);
			CHECK(objects[i] != NULL);
			CHECK_EQ((uintptr_t)objects[i] % 256, 0);
			memset(objects[i], (int)i, 256);
		}
		CHECK_EQ(kmem_cache_sheaf_size(sheaf), 0);
		CHECK(kmem_cache_alloc_from_sheaf(cache, GFP_KERNEL, sheaf) == NULL);
		for (unsigned int i = 0; i < count; i++) {
			CHECK_EQ(objects[i][255], i);
			kmem_cache_free(cache, objects[i]);
		}
		kmem_cache_return_sheaf(cache, GFP_KERNEL, sheaf);
	}

	/* Refilled to what is asked for, never emptied; what is left goes back. */
	sheaf = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 10);
	objects[0] = kmem_cache_alloc_from_sheaf(cache, GFP_KERNEL, sheaf);
	CHECK_EQ(kmem_cache_refill_sheaf(cache, GFP_KERNEL, &sheaf, 5), 0);
	CHECK_EQ(kmem_cache_sheaf_size(sheaf), 9);
	CHECK_EQ(kmem_cache_refill_sheaf(cache, GFP_KERNEL, &sheaf, 100), 0);
	CHECK_EQ(kmem_cache_sheaf_size(sheaf), 100);
	kmem_cache_return_sheaf(cache, GFP_KERNEL, sheaf);
	CHECK_EQ(uma_linux_kmem_cache_active(cache), 1);
	memset(objects[0], 0xff, 256);
	kmem_cache_free(cache, objects[0]);

	/* Zeroed as they are taken. */
	sheaf = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, 4);
	for (int i = 0; i < 4; i++) {
		objects[i] = kmem_cache_alloc_from_sheaf(cache, GFP_KERNEL | __GFP_ZERO, sheaf);
		CHECK(memcmp(objects[i], zero, 256) == 0);
		kmem_cache_free(cache, objects[i]);
	}
	kmem_cache_return_sheaf(cache, GFP_KERNEL, sheaf);

	/* Constructed. */
	second = kmem_cache_prefill_sheaf(other, GFP_KERNEL, 4);
	objects[0] = kmem_cache_alloc_from_sheaf(other, GFP_KERNEL, second);
	CHECK_EQ(objects[0][100], 0x5a);
	kmem_cache_free(other, objects[0]);
	CHECK_REPORTS(0, "");

	/* Mistakes. */
	CHECK(kmem_cache_alloc_from_sheaf(cache, GFP_KERNEL, second) == NULL);
	CHECK_REPORTS(1, "cache \"maple\": the sheaf is one of another cache");
	kmem_cache_return_sheaf(cache, GFP_KERNEL, second);
	CHECK_REPORTS(1, "one of another cache");
	kmem_cache_return_sheaf(other, GFP_KERNEL, second);
	CHECK_REPORTS(0, "");
	kmem_cache_return_sheaf(other, GFP_KERNEL, second);
	CHECK_REPORTS(1, "kmem_cache_return_sheaf: bad sheaf: it was destroyed before");
	CHECK(kmem_cache_alloc_from_sheaf(other, GFP_KERNEL, second) == NULL);
	CHECK_REPORTS(1, "destroyed before");
	CHECK_EQ(kmem_cache_sheaf_size(NULL), 0);
	CHECK_REPORTS(1, "null");
	CHECK(kmem_cache_refill_sheaf(cache, GFP_KERNEL, NULL, 1) != 0);
	CHECK_REPORTS(1, "null");
	CHECK(kmem_cache_prefill_sheaf(NULL, GFP_KERNEL, 1) == NULL);
	CHECK_REPORTS(1, "null");

	kmem_cache_destroy(cache);
	kmem_cache_destroy(other);
	CHECK_REPORTS(0, "");
	return 0;
}

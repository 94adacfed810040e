/* kmalloc and its family: sizes, alignments, zeros, changes of size, and misuse. */
#include "../check.h"

#include <uma/compat.h>
#include <uma/linux/mempool.h>
#include <uma/linux/slab.h>

static int all_zero(const void *memory, size_t size)
{
	const unsigned char *bytes = memory;

	for (size_t i = 0; i < size; i++)
		if (bytes[i] != 0)
			return 0;
	return 1;
}

/* Any size is whole, aligned to 8 bytes, a power of two to itself; ksize is the size of the class. */
static void sizes(void)
{
	uint64_t before = uma_linux_kmalloc_active();

	for (size_t size = 1; size <= (4ul << 20); size += size < 600 ? 1 : size / 3) {
		unsigned char *memory = kmalloc(size, GFP_KERNEL), *other = kmalloc(size, GFP_ATOMIC);

		CHECK(memory != NULL && other != NULL && memory != other);
		CHECK_EQ((uintptr_t)memory % 8, 0);
		CHECK(ksize(memory) >= size);
		if (size <= 8192)
			CHECK_EQ(ksize(memory), kmalloc_size_roundup(size));
		memset(memory, 0xa5, size);
		memset(other, 0x5a, size);
		CHECK_EQ(memory[0], 0xa5);
		CHECK_EQ(memory[size - 1], 0xa5);
		kfree(memory);
		kfree(other);
	}
	for (size_t size = 8; size <= (4ul << 20); size *= 2) {
		void *memory = kmalloc(size, GFP_KERNEL);

		CHECK_EQ((uintptr_t)memory % size, 0);
		kfree(memory);
	}
	CHECK_EQ(uma_linux_kmalloc_active(), before);
	CHECK_EQ(KMALLOC_MIN_SIZE, kmalloc_size_roundup(1));
	CHECK_EQ(ARCH_KMALLOC_MINALIGN, 8);
	CHECK_EQ(kmalloc_size_roundup(KMALLOC_MAX_CACHE_SIZE), KMALLOC_MAX_CACHE_SIZE);
	CHECK_EQ(kmalloc_size_roundup(KMALLOC_MAX_SIZE), KMALLOC_MAX_SIZE);
	CHECK_EQ(kmalloc_size_roundup(0), 0);
	CHECK_EQ(kmalloc_size_roundup(65), 96);
	CHECK_EQ(kmalloc_size_roundup(129), 192);
	CHECK_EQ(kmalloc_size_roundup(193), 256);
	CHECK_EQ(kmalloc_size_roundup(8193), 12288);
	CHECK_EQ(kmalloc_size_roundup((size_t)-1), (size_t)-1);
}

static void nothing(void)
{
	CHECK(kmalloc(0, GFP_KERNEL) == ZERO_SIZE_PTR);
	CHECK(kzalloc(0, GFP_KERNEL) == ZERO_SIZE_PTR);
	CHECK(kmalloc_array(0, 8, GFP_KERNEL) == ZERO_SIZE_PTR);
	CHECK(ZERO_OR_NULL_PTR(NULL) && ZERO_OR_NULL_PTR(ZERO_SIZE_PTR));
	CHECK_EQ(ksize(NULL), 0);
	CHECK_EQ(ksize(ZERO_SIZE_PTR), 0);
	kfree(NULL);
	kfree(ZERO_SIZE_PTR);
	kfree_sensitive(NULL);
	kfree_sensitive(ZERO_SIZE_PTR);
	kvfree(NULL);
	CHECK_REPORTS(0, "");
}

static void zeros(void)
{
	for (size_t size = 8; size <= 65536; size *= 2) {
		void *memory = kmalloc(size, GFP_KERNEL);

		memset(memory, 0xff, size);
		kfree(memory);
		memory = kzalloc(size, GFP_KERNEL);
		CHECK(all_zero(memory, ksize(memory)));
		kfree(memory);
		memory = kcalloc(size / 8, 8, GFP_KERNEL);
		CHECK(all_zero(memory, size));
		kfree_sensitive(memory);
	}
}

static void absurd(void)
{
	static const size_t huge = (size_t)-1;

	CHECK(kmalloc(huge, GFP_KERNEL) == NULL);
	CHECK(kmalloc(huge / 2 + 1, GFP_KERNEL | __GFP_NOWARN) == NULL);
	/* Not even __GFP_NOFAIL waits for what can never be. */
	CHECK(kmalloc(huge, GFP_KERNEL | __GFP_NOFAIL) == NULL);
	CHECK(kmalloc_array(huge / 2, 3, GFP_KERNEL) == NULL);
	CHECK(kmalloc_array(huge, huge, GFP_KERNEL) == NULL);
	CHECK(kcalloc(huge / 8 + 2, 8, GFP_KERNEL) == NULL);
	CHECK(kvmalloc_array(huge / 8 + 2, 8, GFP_KERNEL) == NULL);
	CHECK_REPORTS(0, "");
}

/* Every function has its own way to the same memory. */
static void family(void)
{
	void *all[12], *bulk[3];
	uint64_t before = uma_linux_kmalloc_active();

	all[0] = kmalloc_node(100, GFP_KERNEL, 0);
	all[1] = kzalloc_node(100, GFP_KERNEL, NUMA_NO_NODE);
	all[2] = kmalloc_array_node(10, 10, GFP_KERNEL, 0);
	all[3] = kcalloc_node(10, 10, GFP_KERNEL, 0);
	all[4] = kmalloc_nolock(100, 0, NUMA_NO_NODE);
	all[5] = kvmalloc(100000, GFP_KERNEL);
	all[6] = kvzalloc(100000, GFP_KERNEL);
	all[7] = kvmalloc_node(100, GFP_KERNEL, 0);
	all[8] = kvzalloc_node(100, GFP_KERNEL, 0);
	all[9] = kvmalloc_array(100, 10, GFP_KERNEL);
	all[10] = kvcalloc(100, 10, GFP_KERNEL);
	all[11] = kmalloc_array(25, 4, GFP_KERNEL);
	CHECK(all_zero(all[1], 100) && all_zero(all[3], 100) && all_zero(all[6], 100000) &&
	      all_zero(all[8], 100) && all_zero(all[10], 1000));
	for (int i = 0; i < 12; i++)
		CHECK(all[i] != NULL);
	kfree_nolock(all[4]);
	kvfree(all[5]);
	kvfree_sensitive(all[6], 100000);
	kzfree(all[7]);
	bulk[0] = all[0];
	bulk[1] = NULL;
	bulk[2] = all[1];
	kfree_bulk(3, bulk);
	kfree_bulk(0, NULL);
	for (int i = 2; i < 12; i++)
		if (i < 4 || i > 7)
			kfree(all[i]);
	CHECK_EQ(uma_linux_kmalloc_active(), before);
	CHECK_REPORTS(0, "");
}

static void changes_of_size(void)
{
	unsigned char *memory = krealloc(NULL, 20, GFP_KERNEL), *again;
	uint64_t before;

	for (int i = 0; i < 20; i++)
		memory[i] = (unsigned char)i;
	for (size_t size = 27; size < 300000; size = size * 2 + 7) {
		memory = krealloc(memory, size, GFP_KERNEL);
		CHECK(memory != NULL);
		for (int i = 0; i < 20; i++)
			CHECK_EQ(memory[i], i);
		memory[size - 1] = 1;
	}
	memory = krealloc(memory, 20, GFP_KERNEL);
	for (int i = 0; i < 20; i++)
		CHECK_EQ(memory[i], i);

	/* What cannot be changes nothing. */
	CHECK(krealloc(memory, (size_t)-1, GFP_KERNEL) == NULL);
	CHECK(krealloc_array(memory, (size_t)-1, 2, GFP_KERNEL) == NULL);
	for (int i = 0; i < 20; i++)
		CHECK_EQ(memory[i], i);
	before = uma_linux_kmalloc_active();
	memory = krealloc(memory, 0, GFP_KERNEL);
	CHECK(memory == ZERO_SIZE_PTR);
	CHECK(uma_linux_kmalloc_active() < before);
	memory = krealloc(memory, 8, GFP_KERNEL);
	CHECK(!ZERO_OR_NULL_PTR(memory));
	memory = krealloc_array(memory, 30, 10, GFP_KERNEL);
	CHECK(ksize(memory) >= 300);
	memory = kvrealloc(memory, 9000, GFP_KERNEL);
	CHECK(ksize(memory) >= 9000);
	kfree(memory);

	/* With __GFP_ZERO from the beginning, whatever it grows into is zero, also after it shrank. */
	memory = kzalloc(48, GFP_KERNEL);
	memset(memory, 0xff, 48);
	again = krealloc(memory, 40, GFP_KERNEL | __GFP_ZERO);
	CHECK(again == memory);
	memory = krealloc(again, 64, GFP_KERNEL | __GFP_ZERO);
	CHECK(all_zero(memory + 40, 24));
	memset(memory, 0xff, 64);
	for (size_t size = 64; size < 100000; size *= 3) {
		memory = krealloc(memory, size * 3, GFP_KERNEL | __GFP_ZERO);
		CHECK_EQ(memory[size - 1], 0xff);
		CHECK(all_zero(memory + size, size * 2));
		memset(memory, 0xff, size * 3);
	}
	kfree(memory);
	CHECK_REPORTS(0, "");
}

/* Pages of the process that are in memory, in bytes. */
static size_t resident(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	size_t all, here;

	CHECK(file != NULL && fscanf(file, "%zu %zu", &all, &here) == 2);
	fclose(file);
	return here * (size_t)sysconf(_SC_PAGESIZE);
}

/* Zeros behind large memory cost none, whether it was written to before or never. */
static void zeros_without_memory(void)
{
	const size_t most = 64 << 20, some = most / 4, few = 5000;

	for (int written = 0; written < 2; written++) {
		unsigned char *memory = kzalloc(most, GFP_KERNEL), *again;
		size_t before;

		CHECK(memory != NULL);
		if (written)
			memset(memory, 0xff, most);
		before = resident();
		again = krealloc(memory, most / 2, GFP_KERNEL | __GFP_ZERO);
		CHECK(again == memory);
		again = krealloc(again, few * 4, GFP_KERNEL | __GFP_ZERO);
		CHECK(again == memory);
		CHECK(resident() < before + (written ? -(most - some) : some));
		/* It grew in place, and all of it that was given up is zero. */
		again = krealloc(again, most, GFP_KERNEL | __GFP_ZERO);
		CHECK(again == memory);
		CHECK(resident() < before + (written ? -(most - some) : some));
		CHECK_EQ(memory[few * 4 - 1], written ? 0xff : 0);
		CHECK(all_zero(memory + few * 4, most - few * 4));
		kfree(memory);
		/* Elsewhere what is new is zero, too, and untouched. */
		memory = kzalloc(few, GFP_KERNEL);
		memset(memory, 0xff, few);
		before = resident();
		memory = krealloc(memory, most, GFP_KERNEL | __GFP_ZERO);
		CHECK(resident() < before + some);
		CHECK_EQ(memory[few - 1], 0xff);
		CHECK(all_zero(memory + few, most - few));
		kfree(memory);
	}
	/* A page that holds anything at all is found, wherever in it that is. */
	for (size_t at = 0; at < 4096; at += 505) {
		unsigned char *memory = kzalloc(32 * 4096, GFP_KERNEL);

		memory[20 * 4096 + at] = 1;
		memory = krealloc(memory, 20 * 4096 - 100, GFP_KERNEL);
		memory[20 * 4096 + at] = 1;
		memory = krealloc(memory, 20 * 4096 - 200, GFP_KERNEL | __GFP_ZERO);
		CHECK(all_zero(memory + 20 * 4096 - 200, 12 * 4096 + 200));
		kfree(memory);
	}
	CHECK_REPORTS(0, "");
}

static void misuse(void)
{
	char *memory = kmalloc(100, GFP_KERNEL), *large = kmalloc(100000, GFP_KERNEL);
	struct kmem_cache *cache = kmem_cache_create("cache", 100, 0, 0, NULL);
	void *object = kmem_cache_alloc(cache, GFP_KERNEL), *pair[2];
	int local;

	kfree(&local);
	CHECK_REPORTS(1, "kfree: ");
	kfree(memory + 1);
	CHECK_REPORTS(1, "kfree: ");
	kfree(memory + 8);
	CHECK_REPORTS(1, "kfree: ");
	kfree(large + 4096);
	CHECK_REPORTS(1, "kfree: ");
	/* An object of a cache goes back to its cache only. */
	kfree(object);
	CHECK_REPORTS(1, "kfree: ");
	CHECK_EQ(ksize(object), 0);
	CHECK_REPORTS(1, "ksize: ");
	CHECK(krealloc(object, 200, GFP_KERNEL) == NULL);
	CHECK_REPORTS(1, "krealloc: ");
	kfree((void *)(uintptr_t)0x12345678);
	CHECK_REPORTS(1, "kfree: ");
	kfree((void *)UINTPTR_MAX);
	CHECK_REPORTS(1, "kfree: ");

	kfree(memory);
	kfree(large);
	CHECK_REPORTS(0, "");
	kfree(memory);
	CHECK_REPORTS(1, "kfree: ");
	CHECK(strstr(check_last, "free") != NULL);
	kfree_sensitive(large);
	CHECK_REPORTS(1, "kfree_sensitive: ");
	CHECK(krealloc(memory, 5000, GFP_KERNEL) == NULL);
	CHECK_REPORTS(1, "krealloc: ");
	pair[0] = kmalloc(24, GFP_KERNEL);
	pair[1] = pair[0];
	kfree_bulk(2, pair);
	CHECK_REPORTS(1, "kfree_bulk: ");
	kfree_bulk(1, NULL);
	CHECK_REPORTS(1, "the array is null");
	kfree_bulk(1, (void *)((char *)pair + 4));
	CHECK_REPORTS(1, "the array is misaligned");
	kfree_bulk(SIZE_MAX, pair);
	CHECK_REPORTS(1, "kfree_bulk: no array holds 18446744073709551615 pointers");

	/* Nothing was harmed. */
	for (int i = 0; i < 1000; i++) {
		char *one = kmalloc(100, GFP_KERNEL), *two = kmalloc(100, GFP_KERNEL);

		CHECK(one != two);
		kfree(one);
		kfree(two);
	}
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
	CHECK_REPORTS(0, "");
	CHECK_ABORTS("linux: kfree: ", uma_compat_set_reporter(NULL);
		     uma_compat_set_policy("linux.misuse", "abort"); kfree(memory));
}

static void what_is_it(void)
{
	char *memory = kmalloc(100, GFP_KERNEL);

	kmem_dump_obj(memory);
	CHECK_REPORTS(1, "begins memory of kmalloc of 128 bytes");
	kmem_dump_obj(memory + 5);
	CHECK_REPORTS(1, "points into memory of kmalloc of 128 bytes");
	kmem_dump_obj(NULL);
	CHECK_REPORTS(1, "null");
	kmem_dump_obj(&memory);
	CHECK_REPORTS(1, "no memory of kmalloc");
	kfree(memory);
}

static int periods;

static void grace_period(void)
{
	periods++;
}

static void after_a_grace_period(void)
{
	void *memory = kmalloc(64, GFP_KERNEL);
	uint64_t before = uma_linux_kmalloc_active();

	kfree_rcu_mightsleep(memory);
	CHECK_REPORTS(1, "uma_linux_set_grace_period was not called");
	CHECK_EQ(uma_linux_kmalloc_active(), before);
	uma_linux_set_grace_period(grace_period);
	kfree_rcu_mightsleep(memory);
	CHECK_EQ(periods, 1);
	CHECK(uma_linux_kmalloc_active() < before);
	memory = kmalloc(64, GFP_KERNEL);
	kvfree_rcu_mightsleep(memory);
	CHECK_EQ(periods, 2);
	CHECK_REPORTS(0, "");
}

static void pools(void)
{
	mempool_t *pool = mempool_create_kmalloc_pool(4, 200), own;
	void *element = mempool_alloc(pool, GFP_KERNEL);

	CHECK(ksize(element) >= 200);
	mempool_free(element, pool);
	mempool_destroy(pool);
	CHECK_EQ(mempool_init_kmalloc_pool(&own, 2, 100000), 0);
	element = mempool_alloc(&own, GFP_KERNEL);
	memset(element, 1, 100000);
	mempool_free(element, &own);
	mempool_exit(&own);
	CHECK(mempool_create_kmalloc_pool(1, (size_t)-1) == NULL);
	CHECK_REPORTS(0, "");
}

int main(void)
{
	uma_compat_set_reporter(check_reporter);
	sizes();
	nothing();
	zeros();
	absurd();
	family();
	changes_of_size();
	zeros_without_memory();
	misuse();
	what_is_it();
	after_a_grace_period();
	pools();
	return 0;
}

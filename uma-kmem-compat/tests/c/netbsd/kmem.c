/* kmem: memory of every size, strings, and what is wrong with a free. */
#include "../check.h"

#include <pthread.h>
#include <time.h>

#include <uma/compat.h>
#include <uma/netbsd/kmem.h>

static void sizes(void)
{
	static const size_t all[] = { 1,    7,	  8,	9,    24,   63,	  64,	 65,	 128,	  1000,
				      1024, 1025, 2048, 2049, 4096, 4097, 65536, 100000, 1u << 20, 16u << 20 };
	uint64_t before = uma_netbsd_kmem_active();

	for (size_t at = 0; at < sizeof(all) / sizeof(all[0]); at++) {
		for (int way = 0; way < 4; way++) {
			km_flag_t flags = way & 1 ? KM_SLEEP : KM_NOSLEEP;
			size_t size = all[at];
			unsigned char *memory = way & 2 ? kmem_zalloc(size, flags) :
							  kmem_alloc(size, flags);

			CHECK(memory != NULL);
			CHECK_EQ((uintptr_t)memory % 8, 0);
			if (size >= 64 && size % 64 == 0)
				CHECK_EQ((uintptr_t)memory % 64, 0);
			if (size >= 4096)
				CHECK_EQ((uintptr_t)memory % 4096, 0);
			if (way & 2)
				CHECK(memory[0] == 0 && memory[size / 2] == 0 && memory[size - 1] == 0);
			memset(memory, 0xff, size);
			CHECK_EQ(uma_netbsd_kmem_active(), before + 1);
			kmem_free(memory, size);
		}
	}
	void *memory = kmem_intr_zalloc(100, KM_NOSLEEP);
	kmem_intr_free(memory, 100);
	memory = kmem_intr_alloc(100, KM_NOSLEEP);
	kmem_intr_free(memory, 100);
	kmem_init();
	CHECK_EQ(uma_netbsd_kmem_active(), before);
	CHECK_EQ(kmem_roundup_size(1), 8);
	CHECK_EQ(kmem_roundup_size(1025), 2048);
	CHECK_EQ(kmem_roundup_size(4097), 8192);
	CHECK(kmem_alloc(SIZE_MAX, KM_NOSLEEP) == NULL);
	CHECK(kmem_alloc(SIZE_MAX - 4096, KM_SLEEP) == NULL);
	CHECK(kmem_zalloc((size_t)1 << 60, KM_SLEEP) == NULL);
	CHECK(kmem_alloc((size_t)1 << 47, KM_SLEEP) == NULL);
}

static void strings(void)
{
	uint64_t before = uma_netbsd_kmem_active();
	char stack[16], *string;
	void *buffer;
	size_t size;

	string = kmem_asprintf("%s-%05d", "kmem", 64);
	CHECK(strcmp(string, "kmem-00064") == 0);
	kmem_strfree(string);
	string = kmem_strdupsize("four", &size, KM_SLEEP);
	CHECK(strcmp(string, "four") == 0);
	CHECK_EQ(size, 5);
	kmem_free(string, size);
	string = kmem_strdup("", KM_NOSLEEP);
	CHECK_EQ(*string, '\0');
	kmem_strfree(string);
	string = kmem_strndup("many words", 4, KM_SLEEP);
	CHECK(strcmp(string, "many") == 0);
	kmem_strfree(string);
	string = kmem_strndup("few", 40, KM_SLEEP);
	CHECK(strcmp(string, "few") == 0);
	kmem_strfree(string);
	kmem_strfree(NULL);
	buffer = kmem_tmpbuf_alloc(16, stack, sizeof(stack), KM_SLEEP);
	CHECK(buffer == stack);
	kmem_tmpbuf_free(buffer, 16, stack);
	buffer = kmem_tmpbuf_alloc(17, stack, sizeof(stack), KM_SLEEP);
	CHECK(buffer != stack);
	kmem_tmpbuf_free(buffer, 17, stack);
	CHECK_EQ(uma_netbsd_kmem_active(), before);
}

/* Each is reported, and where life goes on nothing has happened. */
static void misuse(void)
{
	static char other[64] __attribute__((aligned(64)));
	char *memory = kmem_alloc(100, KM_SLEEP), *large = kmem_alloc(10000, KM_SLEEP);

	CHECK_ABORTS("kmem_free: the pointer is null", kmem_free(NULL, 8));
	CHECK_ABORTS("kmem_alloc: a size of 0", kmem_alloc(0, KM_SLEEP));
	uma_compat_set_reporter(check_reporter);
	CHECK_EQ(uma_compat_set_policy("netbsd.misuse", "report"), 0);
	CHECK(kmem_alloc(0, KM_NOSLEEP) == NULL);
	CHECK_REPORTS(1, "a size of 0");
	CHECK(kmem_zalloc(8, 0) == NULL);
	CHECK_REPORTS(1, "kmem_zalloc: flags 0x0: exactly one of KM_SLEEP and KM_NOSLEEP");
	CHECK(kmem_alloc(8, KM_SLEEP | KM_NOSLEEP) == NULL);
	CHECK_REPORTS(1, "flags 0x3");
	kmem_free(NULL, 100);
	CHECK_REPORTS(1, "the pointer is null");
	kmem_free(memory, 0);
	CHECK_REPORTS(1, "a size of 0");
	kmem_free(memory, 300);
	CHECK_REPORTS(1, "has 112 bytes, not 300");
	kmem_free(memory, SIZE_MAX);
	CHECK_REPORTS(1, "has 112 bytes");
	kmem_free(large, 9999);
	CHECK_REPORTS(1, "not 9999");
	kmem_free(memory + 8, 100);
	CHECK_REPORTS(1, "no allocation of \"kmem\" begins at");
	kmem_free(memory + 1, 100);
	CHECK_REPORTS(1, "no allocation of \"kmem\" begins at");
	kmem_free(other, 64);
	CHECK_REPORTS(1, "\"kmem\" has no allocation at");
	memset(memory, 1, 100);
	kmem_free(memory, 100);
	CHECK_REPORTS(0, "");
	kmem_free(memory, 100);
	CHECK_REPORTS(1, "double free");
	kmem_free(large, 10000);
	CHECK_REPORTS(0, "");
	kmem_free(large, 10000);
	CHECK_REPORTS(1, "");

	/* With diagnostics the size must be the very same. */
	CHECK_EQ(uma_compat_set_policy("netbsd.diagnostic", "on"), 0);
	memory = kmem_alloc(100, KM_SLEEP);
	kmem_free(memory, 101);
	CHECK_REPORTS(1, "was allocated with a size of 100, not 101");
	kmem_free(memory, 100);
	CHECK_REPORTS(0, "");
	CHECK_EQ(uma_compat_set_policy("netbsd.diagnostic", "off"), 0);
	CHECK_EQ(uma_compat_set_policy("netbsd.misuse", "abort"), 0);
}

static void *free_later(void *memory)
{
	struct timespec moment = { 0, 20 * 1000 * 1000 };

	/* When it was said that somebody waits. */
	do
		nanosleep(&moment, NULL);
	while (!__atomic_load_n(&check_count, __ATOMIC_ACQUIRE));
	kmem_free(memory, 1u << 20);
	return NULL;
}

/* KM_SLEEP waits for what another thread frees; the address space is bounded in a child. */
static void sleeping(void)
{
	static void *all[4096];
	pid_t child = fork();
	int status, count = 0;

	if (child == 0) {
		struct rlimit bound = { 1ul << 30, 1ul << 30 };
		pthread_t thread;
		void *memory = kmem_alloc(1u << 20, KM_SLEEP);

		check_count = 0;
		CHECK_EQ(pthread_create(&thread, NULL, free_later, memory), 0);
		CHECK_EQ(setrlimit(RLIMIT_AS, &bound), 0);
		while ((all[count] = kmem_alloc(1u << 20, KM_NOSLEEP)) != NULL)
			count++;
		CHECK((memory = kmem_alloc(1u << 20, KM_SLEEP)) != NULL);
		CHECK_REPORTS(1, "KM_SLEEP: no memory for 1048576 bytes; waiting");
		CHECK_EQ(pthread_join(thread, NULL), 0);
		CHECK_EQ(uma_compat_set_policy("netbsd.waitok", "fail"), 0);
		CHECK(kmem_alloc(1u << 20, KM_SLEEP) == NULL);
		kmem_free(memory, 1u << 20);
		while (count > 0)
			kmem_free(all[--count], 1u << 20);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
}

int main(void)
{
	sizes();
	strings();
	misuse();
	if (!getenv("UMA_TEST_SHORT") || !*getenv("UMA_TEST_SHORT"))
		sleeping();
	CHECK_REPORTS(0, "");
	return 0;
}

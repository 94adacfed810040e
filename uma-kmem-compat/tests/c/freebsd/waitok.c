/*
 * M_WAITOK waits for memory, as long as it takes: for pages that a supplier has later, and for what others free, into
 * whatever zone.
 */
#include "../check.h"

#include <pthread.h>
#include <sys/mman.h>
#include <uma/compat.h>
#include <uma/freebsd/malloc9.h>
#include <uma/freebsd/smr.h>
#include <uma/freebsd/uma.h>

MALLOC_DEFINE(M_MINE, "mine", "what is mine");

/* A supplier with so many pages. */
static int left;

static void *pages(uma_zone_t zone, size_t size, int domain, uint8_t *pflag, int wait)
{
	int count = (int)(size / PAGE_SIZE);
	void *at;

	(void)zone;
	(void)domain;
	(void)wait;
	*pflag = UMA_SLAB_PRIV;
	if (__atomic_sub_fetch(&left, count, __ATOMIC_ACQ_REL) < 0) {
		__atomic_add_fetch(&left, count, __ATOMIC_ACQ_REL);
		return NULL;
	}
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return at == MAP_FAILED ? NULL : at;
}

static void no_pages(void *item, size_t size, uint8_t pflag)
{
	CHECK_EQ(pflag, UMA_SLAB_PRIV);
	CHECK_EQ(munmap(item, size), 0);
	__atomic_add_fetch(&left, (int)(size / PAGE_SIZE), __ATOMIC_ACQ_REL);
}

static uma_zone_t make(const char *name, size_t size, uint32_t flags)
{
	uma_zone_t zone = uma_zcreate(name, size, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, flags);

	CHECK(zone != NULL);
	uma_zone_set_allocf(zone, pages);
	uma_zone_set_freef(zone, no_pages);
	return zone;
}

static void until_somebody_waits(void)
{
	while (!__atomic_load_n(&check_count, __ATOMIC_ACQUIRE))
		usleep(1000);
	/* For a while, and not for the next try only. */
	usleep(10000);
}

static int brought;

static void *bring(void *count)
{
	until_somebody_waits();
	__atomic_store_n(&brought, 1, __ATOMIC_RELEASE);
	__atomic_add_fetch(&left, *(int *)count, __ATOMIC_ACQ_REL);
	return NULL;
}

/* Each way to ask for an item. */
enum way { PLAIN, WITH_ARG, OF_DOMAIN, OF_ZEROS, PER_CPU, WITH_SMR, SECONDARY, WAYS };

static void *ask(enum way way, uma_zone_t zone)
{
	switch (way) {
	case WITH_ARG:
		return uma_zalloc_arg(zone, NULL, M_WAITOK);
	case OF_DOMAIN:
		return uma_zalloc_domain(zone, NULL, 0, M_WAITOK);
	case OF_ZEROS:
		return uma_zalloc(zone, M_WAITOK | M_ZERO);
	case PER_CPU:
		return uma_zalloc_pcpu(zone, M_WAITOK);
	case WITH_SMR:
		return uma_zalloc_smr(zone, M_WAITOK);
	default:
		return uma_zalloc(zone, M_WAITOK);
	}
}

static void pages_that_come_later(void)
{
	int many = 4096;

	for (enum way way = PLAIN; way < WAYS; way++) {
		uint32_t flags = way == PER_CPU ? UMA_ZONE_PCPU : way == WITH_SMR ? UMA_ZONE_SMR : 0;
		uma_zone_t zone, of;
		pthread_t thread;
		char *item;

		left = brought = 0;
		of = make("waiting", 64, flags);
		zone = way != SECONDARY ? of : uma_zsecond_create("second", NULL, NULL, NULL, NULL, of);
		CHECK_EQ(pthread_create(&thread, NULL, bring, &many), 0);
		item = ask(way, zone);
		CHECK(item != NULL);
		CHECK(__atomic_load_n(&brought, __ATOMIC_ACQUIRE));
		CHECK_EQ(pthread_join(thread, NULL), 0);
		CHECK_REPORTS(1, "M_WAITOK: ");
		CHECK(strstr(check_last, "; waiting") != NULL);
		memset(item, 1, 8);
		if (way == WITH_SMR)
			uma_zfree_smr(zone, item);
		else if (way == PER_CPU)
			uma_zfree_pcpu(zone, item);
		else
			uma_zfree(zone, item);
		if (way == SECONDARY)
			uma_zdestroy(zone);
		uma_zdestroy(of);
		CHECK_EQ(left, many);
	}
}

/* All pages are in one zone; who waits in another is served by what is freed into the first. */
static uma_zone_t rich;
static void *riches[1000];
static int count, ready;

static void *free_elsewhere(void *unused)
{
	/* What the C library has for a thread that comes here, it has while there is memory. */
	uma_zfree(rich, uma_zalloc(rich, M_NOWAIT));
	__atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
	until_somebody_waits();
	for (int i = 0; i < count; i++)
		uma_zfree(rich, riches[i]);
	return unused;
}

static void memory_of_another_zone(void)
{
	uma_zone_t poor;
	pthread_t thread;
	void *item;

	left = 64;
	rich = make("rich", 512, 0);
	poor = make("poor", 512, 0);
	for (count = 0; (riches[count] = uma_zalloc(rich, M_NOWAIT)) != NULL;)
		count++;
	CHECK(count > 100 && count < 1000);
	CHECK(uma_zalloc(poor, M_NOWAIT) == NULL);
	CHECK_EQ(pthread_create(&thread, NULL, free_elsewhere, NULL), 0);
	item = uma_zalloc(poor, M_WAITOK);
	CHECK(item != NULL);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_REPORTS(1, "zone \"poor\"");
	uma_zfree(poor, item);
	uma_zdestroy(poor);
	uma_zdestroy(rich);
	CHECK_EQ(left, 64);
}

/* Slabs made in advance are waited for, one as well as all of them. */
static void prealloc(void)
{
	for (int first = 0; first < 8; first += 7) {
		uma_zone_t zone;
		pthread_t thread;
		int more = 64;

		left = first;
		zone = make("in advance", 2048, 0);
		CHECK_EQ(pthread_create(&thread, NULL, bring, &more), 0);
		uma_prealloc(zone, 40);
		CHECK_EQ(pthread_join(thread, NULL), 0);
		CHECK_REPORTS(1, "uma_prealloc: M_WAITOK: ");
		CHECK(uma_zone_memory(zone) >= 40 * 2048);
		CHECK(uma_zone_memory(zone) < 60 * 2048);
		uma_zdestroy(zone);
		CHECK_EQ(left, first + more);
	}
	/* What was set aside is all that there is. */
	uma_compat_set_reporter(NULL);
	CHECK_ABORTS("uma_prealloc", {
		uma_zone_t zone = uma_zcreate("aside", 2048, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);

		CHECK_EQ(uma_zone_reserve_kva(zone, 10), 1);
		uma_prealloc(zone, 10000);
	});
	uma_compat_set_reporter(check_reporter);
}

/* No page is waited for that may not be asked for; nor is what waiting does not bring. */
static int refuse(void *mem, int size, void *arg, int flags)
{
	(void)mem;
	(void)size;
	(void)arg;
	(void)flags;
	return 1;
}

static int import_none(void *arg, void **store, int many, int domain, int flags)
{
	(void)arg;
	(void)store;
	(void)many;
	(void)domain;
	(void)flags;
	return 0;
}

static void release_none(void *arg, void **store, int many)
{
	(void)arg;
	(void)store;
	(void)many;
}

static void what_is_not_waited_for(void)
{
	uma_zone_t zone = make("no pages", 64, 0), refusing, over;

	left = 0;
	CHECK(uma_zalloc(zone, M_WAITOK | M_NOVM) == NULL);
	CHECK(uma_zalloc(zone, M_NOWAIT) == NULL);
	uma_zdestroy(zone);
	refusing = uma_zcreate("refusing", 64, refuse, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	CHECK(uma_zalloc(refusing, M_WAITOK) == NULL);
	uma_zdestroy(refusing);
	over = uma_zcache_create("over nothing", 64, NULL, NULL, NULL, NULL, import_none,
				 release_none, NULL, 0);
	CHECK(uma_zalloc(over, M_WAITOK) == NULL);
	uma_zdestroy(over);
	CHECK_REPORTS(0, "");
	/* No address space has so much: misuse. */
	uma_compat_set_reporter(NULL);
	CHECK_ABORTS("malloc: M_WAITOK, but", malloc((size_t)1 << 60, M_MINE, M_WAITOK));
	CHECK_ABORTS("malloc_aligned: M_WAITOK, but",
		     malloc_aligned((size_t)1 << 50, 64, M_MINE, M_WAITOK));
	uma_compat_set_reporter(check_reporter);
	CHECK_EQ(uma_compat_set_policy("freebsd.misuse", "report"), 0);
	CHECK(malloc((size_t)1 << 60, M_MINE, M_WAITOK) == NULL);
	CHECK_REPORTS(1, "malloc: M_WAITOK, but");
	CHECK_EQ(uma_compat_set_policy("freebsd.misuse", "abort"), 0);
}

/* The same for malloc(9), where the process has no more memory: in a child, whose address space is bounded. */
enum form { MALLOC, ARRAY, ALIGNED, REALLOC, FORMS };

static void *form(enum form form, void *old)
{
	switch (form) {
	case ARRAY:
		return mallocarray(256, 4096, M_MINE, M_WAITOK);
	case ALIGNED:
		return malloc_aligned(1 << 20, 4096, M_MINE, M_WAITOK);
	case REALLOC:
		return realloc(old, 1 << 20, M_MINE, M_WAITOK);
	default:
		return malloc(1 << 20, M_MINE, M_WAITOK);
	}
}

static void memory_of_malloc(enum form how)
{
	const struct rlimit bound = { 256ul << 20, 256ul << 20 };
	int status;
	pid_t child = fork();

	CHECK(child >= 0);
	if (child == 0) {
		void *old = malloc(100, M_MINE, M_WAITOK);
		pthread_t thread;
		int more = 0;

		alarm(60);
		rich = uma_zcreate("rich", 1 << 20, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
		for (count = 0; count < 8; count++)
			CHECK((riches[count] = uma_zalloc(rich, M_NOWAIT)) != NULL);
		CHECK_EQ(pthread_create(&thread, NULL, free_elsewhere, NULL), 0);
		while (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE))
			usleep(1000);
		CHECK_EQ(setrlimit(RLIMIT_AS, &bound), 0);
		while (malloc(1 << 20, M_MINE, M_NOWAIT) != NULL)
			CHECK(++more <= 256);
		CHECK_REPORTS(0, "");
		/* What may wait has everything drained for it first, which may give some more. */
		do {
			CHECK((old = form(how, old)) != NULL);
			memset(old, 'a', 1 << 20);
			CHECK(++more <= 256);
			if (how == REALLOC)
				old = NULL;
		} while (check_count == 0);
		CHECK_EQ(pthread_join(thread, NULL), 0);
		CHECK_REPORTS(1, "M_WAITOK: no 1048576 bytes");
		CHECK_EQ(uma_zone_get_cur(rich), 0);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
}

int main(void)
{
	/* Who waits for ever ends by this. */
	alarm(120);
	uma_compat_set_reporter(check_reporter);
	if (!getenv("UMA_TEST_SHORT") || !*getenv("UMA_TEST_SHORT"))
		for (enum form how = MALLOC; how < FORMS; how++)
			memory_of_malloc(how);
	pages_that_come_later();
	memory_of_another_zone();
	prealloc();
	what_is_not_waited_for();
	return 0;
}

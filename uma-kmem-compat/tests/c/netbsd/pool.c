/* pool: made with each flag, used, and ended; what is kept, and what goes back. */
#include "../check.h"

#include <stdarg.h>

#include <uma/compat.h>
#include <uma/netbsd/pool.h>

static struct uma_netbsd_pool_stats stats_of(struct pool *pool)
{
	struct uma_netbsd_pool_stats stats;

	CHECK_EQ(uma_netbsd_pool_get_stats(pool, &stats), 0);
	return stats;
}

/* Every size and alignment that programs ask for: aligned as asked, whole, and not overlapping. */
static void sizes(void)
{
	static const size_t all[] = { 1, 8, 40, 64, 100, 200, 512, 576, 1024, 4096, 5000, 65536, 16u << 20 };
	enum { ITEMS = 24 };

	for (size_t at = 0; at < sizeof(all) / sizeof(all[0]); at++) {
		for (unsigned int align = 0; align <= 4096; align = align ? align * 4 : 1) {
			size_t size = all[at];
			unsigned int least = align == 0 ? 8 : align;
			int count = size > 100000 ? 3 : ITEMS;
			unsigned char *items[ITEMS];
			struct pool pool;

			pool_init(&pool, size, align, 0, 0, "sized", NULL, IPL_NONE);
			for (int i = 0; i < count; i++) {
				items[i] = pool_get(&pool, i % 2 ? PR_WAITOK : PR_NOWAIT);
				CHECK(items[i] != NULL);
				CHECK_EQ((uintptr_t)items[i] % least, 0);
				memset(items[i], i, size);
			}
			CHECK_EQ(uma_netbsd_pool_nout(&pool), count);
			CHECK_EQ(pool_chk(&pool, "sizes"), 0);
			for (int i = 0; i < count; i++) {
				CHECK_EQ(items[i][0], i);
				CHECK_EQ(items[i][size - 1], i);
				pool_put(&pool, items[i]);
			}
			CHECK_EQ(uma_netbsd_pool_nout(&pool), 0);
			CHECK_EQ(pool_nget(&pool), count);
			CHECK_EQ(pool_nput(&pool), count);
			pool_destroy(&pool);
		}
	}
}

static int serializations;

static void serialize(void)
{
	serializations++;
}

static void flags(void)
{
	static const int all[] = { 0,	       PR_NOTOUCH,    PR_PSERIALIZE, PR_RECURSIVE,
				   PR_NOALIGN, PR_LARGECACHE, PR_NOTOUCH | PR_NOALIGN | PR_RECURSIVE };

	for (size_t at = 0; at < sizeof(all) / sizeof(all[0]); at++) {
		struct pool pool;
		char *item;

		pool_init(&pool, 40, 0, 0, all[at], "flagged", &pool_allocator_nointr, IPL_VM);
		item = pool_get(&pool, PR_WAITOK);
		memset(item, 7, 40);
		pool_put(&pool, item);
		/* Nothing is written into a free item. */
		CHECK(pool_get(&pool, PR_NOWAIT) == item);
		for (int byte = 0; byte < 40; byte++)
			CHECK_EQ(item[byte], 7);
		pool_put(&pool, item);
		pool_destroy(&pool);
	}
}

/* Interrupt levels are accepted. */
static void levels(void)
{
	static const int all[] = { IPL_NONE, IPL_SOFTCLOCK, IPL_SOFTBIO, IPL_SOFTNET,
				   IPL_SOFTSERIAL, IPL_VM, IPL_SCHED, IPL_HIGH };

	for (size_t at = 0; at < sizeof(all) / sizeof(all[0]); at++) {
		struct pool pool;

		pool_init(&pool, 40, 0, 0, 0, "level", NULL, all[at]);
		pool_put(&pool, pool_get(&pool, PR_NOWAIT));
		pool_destroy(&pool);
	}
}

/* Zeros are of the size asked for, and where an item was used before. */
static void zeros(void)
{
	static const char zero[72];
	struct pool pool;
	void *item;

	pool_init(&pool, 72, 0, 0, 0, "zeroed", &pool_allocator_meta, IPL_NONE);
	for (int round = 0; round < 4; round++) {
		item = pool_get(&pool, PR_ZERO | (round % 2 ? PR_WAITOK : PR_NOWAIT));
		CHECK(memcmp(item, zero, 72) == 0);
		memset(item, 0xff, 72);
		pool_put(&pool, item);
	}
	pool_destroy(&pool);
}

/* Pages wait for a passive serialization, and stay until it is known what that is. */
static void passively(void)
{
	struct pool pool;
	void *item;

	pool_init(&pool, 3000, 0, 0, PR_PSERIALIZE, "passive", NULL, IPL_NONE);
	item = pool_get(&pool, PR_WAITOK);
	pool_put(&pool, item);
	CHECK_EQ(pool_reclaim(&pool), 0);
	CHECK(stats_of(&pool).npages != 0);
	/* It can still be looked at. */
	CHECK(*(volatile char *)item == *(volatile char *)item);
	uma_netbsd_set_pserialize(serialize);
	CHECK_EQ(pool_reclaim(&pool), 1);
	CHECK(serializations >= 1);
	CHECK_EQ(stats_of(&pool).npages, 0);
	uma_netbsd_set_pserialize(NULL);
	pool_destroy(&pool);
}

/* What is primed stays, whatever is reclaimed; the rest goes. */
static void primed(void)
{
	struct uma_netbsd_pool_stats stats;
	static void *items[2000];
	struct pool pool;
	uint64_t pages;

	pool_init(&pool, 500, 0, 0, 0, "primed", NULL, IPL_NONE);
	CHECK_EQ(pool_prime(&pool, 0), 0);
	CHECK_EQ(stats_of(&pool).npages, 0);
	CHECK_EQ(pool_prime(&pool, 300), 0);
	stats = stats_of(&pool);
	pages = stats.npages;
	CHECK(stats.nitems >= 300);
	CHECK_EQ(pages, (300 + stats.itemsperpage - 1) / stats.itemsperpage);
	CHECK_EQ(pool_reclaim(&pool), 0);
	CHECK_EQ(stats_of(&pool).npages, pages);
	for (int i = 0; i < 2000; i++)
		CHECK((items[i] = pool_get(&pool, PR_NOWAIT)) != NULL);
	CHECK(stats_of(&pool).npages > pages);
	for (int i = 0; i < 2000; i++)
		pool_put(&pool, items[i]);
	CHECK_EQ(pool_reclaim(&pool), 1);
	CHECK_EQ(stats_of(&pool).npages, pages);
	CHECK_EQ(pool_reclaim(&pool), 0);
	/* They serve without asking for any more. */
	stats = stats_of(&pool);
	for (int i = 0; i < 300; i++)
		items[i] = pool_get(&pool, PR_NOWAIT);
	CHECK_EQ(stats_of(&pool).npagealloc, stats.npagealloc);
	for (int i = 0; i < 300; i++)
		pool_put(&pool, items[i]);
	pool_destroy(&pool);
}

/* So many are free, from the beginning and after every get, also after a reclaim. */
static void low_water(void)
{
	static void *items[200];
	struct pool pool;

	pool_init(&pool, 500, 0, 0, 0, "low", NULL, IPL_NONE);
	pool_setlowat(&pool, 100);
	CHECK(stats_of(&pool).nitems >= 100);
	for (int i = 0; i < 200; i++) {
		items[i] = pool_get(&pool, PR_NOWAIT);
		CHECK(stats_of(&pool).nitems >= 100);
	}
	for (int i = 0; i < 200; i++)
		pool_put(&pool, items[i]);
	pool_reclaim(&pool);
	CHECK(stats_of(&pool).npages * stats_of(&pool).itemsperpage >= 100);
	pool_setlowat(&pool, 0);
	CHECK_EQ(pool_reclaim(&pool), 1);
	CHECK_EQ(stats_of(&pool).npages, 0);
	pool_destroy(&pool);

	/* As the manual has it. */
	CHECK_EQ(uma_compat_set_policy("netbsd.setlowat", "lazy"), 0);
	pool_init(&pool, 500, 0, 0, 0, "later", NULL, IPL_NONE);
	pool_setlowat(&pool, 100);
	CHECK_EQ(stats_of(&pool).npages, 0);
	items[0] = pool_get(&pool, PR_NOWAIT);
	CHECK(stats_of(&pool).nitems >= 100);
	pool_put(&pool, items[0]);
	pool_destroy(&pool);
	CHECK_EQ(uma_compat_set_policy("netbsd.setlowat", "fill"), 0);
}

static void high_water(void)
{
	static void *items[2000];
	struct pool pool;

	for (int bound = 0; bound < 2; bound++) {
		uint64_t pages;

		uma_compat_set_policy("netbsd.sethiwat", bound ? "bound" : "inert");
		pool_init(&pool, 500, 0, 0, 0, "high", NULL, IPL_NONE);
		pool_sethiwat(&pool, 10);
		for (int i = 0; i < 2000; i++)
			items[i] = pool_get(&pool, PR_WAITOK);
		pages = stats_of(&pool).npages;
		for (int i = 0; i < 2000; i++)
			pool_put(&pool, items[i]);
		/* The code has long forgotten about it; by policy it is a bound. */
		if (bound)
			CHECK(stats_of(&pool).nitems <= 10 + stats_of(&pool).itemsperpage);
		else
			CHECK_EQ(stats_of(&pool).npages, pages);
		pool_destroy(&pool);
	}
	uma_compat_set_policy("netbsd.sethiwat", "inert");
}

static int page_allocs, page_frees, page_flags;
static struct pool *page_pool;

static void *page_alloc(struct pool *pool, int flags)
{
	void *page = NULL;

	page_pool = pool;
	page_flags = flags;
	if (page_allocs - page_frees == 4 || posix_memalign(&page, 16384, 16384) != 0)
		return NULL;
	page_allocs++;
	return page;
}

static void page_free(struct pool *pool, void *page)
{
	CHECK(pool == page_pool);
	CHECK_EQ((uintptr_t)page % 16384, 0);
	page_frees++;
	free(page);
}

/* Pages come from functions of the program, one at a time, and all go back there. */
static void allocators(void)
{
	static const struct pool_allocator few = { page_alloc, page_free, 16384 };
	static const struct pool_allocator plain = { pool_page_alloc, pool_page_free, 0 };
	struct pool pool;
	void *items[64];
	int count = 0;

	pool_init(&pool, 4000, 0, 0, 0, "few pages", &few, IPL_NONE);
	CHECK_EQ(page_allocs, 0);
	while ((items[count] = pool_get(&pool, PR_NOWAIT)) != NULL)
		count++;
	CHECK_EQ(page_allocs, 4);
	CHECK_EQ(count, 16);
	CHECK(page_pool == &pool);
	CHECK_EQ(page_flags, PR_NOWAIT);
	CHECK_EQ(stats_of(&pool).nfail, 1);
	for (int i = 0; i < count; i++) {
		memset(items[i], i, 4000);
		pool_put(&pool, items[i]);
	}
	CHECK_EQ(pool_reclaim(&pool), 1);
	CHECK_EQ(page_frees, 4);
	items[0] = pool_get(&pool, PR_WAITOK);
	CHECK_EQ(page_flags, PR_WAITOK);
	pool_put(&pool, items[0]);
	pool_destroy(&pool);
	CHECK_EQ(page_frees, page_allocs);

	/* An item to a page, and one of the system's pages. */
	pool_init(&pool, 16384, 4096, 0, PR_NOTOUCH, "whole pages", &few, IPL_NONE);
	for (count = 0; count < 4; count++)
		CHECK((items[count] = pool_get(&pool, PR_NOWAIT)) != NULL);
	CHECK(pool_get(&pool, PR_NOWAIT) == NULL);
	while (count > 0)
		pool_put(&pool, items[--count]);
	pool_destroy(&pool);
	CHECK_EQ(page_frees, page_allocs);
	pool_init(&pool, 48, 0, 0, 0, "plain", &plain, IPL_NONE);
	items[0] = pool_get(&pool, PR_NOWAIT);
	CHECK(items[0] != NULL);
	pool_put(&pool, items[0]);
	pool_destroy(&pool);
	items[0] = pool_page_alloc(NULL, PR_WAITOK);
	CHECK_EQ((uintptr_t)items[0] % 4096, 0);
	memset(items[0], 1, 4096);
	pool_page_free(NULL, items[0]);
}

static char printed[1000];

static void print(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(printed, sizeof(printed), format, arguments);
	va_end(arguments);
}

/* Each in its turn, but those without pages. */
static void drained(void)
{
	struct pool one, two, empty, *which = NULL;
	int pages = pool_totalpages();
	void *item;

	pool_init(&one, 100, 0, 0, 0, "one", NULL, IPL_NONE);
	pool_init(&empty, 100, 0, 0, 0, "empty", NULL, IPL_NONE);
	pool_init(&two, 100, 0, 0, 0, "two", NULL, IPL_NONE);
	pool_put(&one, pool_get(&one, PR_WAITOK));
	item = pool_get(&two, PR_WAITOK);
	CHECK(pool_totalpages() > pages);
	CHECK(pool_drain(&which));
	CHECK(which == &one);
	CHECK(!pool_drain(&which));
	CHECK(which == &two);
	pool_put(&two, item);
	CHECK(pool_drain(NULL));
	CHECK(!pool_drain(&which));
	CHECK(which == NULL);
	CHECK_EQ(pool_totalpages(), pages);

	item = pool_get(&two, PR_WAITOK);
	pool_whatis((uintptr_t)item + 5, print);
	CHECK(strstr(printed, "+5 in pool \"two\" (allocated)") != NULL);
	pool_printit(&two, "", print);
	CHECK(strstr(printed, "size 100, align 8") != NULL);
	CHECK(strstr(printed, "nout 1, nget 2, nput 1") != NULL);
	pool_printall("", print);
	pool_print(&two, "c");
	pool_put(&two, item);
	pool_destroy(&one);
	pool_destroy(&empty);
	pool_destroy(&two);
}

int main(void)
{
	uma_compat_set_reporter(check_reporter);
	sizes();
	flags();
	levels();
	zeros();
	passively();
	primed();
	low_water();
	high_water();
	allocators();
	drained();
	CHECK_REPORTS(0, "");
	return 0;
}

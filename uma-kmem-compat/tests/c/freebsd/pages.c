/* Zones with pages of their own. */
#include "../check.h"

#include <sys/mman.h>
#include <uma/compat.h>
#include <uma/freebsd/uma.h>

static uma_zone_t mine;
static size_t held;
static int calls, failing;

static void *pages(uma_zone_t zone, size_t size, int domain, uint8_t *pflag, int wait)
{
	void *at;

	CHECK(zone == mine);
	CHECK_EQ(size % PAGE_SIZE, 0);
	CHECK_EQ(domain, 0);
	CHECK(wait & (M_WAITOK | M_NOWAIT));
	CHECK(wait & M_ZERO);
	calls++;
	if (failing)
		return NULL;
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(at != MAP_FAILED);
	held += size;
	*pflag = UMA_SLAB_PRIV | UMA_SLAB_KERNEL;
	return at;
}

static void no_pages(void *item, size_t size, uint8_t pflag)
{
	CHECK_EQ(pflag, UMA_SLAB_PRIV | UMA_SLAB_KERNEL);
	CHECK_EQ(munmap(item, size), 0);
	held -= size;
}

static void own_functions(size_t size)
{
	static void *items[300];
	void *more;

	mine = uma_zcreate("mine", size, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, UMA_ZONE_NOTPAGE);
	uma_zone_set_allocf(mine, pages);
	uma_zone_set_freef(mine, no_pages);
	for (int i = 0; i < 300; i++) {
		items[i] = uma_zalloc(mine, M_NOWAIT);
		CHECK(items[i] != NULL);
		memset(items[i], i, size);
	}
	CHECK(held >= 300 * size && calls > 0);
	failing = 1;
	calls = 0;
	more = uma_zalloc(mine, M_NOWAIT | M_NOVM);
	CHECK_EQ(calls, 0);
	uma_zfree(mine, more);
	failing = 0;
	for (int i = 0; i < 300; i++) {
		CHECK_EQ(*(unsigned char *)items[i], i & 0xff);
		uma_zfree(mine, items[i]);
	}
	uma_zdestroy(mine);
	CHECK_EQ(held, 0);
}

static void exhausted(void)
{
	failing = 1;
	mine = uma_zcreate("none", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	uma_zone_set_allocf(mine, pages);
	CHECK(uma_zalloc(mine, M_NOWAIT) == NULL);
	CHECK_EQ(uma_compat_set_policy("freebsd.waitok", "abort"), 0);
	CHECK_ABORTS("M_WAITOK, but", uma_zalloc(mine, M_WAITOK));
	CHECK_ABORTS("10 items", uma_prealloc(mine, 10));
	CHECK_EQ(uma_compat_set_policy("freebsd.waitok", "null"), 0);
	CHECK(uma_zalloc(mine, M_WAITOK) == NULL);
	CHECK_ABORTS("10 items", uma_prealloc(mine, 10));
	/* See waitok.c. */
	CHECK_EQ(uma_compat_set_policy("freebsd.waitok", "wait"), 0);
	failing = 0;
	uma_zdestroy(mine);
}

/* The limit is what was set aside, in whole slabs; no memory from elsewhere is needed until there. */
static void set_aside(size_t size)
{
	uma_zone_t zone = uma_zcreate("kva", size, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	static void *items[2000];
	int most, count = 0;

	CHECK_EQ(uma_zone_reserve_kva(zone, 1000), 1);
	most = uma_zone_get_max(zone);
	CHECK(most >= 1000 && most < 1200);
	while (count < 2000 && (items[count] = uma_zalloc(zone, M_NOWAIT)) != NULL) {
		memset(items[count], count, size);
		count++;
	}
	CHECK_EQ(count, most);
	CHECK_ABORTS("was used already", uma_zone_reserve_kva(zone, 1));
	for (int i = 0; i < count; i++) {
		CHECK_EQ(*(unsigned char *)items[i], i & 0xff);
		uma_zfree(zone, items[i]);
	}
	uma_zdestroy(zone);
	zone = uma_zcreate("too much", 1 << 20, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	CHECK_EQ(uma_zone_reserve_kva(zone, 0x7fffffff), 0);
	CHECK_EQ(uma_zone_reserve_kva(zone, 0), 0);
	uma_zdestroy(zone);
}

/* Whether a core dump has the page at an address: 1, 0, or -1 where the system does not tell. */
static int is_dumped(const void *at)
{
	FILE *smaps = fopen("/proc/self/smaps", "r");
	unsigned long long start, end;
	char line[4096];
	int inside = 0, dumped = -1;

	while (smaps != NULL && fgets(line, sizeof(line), smaps) != NULL) {
		if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
			inside = (uintptr_t)at >= start && (uintptr_t)at < end;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			dumped = strstr(line, " dd") == NULL;
	}
	if (smaps != NULL)
		fclose(smaps);
	return dumped;
}

static void nodump(void)
{
	uma_zone_t plain = uma_zcreate("dumped", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	uma_zone_t secret = uma_zcreate("secret", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR,
					UMA_ZONE_NODUMP);
	uma_zone_t aside = uma_zcreate("aside", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR,
				       UMA_ZONE_NODUMP);
	void *item = uma_zalloc(plain, M_WAITOK), *hidden = uma_zalloc(secret, M_WAITOK), *kept;

	CHECK_EQ(uma_zone_reserve_kva(aside, 10), 1);
	kept = uma_zalloc(aside, M_WAITOK);
	if (is_dumped(item) < 0) {
		printf("NOT TESTED: NODUMP, because /proc/self/smaps does not tell\n");
	} else {
		CHECK_EQ(is_dumped(item), 1);
		CHECK_EQ(is_dumped(hidden), 0);
		CHECK_EQ(is_dumped(kept), 0);
	}
	uma_zfree(plain, item);
	uma_zfree(secret, hidden);
	uma_zfree(aside, kept);
	uma_zdestroy(plain);
	uma_zdestroy(secret);
	uma_zdestroy(aside);
}

/* What a function that supplies pages is told of the zone. */
static int told;

static void *told_pages(uma_zone_t zone, size_t size, int domain, uint8_t *pflag, int wait)
{
	void *at;

	(void)zone;
	(void)domain;
	told = wait;
	*pflag = 0;
	return posix_memalign(&at, PAGE_SIZE, size) == 0 ? at : NULL;
}

static void told_free(void *item, size_t size, uint8_t pflag)
{
	(void)size;
	(void)pflag;
	free(item);
}

static void suppliers_are_told(void)
{
	static const struct {
		uint32_t flag;
		int told;
	} all[] = {
		{ 0, 0 },
		{ UMA_ZONE_NODUMP, M_NODUMP },
		{ UMA_ZONE_NOFREE, M_NEVERFREED },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		uma_zone_t zone =
			uma_zcreate("told", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, all[i].flag);

		uma_zone_set_allocf(zone, told_pages);
		uma_zone_set_freef(zone, told_free);
		uma_zfree(zone, uma_zalloc(zone, M_WAITOK));
		CHECK_EQ(told & (M_NODUMP | M_NEVERFREED), all[i].told);
		CHECK(told & M_ZERO);
		uma_zdestroy(zone);
	}
}

int main(void)
{
	own_functions(64);
	own_functions(600);
	own_functions(5000);
	exhausted();
	set_aside(500);
	/* Of several pages: FreeBSD lets out more than it has set aside. */
	set_aside(5000);
	set_aside(20000);
	nodump();
	suppliers_are_told();
	return 0;
}

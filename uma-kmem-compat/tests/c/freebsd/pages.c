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
	CHECK_ABORTS("M_WAITOK, but", uma_zalloc(mine, M_WAITOK));
	CHECK_EQ(uma_compat_set_policy("freebsd.waitok", "null"), 0);
	CHECK(uma_zalloc(mine, M_WAITOK) == NULL);
	CHECK_EQ(uma_compat_set_policy("freebsd.waitok", "abort"), 0);
	failing = 0;
	uma_zdestroy(mine);
}

/* The limit is what was set aside, in whole slabs; no memory from elsewhere is needed until there. */
static void set_aside(void)
{
	uma_zone_t zone = uma_zcreate("kva", 500, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	static void *items[2000];
	int most, count = 0;

	CHECK_EQ(uma_zone_reserve_kva(zone, 1000), 1);
	most = uma_zone_get_max(zone);
	CHECK(most >= 1000 && most < 1200);
	while (count < 2000 && (items[count] = uma_zalloc(zone, M_NOWAIT)) != NULL) {
		memset(items[count], count, 500);
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

int main(void)
{
	own_functions(64);
	own_functions(600);
	own_functions(5000);
	exhausted();
	set_aside();
	return 0;
}

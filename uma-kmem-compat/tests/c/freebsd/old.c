/* A source of 2002: its callbacks, flags, constants and functions. */
#define UMA_2002
#include "../check.h"

#include <errno.h>
#include <pthread.h>
#include <uma/compat.h>
#include <uma/freebsd/uma.h>

static int inits, finis, ctors, dtors;

static void ctor(void *mem, int size, void *arg)
{
	(void)mem;
	CHECK_EQ(size, 120);
	CHECK(arg == NULL || arg == &ctors);
	ctors++;
}

static void dtor(void *mem, int size, void *arg)
{
	(void)mem;
	(void)arg;
	CHECK_EQ(size, 120);
	dtors++;
}

static void init(void *mem, int size)
{
	CHECK_EQ(size, 120);
	memset(mem, 3, 120);
	inits++;
}

static void fini(void *mem, int size)
{
	CHECK_EQ(size, 120);
	CHECK_EQ(*(char *)mem, 3);
	finis++;
}

/* In the code of 2002 the fini was not stored, and never called. */
static void life_of_an_item(void)
{
	uma_zone_t zone =
		uma_zcreate("old", 120, ctor, dtor, init, fini, UMA_ALIGN_CACHE, UMA_ZONE_STATIC);
	void *item = uma_zalloc_arg(zone, &ctors, M_WAITOK);

	CHECK(item != NULL);
	CHECK_EQ((uintptr_t)item & 15, 0);
	uma_zfree_arg(zone, item, &dtors);
	item = uma_zalloc(zone, M_NOWAIT);
	uma_zfree(zone, item);
	CHECK_EQ(ctors, 2);
	CHECK_EQ(dtors, 2);
	uma_reclaim();
	CHECK(inits > 0);
	CHECK_EQ(finis, inits);
	uma_prealloc(zone, 100);
	CHECK_EQ(uma_zdestroy(zone, M_NOWAIT), 0);
	CHECK_EQ(finis, inits);
}

/*
 * What is in an item when it is freed is there when it is allocated again, the first two pointers too, and its init
 * does not run again. The zone's name is a copy.
 */
static void contents_stay(void)
{
	char name[] = "keeping";
	unsigned char *items[50], *again[50];
	uma_zone_t zone;
	int same = 0, made;

	check_stay();
	inits = finis = 0;
	zone = uma_zcreate(name, 120, NULL, NULL, init, NULL, UMA_ALIGN_PTR, 0);
	memset(name, 'x', 4);
	for (int i = 0; i < 50; i++) {
		items[i] = uma_zalloc(zone, M_WAITOK);
		CHECK_EQ(*items[i], 3);
		memset(items[i], 0x80 + i, 120);
	}
	made = inits;
	for (int i = 0; i < 50; i++)
		uma_zfree(zone, items[i]);
	for (int i = 0; i < 50; i++) {
		again[i] = uma_zalloc(zone, M_WAITOK);
		for (int before = 0; before < 50; before++) {
			if (again[i] != items[before])
				continue;
			same++;
			for (int at = 0; at < 120; at++)
				CHECK_EQ(again[i][at], 0x80 + before);
		}
	}
	/* The others were fetched together with these, and are fresh. */
	CHECK(same > 0);
	CHECK(made < 1000 && inits >= made);
	if (same == 50)
		CHECK_EQ(inits, made);
	CHECK_ABORTS("zone \"keeping\"", uma_prealloc(zone, -1));
	for (int i = 0; i < 50; i++)
		uma_zfree(zone, again[i]);
	CHECK_EQ(uma_zdestroy(zone, M_NOWAIT), 0);
}

static uma_zone_t busy;

static void *free_later(void *item)
{
	usleep(20000);
	uma_zfree(busy, item);
	return NULL;
}

static void destroy(void)
{
	pthread_t thread;
	void *item;

	busy = uma_zcreate("busy", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	item = uma_zalloc(busy, M_WAITOK);
	CHECK_EQ(uma_zdestroy(busy, M_NOWAIT), EWOULDBLOCK);
	/* It is none the worse. */
	uma_zfree(busy, uma_zalloc(busy, M_WAITOK));
	CHECK_EQ(pthread_create(&thread, NULL, free_later, item), 0);
	CHECK_EQ(uma_zdestroy(busy, M_WAITOK), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_ABORTS("it was destroyed before", uma_zalloc(busy, M_WAITOK));

	/* What the code did: report, and go on. */
	CHECK_EQ(uma_compat_set_policy("freebsd.zdestroy_2002", "code"), 0);
	uma_compat_set_reporter(check_reporter);
	busy = uma_zcreate("leaking", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	item = uma_zalloc(busy, M_WAITOK);
	memset(item, 1, 64);
	CHECK_EQ(uma_zdestroy(busy, M_NOWAIT), 0);
	CHECK_REPORTS(1, "zone \"leaking\" was destroyed with 1 items in use");
	CHECK_EQ(*(char *)item, 1);
	uma_compat_set_reporter(NULL);
	CHECK_EQ(uma_compat_set_policy("freebsd.zdestroy_2002", "header"), 0);
}

static void flags(void)
{
	static const struct {
		uint16_t flag;
		const char *name;
	} all[] = {
		{ UMA_ZONE_PAGEABLE, "PAGEABLE" }, { UMA_ZONE_ZINIT, "ZINIT" },
		{ UMA_ZONE_STATIC, "STATIC" },	   { UMA_ZONE_OFFPAGE, "OFFPAGE" },
		{ UMA_ZONE_MALLOC, "MALLOC" },	   { UMA_ZONE_NOFREE, "NOFREE" },
	};
	static const char none[64];

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		uma_zone_t zone =
			uma_zcreate("flag", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, all[i].flag);
		char text[32];
		void *item;

		CHECK(zone != NULL);
		CHECK_EQ(uma_freebsd_zone_flags(zone, text, sizeof(text)), strlen(all[i].name));
		CHECK(strcmp(text, all[i].name) == 0);
		item = uma_zalloc(zone, M_WAITOK);
		if (all[i].flag == UMA_ZONE_ZINIT)
			CHECK(memcmp(item, none, 64) == 0);
		uma_zfree(zone, item);
		CHECK_EQ(uma_zdestroy(zone, M_WAITOK), 0);
	}
	CHECK_ABORTS("unknown flags 0x1000",
		     uma_zcreate("flag", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0x1000));
}

static void constants(void)
{
	CHECK_EQ(UMA_SMALLEST_UNIT, 16);
	CHECK_EQ(UMA_ALIGN_PTR, sizeof(void *) - 1);
	CHECK_EQ(UMA_ALIGN_LONG, sizeof(long) - 1);
	CHECK_EQ(UMA_ALIGN_INT, 3);
	CHECK_EQ(UMA_ALIGN_SHORT, 1);
	CHECK_EQ(UMA_ALIGN_CHAR, 0);
	CHECK_EQ(UMA_SLAB_BOOT | UMA_SLAB_KMEM | UMA_SLAB_KMAP | UMA_SLAB_PRIV | UMA_SLAB_OFFP |
			 UMA_SLAB_MALLOC,
		 0x3f);
}

static uma_zone_t supplied;
static int given, taken;

static void *give_pages(uma_zone_t zone, int size, uint8_t *pflag, int wait)
{
	void *at;

	CHECK(zone == supplied);
	(void)wait;
	if (posix_memalign(&at, PAGE_SIZE, (size_t)size) != 0)
		return NULL;
	memset(at, 0x55, (size_t)size);
	*pflag = UMA_SLAB_PRIV;
	given += size;
	return at;
}

static void take_pages(void *item, int size, uint8_t pflag)
{
	CHECK_EQ(pflag, UMA_SLAB_PRIV);
	taken += size;
	free(item);
}

static void own_pages(void)
{
	static const char none[64];
	void *item;

	/* Zeroed although the pages were not. */
	supplied = uma_zcreate("supplied", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, UMA_ZONE_ZINIT);
	uma_zone_set_allocf(supplied, give_pages);
	uma_zone_set_freef(supplied, take_pages);
	item = uma_zalloc(supplied, M_WAITOK);
	CHECK(given > 0 && memcmp(item, none, 64) == 0);
	uma_zfree(supplied, item);
	CHECK_EQ(uma_zdestroy(supplied, M_WAITOK), 0);
	CHECK_EQ(given, taken);
}

/* uma_zone_set_obj rounded pages; a limit below a slab was none at all. */
static void limits(void)
{
	uma_zone_t zone = uma_zcreate("obj", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	void *items[200];
	int count = 0;

	CHECK_EQ(uma_zone_set_obj(zone, NULL, 10), 1);
	while (count < 200 && (items[count] = uma_zalloc(zone, M_NOWAIT)) != NULL)
		count++;
	CHECK_EQ(count, uma_zone_get_max(zone));
	CHECK(count >= 10 && count < 200);
	CHECK_EQ(uma_zone_get_cur(zone), count);
	CHECK_EQ(uma_zone_set_max(zone, 5), 5);
	while (count > 0)
		uma_zfree(zone, items[--count]);
	while (count < 200 && (items[count] = uma_zalloc(zone, M_NOWAIT)) != NULL)
		count++;
	CHECK_EQ(count, 5);
	while (count > 0)
		uma_zfree(zone, items[--count]);
	CHECK_EQ(uma_zdestroy(zone, M_WAITOK), 0);
}

int main(void)
{
	static char boot[UMA_BOOT_PAGES * UMA_SLAB_SIZE];
	uma_zone_t zone;
	void *item;

	uma_startup(boot);
	zone = uma_zcreate("boot", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	item = uma_zalloc(zone, M_NOWAIT);
	CHECK((char *)item >= boot && (char *)item < boot + sizeof(boot));
	uma_startup2(NULL, 0);
	uma_zfree(zone, item);
	CHECK_EQ(uma_zdestroy(zone, M_NOWAIT), 0);
	life_of_an_item();
	contents_stay();
	destroy();
	flags();
	constants();
	own_pages();
	limits();
	return 0;
}

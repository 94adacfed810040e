/* Boot memory: the first slabs lie there, later ones do not, and the zone is the same. */
#include "../check.h"

#include <uma/compat.h>
#include <uma/freebsd/uma.h>

static char memory[16 * PAGE_SIZE];

static int is_boot(void *item)
{
	return (char *)item >= memory && (char *)item < memory + sizeof(memory);
}

int main(void)
{
	uma_zone_t zone;
	void *early, *late, *more[100];

	CHECK_ABORTS("the boot memory is null", uma_startup(NULL, 15));
	uma_startup(memory, 16);
	CHECK_ABORTS("there was boot memory before", uma_startup(memory, 16));
	zone = uma_zcreate("early", 1000, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, UMA_ZONE_NOBUCKET);
	early = uma_zalloc(zone, M_NOWAIT);
	CHECK(is_boot(early));
	memset(early, 1, 1000);
	/* When it is used up, the system's. */
	for (int i = 0; i < 100; i++) {
		more[i] = uma_zalloc(zone, M_NOWAIT);
		CHECK(more[i] != NULL);
	}
	CHECK(!is_boot(more[99]));
	for (int i = 0; i < 100; i++)
		uma_zfree(zone, more[i]);
	uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN_CPU);
	uma_startup2();
	/* Beside what the early slab has left. */
	for (int i = 0; i < 100; i++)
		more[i] = uma_zalloc(zone, M_NOWAIT);
	CHECK(!is_boot(more[99]));
	uma_zfree(zone, early);
	for (int i = 0; i < 100; i++)
		uma_zfree(zone, more[i]);
	uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN_CPU);
	CHECK_EQ(uma_zone_memory(zone), 0);
	late = uma_zalloc(zone, M_NOWAIT);
	CHECK(late != NULL && !is_boot(late));
	uma_zfree(zone, late);
	uma_zdestroy(zone);
	return 0;
}

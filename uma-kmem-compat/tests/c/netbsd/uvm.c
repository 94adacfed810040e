/* uvm_km: memory and addresses in pages, submaps, and misuse. */
#include "../check.h"

#include <pthread.h>
#include <time.h>

#include <uma/compat.h>
#include <uma/netbsd/uvm.h>

enum { PAGE = 4096 };

static void kinds(void)
{
	static const unsigned int all[] = { UVM_KMF_WIRED, UVM_KMF_WIRED | UVM_KMF_ZERO, UVM_KMF_PAGEABLE };

	for (size_t at = 0; at < sizeof(all) / sizeof(all[0]); at++) {
		for (size_t align = 0; align <= 1u << 20; align = align ? align * 16 : PAGE) {
			unsigned int type = all[at] & UVM_KMF_TYPEMASK;
			uintptr_t range = uvm_km_alloc(kernel_map, 5 * PAGE - 100, align,
						       all[at] | UVM_KMF_WAITVA);
			char *memory = (char *)range;

			CHECK(range != 0);
			CHECK_EQ(range % (align ? align : PAGE), 0);
			if (all[at] != UVM_KMF_WIRED)
				CHECK(memory[0] == 0 && memory[5 * PAGE - 1] == 0);
			memset(memory, 1, 5 * PAGE);
			uvm_km_free(kernel_map, range, 5 * PAGE - 100, type);
		}
	}
	/* Of one colour are all addresses here. */
	uintptr_t matched = uvm_km_alloc(kernel_map, PAGE, 0, UVM_KMF_VAONLY | UVM_KMF_COLORMATCH);

	CHECK(matched != 0);
	uvm_km_free(kernel_map, matched, PAGE, UVM_KMF_VAONLY);
	CHECK(!uvm_km_va_starved_p());
	CHECK(vm_map_max(kernel_map) - vm_map_min(kernel_map) >= 1u << 28);
}

static void addresses(void)
{
	uintptr_t range = uvm_km_alloc(kernel_map, 8 * PAGE, 0, UVM_KMF_VAONLY | UVM_KMF_NOWAIT);

	CHECK(range != 0);
	CHECK_EQ(uma_netbsd_vm_map_back(kernel_map, range, PAGE, 2 * PAGE, true), 0);
	memset((char *)range + PAGE, 1, 2 * PAGE);
	CHECK_EQ(uma_netbsd_vm_map_back(kernel_map, range, PAGE, 2 * PAGE, false), 0);
	uvm_km_free(kernel_map, range, 8 * PAGE, UVM_KMF_VAONLY);
	range = uvm_km_alloc(kernel_map, 2 * PAGE, 0, UVM_KMF_PAGEABLE);
	CHECK_EQ(uvm_map_pageable(kernel_map, range, range + 2 * PAGE, false, 0), 0);
	CHECK_EQ(uvm_map_pageable(kernel_map, range, range + 2 * PAGE, true, 0), 0);
	uvm_km_free(kernel_map, range, 2 * PAGE, UVM_KMF_PAGEABLE);
}

struct later {
	struct vm_map *map;
	uintptr_t range;
};

static void *free_later(void *argument)
{
	struct later *later = argument;
	struct timespec moment = { 0, 20 * 1000 * 1000 };

	nanosleep(&moment, NULL);
	uvm_km_free(later->map, later->range, 8 * PAGE, UVM_KMF_VAONLY);
	return NULL;
}

/* A small map out of a larger one: full, starved, and waited for. */
static void submaps(void)
{
	uintptr_t min = 0, max = 0, range;
	struct vm_map *submap =
		uvm_km_suballoc(kernel_map, &min, &max, 16 * PAGE, VM_MAP_PAGEABLE, false, NULL);
	struct vm_map in_place;
	struct later later;
	pthread_t thread;

	CHECK(submap != NULL);
	CHECK_EQ(max - min, 16 * PAGE);
	CHECK_EQ(vm_map_min(submap), min);
	CHECK_EQ(vm_map_max(submap), max);
	later = (struct later){ submap, uvm_km_alloc(submap, 8 * PAGE, 0, UVM_KMF_VAONLY) };
	range = uvm_km_alloc(submap, 8 * PAGE, 0, UVM_KMF_VAONLY);
	CHECK(later.range >= min && range >= min && range < max);
	CHECK(uma_netbsd_vm_map_starved(submap));
	CHECK_EQ(uvm_km_alloc(submap, PAGE, 0, UVM_KMF_VAONLY), 0);
	CHECK_EQ(uvm_km_alloc(submap, PAGE, 0, UVM_KMF_VAONLY | UVM_KMF_WAITVA | UVM_KMF_NOWAIT), 0);
	CHECK_EQ(uvm_km_alloc(submap, PAGE, 0, UVM_KMF_VAONLY | UVM_KMF_WAITVA | UVM_KMF_TRYLOCK), 0);
	CHECK_EQ(pthread_create(&thread, NULL, free_later, &later), 0);
	CHECK((min = uvm_km_alloc(submap, PAGE, 0, UVM_KMF_PAGEABLE | UVM_KMF_WAITVA)) != 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	uvm_km_free(submap, min, PAGE, UVM_KMF_PAGEABLE);
	uvm_km_free(submap, range, 8 * PAGE, UVM_KMF_VAONLY);
	uma_netbsd_vm_map_destroy(submap);

	/* At a place, in memory of the program's, from the top. */
	submap = uma_netbsd_vm_map_create("mine", 64 * PAGE, VM_MAP_PAGEABLE);
	min = vm_map_min(submap) + 32 * PAGE;
	CHECK(uvm_km_suballoc(submap, &min, &max, 8 * PAGE, VM_MAP_PAGEABLE | VM_MAP_TOPDOWN, true,
			      &in_place) == &in_place);
	CHECK_EQ(vm_map_min(&in_place), vm_map_min(submap) + 32 * PAGE);
	range = uvm_km_alloc(&in_place, PAGE, 0, UVM_KMF_WIRED | UVM_KMF_ZERO | UVM_KMF_CANFAIL);
	CHECK_EQ(range, max - PAGE);
	uvm_km_free(&in_place, range, PAGE, UVM_KMF_WIRED);
	uma_netbsd_vm_map_destroy(&in_place);
	uma_netbsd_vm_map_destroy(submap);
}

static void misuse(void)
{
	struct vm_map *map = uma_netbsd_vm_map_create("misused", 64 * PAGE, VM_MAP_INTRSAFE);
	uintptr_t range = uvm_km_alloc(map, 2 * PAGE, 0, UVM_KMF_WIRED), min = 1, max;

	CHECK_ABORTS("uvm_km_free", uvm_km_free(map, range, PAGE, UVM_KMF_WIRED));
	uma_compat_set_reporter(check_reporter);
	CHECK_EQ(uma_compat_set_policy("netbsd.misuse", "report"), 0);
	uvm_km_free(map, range, PAGE, UVM_KMF_WIRED);
	CHECK_REPORTS(1, "uvm_km_free: ");
	uvm_km_free(map, range, 2 * PAGE, UVM_KMF_PAGEABLE);
	CHECK_REPORTS(1, "uvm_km_free: ");
	uvm_km_free(map, range + PAGE, PAGE, UVM_KMF_WIRED);
	CHECK_REPORTS(1, "uvm_km_free: ");
	uvm_km_free(map, 0, PAGE, UVM_KMF_WIRED);
	CHECK_REPORTS(1, "the address is 0");
	CHECK_EQ(uvm_km_alloc(map, PAGE, 0, 0), 0);
	CHECK_REPORTS(1, "uvm_km_alloc: ");
	CHECK_EQ(uvm_km_alloc(map, PAGE, 0, UVM_KMF_WIRED | UVM_KMF_VAONLY), 0);
	CHECK_REPORTS(1, "uvm_km_alloc: ");
	CHECK_EQ(uvm_km_alloc(map, PAGE, 0, UVM_KMF_VAONLY | UVM_KMF_ZERO), 0);
	CHECK_REPORTS(1, "uvm_km_alloc: ");
	CHECK_EQ(uvm_km_alloc(map, PAGE, 100, UVM_KMF_VAONLY), 0);
	CHECK_REPORTS(1, "uvm_km_alloc: ");
	CHECK_EQ(uvm_km_alloc(map, 0, 0, UVM_KMF_VAONLY), 0);
	CHECK_REPORTS(1, "uvm_km_alloc: ");
	CHECK_EQ(uvm_km_alloc(map, PAGE, 0, UVM_KMF_PAGEABLE), 0);
	CHECK_REPORTS(1, "uvm_km_alloc: ");
	CHECK_EQ(uvm_km_alloc(map, PAGE, 0, UVM_KMF_WIRED | UVM_KMF_EXEC), 0);
	CHECK_REPORTS(1, "UVM_KMF_EXEC");
	CHECK(uvm_km_suballoc(map, NULL, &max, PAGE, 0, false, NULL) == NULL);
	CHECK_REPORTS(1, "a pointer to a bound is null");
	CHECK(uvm_km_suballoc(map, &min, (void *)((char *)&max + 1), PAGE, 0, false, NULL) == NULL);
	CHECK_REPORTS(1, "a pointer to a bound is misaligned");
	CHECK(uvm_km_suballoc(map, &min, &max, PAGE, 0, false, (void *)((char *)&max + 1)) == NULL);
	CHECK_REPORTS(1, "the map is misaligned");
	CHECK_EQ(uvm_km_alloc(map, SIZE_MAX, 0, UVM_KMF_VAONLY), 0);
	CHECK_EQ(uvm_km_alloc(map, 65 * PAGE, 0, UVM_KMF_VAONLY | UVM_KMF_WAITVA), 0);
	CHECK_REPORTS(0, "");
	CHECK(uvm_km_suballoc(map, &min, &max, PAGE, 0, true, NULL) == NULL);
	CHECK_REPORTS(1, "uvm_km_suballoc: ");
	CHECK(uvm_km_suballoc(map, NULL, &max, PAGE, 0, false, NULL) == NULL);
	CHECK_REPORTS(1, "a pointer to a bound is null");
	uma_netbsd_vm_map_destroy(map);
	CHECK_REPORTS(1, "map \"misused\" has 1 ranges in use; it stays");
	uvm_km_free(map, range, 2 * PAGE, UVM_KMF_WIRED);
	CHECK_REPORTS(0, "");
	uvm_km_free(map, range, 2 * PAGE, UVM_KMF_WIRED);
	CHECK_REPORTS(1, "uvm_km_free: ");
	uma_netbsd_vm_map_destroy(map);
	CHECK_REPORTS(0, "");
	CHECK_EQ(uvm_km_alloc(map, PAGE, 0, UVM_KMF_WIRED), 0);
	CHECK_REPORTS(1, "bad map: it was destroyed before");
	CHECK_EQ(uvm_km_alloc(NULL, PAGE, 0, UVM_KMF_WIRED), 0);
	CHECK_REPORTS(1, "the pointer is null");
	CHECK(uma_netbsd_vm_map_create("none", 0, 0) == NULL);
	CHECK_REPORTS(1, "uma_netbsd_vm_map_create: ");
}

int main(void)
{
	kinds();
	addresses();
	submaps();
	misuse();
	return 0;
}

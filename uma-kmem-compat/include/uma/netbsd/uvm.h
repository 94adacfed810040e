/* Address space and memory in pages (uvm_km) of NetBSD, in user space. */
#ifndef UMA_NETBSD_UVM_H
#define UMA_NETBSD_UVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uma/bind.h>

/* One of the first three, and any of the others. */
#define UVM_KMF_WIRED 0x1u
#define UVM_KMF_PAGEABLE 0x2u
#define UVM_KMF_VAONLY 0x4u
#define UVM_KMF_TYPEMASK (UVM_KMF_VAONLY | UVM_KMF_PAGEABLE | UVM_KMF_WIRED)
#define UVM_KMF_CANFAIL 0x8u
#define UVM_KMF_ZERO 0x10u
#define UVM_KMF_EXEC 0x20u
#define UVM_KMF_TRYLOCK 0x00200000u
#define UVM_KMF_NOWAIT 0x00400000u
#define UVM_KMF_WAITVA 0x00800000u
#define UVM_KMF_COLORMATCH 0x02000000u

#define VM_MAP_PAGEABLE 0x01
#define VM_MAP_INTRSAFE 0x02
#define VM_MAP_TOPDOWN 0x40

typedef uintptr_t uma_netbsd_vaddr_t;
typedef size_t uma_netbsd_vsize_t;

struct vm_map {
	struct uma_netbsd_map *uma_map;
};

UMA_C_BEGIN

/* An address, or 0. */
uma_netbsd_vaddr_t uvm_km_alloc(struct vm_map *map, uma_netbsd_vsize_t size,
				uma_netbsd_vsize_t align, unsigned int flags)
	UMA_SYMBOL(uma_netbsd_uvm_km_alloc);
void uvm_km_free(struct vm_map *map, uma_netbsd_vaddr_t addr, uma_netbsd_vsize_t size,
		 unsigned int type) UMA_SYMBOL(uma_netbsd_uvm_km_free);
struct vm_map *uvm_km_suballoc(struct vm_map *map, uma_netbsd_vaddr_t *min, uma_netbsd_vaddr_t *max,
			       uma_netbsd_vsize_t size, int flags, bool fixed,
			       struct vm_map *submap) UMA_SYMBOL(uma_netbsd_uvm_km_suballoc);
bool uvm_km_va_starved_p(void) UMA_SYMBOL(uma_netbsd_uvm_km_va_starved_p);
int uvm_map_pageable(struct vm_map *map, uma_netbsd_vaddr_t start, uma_netbsd_vaddr_t end,
		     bool pageable, int lockflags) UMA_SYMBOL(uma_netbsd_uvm_map_pageable);
uma_netbsd_vaddr_t vm_map_min(struct vm_map *map) UMA_SYMBOL(uma_netbsd_vm_map_min);
uma_netbsd_vaddr_t vm_map_max(struct vm_map *map) UMA_SYMBOL(uma_netbsd_vm_map_max);

struct vm_map *uma_netbsd_kernel_map(void);
/* Not of NetBSD: maps of the program's own. With ranges in use one cannot end. */
struct vm_map *uma_netbsd_vm_map_create(const char *name, size_t size, int flags);
void uma_netbsd_vm_map_destroy(struct vm_map *map);
bool uma_netbsd_vm_map_starved(struct vm_map *map);
/*
 * Not of NetBSD: puts memory behind a part of a range of UVM_KMF_VAONLY, as pmap_kenter_pa does there, or takes
 * it away, as pmap_kremove. 0, or EFAULT.
 */
int uma_netbsd_vm_map_back(struct vm_map *map, uma_netbsd_vaddr_t range, size_t offset, size_t length,
			   bool there);

UMA_C_END

/* 64 GiB of addresses, reserved at the first use, or less if the system does not have them. */
#define kernel_map uma_netbsd_kernel_map()

#endif

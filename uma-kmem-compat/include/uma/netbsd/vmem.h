/* Sets of integers (vmem) of NetBSD, in user space. */
#ifndef UMA_NETBSD_VMEM_H
#define UMA_NETBSD_VMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uma/bind.h>

typedef struct vmem vmem_t;
typedef unsigned int vm_flag_t;
typedef uintptr_t vmem_addr_t;
typedef size_t vmem_size_t;

#define VMEM_ADDR_MIN 0
#define VMEM_ADDR_MAX (~(vmem_addr_t)0)

/* One of the first two, and one of the next two. */
#define VM_SLEEP 0x00000001u
#define VM_NOSLEEP 0x00000002u
#define VM_INSTANTFIT 0x00001000u
#define VM_BESTFIT 0x00002000u
#define VM_BOOTSTRAP 0x00010000u
#define VM_POPULATING 0x00040000u
#define VM_LARGEIMPORT 0x00080000u
#define VM_XIMPORT 0x00100000u

/* Kinds of segments. */
#define VMEM_ALLOC 0x01
#define VMEM_FREE 0x02

typedef int(vmem_import_t)(vmem_t *source, vmem_size_t size, vm_flag_t flags, vmem_addr_t *addrp);
typedef int(vmem_ximport_t)(vmem_t *source, vmem_size_t size, vmem_size_t *actual,
			    vm_flag_t flags, vmem_addr_t *addrp);
typedef void(vmem_release_t)(vmem_t *source, vmem_addr_t addr, vmem_size_t size);

UMA_C_BEGIN

vmem_t *vmem_create(const char *name, vmem_addr_t base, vmem_size_t size, vmem_size_t quantum,
		    vmem_import_t *import, vmem_release_t *release, vmem_t *source,
		    vmem_size_t qcache_max, vm_flag_t flags, int ipl)
	UMA_SYMBOL(uma_netbsd_vmem_create);
vmem_t *vmem_xcreate(const char *name, vmem_addr_t base, vmem_size_t size, vmem_size_t quantum,
		     vmem_ximport_t *import, vmem_release_t *release, vmem_t *source,
		     vmem_size_t qcache_max, vm_flag_t flags, int ipl)
	UMA_SYMBOL(uma_netbsd_vmem_xcreate);
void vmem_destroy(vmem_t *vm) UMA_SYMBOL(uma_netbsd_vmem_destroy);
int vmem_alloc(vmem_t *vm, vmem_size_t size, vm_flag_t flags, vmem_addr_t *addrp)
	UMA_SYMBOL(uma_netbsd_vmem_alloc);
void vmem_free(vmem_t *vm, vmem_addr_t addr, vmem_size_t size) UMA_SYMBOL(uma_netbsd_vmem_free);
/* minaddr and maxaddr may both be used themselves. */
int vmem_xalloc(vmem_t *vm, vmem_size_t size, vmem_size_t align, vmem_size_t phase,
		vmem_size_t nocross, vmem_addr_t minaddr, vmem_addr_t maxaddr, vm_flag_t flags,
		vmem_addr_t *addrp) UMA_SYMBOL(uma_netbsd_vmem_xalloc);
void vmem_xfree(vmem_t *vm, vmem_addr_t addr, vmem_size_t size) UMA_SYMBOL(uma_netbsd_vmem_xfree);
int vmem_add(vmem_t *vm, vmem_addr_t addr, vmem_size_t size, vm_flag_t flags)
	UMA_SYMBOL(uma_netbsd_vmem_add);
vmem_size_t vmem_roundup_size(vmem_t *vm, vmem_size_t size)
	UMA_SYMBOL(uma_netbsd_vmem_roundup_size);
vmem_size_t vmem_size(vmem_t *vm, int typemask) UMA_SYMBOL(uma_netbsd_vmem_size);
/* Not of NetBSD, but of Solaris: every segment of these kinds. */
void vmem_walk(vmem_t *vm, int typemask, void (*visit)(void *arg, vmem_addr_t addr, vmem_size_t size),
	       void *arg) UMA_SYMBOL(uma_netbsd_vmem_walk);

UMA_C_END

#endif

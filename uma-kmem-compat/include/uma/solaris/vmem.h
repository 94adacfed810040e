/*
 * vmem(9), the arenas of illumos, with its values. Addresses are integers in pointers: an arena may be of
 * anything. Only those of memory can be the source of a kmem cache.
 */
#ifndef UMA_SOLARIS_VMEM_H
#define UMA_SOLARIS_VMEM_H

#include <stddef.h>
#include <stdint.h>

#include <uma/bind.h>

#define VM_SLEEP 0x00000000
#define VM_NOSLEEP 0x00000001
#define VM_PANIC 0x00000002
#define VM_PUSHPAGE 0x00000004
#define VM_NORMALPRI 0x00000008
#define VM_KMFLAGS 0x000000ff

#define VM_BESTFIT 0x00000100
#define VM_FIRSTFIT 0x00000200
#define VM_NEXTFIT 0x00000400

#define VM_MEMLOAD 0x00000800
#define VM_NORELOC 0x00001000
#define VM_ABORT 0x00002000
#define VM_ENDALLOC 0x00004000

#define VMC_POPULATOR 0x00010000
#define VMC_NO_QCACHE 0x00020000
#define VMC_IDENTIFIER 0x00040000
#define VMC_XALLOC 0x00080000
#define VMC_XALIGN 0x00100000
#define VMC_DUMPSAFE 0x00200000

#define VMEM_ALLOC 0x01
#define VMEM_FREE 0x02
#define VMEM_SPAN 0x10
#define VMEM_REENTRANT 0x80000000

typedef struct vmem vmem_t;
typedef void *(vmem_alloc_t)(vmem_t *, size_t, int);
typedef void (vmem_free_t)(vmem_t *, void *, size_t);
/* It may return more than it was asked for, and says how much. */
typedef void *(vmem_ximport_t)(vmem_t *, size_t *, int);

UMA_C_BEGIN

vmem_t *vmem_create(const char *name, void *base, size_t size, size_t quantum, vmem_alloc_t *afunc,
		    vmem_free_t *ffunc, vmem_t *source, size_t qcache_max, int vmflag)
	UMA_SYMBOL(uma_solaris_vmem_create);
vmem_t *vmem_xcreate(const char *name, void *base, size_t size, size_t quantum,
		     vmem_ximport_t *afunc, vmem_free_t *ffunc, vmem_t *source, size_t qcache_max,
		     int vmflag) UMA_SYMBOL(uma_solaris_vmem_xcreate);
void vmem_destroy(vmem_t *arena) UMA_SYMBOL(uma_solaris_vmem_destroy);
void *vmem_alloc(vmem_t *arena, size_t size, int vmflag) UMA_SYMBOL(uma_solaris_vmem_alloc);
void *vmem_xalloc(vmem_t *arena, size_t size, size_t align, size_t phase, size_t nocross,
		  void *minaddr, void *maxaddr, int vmflag) UMA_SYMBOL(uma_solaris_vmem_xalloc);
void vmem_free(vmem_t *arena, void *addr, size_t size) UMA_SYMBOL(uma_solaris_vmem_free);
void vmem_xfree(vmem_t *arena, void *addr, size_t size) UMA_SYMBOL(uma_solaris_vmem_xfree);
void *vmem_add(vmem_t *arena, void *addr, size_t size, int vmflag)
	UMA_SYMBOL(uma_solaris_vmem_add);
int vmem_contains(vmem_t *arena, void *addr, size_t size) UMA_SYMBOL(uma_solaris_vmem_contains);
void vmem_walk(vmem_t *arena, int typemask, void (*visit)(void *, void *, size_t), void *arg)
	UMA_SYMBOL(uma_solaris_vmem_walk);
size_t vmem_size(vmem_t *arena, int typemask) UMA_SYMBOL(uma_solaris_vmem_size);
void vmem_qcache_reap(vmem_t *arena) UMA_SYMBOL(uma_solaris_vmem_qcache_reap);

/* Ours: a figure of the arena's kstat, as "mem_inuse". */
uint64_t uma_solaris_vmem_stat(vmem_t *arena, const char *field)
	UMA_SYMBOL(uma_solaris_vmem_stat);

/* All memory, in pages: the source of other arenas. */
vmem_t *uma_solaris_heap_arena(void) UMA_SYMBOL(uma_solaris_heap_arena);
#define heap_arena (uma_solaris_heap_arena())

UMA_C_END

#endif

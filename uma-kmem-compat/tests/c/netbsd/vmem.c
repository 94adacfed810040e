/* vmem: arenas, constraints, imports, waiting, and misuse. */
#include "../check.h"

#include <pthread.h>
#include <time.h>

#include <uma/compat.h>
#include <uma/netbsd/vmem.h>

#define NOW (VM_NOSLEEP | VM_INSTANTFIT)
#define BEST (VM_NOSLEEP | VM_BESTFIT)

static void plain(void)
{
	vmem_t *vm = vmem_create("ids", 0, 16, 1, NULL, NULL, NULL, 0, VM_SLEEP, 0);
	vmem_addr_t at, seen = 0;

	CHECK(vm != NULL);
	/* 0 is an address as any other. */
	for (int i = 0; i < 16; i++) {
		CHECK_EQ(vmem_alloc(vm, 1, i % 2 ? NOW : BEST, &at), 0);
		CHECK(at < 16 && !(seen & (vmem_addr_t)1 << at));
		seen |= (vmem_addr_t)1 << at;
	}
	CHECK_EQ(seen, 0xffff);
	CHECK_EQ(vmem_alloc(vm, 1, NOW, &at), 12);
	CHECK_EQ(vmem_size(vm, VMEM_ALLOC), 16);
	CHECK_EQ(vmem_size(vm, VMEM_FREE), 0);
	CHECK_EQ(vmem_size(vm, VMEM_ALLOC | VMEM_FREE), 16);
	CHECK_EQ(vmem_add(vm, 100, 4, VM_NOSLEEP), 0);
	CHECK_EQ(vmem_alloc(vm, 4, NOW, NULL), 0);
	vmem_free(vm, 100, 4);
	CHECK_EQ(vmem_alloc(vm, 5, NOW, &at), 12);
	for (vmem_addr_t i = 0; i < 16; i++)
		vmem_free(vm, i, 1);
	CHECK_EQ(vmem_size(vm, VMEM_ALLOC), 0);
	vmem_destroy(vm);

	/* Flags of the kernel's own. */
	vm = vmem_create("flags", 1, 16, 1, NULL, NULL, NULL, 0, VM_SLEEP | VM_BOOTSTRAP | VM_XIMPORT, 0);
	CHECK_EQ(vmem_alloc(vm, 16, NOW | VM_POPULATING, &at), 0);
	CHECK_EQ(at, 1);
	vmem_free(vm, 1, 16);
	vmem_destroy(vm);

	/* Up to the last address. */
	vm = vmem_create("edge", 0xffff0000, 0x10000, 0x1000, NULL, NULL, NULL, 0, VM_SLEEP, 0);
	CHECK_EQ(vmem_alloc(vm, 0x10000, NOW, &at), 0);
	CHECK_EQ(at, 0xffff0000);
	vmem_free(vm, at, 0x10000);
	CHECK_EQ(vmem_roundup_size(vm, 1), 0x1000);
	CHECK_EQ(vmem_alloc(vm, 1, NOW, &at), 0);
	CHECK_EQ(vmem_size(vm, VMEM_ALLOC), 0x1000);
	vmem_free(vm, at, 1);
	vmem_destroy(vm);
}

static void count_segment(void *argument, vmem_addr_t addr, vmem_size_t size)
{
	vmem_size_t *sums = argument;

	sums[0]++;
	sums[1] += size;
	sums[2] = addr;
}

/* maxaddr may be used itself. */
static void constrained(void)
{
	vmem_t *vm = vmem_create("addresses", 0, 0x100000, 0x800, NULL, NULL, NULL, 0, VM_SLEEP, 0);
	vmem_size_t sums[3] = { 0, 0, 0 };
	vmem_addr_t at, all[8];

	for (int i = 0; i < 8; i++) {
		CHECK_EQ(vmem_xalloc(vm, 0x1800, 0x1000, 0x800, 0x2000, VMEM_ADDR_MIN, VMEM_ADDR_MAX,
				     i % 2 ? NOW : BEST, &all[i]),
			 0);
		CHECK_EQ(all[i] % 0x2000, 0x800);
	}
	vmem_walk(vm, VMEM_ALLOC, count_segment, sums);
	CHECK_EQ(sums[0], 8);
	CHECK_EQ(sums[1], 8 * 0x1800);
	for (int i = 0; i < 8; i++)
		vmem_xfree(vm, all[i], 0x1800);
	CHECK_EQ(vmem_xalloc(vm, 0x800, 0, 0, 0, 0x8000, 0x87ff, NOW, &at), 0);
	CHECK_EQ(at, 0x8000);
	CHECK_EQ(vmem_xalloc(vm, 0x800, 0, 0, 0, 0x8000, 0x87ff, NOW, NULL), 12);
	CHECK_EQ(vmem_xalloc(vm, 0x800, 0, 0, 0, 0x9000, 0x97fe, NOW, NULL), 12);
	CHECK_EQ(vmem_xalloc(vm, 0x800, 0x4000, 0, 0, 0x9000, VMEM_ADDR_MAX, BEST, &all[0]), 0);
	CHECK_EQ(all[0] % 0x4000, 0);
	vmem_xfree(vm, all[0], 0x800);
	vmem_xfree(vm, at, 0x800);
	vmem_destroy(vm);
}

static vmem_t *parent;
static int imports, releases;
static vmem_size_t imported;

static int import(vmem_t *source, vmem_size_t size, vm_flag_t flags, vmem_addr_t *addrp)
{
	CHECK(source == parent);
	imports++;
	imported = size;
	return vmem_alloc(source, size, flags, addrp);
}

static int ximport(vmem_t *source, vmem_size_t size, vmem_size_t *actual, vm_flag_t flags,
		   vmem_addr_t *addrp)
{
	*actual = size < 0x8000 ? 0x8000 : size;
	return import(source, *actual, flags, addrp);
}

static void release(vmem_t *source, vmem_addr_t addr, vmem_size_t size)
{
	releases++;
	vmem_free(source, addr, size);
}

/* Spans come from the parent and go back there; constraints import nothing. */
static void importing(void)
{
	vmem_addr_t at, other;
	vmem_t *vm;

	parent = vmem_create("parent", 0x10000, 0x40000, 0x1000, NULL, NULL, NULL, 0, VM_SLEEP, 0);
	vm = vmem_create("child", 0, 0, 0x1000, import, release, parent, 0, VM_SLEEP, 0);
	CHECK_EQ(vmem_xalloc(vm, 0x1000, 0x4000, 0, 0, VMEM_ADDR_MIN, VMEM_ADDR_MAX, NOW, &at), 12);
	CHECK_EQ(vmem_xalloc(vm, 0x1000, 0, 0, 0x4000, VMEM_ADDR_MIN, VMEM_ADDR_MAX, NOW, &at), 12);
	CHECK_EQ(imports, 0);
	CHECK_EQ(vmem_alloc(vm, 0x1000, NOW, &at), 0);
	CHECK_EQ(imports, 1);
	CHECK_EQ(imported, 0x1000);
	CHECK(at >= 0x10000);
	vmem_free(vm, at, 0x1000);
	CHECK_EQ(releases, 1);
	CHECK_EQ(vmem_alloc(vm, 0x41000, NOW, &at), 12);
	vmem_destroy(vm);

	vm = vmem_create("large", 0, 0, 0x1000, import, release, parent, 0, VM_SLEEP | VM_LARGEIMPORT, 0);
	CHECK_EQ(vmem_alloc(vm, 0x1000, NOW, &at), 0);
	CHECK_EQ(imported, 0x10000);
	imports = 0;
	CHECK_EQ(vmem_alloc(vm, 0x1000, NOW, &other), 0);
	CHECK_EQ(imports, 0);
	vmem_free(vm, at, 0x1000);
	vmem_free(vm, other, 0x1000);
	vmem_destroy(vm);

	vm = vmem_xcreate("more", 0, 0, 0x1000, ximport, release, parent, 0x4000, VM_SLEEP, 0);
	CHECK_EQ(vmem_alloc(vm, 0x1000, NOW, &at), 0);
	CHECK_EQ(vmem_size(vm, VMEM_ALLOC | VMEM_FREE), 0x8000);
	vmem_free(vm, at, 0x1000);
	CHECK_EQ(vmem_size(parent, VMEM_ALLOC), 0);
	vmem_destroy(vm);
	vmem_destroy(parent);
}

/* Whatever is allocated, constrained or not, overlaps nothing, and in the end all is there again. */
static void at_random(void)
{
	vmem_t *vm = vmem_create("random", 0xfff00000, 0x100000, 0x100, NULL, NULL, NULL, 0,
				 VM_SLEEP, 0);
	static struct {
		vmem_addr_t at;
		vmem_size_t size;
	} held[64];
	static unsigned char used[0x100000 / 0x100];
	uint64_t random = 4711;

	for (int round = 0; round < 20000; round++) {
		int slot = (int)((random = random * 6364136223846793005u + 1442695040888963407u) >> 58);
		vmem_size_t size = 1 + (random >> 40) % 0x4000;
		vm_flag_t flags = VM_NOSLEEP | (random >> 35 & 1 ? VM_INSTANTFIT : VM_BESTFIT);
		int constrained = random >> 36 & 1, failed;
		vmem_addr_t at;

		if (held[slot].size != 0) {
			for (vmem_addr_t page = 0; page < (held[slot].size + 0xff) / 0x100; page++)
				CHECK_EQ(used[(held[slot].at - 0xfff00000) / 0x100 + page]--, 1);
			if (constrained)
				vmem_xfree(vm, held[slot].at, held[slot].size);
			else
				vmem_free(vm, held[slot].at, held[slot].size);
			held[slot].size = 0;
			continue;
		}
		if (constrained) {
			failed = vmem_xalloc(vm, size, 0x1000, 0x200, 0x8000, 0xfff08000, 0xffff7fff,
					     flags, &at);
			if (!failed) {
				CHECK_EQ(at % 0x1000, 0x200);
				CHECK_EQ(at / 0x8000, (at + size - 1) / 0x8000);
				CHECK(at >= 0xfff08000 && at + size - 1 <= 0xffff7fff);
			}
		} else {
			failed = vmem_alloc(vm, size, flags, &at);
		}
		CHECK(failed == 0 || failed == 12);
		if (failed)
			continue;
		held[slot].at = at;
		held[slot].size = size;
		CHECK(at >= 0xfff00000 && at + size - 1 <= 0xffffffff && at % 0x100 == 0);
		for (vmem_addr_t page = 0; page < (size + 0xff) / 0x100; page++)
			CHECK_EQ(used[(at - 0xfff00000) / 0x100 + page]++, 0);
	}
	for (int slot = 0; slot < 64; slot++)
		if (held[slot].size != 0)
			vmem_free(vm, held[slot].at, held[slot].size);
	CHECK_EQ(vmem_size(vm, VMEM_FREE), 0x100000);
	CHECK_EQ(vmem_alloc(vm, 0x100000, NOW, NULL), 0);
	vmem_free(vm, 0xfff00000, 0x100000);
	vmem_destroy(vm);
}

static void *free_later(void *vm)
{
	struct timespec moment = { 0, 20 * 1000 * 1000 };

	nanosleep(&moment, NULL);
	vmem_free(vm, 0, 8);
	return NULL;
}

static void sleeping(void)
{
	vmem_t *vm = vmem_create("few", 0, 8, 1, NULL, NULL, NULL, 0, VM_SLEEP, 0);
	pthread_t thread;
	vmem_addr_t at;

	CHECK_EQ(vmem_alloc(vm, 8, NOW, &at), 0);
	CHECK_EQ(pthread_create(&thread, NULL, free_later, vm), 0);
	CHECK_EQ(vmem_alloc(vm, 5, VM_SLEEP | VM_BESTFIT, &at), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	vmem_free(vm, at, 5);
	vmem_destroy(vm);
}

static void misuse(void)
{
	vmem_t *vm = vmem_create("misused", 0x1000, 0x8000, 0x1000, NULL, NULL, NULL, 0, VM_SLEEP, 0);
	vmem_addr_t at;

	CHECK_EQ(vmem_alloc(vm, 0x2000, NOW, &at), 0);
	CHECK_ABORTS("vmem_free", vmem_free(vm, at, 0x1000));
	CHECK_EQ(uma_compat_set_policy("netbsd.misuse", "report"), 0);
	uma_compat_set_reporter(check_reporter);
	vmem_free(vm, at, 0x1000);
	CHECK_REPORTS(1, "which was allocated with 0x2000");
	vmem_free(vm, at + 0x1000, 0x1000);
	CHECK_REPORTS(1, "where no allocated segment begins");
	vmem_xfree(vm, 0x100000, 0x1000);
	CHECK_REPORTS(1, "which the arena does not have");
	CHECK_EQ(vmem_alloc(vm, 0x1000, VM_NOSLEEP, NULL), 12);
	CHECK_REPORTS(1, "one of VM_INSTANTFIT and VM_BESTFIT");
	CHECK_EQ(vmem_alloc(vm, 0x1000, VM_INSTANTFIT, NULL), 12);
	CHECK_REPORTS(1, "exactly one of VM_SLEEP and VM_NOSLEEP");
	CHECK_EQ(vmem_alloc(vm, 0, NOW, NULL), 12);
	CHECK_REPORTS(1, "a size of 0");
	CHECK_EQ(vmem_alloc(vm, SIZE_MAX, NOW, NULL), 12);
	CHECK_REPORTS(0, "");
	CHECK_EQ(vmem_xalloc(vm, 0x1000, 0x3000, 0, 0, 0, VMEM_ADDR_MAX, NOW, NULL), 12);
	CHECK_REPORTS(1, "is not a power of two");
	CHECK_EQ(vmem_xalloc(vm, 0x1800, 0x1000, 0x1000, 0x2000, 0, VMEM_ADDR_MAX, NOW, NULL), 12);
	CHECK_REPORTS(1, "the phase");
	CHECK_EQ(vmem_xalloc(vm, 0x1000, 0x4000, 0x3000, 0x2000, 9, 8, NOW, NULL), 12);
	CHECK_REPORTS(1, "");
	CHECK_EQ(vmem_add(vm, 0x2000, 0x1000, VM_NOSLEEP), 12);
	CHECK_REPORTS(1, "a part of the span");
	vmem_destroy(vm);
	CHECK_REPORTS(1, "arena \"misused\" has 1 segments of 0x2000 in all allocated; it stays");
	vmem_free(vm, at, 0x2000);
	vmem_free(vm, at, 0x2000);
	CHECK_REPORTS(1, "freed twice?");
	vmem_destroy(vm);
	CHECK_REPORTS(0, "");
	vmem_destroy(vm);
	CHECK_REPORTS(1, "bad arena: it was destroyed before");
	CHECK_EQ(vmem_alloc(NULL, 1, NOW, &at), 12);
	CHECK_REPORTS(1, "the pointer is null");
	CHECK_EQ(vmem_size(vm, VMEM_FREE), 0);
	CHECK_REPORTS(1, "destroyed before");
	CHECK(vmem_create("odd", 0, 8, 3, NULL, NULL, NULL, 0, VM_SLEEP, 0) == NULL);
	CHECK_REPORTS(1, "not a power of two");
	CHECK(vmem_create(NULL, 0, 8, 1, NULL, NULL, NULL, 0, VM_SLEEP, 0) == NULL);
	CHECK_REPORTS(1, "the name is null");
}

int main(void)
{
	plain();
	constrained();
	at_random();
	importing();
	sleeping();
	misuse();
	return 0;
}

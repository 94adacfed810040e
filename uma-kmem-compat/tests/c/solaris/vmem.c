/* vmem: arenas of integers and of memory. */
#include "../check.h"

#include <pthread.h>

#include <uma/compat.h>
#include <uma/solaris/kmem.h>
#include <uma/solaris/sys/vmem.h>

#define P(number) ((void *)(uintptr_t)(number))
#define N(pointer) ((uintptr_t)(pointer))

static vmem_t *numbers(uintptr_t base, size_t size, size_t quantum)
{
	vmem_t *arena = vmem_create("numbers", P(base), size, quantum, NULL, NULL, NULL, 0,
				    VM_SLEEP | VMC_IDENTIFIER);

	CHECK(arena != NULL);
	return arena;
}

static void identifiers(void)
{
	vmem_t *arena = numbers(1, 100, 1);
	char seen[102] = { 0 };

	for (int i = 0; i < 100; i++) {
		uintptr_t id = N(vmem_alloc(arena, 1, VM_SLEEP));

		CHECK(id >= 1 && id <= 100 && !seen[id]);
		seen[id] = 1;
	}
	CHECK(vmem_alloc(arena, 1, VM_NOSLEEP) == NULL);
	CHECK(vmem_alloc(arena, 1, VM_SLEEP | VM_ABORT) == NULL);
	CHECK_ABORTS("VM_PANIC", vmem_alloc(arena, 1, VM_PANIC));
	CHECK_EQ(vmem_size(arena, VMEM_ALLOC), 100);
	CHECK_EQ(vmem_size(arena, VMEM_FREE), 0);
	CHECK(vmem_add(arena, P(1000), 50, VM_SLEEP) == P(1000));
	CHECK_EQ(vmem_size(arena, VMEM_ALLOC | VMEM_FREE), 150);
	CHECK(vmem_contains(arena, P(1000), 50) && vmem_contains(arena, P(1), 100));
	CHECK(!vmem_contains(arena, P(1000), 51) && !vmem_contains(arena, P(101), 1));
	CHECK_EQ(uma_solaris_vmem_stat(arena, "mem_inuse"), 100);
	CHECK_EQ(uma_solaris_vmem_stat(arena, "mem_total"), 150);
	CHECK_EQ(uma_solaris_vmem_stat(arena, "alloc"), 100);
	CHECK_EQ(uma_solaris_vmem_stat(arena, "lookup"), 0);
	CHECK(uma_solaris_vmem_stat(arena, "fail") >= 2);
	CHECK_ABORTS("there is no figure", uma_solaris_vmem_stat(arena, "colour"));
	for (uintptr_t id = 1; id <= 100; id++)
		vmem_free(arena, P(id), 1);
	CHECK_EQ(uma_solaris_vmem_stat(arena, "free"), 100);
	vmem_qcache_reap(arena);
	vmem_destroy(arena);
}

static void policies(void)
{
	vmem_t *arena = numbers(0x1000, 0x10000, 0x1000);
	void *all[16];
	uintptr_t last = 0;

	for (int i = 0; i < 16; i++)
		all[i] = vmem_alloc(arena, 0x1000, VM_NOSLEEP | VM_FIRSTFIT);
	/* Holes of 1, 3 and 2 pages, from lower to higher addresses. */
	for (int i = 0; i < 16; i++)
		last = N(all[i]) > last ? N(all[i]) : last;
	CHECK_EQ(last, 0x10000);
	vmem_free(arena, P(0x2000), 0x1000);
	vmem_free(arena, P(0x4000), 0x1000);
	vmem_free(arena, P(0x5000), 0x1000);
	vmem_free(arena, P(0x6000), 0x1000);
	vmem_free(arena, P(0x8000), 0x1000);
	vmem_free(arena, P(0x9000), 0x1000);
	CHECK_EQ(N(vmem_alloc(arena, 0x2000, VM_NOSLEEP | VM_BESTFIT)), 0x8000);
	CHECK_EQ(N(vmem_alloc(arena, 0x1000, VM_NOSLEEP | VM_ENDALLOC)), 0x6000);
	CHECK_EQ(N(vmem_alloc(arena, 0x2000, VM_NOSLEEP)), 0x4000);
	CHECK_EQ(N(vmem_alloc(arena, 1, VM_NOSLEEP)), 0x2000);
	/* Freed with the size that was asked for, not with the rounded one. */
	CHECK_ABORTS("which was allocated with 0x1", vmem_free(arena, P(0x2000), 0x1000));
	vmem_free(arena, P(0x2000), 1);
	/* What was just freed comes last. */
	vmem_free(arena, P(0x1000), 0x1000);
	vmem_free(arena, P(0x10000), 0x1000);
	CHECK_EQ(N(vmem_alloc(arena, 0x1000, VM_NOSLEEP | VM_NEXTFIT)), 0x1000);
	vmem_free(arena, P(0x1000), 0x1000);
	CHECK_EQ(N(vmem_alloc(arena, 0x1000, VM_NOSLEEP | VM_NEXTFIT)), 0x2000);
	uma_compat_set_reporter(check_reporter);
	vmem_destroy(arena);
	CHECK_REPORTS(1, "vmem_destroy: leaked");
	uma_compat_set_reporter(NULL);
}

static void constrained(void)
{
	vmem_t *arena = numbers(0x800, 0x20000, 0x800);

	/* Section 8 of the facts: all lie 0x800 behind a multiple of 0x2000. */
	for (int i = 0; i < 8; i++) {
		void *at = vmem_xalloc(arena, 0x1800, 0x1000, 0x800, 0x2000, NULL, NULL, VM_NOSLEEP);

		CHECK_EQ(N(at) % 0x2000, 0x800);
		CHECK_EQ(N(at) / 0x2000, (N(at) + 0x17ff) / 0x2000);
	}
	/* The upper bound is exclusive. */
	CHECK_EQ(N(vmem_xalloc(arena, 0x800, 0, 0, 0, P(0x20000), P(0x20800), VM_NOSLEEP)), 0x20000);
	CHECK(vmem_xalloc(arena, 0x800, 0, 0, 0, P(0x20000), P(0x20800), VM_NOSLEEP) == NULL);
	vmem_xfree(arena, P(0x20000), 0x800);
	/* What can never be is misuse. */
	CHECK_ABORTS("no range of this size", vmem_xalloc(arena, 0x800, 0x4000, 0, 0x2000, NULL, NULL, 1));
	CHECK_ABORTS("no range of this size",
		     vmem_xalloc(arena, 0x1800, 0x2000, 0x1000, 0x2000, NULL, NULL, VM_NOSLEEP));
	CHECK_ABORTS("the alignment", vmem_xalloc(arena, 0x800, 0x1800, 0, 0, NULL, NULL, VM_NOSLEEP));
	CHECK_ABORTS("the phase", vmem_xalloc(arena, 0x800, 0x800, 0x800, 0, NULL, NULL, VM_NOSLEEP));
	CHECK_ABORTS("the boundary", vmem_xalloc(arena, 0x800, 0, 0, 0x1800, NULL, NULL, VM_NOSLEEP));
	CHECK_ABORTS("a size of 0", vmem_alloc(arena, 0, VM_NOSLEEP));
	CHECK_ABORTS("no allocated segment begins", vmem_free(arena, P(0x10000), 0x800));
	CHECK_ABORTS("which the arena does not have", vmem_free(arena, P(0x40000), 0x800));
	CHECK_ABORTS("begins at null", vmem_add(arena, NULL, 0x800, VM_SLEEP));
	CHECK_ABORTS("a size of 0", vmem_add(arena, P(0x40000), 0, VM_SLEEP));
	CHECK_ABORTS("has a part of the span", vmem_add(arena, P(0x800), 0x800, VM_SLEEP));
	CHECK_ABORTS("the quantum 0x3", vmem_create("bad", NULL, 0, 3, NULL, NULL, NULL, 0, 0));
	CHECK_ABORTS("without the other", vmem_create("bad", NULL, 0, 8, vmem_alloc, NULL, arena, 0, 0));
	CHECK_ABORTS("no function", vmem_xcreate("bad", NULL, 0, 8, NULL, vmem_free, arena, 0, 0));
	CHECK(vmem_alloc(arena, SIZE_MAX, VM_NOSLEEP) == NULL);
	CHECK_ABORTS("beyond any address", vmem_alloc(arena, SIZE_MAX, VM_SLEEP));
	uma_compat_set_reporter(check_reporter);
	vmem_destroy(arena);
	uma_compat_set_reporter(NULL);
	CHECK_REPORTS(1, "leaked 49152 identifiers");
}

/* The low bits of VM_ and KM_ flags are the same, and what is for others passes through. */
static vmem_t *passing;
static int passed;

static void *import_passing(vmem_t *source, size_t size, int flag)
{
	(void)source;
	passed = flag;
	return vmem_alloc(passing, size, VM_NOSLEEP);
}

static void release_passing(vmem_t *source, void *at, size_t size)
{
	(void)source;
	vmem_free(passing, at, size);
}

static void flags(void)
{
	static const int all[] = { VM_PUSHPAGE, VM_NORMALPRI, VM_MEMLOAD, VM_NORELOC };
	static const int made[] = { VMC_POPULATOR, VMC_DUMPSAFE, VMC_XALIGN, VMC_NO_QCACHE };

	CHECK_EQ(KM_SLEEP & KM_VMFLAGS, VM_SLEEP);
	CHECK_EQ(KM_NOSLEEP, VM_NOSLEEP);
	CHECK_EQ(KM_PANIC, VM_PANIC);
	CHECK_EQ(KM_PUSHPAGE, VM_PUSHPAGE);
	CHECK_EQ(KM_NORMALPRI, VM_NORMALPRI);
	CHECK_EQ(VM_KMFLAGS, KM_VMFLAGS);
	CHECK_EQ(KM_FLAGS & (KMC_NOTOUCH | KMC_NODEBUG | KMC_NOMAGAZINE | KMC_NOHASH), 0);
	passing = numbers(0x1000, 0x100000, 0x1000);
	for (int i = 0; i < 4; i++) {
		vmem_t *arena = vmem_create("passing", NULL, 0, 0x1000, import_passing, release_passing,
					    passing, 0, VM_SLEEP | VMC_IDENTIFIER | made[i]);
		void *at = vmem_alloc(arena, 0x2000, VM_SLEEP | all[i]);

		CHECK(at != NULL);
		/* What imports is never to wait. */
		CHECK_EQ(passed & VM_NOSLEEP, VM_NOSLEEP);
		CHECK_EQ(vmem_size(arena, VMEM_ALLOC), 0x2000);
		vmem_free(arena, at, 0x2000);
		CHECK_EQ(vmem_size(arena, VMEM_ALLOC | VMEM_FREE), 0);
		vmem_destroy(arena);
	}
	vmem_destroy(passing);
}

struct walked {
	vmem_t *arena;
	size_t pieces, size;
};

static void visit(void *arg, void *at, size_t size)
{
	struct walked *walked = arg;

	/* No lock is held. */
	CHECK(vmem_contains(walked->arena, at, size));
	walked->pieces++;
	walked->size += size;
}

static void walks(void)
{
	vmem_t *arena = numbers(0x1000, 0x8000, 0x1000);
	struct walked used = { arena, 0, 0 }, unused = { arena, 0, 0 };
	void *one = vmem_alloc(arena, 0x1000, VM_SLEEP), *two = vmem_alloc(arena, 0x1800, VM_SLEEP);

	vmem_walk(arena, VMEM_ALLOC, visit, &used);
	CHECK_EQ(used.pieces, 2);
	CHECK_EQ(used.size, 0x2800);
	vmem_walk(arena, VMEM_FREE | (int)VMEM_REENTRANT, visit, &unused);
	CHECK_EQ(unused.size, 0x5000);
	/* Spans are no segments: nothing is told of them. */
	vmem_walk(arena, VMEM_SPAN, visit, &unused);
	CHECK_EQ(unused.size, 0x5000);
	vmem_free(arena, one, 0x1000);
	vmem_free(arena, two, 0x1800);
	vmem_destroy(arena);
}

static int imports, releases;

static void *import_more(vmem_t *source, size_t *size, int flag)
{
	void *at;

	CHECK_EQ(flag & VM_NOSLEEP, VM_NOSLEEP);
	*size = *size < 0x8000 ? 0x8000 : *size;
	at = vmem_alloc(source, *size, flag);
	imports += at != NULL;
	return at;
}

static void release(vmem_t *source, void *at, size_t size)
{
	releases++;
	vmem_free(source, at, size);
}

static void nested(void)
{
	vmem_t *parent = numbers(0x10000, 0x100000, 0x1000);
	vmem_t *child = vmem_xcreate("child", NULL, 0, 0x100, import_more, release, parent, 0, 0);
	vmem_t *same = vmem_create("same", NULL, 0, 0x100, (vmem_alloc_t *)(void (*)(void))import_more,
				   release, parent, 0, VMC_XALLOC);
	vmem_t *plain = vmem_create("plain", NULL, 0, 0x1000, vmem_alloc, vmem_free, parent, 0x4000,
				    VMC_NO_QCACHE);
	void *one = vmem_alloc(child, 0x100, VM_SLEEP), *two = vmem_alloc(child, 0x100, VM_SLEEP);
	void *aligned;

	CHECK_EQ(imports, 1);
	CHECK_EQ(uma_solaris_vmem_stat(child, "mem_import"), 0x8000);
	CHECK_EQ(vmem_size(parent, VMEM_ALLOC), 0x8000);
	vmem_free(child, one, 0x100);
	CHECK_EQ(releases, 0);
	vmem_free(child, two, 0x100);
	CHECK_EQ(releases, 1);
	CHECK_EQ(vmem_size(parent, VMEM_ALLOC), 0);
	one = vmem_alloc(same, 0x100, VM_SLEEP);
	CHECK_EQ(uma_solaris_vmem_stat(same, "mem_import"), 0x8000);
	vmem_free(same, one, 0x100);
	/* No less than what a quantum cache would hold. */
	one = vmem_alloc(plain, 0x1000, VM_SLEEP);
	CHECK_EQ(uma_solaris_vmem_stat(plain, "mem_import"), 0x4000);
	/* An alignment that the functions know nothing of. */
	aligned = vmem_xalloc(plain, 0x1000, 0x20000, 0, 0, NULL, NULL, VM_SLEEP);
	CHECK_EQ(N(aligned) % 0x20000, 0);
	vmem_xfree(plain, aligned, 0x1000);
	vmem_free(plain, one, 0x1000);
	CHECK_EQ(vmem_size(parent, VMEM_ALLOC), 0);
	vmem_destroy(child);
	vmem_destroy(same);
	vmem_destroy(plain);
	vmem_destroy(parent);
}

/* A function that gives less than it is asked for, and none of it aligned. */
static int lent;

static void *import_less(vmem_t *source, size_t *size, int flag)
{
	(void)source, (void)flag;
	*size = 0x1000;
	lent++;
	return P(0x1000);
}

static void take_back(vmem_t *source, void *at, size_t size)
{
	(void)source;
	CHECK_EQ(N(at), 0x1000);
	CHECK_EQ(size, 0x1000);
	lent--;
}

static void less(void)
{
	vmem_t *arena = vmem_xcreate("less", NULL, 0, 0x1000, import_less, take_back, NULL, 0, 0);

	CHECK_ABORTS("the parent gave 0x1000 at 0x1000, which does not fit",
		     vmem_xalloc(arena, 0x1000, 0x20000, 0, 0, NULL, NULL, VM_NOSLEEP));
	CHECK_EQ(uma_compat_set_policy("solaris.misuse", "report"), 0);
	uma_compat_set_reporter(check_reporter);
	CHECK(vmem_xalloc(arena, 0x1000, 0x20000, 0, 0, NULL, NULL, VM_NOSLEEP) == NULL);
	CHECK_REPORTS(1, "the parent gave 0x1000 at 0x1000, which does not fit");
	CHECK_EQ(lent, 0);
	uma_compat_set_reporter(NULL);
	CHECK_EQ(uma_compat_set_policy("solaris.misuse", "abort"), 0);
	vmem_destroy(arena);
}

static void *free_later(void *arena)
{
	while (uma_solaris_vmem_stat(arena, "wait") == 0)
		usleep(1000);
	vmem_free(arena, P(0x1000), 0x1000);
	return NULL;
}

static void sleeping(void)
{
	vmem_t *arena = numbers(0x1000, 0x1000, 0x1000);
	pthread_t thread;

	CHECK_EQ(N(vmem_alloc(arena, 0x1000, VM_SLEEP)), 0x1000);
	CHECK_EQ(pthread_create(&thread, NULL, free_later, arena), 0);
	CHECK_EQ(N(vmem_alloc(arena, 0x1000, VM_SLEEP)), 0x1000);
	pthread_join(thread, NULL);
	CHECK_EQ(uma_solaris_vmem_stat(arena, "wait"), 1);
	vmem_free(arena, P(0x1000), 0x1000);
	vmem_destroy(arena);
}

/* Memory: the heap, an arena over it, and a cache over that. */
static void memory(void)
{
	vmem_t *arena = vmem_create("memory", NULL, 0, 4096, vmem_alloc, vmem_free, heap_arena, 0, 0);
	kmem_cache_t *cache = kmem_cache_create("in arena", 100, 0, NULL, NULL, NULL, NULL, arena, 0);
	vmem_t *ids = numbers(1, 100, 1);
	char *objects[500];
	char *pages = vmem_alloc(arena, 3 * 4096, VM_SLEEP);

	memset(pages, 1, 3 * 4096);
	vmem_free(arena, pages, 3 * 4096);
	CHECK_EQ(vmem_size(arena, VMEM_ALLOC), 0);
	for (int i = 0; i < 500; i++) {
		objects[i] = kmem_cache_alloc(cache, KM_SLEEP);
		memset(objects[i], i, 100);
		CHECK(vmem_contains(arena, objects[i], 100));
	}
	CHECK(vmem_size(arena, VMEM_ALLOC) >= 50000);
	for (int i = 0; i < 500; i++)
		kmem_cache_free(cache, objects[i]);
	uma_compat_set_reporter(check_reporter);
	vmem_destroy(arena);
	CHECK_REPORTS(1, "caches have memory of it");
	uma_compat_set_reporter(NULL);
	kmem_cache_destroy(cache);
	CHECK_EQ(vmem_size(heap_arena, VMEM_ALLOC), 0);
	CHECK_ABORTS("the arena is none of memory",
		     kmem_cache_create("ids", 8, 0, NULL, NULL, NULL, NULL, ids, 0));
	vmem_destroy(ids);
	/* The heap stays, and does not wait for what no machine has. */
	CHECK_ABORTS("vmem_destroy: the heap cannot end", vmem_destroy(heap_arena));
	CHECK_ABORTS("no address space has 0x1000000000000000 bytes",
		     vmem_alloc(heap_arena, (size_t)1 << 60, VM_SLEEP));
	CHECK_ABORTS("VM_PANIC", vmem_alloc(heap_arena, (size_t)1 << 60, VM_PANIC));
	CHECK(vmem_alloc(heap_arena, (size_t)1 << 60, VM_NOSLEEP) == NULL);
	CHECK_ABORTS("vmem_create: the arena has no name",
		     vmem_create(NULL, NULL, 0, 8, NULL, NULL, NULL, 0, 0));
}

int main(void)
{
	identifiers();
	policies();
	constrained();
	flags();
	walks();
	nested();
	less();
	sleeping();
	memory();
	return 0;
}

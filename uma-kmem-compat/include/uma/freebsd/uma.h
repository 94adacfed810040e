/*
 * The Universal Memory Allocator, zone(9) of FreeBSD, in user space. docs/uma.md of the project says, for
 * every function, callback, flag and constant, what it does here and where that differs.
 *
 * Before it is included, UMA_2002 may be defined: then it is the header of March 2002, with the callbacks,
 * flags and constants of that time. Files of both kinds can be linked together.
 */
#ifndef UMA_FREEBSD_UMA_H
#define UMA_FREEBSD_UMA_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <uma/bind.h>
#include <uma/hit.h>
#include <uma/freebsd/mflags.h>

#ifndef PAGE_SIZE
#define PAGE_SIZE 4096
#endif

struct uma_zone;
typedef struct uma_zone *uma_zone_t;

typedef void (*uma_dtor)(void *mem, int size, void *arg);
typedef void (*uma_fini)(void *mem, int size);

/* Bits of a slab that a supplier of pages may set, and gets back. */
#define UMA_SLAB_BOOT 0x01
#define UMA_SLAB_PRIV 0x08

#if defined(UMA_2002)

typedef void (*uma_ctor)(void *mem, int size, void *arg);
typedef void (*uma_init)(void *mem, int size);
typedef void *(*uma_alloc)(uma_zone_t zone, int size, uint8_t *pflag, int wait);
typedef void (*uma_free)(void *item, int size, uint8_t pflag);

#define UMA_SMALLEST_UNIT (PAGE_SIZE / 256)
#define UMA_SLAB_SIZE PAGE_SIZE
#define UMA_BOOT_PAGES 15

#define UMA_ZONE_PAGEABLE 0x0001
#define UMA_ZONE_ZINIT 0x0002
#define UMA_ZONE_STATIC 0x0004
#define UMA_ZONE_OFFPAGE 0x0008
#define UMA_ZONE_MALLOC 0x0010
#define UMA_ZONE_NOFREE 0x0020

#define UMA_ALIGN_PTR (sizeof(void *) - 1)
#define UMA_ALIGN_LONG (sizeof(long) - 1)
#define UMA_ALIGN_INT (sizeof(int) - 1)
#define UMA_ALIGN_SHORT (sizeof(short) - 1)
#define UMA_ALIGN_CHAR (sizeof(char) - 1)
#define UMA_ALIGN_CACHE (16 - 1)

#define UMA_SLAB_KMEM 0x02
#define UMA_SLAB_KMAP 0x04
#define UMA_SLAB_OFFP 0x10
#define UMA_SLAB_MALLOC 0x20

struct vm_object;

UMA_C_BEGIN

uma_zone_t uma_zcreate(const char *name, int size, uma_ctor ctor, uma_dtor dtor, uma_init uminit,
		       uma_fini fini, int align, uint16_t flags) UMA_SYMBOL(uma_freebsd_2002_zcreate);
/* 0, or EWOULDBLOCK if items are in use and wait is M_NOWAIT. */
int uma_zdestroy(uma_zone_t zone, int wait) UMA_SYMBOL(uma_freebsd_2002_zdestroy);
void uma_zone_set_allocf(uma_zone_t zone, uma_alloc allocf)
	UMA_SYMBOL(uma_freebsd_2002_zone_set_allocf);
void uma_zone_set_freef(uma_zone_t zone, uma_free freef) UMA_SYMBOL(uma_freebsd_2002_zone_set_freef);
/* 0: there is no address space. 1: there is. The object is not used. */
int uma_zone_set_obj(uma_zone_t zone, struct vm_object *obj, int size)
	UMA_SYMBOL(uma_freebsd_2002_zone_set_obj);
void uma_freebsd_startup(void *bootmem, int boot_pages);
void uma_freebsd_startup2(void);
void uma_freebsd_reclaim(int req);

UMA_C_END

static inline void uma_startup(void *bootmem)
{
	uma_freebsd_startup(bootmem, UMA_BOOT_PAGES);
}

/* The hash of malloc is not used: any item is found by its address. */
static inline void uma_startup2(void *hash, unsigned long elems)
{
	(void)hash;
	(void)elems;
	uma_freebsd_startup2();
}

static inline void uma_reclaim(void)
{
	uma_freebsd_reclaim(2);
}

#else /* today */

typedef int (*uma_ctor)(void *mem, int size, void *arg, int flags);
typedef int (*uma_init)(void *mem, int size, int flags);
typedef void *(*uma_alloc)(uma_zone_t zone, size_t size, int domain, uint8_t *pflag, int wait);
typedef void (*uma_free)(void *item, size_t size, uint8_t pflag);
typedef int (*uma_import)(void *arg, void **store, int count, int domain, int flags);
typedef void (*uma_release)(void *arg, void **store, int count);
typedef void (*uma_maxaction_t)(uma_zone_t zone, int pending);

typedef struct smr *smr_t;

#define UMA_ZONE_UNMANAGED 0x0001
#define UMA_ZONE_ZINIT 0x0002
#define UMA_ZONE_CONTIG 0x0004
#define UMA_ZONE_NOTOUCH 0x0008
#define UMA_ZONE_MALLOC 0x0010
#define UMA_ZONE_NOFREE 0x0020
#define UMA_ZONE_MTXCLASS 0x0040
#define UMA_ZONE_VM 0x0080
#define UMA_ZONE_NOTPAGE 0x0100
#define UMA_ZONE_SECONDARY 0x0200
#define UMA_ZONE_NOBUCKET 0x0400
#define UMA_ZONE_MAXBUCKET 0x0800
#define UMA_ZONE_MINBUCKET 0x1000
#define UMA_ZONE_CACHESPREAD 0x2000
#define UMA_ZONE_NODUMP 0x4000
#define UMA_ZONE_PCPU 0x8000
#define UMA_ZONE_FIRSTTOUCH 0x10000
#define UMA_ZONE_ROUNDROBIN 0x20000
#define UMA_ZONE_SMR 0x40000
#define UMA_ZONE_NOKASAN 0x80000
#define UMA_ZONE_NOTRIM 0x100000

#if defined(__cplusplus)
#define UMA_ALIGNOF(type) (alignof(type) - 1)
#else
#define UMA_ALIGNOF(type) (_Alignof(type) - 1)
#endif
#define UMA_ALIGN_PTR UMA_ALIGNOF(void *)
#define UMA_ALIGN_LONG UMA_ALIGNOF(long)
#define UMA_ALIGN_INT UMA_ALIGNOF(int)
#define UMA_ALIGN_SHORT UMA_ALIGNOF(short)
#define UMA_ALIGN_CHAR UMA_ALIGNOF(char)
#define UMA_ALIGN_CACHE uma_get_cache_align_mask()
#define UMA_ALIGN_CACHE_AND_MASK(mask) (uma_get_cache_align_mask() | (mask))

#define UMA_SLAB_KERNEL 0x04
#define UMA_ANYDOMAIN -1

#define UMA_RECLAIM_DRAIN 1
#define UMA_RECLAIM_DRAIN_CPU 2
#define UMA_RECLAIM_TRIM 3

/* From one copy of an item of a UMA_ZONE_PCPU zone to the next, for items of at most that size. */
#define UMA_PCPU_ALLOC_SIZE PAGE_SIZE

UMA_C_BEGIN

uma_zone_t uma_zcreate(const char *name, size_t size, uma_ctor ctor, uma_dtor dtor, uma_init uminit,
		       uma_fini fini, int align, uint32_t flags) UMA_SYMBOL(uma_freebsd_zcreate);
uma_zone_t uma_zsecond_create(const char *name, uma_ctor ctor, uma_dtor dtor, uma_init zinit,
			      uma_fini zfini, uma_zone_t primary)
	UMA_SYMBOL(uma_freebsd_zsecond_create);
uma_zone_t uma_zcache_create(const char *name, int size, uma_ctor ctor, uma_dtor dtor,
			     uma_init zinit, uma_fini zfini, uma_import zimport,
			     uma_release zrelease, void *arg, int flags)
	UMA_SYMBOL(uma_freebsd_zcache_create);
void uma_zdestroy(uma_zone_t zone) UMA_SYMBOL(uma_freebsd_zdestroy);

void *uma_zalloc_domain(uma_zone_t zone, void *arg, int domain, int flags)
	UMA_SYMBOL(uma_freebsd_zalloc_domain);
void *uma_zalloc_pcpu_arg(uma_zone_t zone, void *arg, int flags)
	UMA_SYMBOL(uma_freebsd_zalloc_pcpu_arg);
void *uma_zalloc_smr(uma_zone_t zone, int flags) UMA_SYMBOL(uma_freebsd_zalloc_smr);
void uma_zfree_smr(uma_zone_t zone, void *item) UMA_SYMBOL(uma_freebsd_zfree_smr);
void uma_zwait(uma_zone_t zone) UMA_SYMBOL(uma_freebsd_zwait);

void uma_zone_set_allocf(uma_zone_t zone, uma_alloc allocf) UMA_SYMBOL(uma_freebsd_zone_set_allocf);
void uma_zone_set_freef(uma_zone_t zone, uma_free freef) UMA_SYMBOL(uma_freebsd_zone_set_freef);
void uma_zone_set_init(uma_zone_t zone, uma_init uminit) UMA_SYMBOL(uma_freebsd_zone_set_init);
void uma_zone_set_fini(uma_zone_t zone, uma_fini fini) UMA_SYMBOL(uma_freebsd_zone_set_fini);
/* In a zone with slabs of its own, zinit and init are the same here. */
void uma_zone_set_zinit(uma_zone_t zone, uma_init zinit) UMA_SYMBOL(uma_freebsd_zone_set_init);
void uma_zone_set_zfini(uma_zone_t zone, uma_fini zfini) UMA_SYMBOL(uma_freebsd_zone_set_fini);
int uma_zone_reserve_kva(uma_zone_t zone, int nitems) UMA_SYMBOL(uma_freebsd_zone_reserve_kva);
void uma_zone_reserve(uma_zone_t zone, int nitems) UMA_SYMBOL(uma_freebsd_zone_reserve);
void uma_zone_set_maxcache(uma_zone_t zone, int nitems) UMA_SYMBOL(uma_freebsd_zone_set_maxcache);
void uma_zone_set_warning(uma_zone_t zone, const char *warning)
	UMA_SYMBOL(uma_freebsd_zone_set_warning);
void uma_zone_set_maxaction(uma_zone_t zone, uma_maxaction_t action)
	UMA_SYMBOL(uma_freebsd_zone_set_maxaction);
int uma_zone_exhausted(uma_zone_t zone) UMA_SYMBOL(uma_freebsd_zone_exhausted);
size_t uma_zone_memory(uma_zone_t zone) UMA_SYMBOL(uma_freebsd_zone_memory);
void uma_zone_set_smr(uma_zone_t zone, smr_t smr) UMA_SYMBOL(uma_freebsd_zone_set_smr);
smr_t uma_zone_get_smr(uma_zone_t zone) UMA_SYMBOL(uma_freebsd_zone_get_smr);
void uma_zone_reclaim(uma_zone_t zone, int req) UMA_SYMBOL(uma_freebsd_zone_reclaim);

void uma_reclaim(int req) UMA_SYMBOL(uma_freebsd_reclaim);
void uma_reclaim_wakeup(void) UMA_SYMBOL(uma_freebsd_reclaim_wakeup);
/* For a thread of its own: does not return. */
void uma_reclaim_worker(void) UMA_SYMBOL(uma_freebsd_reclaim_worker);

void uma_startup(void *bootmem, int boot_pages) UMA_SYMBOL(uma_freebsd_startup);
void uma_startup2(void) UMA_SYMBOL(uma_freebsd_startup2);

unsigned long uma_limit(void) UMA_SYMBOL(uma_freebsd_limit);
void uma_set_limit(unsigned long limit) UMA_SYMBOL(uma_freebsd_set_limit);
size_t uma_size(void) UMA_SYMBOL(uma_freebsd_size);
long uma_avail(void) UMA_SYMBOL(uma_freebsd_avail);

unsigned int uma_get_cache_align_mask(void) UMA_SYMBOL(uma_freebsd_get_cache_align_mask);
void uma_set_cache_align_mask(unsigned int mask) UMA_SYMBOL(uma_freebsd_set_cache_align_mask);

uma_zone_t uma_freebsd_pcpu_zone(unsigned int size);
/* Not of FreeBSD: the copy of an item for a CPU, whatever the size of items; NULL if there is none. */
void *uma_freebsd_pcpu_copy(uma_zone_t zone, void *item, int cpu);

void uma_freebsd_sysctl_add(const char *parent, const char *name, uma_zone_t *zone, int cur);

UMA_C_END

#define pcpu_zone_4 uma_freebsd_pcpu_zone(4)
#define pcpu_zone_8 uma_freebsd_pcpu_zone(8)
#define pcpu_zone_16 uma_freebsd_pcpu_zone(16)
#define pcpu_zone_32 uma_freebsd_pcpu_zone(32)
#define pcpu_zone_64 uma_freebsd_pcpu_zone(64)

/* The copy of an item of at most UMA_PCPU_ALLOC_SIZE bytes for a CPU. */
#define zpcpu_get_cpu(base, cpu) \
	((__typeof__(base))(void *)((char *)(base) + (size_t)(cpu) * UMA_PCPU_ALLOC_SIZE))

static inline void uma_reclaim_domain(int req, int domain)
{
	(void)domain;
	uma_reclaim(req);
}

static inline void uma_zone_reclaim_domain(uma_zone_t zone, int req, int domain)
{
	(void)domain;
	uma_zone_reclaim(zone, req);
}

static inline void *uma_zalloc_pcpu(uma_zone_t zone, int flags)
{
	return uma_zalloc_pcpu_arg(zone, NULL, flags);
}

/*
 * Gives the limit, or the occupancy, of the zone in a variable a name for uma_freebsd_sysctlbyname: that of the
 * parent (_kern_ipc reads kern.ipc), a dot, and its own. The limit may be set by that name.
 */
#define UMA_SYSCTL_(parent, name, zone, cur)                                       \
	__attribute__((__constructor__)) static void uma_sysctl##parent##_##name(void) \
	{                                                                          \
		uma_freebsd_sysctl_add(#parent, #name, &(zone), cur);              \
	}                                                                          \
	extern int uma_sysctl_end_
#define SYSCTL_UMA_MAX(parent, nbr, name, access, zone, descr) UMA_SYSCTL_(parent, name, zone, 0)
#define SYSCTL_UMA_CUR(parent, nbr, name, access, zone, descr) UMA_SYSCTL_(parent, name, zone, 1)
/* While the program runs. The parent is a text here. */
#define SYSCTL_ADD_UMA_MAX(ctx, parent, nbr, name, access, zone, descr) \
	((void)(ctx), uma_freebsd_sysctl_add(parent, name, &(zone), 0))
#define SYSCTL_ADD_UMA_CUR(ctx, parent, nbr, name, access, zone, descr) \
	((void)(ctx), uma_freebsd_sysctl_add(parent, name, &(zone), 1))

/* vm.zone_stats: this, then for every zone a uma_type_header and ush_maxcpus times uma_percpu_stat. */
#define UMA_STREAM_VERSION 0x00000001

struct uma_stream_header {
	uint32_t ush_version;
	uint32_t ush_maxcpus;
	uint32_t ush_count;
	uint32_t _ush_pad;
};

#define UTH_MAX_NAME 32
#define UTH_ZONE_SECONDARY 0x00000001

struct uma_type_header {
	char uth_name[UTH_MAX_NAME];
	uint32_t uth_align;
	uint32_t uth_size;
	uint32_t uth_rsize;
	uint32_t uth_maxpages;
	uint32_t uth_limit;
	uint32_t uth_pages;
	uint32_t uth_keg_free;
	uint32_t uth_zone_free;
	uint32_t uth_bucketsize;
	uint32_t uth_zone_flags;
	uint64_t uth_allocs;
	uint64_t uth_frees;
	uint64_t uth_fails;
	uint64_t uth_sleeps;
	uint64_t uth_xdomain;
	uint64_t _uth_reserved1[1];
};

struct uma_percpu_stat {
	uint64_t ups_allocs;
	uint64_t ups_frees;
	uint64_t ups_cache_free;
	uint64_t _ups_reserved[5];
};

#endif /* today */

UMA_C_BEGIN

void *uma_zalloc_arg(uma_zone_t zone, void *arg, int flags) UMA_SYMBOL(uma_freebsd_zalloc_arg);
void uma_zfree_arg(uma_zone_t zone, void *item, void *arg) UMA_SYMBOL(uma_freebsd_zfree_arg);
void uma_prealloc(uma_zone_t zone, int itemcnt) UMA_SYMBOL(uma_freebsd_prealloc);
/* The limit that is in force, which is the one asked for. */
int uma_zone_set_max(uma_zone_t zone, int nitems) UMA_SYMBOL(uma_freebsd_zone_set_max);
int uma_zone_get_max(uma_zone_t zone) UMA_SYMBOL(uma_freebsd_zone_get_max);
int uma_zone_get_cur(uma_zone_t zone) UMA_SYMBOL(uma_freebsd_zone_get_cur);

/*
 * Not of FreeBSD: sysctlbyname(3) for vm.zone_stats, vm.zone_count, vm.zone (the table of vmstat -z), vm.uma (all
 * figures and flags, as JSON), vm.zone_warnings, vm.uma_kmem_limit, vm.uma_kmem_total, kern.malloc (the table of
 * vmstat -m), and names of SYSCTL_UMA_MAX and SYSCTL_UMA_CUR. Returns 0 or an error number.
 */
int uma_freebsd_sysctlbyname(const char *name, void *oldp, size_t *oldlenp, const void *newp,
			     size_t newlen);
/* Not of FreeBSD: the flags of a zone by name, as snprintf writes it. */
int uma_freebsd_zone_flags(uma_zone_t zone, char *into, size_t room);

UMA_C_END

#if defined(UMA_HITS_)

#define UMA_FREEBSD_MARK_ UMA_MARK_('f', 'z')

/* A zone with ctor or dtor, or with SMR, has no short way, so the argument does not matter. */
static inline void *uma_freebsd_hit_alloc_(uma_zone_t zone, void *arg, int flags)
{
	int way = flags & (M_WAITOK | M_NOWAIT | M_ZERO);
	void *item = NULL;

	if (way == M_WAITOK || way == M_NOWAIT)
		item = uma_pop_(zone, UMA_FREEBSD_MARK_);
	return item != NULL ? item : uma_zalloc_arg(zone, arg, flags);
}

static inline void uma_freebsd_hit_free_(uma_zone_t zone, void *item, void *arg)
{
	if (!uma_push_(zone, UMA_FREEBSD_MARK_, item))
		uma_zfree_arg(zone, item, arg);
}

#define uma_zalloc_arg(...) uma_freebsd_hit_alloc_(__VA_ARGS__)
#define uma_zfree_arg(...) uma_freebsd_hit_free_(__VA_ARGS__)

#endif

static inline void *uma_zalloc(uma_zone_t zone, int flags)
{
	return uma_zalloc_arg(zone, NULL, flags);
}

static inline void uma_zfree(uma_zone_t zone, void *item)
{
	uma_zfree_arg(zone, item, NULL);
}

#if !defined(UMA_2002)

static inline void uma_zfree_pcpu_arg(uma_zone_t zone, void *item, void *arg)
{
	uma_zfree_arg(zone, item, arg);
}

static inline void uma_zfree_pcpu(uma_zone_t zone, void *item)
{
	uma_zfree_arg(zone, item, NULL);
}

#endif

#endif

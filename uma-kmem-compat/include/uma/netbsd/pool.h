/*
 * Pools (pool) and caches of constructed objects (pool_cache) of NetBSD, in user space. docs/compat.md of the
 * project says, for every function and flag, what it does here and where that differs.
 */
#ifndef UMA_NETBSD_POOL_H
#define UMA_NETBSD_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uma/bind.h>
#include <uma/hit.h>

/* Of pool_get and pool_cache_get: one of the first two. */
#define PR_WAITOK 0x01
#define PR_NOWAIT 0x02
#define PR_LIMITFAIL 0x100
#define PR_ZERO 0x8000
/* Of pool_init and pool_cache_init. */
#define PR_RECURSIVE 0x200
#define PR_NOTOUCH 0x400
#define PR_NOALIGN 0x800
#define PR_LARGECACHE 0x1000
#define PR_PSERIALIZE 0x20000

/* Interrupt levels, which mean nothing here. */
#ifndef IPL_NONE
#define IPL_NONE 0
#define IPL_SOFTCLOCK 1
#define IPL_SOFTBIO 2
#define IPL_SOFTNET 3
#define IPL_SOFTSERIAL 4
#define IPL_VM 5
#define IPL_SCHED 6
#define IPL_HIGH 7
#endif

#define PCG_NOBJECTS_NORMAL 15
#define PCG_NOBJECTS_LARGE 63

/* An address on the bus. */
typedef uintptr_t uma_netbsd_paddr_t;
#define POOL_PADDR_INVALID ((uma_netbsd_paddr_t)-1)

/* In the program's memory; of use from pool_init to pool_destroy. */
struct pool {
	struct uma_netbsd_pool *uma_pool;
};

struct pool_cache {
	struct pool pc_pool;
};

typedef struct pool_cache *pool_cache_t;

/* Pages of pa_pagesz bytes, a power of two to which they are aligned; 0 is 4096. */
struct pool_allocator {
	void *(*pa_alloc)(struct pool *pool, int flags);
	void (*pa_free)(struct pool *pool, void *page);
	unsigned int pa_pagesz;
};

/* Not of NetBSD: the figures of a pool. */
struct uma_netbsd_pool_stats {
	uint64_t size, align, npages, nitems, nout, nget, nput, nfail, npagealloc, npagefree, nidle;
	uint64_t itemsperpage, ncached, hardlimit, nwaiting;
};

UMA_C_BEGIN

extern const struct pool_allocator pool_allocator_kmem UMA_SYMBOL(uma_netbsd_pool_allocator_kmem);
extern const struct pool_allocator pool_allocator_nointr
	UMA_SYMBOL(uma_netbsd_pool_allocator_nointr);
extern const struct pool_allocator pool_allocator_meta UMA_SYMBOL(uma_netbsd_pool_allocator_meta);

/* Pages of 4096 bytes for allocators of the program to stand on. */
void *pool_page_alloc(struct pool *pool, int flags) UMA_SYMBOL(uma_netbsd_pool_page_alloc);
void pool_page_free(struct pool *pool, void *page) UMA_SYMBOL(uma_netbsd_pool_page_free);

void pool_init(struct pool *pool, size_t size, unsigned int align, unsigned int align_offset,
	       int flags, const char *wchan, const struct pool_allocator *palloc, int ipl)
	UMA_SYMBOL(uma_netbsd_pool_init);
void pool_destroy(struct pool *pool) UMA_SYMBOL(uma_netbsd_pool_destroy);
void *pool_get(struct pool *pool, int flags) UMA_SYMBOL(uma_netbsd_pool_get);
void pool_put(struct pool *pool, void *item) UMA_SYMBOL(uma_netbsd_pool_put);
int pool_prime(struct pool *pool, int count) UMA_SYMBOL(uma_netbsd_pool_prime);
void pool_setlowat(struct pool *pool, int count) UMA_SYMBOL(uma_netbsd_pool_setlowat);
void pool_sethiwat(struct pool *pool, int count) UMA_SYMBOL(uma_netbsd_pool_sethiwat);
void pool_sethardlimit(struct pool *pool, int count, const char *warning, int ratecap)
	UMA_SYMBOL(uma_netbsd_pool_sethardlimit);
void pool_set_drain_hook(struct pool *pool, void (*hook)(void *arg, int flags), void *arg)
	UMA_SYMBOL(uma_netbsd_pool_set_drain_hook);
int pool_reclaim(struct pool *pool) UMA_SYMBOL(uma_netbsd_pool_reclaim);
bool pool_drain(struct pool **which) UMA_SYMBOL(uma_netbsd_pool_drain);
unsigned int pool_nget(struct pool *pool) UMA_SYMBOL(uma_netbsd_pool_nget);
unsigned int pool_nput(struct pool *pool) UMA_SYMBOL(uma_netbsd_pool_nput);
int pool_totalpages(void) UMA_SYMBOL(uma_netbsd_pool_totalpages);
int pool_chk(struct pool *pool, const char *label) UMA_SYMBOL(uma_netbsd_pool_chk);
/* The functions print as printf does, which it is if they are null. */
void pool_printit(struct pool *pool, const char *modifiers, void (*print)(const char *, ...))
	UMA_SYMBOL(uma_netbsd_pool_printit);
void pool_printall(const char *modifiers, void (*print)(const char *, ...))
	UMA_SYMBOL(uma_netbsd_pool_printall);
void pool_whatis(uintptr_t address, void (*print)(const char *, ...))
	UMA_SYMBOL(uma_netbsd_pool_whatis);

pool_cache_t pool_cache_init(size_t size, unsigned int align, unsigned int align_offset,
			     unsigned int flags, const char *name,
			     const struct pool_allocator *palloc, int ipl,
			     int (*ctor)(void *arg, void *object, int flags),
			     void (*dtor)(void *arg, void *object), void *arg)
	UMA_SYMBOL(uma_netbsd_pool_cache_init);
void pool_cache_bootstrap(pool_cache_t cache, size_t size, unsigned int align,
			  unsigned int align_offset, unsigned int flags, const char *name,
			  const struct pool_allocator *palloc, int ipl,
			  int (*ctor)(void *arg, void *object, int flags),
			  void (*dtor)(void *arg, void *object), void *arg)
	UMA_SYMBOL(uma_netbsd_pool_cache_bootstrap);
void pool_cache_destroy(pool_cache_t cache) UMA_SYMBOL(uma_netbsd_pool_cache_destroy);
void pool_cache_bootstrap_destroy(pool_cache_t cache)
	UMA_SYMBOL(uma_netbsd_pool_cache_bootstrap_destroy);
void *pool_cache_get(pool_cache_t cache, int flags) UMA_SYMBOL(uma_netbsd_pool_cache_get);
void pool_cache_put(pool_cache_t cache, void *object) UMA_SYMBOL(uma_netbsd_pool_cache_put);
void *pool_cache_get_paddr(pool_cache_t cache, int flags, uma_netbsd_paddr_t *paddr)
	UMA_SYMBOL(uma_netbsd_pool_cache_get_paddr);
void pool_cache_put_paddr(pool_cache_t cache, void *object, uma_netbsd_paddr_t paddr)
	UMA_SYMBOL(uma_netbsd_pool_cache_put_paddr);
void pool_cache_destruct_object(pool_cache_t cache, void *object)
	UMA_SYMBOL(uma_netbsd_pool_cache_destruct_object);
void pool_cache_invalidate(pool_cache_t cache) UMA_SYMBOL(uma_netbsd_pool_cache_invalidate);
bool pool_cache_reclaim(pool_cache_t cache) UMA_SYMBOL(uma_netbsd_pool_cache_reclaim);
void pool_cache_set_drain_hook(pool_cache_t cache, void (*hook)(void *arg, int flags), void *arg)
	UMA_SYMBOL(uma_netbsd_pool_cache_set_drain_hook);
void pool_cache_setlowat(pool_cache_t cache, int count)
	UMA_SYMBOL(uma_netbsd_pool_cache_setlowat);
void pool_cache_sethiwat(pool_cache_t cache, int count)
	UMA_SYMBOL(uma_netbsd_pool_cache_sethiwat);
void pool_cache_sethardlimit(pool_cache_t cache, int count, const char *warning, int ratecap)
	UMA_SYMBOL(uma_netbsd_pool_cache_sethardlimit);
int pool_cache_prime(pool_cache_t cache, int count) UMA_SYMBOL(uma_netbsd_pool_cache_prime);
unsigned int pool_cache_nget(pool_cache_t cache) UMA_SYMBOL(uma_netbsd_pool_cache_nget);
unsigned int pool_cache_nput(pool_cache_t cache) UMA_SYMBOL(uma_netbsd_pool_cache_nput);

/* Not of NetBSD: items in use, exactly, without those in caches; and all figures: 0, or -1. */
uint64_t uma_netbsd_pool_nout(struct pool *pool);
int uma_netbsd_pool_get_stats(struct pool *pool, struct uma_netbsd_pool_stats *stats);
/* Not of NetBSD: what a passive serialization is, for PR_PSERIALIZE, as synchronize_rcu of liburcu. */
void uma_netbsd_set_pserialize(void (*perform)(void));
/* Not of NetBSD: the address on the bus of what lies at an address; the same, unless this was called. */
void uma_netbsd_set_vtophys(uma_netbsd_paddr_t (*vtophys)(uintptr_t address));

UMA_C_END

#if defined(UMA_HITS_)

#define UMA_NETBSD_MARK_ UMA_MARK_('n', 'p')

static inline void *uma_netbsd_hit_get_(pool_cache_t cache, int flags)
{
	int way = flags & (PR_WAITOK | PR_NOWAIT | PR_ZERO);
	void *object = NULL;

	if (cache != NULL && (way == PR_WAITOK || way == PR_NOWAIT))
		object = uma_pop_(cache->pc_pool.uma_pool, UMA_NETBSD_MARK_);
	return object != NULL ? object : pool_cache_get(cache, flags);
}

static inline void uma_netbsd_hit_put_(pool_cache_t cache, void *object)
{
	if (cache == NULL || !uma_push_(cache->pc_pool.uma_pool, UMA_NETBSD_MARK_, object))
		pool_cache_put(cache, object);
}

#define pool_cache_get(...) uma_netbsd_hit_get_(__VA_ARGS__)
#define pool_cache_put(...) uma_netbsd_hit_put_(__VA_ARGS__)

#endif

struct cpu_info;

/* CPUs are known from the beginning. */
static inline void pool_cache_cpu_init(struct cpu_info *cpu)
{
	(void)cpu;
}

static inline void pool_print(struct pool *pool, const char *modifiers)
{
	pool_printit(pool, modifiers, NULL);
}

#endif

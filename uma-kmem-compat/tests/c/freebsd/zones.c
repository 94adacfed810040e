/* Making and using zones: callbacks, arguments, secondary and cache zones, flags, copies for CPUs. */
#include "../check.h"

#include <uma/compat.h>
#include <uma/freebsd/uma.h>

static int inits, finis, ctors, dtors, last_flags, refuse_ctor, refuse_init;
static void *last_arg;

static void reset(void)
{
	inits = finis = ctors = dtors = last_flags = refuse_ctor = refuse_init = 0;
	last_arg = NULL;
}

static int init(void *mem, int size, int flags)
{
	CHECK_EQ(size, 100);
	(void)flags;
	if (refuse_init)
		return 12;
	inits++;
	memset(mem, 0x11, (size_t)size);
	return 0;
}

static void fini(void *mem, int size)
{
	CHECK_EQ(size, 100);
	CHECK_EQ(*(unsigned char *)mem, 0x11);
	finis++;
}

static int ctor(void *mem, int size, void *arg, int flags)
{
	CHECK_EQ(size, 100);
	CHECK_EQ(*(unsigned char *)mem, 0x11);
	last_arg = arg;
	last_flags = flags;
	if (refuse_ctor)
		return 12;
	ctors++;
	return 0;
}

static void dtor(void *mem, int size, void *arg)
{
	CHECK_EQ(size, 100);
	(void)mem;
	last_arg = arg;
	dtors++;
}

static void life_of_an_item(void)
{
	uma_zone_t zone;
	void *items[50];
	int arg;

	reset();
	zone = uma_zcreate("life", 100, ctor, dtor, init, fini, UMA_ALIGN_PTR, 0);
	CHECK(zone != NULL);
	for (int i = 0; i < 50; i++) {
		items[i] = uma_zalloc_arg(zone, &arg, M_WAITOK);
		CHECK(items[i] != NULL && last_arg == &arg && last_flags == M_WAITOK);
		CHECK_EQ((uintptr_t)items[i] & UMA_ALIGN_PTR, 0);
	}
	CHECK_EQ(ctors, 50);
	CHECK_EQ(uma_zone_get_cur(zone), 50);
	for (int i = 0; i < 50; i++)
		uma_zfree_arg(zone, items[i], &inits);
	CHECK(last_arg == &inits);
	CHECK_EQ(dtors, 50);
	CHECK_EQ(uma_zone_get_cur(zone), 0);
	uma_zfree(zone, NULL);
	items[0] = uma_zalloc(zone, M_NOWAIT);
	CHECK(last_arg == NULL && last_flags == M_NOWAIT);
	uma_zfree(zone, items[0]);
	CHECK(last_arg == NULL);
	uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN_CPU);
	CHECK_EQ(inits, finis);
	uma_zdestroy(zone);
	CHECK_EQ(inits, finis);
	CHECK(inits >= 50);
}

/* A ctor that refuses: NULL although the caller would wait, no dtor, and the item is taken apart. */
static void refusals(void)
{
	uma_zone_t zone;
	void *item;

	reset();
	zone = uma_zcreate("refusals", 100, ctor, dtor, init, fini, UMA_ALIGN_PTR, UMA_ZONE_NOBUCKET);
	refuse_ctor = 1;
	CHECK(uma_zalloc(zone, M_WAITOK) == NULL);
	CHECK_EQ(dtors, 0);
	CHECK_EQ(inits, finis);
	refuse_ctor = 0;
	refuse_init = 1;
	CHECK(uma_zalloc(zone, M_WAITOK) == NULL);
	CHECK_EQ(inits, finis);
	refuse_init = 0;
	item = uma_zalloc(zone, M_WAITOK);
	CHECK(item != NULL);
	CHECK_EQ(uma_zone_get_cur(zone), 1);
	uma_zfree(zone, item);
	uma_zdestroy(zone);
	CHECK_EQ(inits, finis);
}

/* M_ZERO comes after the ctor. */
static void zeros(void)
{
	static const char none[100];
	uma_zone_t zone;
	char *item;

	reset();
	zone = uma_zcreate("zeros", 100, ctor, NULL, init, NULL, UMA_ALIGN_PTR, 0);
	item = uma_zalloc(zone, M_WAITOK | M_ZERO);
	CHECK(memcmp(item, none, 100) == 0);
	CHECK_EQ(ctors, 1);
	CHECK_EQ(last_flags, M_WAITOK | M_ZERO);
	memset(item, 0x11, 100);
	uma_zfree(zone, item);
	uma_zdestroy(zone);
}

static void set_while_cold(void)
{
	uma_zone_t zone;
	void *item;

	reset();
	zone = uma_zcreate("cold", 100, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	uma_zone_set_init(zone, init);
	uma_zone_set_fini(zone, fini);
	item = uma_zalloc(zone, M_WAITOK);
	CHECK(inits > 0);
	CHECK_ABORTS("was used already", uma_zone_set_init(zone, NULL));
	CHECK_ABORTS("was used already", uma_zone_set_fini(zone, NULL));
	CHECK_ABORTS("was used already", uma_zone_set_allocf(zone, NULL));
	CHECK_ABORTS("was used already", uma_zone_set_freef(zone, NULL));
	uma_zfree(zone, item);
	uma_zdestroy(zone);
	CHECK_EQ(inits, finis);
}

/* mbuf_packet of FreeBSD: what makes a packet of an mbuf takes a cluster from another zone. */
static uma_zone_t mbufs, clusters, packets;
static int packet_inits, packet_finis;

struct mbuf {
	void *cluster;
	char data[248];
};

static int packet_init(void *mem, int size, int flags)
{
	struct mbuf *mbuf = mem;

	CHECK_EQ(size, sizeof(struct mbuf));
	mbuf->cluster = uma_zalloc(clusters, flags);
	if (mbuf->cluster == NULL)
		return 12;
	packet_inits++;
	return 0;
}

static void packet_fini(void *mem, int size)
{
	struct mbuf *mbuf = mem;

	(void)size;
	uma_zfree(clusters, mbuf->cluster);
	packet_finis++;
}

static void secondary(void)
{
	struct mbuf *all[20], *mbuf;
	int made = 0;

	mbufs = uma_zcreate("mbuf", sizeof(struct mbuf), NULL, NULL, NULL, NULL, 255, 0);
	clusters = uma_zcreate("mbuf_cluster", 2048, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	packets = uma_zsecond_create("mbuf_packet", NULL, NULL, NULL, NULL, mbufs);
	CHECK(packets != NULL);
	uma_zone_set_zinit(packets, packet_init);
	uma_zone_set_zfini(packets, packet_fini);
	for (int i = 0; i < 20; i++) {
		all[i] = uma_zalloc(packets, M_NOWAIT);
		CHECK(all[i] != NULL && all[i]->cluster != NULL);
		CHECK_EQ((uintptr_t)all[i] & 255, 0);
		memset(all[i]->cluster, i, 2048);
	}
	mbuf = uma_zalloc(mbufs, M_NOWAIT);
	CHECK_EQ(uma_zone_get_cur(mbufs), 1);
	CHECK_EQ(uma_zone_get_cur(packets), 20);
	uma_zfree(mbufs, mbuf);
	for (int i = 0; i < 20; i++)
		uma_zfree(packets, all[i]);
	uma_zone_reclaim(packets, UMA_RECLAIM_DRAIN_CPU);
	CHECK_EQ(packet_inits, packet_finis);
	CHECK_EQ(uma_zone_get_cur(clusters), 0);
	/* Where a cluster cannot be had, neither can a packet. */
	uma_zone_set_max(clusters, 5);
	while (made < 20 && (all[made] = uma_zalloc(packets, M_NOWAIT)) != NULL)
		made++;
	CHECK_EQ(made, 5);
	while (made > 0)
		uma_zfree(packets, all[--made]);
	CHECK_ABORTS("has no slabs of its own",
		     uma_zsecond_create("third", NULL, NULL, NULL, NULL, packets));
	/* The primary zone may go first. */
	uma_zdestroy(mbufs);
	mbuf = uma_zalloc(packets, M_NOWAIT);
	CHECK(mbuf != NULL);
	uma_zfree(packets, mbuf);
	uma_zdestroy(packets);
	CHECK_EQ(packet_inits, packet_finis);
	uma_zdestroy(clusters);
}

static char pool[64][64];
static int pool_free;
static void *pool_list[64];

static int import(void *arg, void **store, int count, int domain, int flags)
{
	int i;

	CHECK(arg == pool);
	CHECK_EQ(domain, UMA_ANYDOMAIN);
	CHECK(flags & (M_NOWAIT | M_WAITOK));
	for (i = 0; i < count && pool_free > 0; i++)
		store[i] = pool_list[--pool_free];
	return i;
}

static void release(void *arg, void **store, int count)
{
	CHECK(arg == pool);
	for (int i = 0; i < count; i++)
		pool_list[pool_free++] = store[i];
}

static void cache_zone(void)
{
	uma_zone_t zone;
	void *items[64];

	for (int i = 0; i < 64; i++)
		pool_list[pool_free++] = pool[i];
	zone = uma_zcache_create("cache", 64, NULL, NULL, NULL, NULL, import, release, pool, 0);
	CHECK(zone != NULL);
	for (int i = 0; i < 64; i++) {
		items[i] = uma_zalloc(zone, M_NOWAIT);
		CHECK((char *)items[i] >= pool[0] && (char *)items[i] <= pool[63]);
	}
	CHECK(uma_zalloc(zone, M_NOWAIT) == NULL);
	CHECK(uma_zalloc(zone, M_WAITOK) == NULL);
	for (int i = 0; i < 64; i++)
		uma_zfree(zone, items[i]);
	CHECK(uma_zone_memory(zone) > 0);
	uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN_CPU);
	CHECK_EQ(pool_free, 64);
	CHECK_EQ(uma_zone_memory(zone), 0);
	CHECK_ABORTS("zone \"cache\"", uma_prealloc(zone, 1));
	CHECK_ABORTS("has no slabs", uma_zone_reserve(zone, 1));
	uma_zdestroy(zone);
	CHECK_EQ(pool_free, 64);
	CHECK_ABORTS("import or release is null",
		     uma_zcache_create("none", 64, NULL, NULL, NULL, NULL, NULL, release, NULL, 0));
}

static int refuse_zinit;

static int pool_init(void *mem, int size, int flags)
{
	CHECK_EQ(size, 64);
	CHECK(flags & (M_NOWAIT | M_WAITOK));
	if (refuse_zinit)
		return 12;
	inits++;
	memset(mem, 0x22, (size_t)size);
	return 0;
}

static void pool_fini(void *mem, int size)
{
	CHECK_EQ(size, 64);
	CHECK_EQ(*(unsigned char *)mem, 0x22);
	finis++;
}

static int pool_ctor(void *mem, int size, void *arg, int flags)
{
	CHECK_EQ(size, 64);
	CHECK(arg == &ctors && flags == M_NOWAIT);
	CHECK_EQ(*(unsigned char *)mem, 0x22);
	ctors++;
	return 0;
}

static void pool_dtor(void *mem, int size, void *arg)
{
	CHECK_EQ(size, 64);
	CHECK(arg == &dtors);
	CHECK_EQ(*(unsigned char *)mem, 0x22);
	dtors++;
}

/* In FreeBSD zinit and zfini of cache zones were never called, and such zones not reclaimed. */
static void callbacks_of_a_cache_zone(void)
{
	void *items[10];

	CHECK_EQ(pool_free, 64);
	for (int later = 0; later < 2; later++) {
		uma_zone_t zone;

		reset();
		zone = uma_zcache_create("called", 64, pool_ctor, pool_dtor, later ? NULL : pool_init,
					 later ? NULL : pool_fini, import, release, pool, 0);
		if (later) {
			uma_zone_set_zinit(zone, pool_init);
			uma_zone_set_zfini(zone, pool_fini);
		}
		for (int i = 0; i < 10; i++) {
			items[i] = uma_zalloc_arg(zone, &ctors, M_NOWAIT);
			CHECK(items[i] != NULL);
		}
		for (int i = 0; i < 10; i++)
			uma_zfree_arg(zone, items[i], &dtors);
		CHECK(inits >= 10);
		CHECK(finis < inits);
		CHECK_EQ(ctors, 10);
		CHECK_EQ(dtors, 10);
		uma_reclaim(UMA_RECLAIM_DRAIN_CPU);
		CHECK_EQ(finis, inits);
		CHECK_EQ(pool_free, 64);
		/* What it refuses goes back, without zfini. */
		refuse_zinit = 1;
		CHECK(uma_zalloc(zone, M_WAITOK) == NULL);
		refuse_zinit = 0;
		CHECK_EQ(finis, inits);
		CHECK_EQ(pool_free, 64);
		CHECK_EQ(uma_zone_set_max(zone, 3), 3);
		for (int i = 0; i < 4; i++) {
			items[i] = uma_zalloc_arg(zone, &ctors, M_NOWAIT);
			CHECK((items[i] != NULL) == (i < 3));
		}
		for (int i = 0; i < 3; i++)
			uma_zfree_arg(zone, items[i], &dtors);
		uma_zdestroy(zone);
		CHECK_EQ(finis, inits);
		CHECK_EQ(pool_free, 64);
	}
}

static const char *flags_of(uma_zone_t zone)
{
	static char text[200];

	CHECK(uma_freebsd_zone_flags(zone, text, sizeof(text)) >= 0);
	return text;
}

/* Each is accepted, and told by name. What those do that do something is shown below. */
static void flags(void)
{
	static const struct {
		uint32_t flag;
		const char *name;
	} all[] = {
		{ UMA_ZONE_UNMANAGED, "UNMANAGED" }, { UMA_ZONE_ZINIT, "ZINIT" },
		{ UMA_ZONE_CONTIG, "CONTIG" },	     { UMA_ZONE_NOTOUCH, "NOTOUCH" },
		{ UMA_ZONE_MALLOC, "MALLOC" },	     { UMA_ZONE_NOFREE, "NOFREE" },
		{ UMA_ZONE_MTXCLASS, "MTXCLASS" },   { UMA_ZONE_VM, "VM" },
		{ UMA_ZONE_NOTPAGE, "NOTPAGE" },     { UMA_ZONE_NOBUCKET, "NOBUCKET" },
		{ UMA_ZONE_MAXBUCKET, "MAXBUCKET" }, { UMA_ZONE_MINBUCKET, "MINBUCKET" },
		{ UMA_ZONE_CACHESPREAD, "CACHESPREAD" }, { UMA_ZONE_NODUMP, "NODUMP" },
		{ UMA_ZONE_PCPU, "PCPU" },	     { UMA_ZONE_FIRSTTOUCH, "FIRSTTOUCH" },
		{ UMA_ZONE_ROUNDROBIN, "ROUNDROBIN" }, { UMA_ZONE_SMR, "" },
		{ UMA_ZONE_NOKASAN, "NOKASAN" },     { UMA_ZONE_NOTRIM, "NOTRIM" },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		uma_zone_t zone =
			uma_zcreate("flag", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, all[i].flag);

		CHECK(zone != NULL);
		CHECK(strcmp(flags_of(zone), all[i].name) == 0);
		if (all[i].flag != UMA_ZONE_SMR)
			uma_zfree(zone, uma_zalloc(zone, M_WAITOK));
		else
			CHECK(uma_zone_get_smr(zone) != NULL);
		uma_zdestroy(zone);
	}
	CHECK_ABORTS("exclude each other", uma_zcreate("both", 64, NULL, NULL, NULL, NULL, 7,
						       UMA_ZONE_NOBUCKET | UMA_ZONE_MAXBUCKET));
	CHECK_ABORTS("another kind",
		     uma_zcreate("second", 64, NULL, NULL, NULL, NULL, 7, UMA_ZONE_SECONDARY));
	CHECK_ABORTS("unknown flags 0x80000000",
		     uma_zcreate("unknown", 64, NULL, NULL, NULL, NULL, 7, 0x80000000));
}

static void zinit_and_nofree(void)
{
	static const char none[64];
	uma_zone_t zone = uma_zcreate("zinit", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR,
				      UMA_ZONE_ZINIT | UMA_ZONE_NOFREE);
	char *item = uma_zalloc(zone, M_WAITOK), *again;
	size_t memory = uma_zone_memory(zone);

	CHECK(memcmp(item, none, 64) == 0);
	memset(item, 7, 64);
	uma_zfree(zone, item);
	uma_reclaim(UMA_RECLAIM_DRAIN_CPU);
	uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN_CPU);
	/* Zeroed once; its memory has stayed, and what was in it. */
	CHECK_EQ(uma_zone_memory(zone), memory);
	CHECK_EQ(*item, 7);
	again = uma_zalloc(zone, M_WAITOK);
	CHECK(again == item || memcmp(again, none, 64) == 0);
	uma_zfree(zone, again);
	uma_zdestroy(zone);
}

static void reclaims(void)
{
	uma_zone_t plain = uma_zcreate("plain", 1024, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	uma_zone_t spared = uma_zcreate("spared", 1024, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR,
					UMA_ZONE_UNMANAGED);

	uma_zfree(plain, uma_zalloc(plain, M_WAITOK));
	uma_zfree(spared, uma_zalloc(spared, M_WAITOK));
	uma_reclaim(UMA_RECLAIM_TRIM);
	uma_reclaim(UMA_RECLAIM_DRAIN);
	uma_reclaim_domain(UMA_RECLAIM_DRAIN_CPU, 0);
	CHECK_EQ(uma_zone_memory(plain), 0);
	CHECK(uma_zone_memory(spared) > 0);
	uma_zone_reclaim_domain(spared, UMA_RECLAIM_DRAIN_CPU, UMA_ANYDOMAIN);
	CHECK_EQ(uma_zone_memory(spared), 0);
	CHECK_ABORTS("no way 7 to reclaim", uma_reclaim(7));
	CHECK_ABORTS("no way 0 to reclaim", uma_zone_reclaim(plain, 0));
	uma_zdestroy(plain);
	uma_zdestroy(spared);
}

/* What each of the three gives back: beyond need, all but what lies with CPUs, all. */
static void verbs(void)
{
	static void *items[3000];
	uma_zone_t zone;
	int drained;

	reset();
	zone = uma_zcreate("verbs", 100, NULL, NULL, init, fini, UMA_ALIGN_PTR, 0);
	for (int i = 0; i < 3000; i++)
		items[i] = uma_zalloc(zone, M_WAITOK);
	for (int i = 0; i < 3000; i++)
		uma_zfree(zone, items[i]);
	CHECK(inits >= 3000);
	/* So many were needed in this period. */
	uma_zone_reclaim(zone, UMA_RECLAIM_TRIM);
	CHECK_EQ(finis, 0);
	/* In the next ones nobody needs any, and the estimate falls. */
	for (int i = 0; i < 60; i++)
		uma_zone_reclaim(zone, UMA_RECLAIM_TRIM);
	CHECK(finis > 1000 && finis < inits);
	for (int i = 0; i < 3000; i++)
		items[i] = uma_zalloc(zone, M_WAITOK);
	for (int i = 0; i < 3000; i++)
		uma_zfree(zone, items[i]);
	drained = finis;
	uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN);
	CHECK(finis > drained && finis < inits);
	uma_zone_reclaim(zone, UMA_RECLAIM_DRAIN_CPU);
	CHECK_EQ(finis, inits);
	CHECK_EQ(uma_zone_memory(zone), 0);
	uma_zdestroy(zone);
}

static void alignments(void)
{
	static const int masks[] = { UMA_ALIGN_CHAR, UMA_ALIGN_SHORT, UMA_ALIGN_INT, UMA_ALIGN_LONG,
				     UMA_ALIGN_PTR,  15,	      127,	     4095 };
	uma_zone_t zone;
	void *item;

	for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
		zone = uma_zcreate("align", 40, NULL, NULL, NULL, NULL, masks[i], 0);
		item = uma_zalloc(zone, M_WAITOK);
		CHECK_EQ((uintptr_t)item & (uintptr_t)masks[i], 0);
		uma_zfree(zone, item);
		uma_zdestroy(zone);
	}
	CHECK_EQ(uma_get_cache_align_mask(), 63);
	CHECK_EQ(UMA_ALIGN_CACHE, 63);
	uma_set_cache_align_mask(127);
	CHECK_EQ(UMA_ALIGN_CACHE, 127);
	CHECK_EQ(UMA_ALIGN_CACHE_AND_MASK(255), 255);
	/* As it was written until 2023. */
	zone = uma_zcreate("line", 40, NULL, NULL, NULL, NULL, -1, 0);
	item = uma_zalloc(zone, M_WAITOK);
	CHECK_EQ((uintptr_t)item & 127, 0);
	uma_zfree(zone, item);
	uma_zdestroy(zone);
	uma_set_cache_align_mask(63);
	CHECK_ABORTS("not a power of two", uma_set_cache_align_mask(64));
	CHECK_ABORTS("not a power of two", uma_zcreate("bad", 40, NULL, NULL, NULL, NULL, 8, 0));
	CHECK_EQ(UMA_ALIGNOF(double), sizeof(double) - 1);
}

static void per_cpu(void)
{
	uma_zone_t zone = pcpu_zone_8, large;
	uint64_t *counter;

	CHECK(zone != NULL && zone == pcpu_zone_8 && pcpu_zone_64 != pcpu_zone_4);
	CHECK(pcpu_zone_16 != NULL && pcpu_zone_32 != NULL);
	counter = uma_zalloc_pcpu(zone, M_WAITOK);
	for (int cpu = 0; uma_freebsd_pcpu_copy(zone, counter, cpu) != NULL; cpu++) {
		CHECK(zpcpu_get_cpu(counter, cpu) == uma_freebsd_pcpu_copy(zone, counter, cpu));
		*zpcpu_get_cpu(counter, cpu) = 7;
	}
	uma_zfree_pcpu(zone, counter);
	/* All copies are zeroed, whichever item it is. */
	counter = uma_zalloc_pcpu_arg(zone, NULL, M_WAITOK | M_ZERO);
	for (int cpu = 0; uma_freebsd_pcpu_copy(zone, counter, cpu) != NULL; cpu++)
		CHECK_EQ(*zpcpu_get_cpu(counter, cpu), 0);
	uma_zfree_pcpu_arg(zone, counter, NULL);
	large = uma_zcreate("pcpu large", UMA_PCPU_ALLOC_SIZE, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR,
			    UMA_ZONE_PCPU);
	counter = uma_zalloc_pcpu(large, M_WAITOK);
	CHECK(zpcpu_get_cpu(counter, 1) == uma_freebsd_pcpu_copy(large, counter, 1) ||
	      uma_freebsd_pcpu_copy(large, counter, 1) == NULL);
	uma_zfree_pcpu(large, counter);
	uma_zdestroy(large);
	CHECK_ABORTS("there is none of 7 bytes", uma_freebsd_pcpu_zone(7));
	CHECK_ABORTS("would zero one", uma_zalloc(zone, M_WAITOK | M_ZERO));
	CHECK_ABORTS("has no copies for CPUs",
		     uma_zalloc_pcpu(uma_zcreate("plain", 8, NULL, NULL, NULL, NULL, 7, 0), M_WAITOK));
}

static void domains(void)
{
	uma_zone_t zone = uma_zcreate("domain", 64, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR,
				      UMA_ZONE_FIRSTTOUCH);
	void *one = uma_zalloc_domain(zone, NULL, 0, M_WAITOK);
	void *other = uma_zalloc_domain(zone, NULL, UMA_ANYDOMAIN, M_NOWAIT);

	CHECK(one != NULL && other != NULL && one != other);
	uma_zfree(zone, one);
	uma_zfree(zone, other);
	CHECK_ABORTS("there is no domain 1", uma_zalloc_domain(zone, NULL, 1, M_NOWAIT));
	uma_zdestroy(zone);
}

/* The zones of the FreeBSD 13 network stack are about so many. */
static void many_zones(void)
{
	uma_zone_t zones[43];
	void *items[43];
	char name[32];

	for (int i = 0; i < 43; i++) {
		snprintf(name, sizeof(name), "zone %d", i);
		zones[i] = uma_zcreate(name, (size_t)16 << (i % 11), NULL, NULL, NULL, NULL,
				       UMA_ALIGN_PTR, 0);
		items[i] = uma_zalloc(zones[i], M_WAITOK | M_ZERO);
		CHECK(items[i] != NULL);
		memset(items[i], i, (size_t)16 << (i % 11));
	}
	for (int i = 0; i < 43; i++) {
		CHECK_EQ(*(unsigned char *)items[i], i);
		uma_zfree(zones[i], items[i]);
		uma_zdestroy(zones[i]);
	}
}

/* A callback may use its own zone: nothing is locked. */
static uma_zone_t deep;
static int depth;

static int ctor_that_allocates(void *mem, int size, void *arg, int flags)
{
	(void)mem;
	(void)size;
	(void)arg;
	if (depth < 3) {
		void *other;

		depth++;
		other = uma_zalloc(deep, flags);
		CHECK(other != NULL);
		uma_zfree(deep, other);
	}
	return 0;
}

static int init_that_allocates(void *mem, int size, int flags)
{
	return ctor_that_allocates(mem, size, NULL, flags);
}

static void fini_that_allocates(void *mem, int size)
{
	if (depth < 10) {
		depth = 2;
		ctor_that_allocates(mem, size, NULL, M_NOWAIT);
	}
}

static void dtor_that_reclaims(void *mem, int size, void *arg)
{
	(void)mem;
	(void)size;
	(void)arg;
	uma_zone_reclaim(deep, UMA_RECLAIM_TRIM);
}

static void callbacks_use_their_zone(void)
{
	void *item;

	deep = uma_zcreate("deep", 64, ctor_that_allocates, dtor_that_reclaims, init_that_allocates,
			   fini_that_allocates, UMA_ALIGN_PTR, 0);
	item = uma_zalloc(deep, M_WAITOK);
	CHECK_EQ(depth, 3);
	uma_zfree(deep, item);
	uma_zone_reclaim(deep, UMA_RECLAIM_DRAIN_CPU);
	CHECK_EQ(depth, 3);
	depth = 10;
	uma_zdestroy(deep);
}

int main(void)
{
	life_of_an_item();
	refusals();
	zeros();
	set_while_cold();
	secondary();
	cache_zone();
	callbacks_of_a_cache_zone();
	flags();
	zinit_and_nofree();
	reclaims();
	verbs();
	alignments();
	per_cpu();
	domains();
	many_zones();
	callbacks_use_their_zone();
	return 0;
}

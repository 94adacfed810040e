/* kmem_cache: forms, flags, callbacks, reaping, figures. */
#include "../check.h"

#include <pthread.h>

#include <uma/compat.h>
#include <uma/solaris/sys/kmem.h>

static void forms(void)
{
	static const size_t sizes[] = { 1,    8,     24,     200,     512,     4096,
					9216, 65536, 262144, 1 << 20, 4 << 20, 16 << 20 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		for (size_t align = 8; align <= 4096; align *= 2) {
			kmem_cache_t *cache = kmem_cache_create("form", sizes[i], align, NULL, NULL,
								NULL, NULL, NULL, 0);
			void *objects[3];

			CHECK(cache != NULL);
			for (int j = 0; j < 3; j++) {
				objects[j] = kmem_cache_alloc(cache, KM_SLEEP);
				CHECK(objects[j] != NULL);
				CHECK_EQ((uintptr_t)objects[j] % align, 0);
				memset(objects[j], j, sizes[i] < 65536 ? sizes[i] : 65536);
				((char *)objects[j])[sizes[i] - 1] = 1;
			}
			for (int j = 0; j < 3; j++)
				kmem_cache_free(cache, objects[j]);
			CHECK_EQ(kmem_cache_stat(cache, "buf_inuse"), 0);
			CHECK_EQ(kmem_cache_stat(cache, "buf_size"), sizes[i]);
			CHECK_EQ(kmem_cache_stat(cache, "align"), align);
			kmem_cache_destroy(cache);
		}
}

static void flags(void)
{
	static const int all[] = { 0,	       KMC_NOTOUCH, KMC_NODEBUG, KMC_NOMAGAZINE,
				   KMC_NOHASH, KMC_QCACHE,  KMC_PREFILL };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		kmem_cache_t *cache =
			kmem_cache_create("flags", 100, 0, NULL, NULL, NULL, NULL, NULL, all[i]);
		char *object = kmem_cache_alloc(cache, KM_NOSLEEP), *again;

		CHECK(object != NULL);
		CHECK_EQ((uintptr_t)object % 8, 0);
		memset(object, 0x5a, 100);
		kmem_cache_free(cache, object);
		/* Nothing writes to free objects here, so contents stay with or without KMC_NOTOUCH. */
		again = kmem_cache_alloc(cache, KM_NOSLEEP);
		if (again == object && all[i] == KMC_NOTOUCH)
			CHECK_EQ(object[50], 0x5a);
		CHECK_EQ(kmem_cache_stat(cache, "magazine_size") == 0, all[i] == KMC_NOMAGAZINE);
		kmem_cache_free(cache, again);
		kmem_cache_destroy(cache);
	}
	/* Less than 8 is honoured as it is, and the objects are not touched. */
	kmem_cache_t *odd = kmem_cache_create("odd", 3, 1, NULL, NULL, NULL, NULL, NULL, 0);

	CHECK_EQ(kmem_cache_stat(odd, "align"), 1);
	kmem_cache_destroy(odd);
}

struct object {
	int magic;
	int flag;
	char rest[120];
};

static int constructed, destructed, reclaimed, failing;
static int private_value;
static struct object *hoard[64];
static kmem_cache_t *hoarding;

static int construct(void *memory, void *private, int flag)
{
	struct object *object = memory;

	CHECK(private == &private_value);
	if (failing)
		return -1;
	object->magic = 0x600d;
	object->flag = flag;
	constructed++;
	return 0;
}

static void destruct(void *memory, void *private)
{
	struct object *object = memory;

	CHECK(private == &private_value);
	CHECK_EQ(object->magic, 0x600d);
	object->magic = 0;
	destructed++;
}

static void reclaim(void *private)
{
	CHECK(private == &private_value);
	reclaimed++;
	for (int i = 0; i < 64; i++)
		if (hoard[i] != NULL) {
			kmem_cache_free(hoarding, hoard[i]);
			hoard[i] = NULL;
		}
	/* A callback may ask for the same; it does not come back here. */
	kmem_reap();
}

static kmem_cache_t *make(void)
{
	constructed = destructed = reclaimed = failing = 0;
	return kmem_cache_create("objects", sizeof(struct object), 0, construct, destruct, reclaim,
				 &private_value, NULL, 0);
}

static void constructed_once(void)
{
	kmem_cache_t *cache = make();
	struct object *objects[200];

	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 200; i++) {
			objects[i] = kmem_cache_alloc(cache, KM_SLEEP);
			CHECK_EQ(objects[i]->magic, 0x600d);
		}
		for (int i = 0; i < 200; i++)
			kmem_cache_free(cache, objects[i]);
	}
	/* The CPU keeps some, and so does every other to which the thread comes if it cannot be held. */
	CHECK(constructed < 50 * 200 / 4);
	CHECK_EQ(destructed, 0);
	kmem_cache_reap_now(cache);
	CHECK_EQ(destructed, constructed);
	kmem_cache_destroy(cache);
	CHECK_EQ(destructed, constructed);
}

/* What the constructor is told: the flags of the request that causes it. */
static void told(void)
{
	static const int given[] = { KM_SLEEP, KM_NOSLEEP, KM_SLEEP | KM_PUSHPAGE,
				     KM_NOSLEEP | KM_PUSHPAGE,
				     KM_NOSLEEP | KM_PUSHPAGE | KM_NORMALPRI };
		for (int i = 0; i < 5; i++) {
		kmem_cache_t *cache = make();
		struct object *object = kmem_cache_alloc(cache, given[i]);

		CHECK_EQ(object->flag, given[i]);
		kmem_cache_free(cache, object);
		kmem_cache_destroy(cache);
	}
}

/* Null with KM_SLEEP too, and nothing is lost; or again and again, by policy. */
static void *mend(void *unused)
{
	usleep(20000);
	__atomic_store_n(&failing, 0, __ATOMIC_RELEASE);
	return unused;
}

static void failing_constructor(void)
{
	kmem_cache_t *cache = make();
	struct object *object;
	pthread_t thread;

	failing = 1;
	CHECK(kmem_cache_alloc(cache, KM_SLEEP) == NULL);
	CHECK(kmem_cache_alloc(cache, KM_NOSLEEP) == NULL);
	CHECK_EQ(destructed, 0);
	CHECK_EQ(kmem_cache_stat(cache, "buf_inuse"), 0);
	CHECK(kmem_cache_stat(cache, "alloc_fail") >= 2);
	CHECK_ABORTS("KM_PANIC", kmem_cache_alloc(cache, KM_SLEEP | KM_PANIC));
	CHECK_EQ(uma_compat_set_policy("solaris.failing_ctor", "retry"), 0);
	CHECK_EQ(pthread_create(&thread, NULL, mend, NULL), 0);
	object = kmem_cache_alloc(cache, KM_SLEEP);
	CHECK(object != NULL);
	pthread_join(thread, NULL);
	CHECK_EQ(uma_compat_set_policy("solaris.failing_ctor", "null"), 0);
	kmem_cache_free(cache, object);
	kmem_cache_destroy(cache);
	CHECK_EQ(destructed, constructed);
}

/* The callback frees objects of the cache that is being reaped. */
static void reaping(void)
{
	hoarding = make();
	for (int way = 0; way < 3; way++) {
		for (int i = 0; i < 64; i++)
			hoard[i] = kmem_cache_alloc(hoarding, KM_SLEEP);
		reclaimed = 0;
		CHECK_EQ(kmem_cache_stat(hoarding, "buf_inuse"), 64);
		if (way == 0)
			kmem_reap();
		else if (way == 1)
			kmem_cache_reap_now(hoarding);
		else
			kmem_cache_reap_soon(hoarding);
		for (int i = 0; i < 50000 && kmem_cache_reap_active(); i++)
			usleep(1000);
		CHECK_EQ(kmem_cache_reap_active(), 0);
		CHECK_EQ(reclaimed, 1);
		CHECK_EQ(kmem_cache_stat(hoarding, "buf_inuse"), 0);
		CHECK_EQ(kmem_cache_stat(hoarding, "buf_total"), 0);
		CHECK_EQ(kmem_cache_stat(hoarding, "slab_create"), 0);
		CHECK_EQ(kmem_cache_stat(hoarding, "reap"), way + 1);
	}
	kmem_cache_destroy(hoarding);
}

static void figures(void)
{
	static const char *const fields[] = {
		"buf_size", "align", "chunk_size", "slab_size", "alloc", "alloc_fail", "free",
		"depot_alloc", "depot_free", "depot_contention", "slab_alloc", "slab_free",
		"buf_constructed", "buf_avail", "buf_inuse", "buf_total", "buf_max", "slab_create",
		"slab_destroy", "vmem_source", "hash_size", "hash_lookup_depth", "hash_rescale",
		"full_magazines", "empty_magazines", "magazine_size", "reap", "defrag", "scan",
		"move_callbacks", "move_yes", "move_no", "move_later", "move_dont_need",
		"move_dont_know", "move_hunt_found", "move_slabs_freed", "move_reclaimable",
	};
	kmem_cache_t *cache = kmem_cache_create("figures", 100, 0, NULL, NULL, NULL, NULL, NULL, 0);
	void *objects[10];

	for (int i = 0; i < 10; i++)
		objects[i] = kmem_cache_alloc(cache, KM_SLEEP);
	for (int i = 0; i < 4; i++)
		kmem_cache_free(cache, objects[i]);
	CHECK_EQ(kmem_cache_stat(cache, "alloc"), 10);
	CHECK_EQ(kmem_cache_stat(cache, "free"), 4);
	CHECK_EQ(kmem_cache_stat(cache, "buf_inuse"), 6);
	CHECK_EQ(kmem_cache_stat(cache, "chunk_size"), 104);
	CHECK_EQ(kmem_cache_stat(cache, "buf_total"),
		 kmem_cache_stat(cache, "buf_inuse") + kmem_cache_stat(cache, "buf_avail"));
	CHECK(kmem_cache_stat(cache, "buf_max") >= kmem_cache_stat(cache, "buf_total"));
	CHECK(kmem_cache_stat(cache, "buf_constructed") <= kmem_cache_stat(cache, "buf_avail"));
	/* Every name of the kstat is known. */
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		(void)kmem_cache_stat(cache, fields[i]);
	CHECK_ABORTS("there is no figure \"buf_color\"", kmem_cache_stat(cache, "buf_color"));
	CHECK_ABORTS("there is no figure", kmem_cache_stat(cache, NULL));
	for (int i = 4; i < 10; i++)
		kmem_cache_free(cache, objects[i]);
	kmem_cache_destroy(cache);
}

/* What the machine has, and what is checked. */
static void machine(void)
{
	size_t most = kmem_maxavail(), some = kmem_avail();
	struct rlimit bound;

	CHECK(most > 1 << 20 && some > 1 << 20);
	CHECK(some <= 1ul << 30);
	CHECK_EQ(getrlimit(RLIMIT_AS, &bound), 0);
	bound.rlim_cur = 1ul << 40;
	CHECK_EQ(setrlimit(RLIMIT_AS, &bound), 0);
	CHECK(kmem_maxavail() <= 1ul << 40);
	bound.rlim_cur = bound.rlim_max;
	CHECK_EQ(setrlimit(RLIMIT_AS, &bound), 0);
	/* Caches are never of identifiers: nothing to reap for them. */
	hoarding = make();
	hoard[0] = kmem_cache_alloc(hoarding, KM_SLEEP);
	kmem_reap_idspace();
	CHECK_EQ(reclaimed, 0);
	kmem_cache_free(hoarding, hoard[0]);
	hoard[0] = NULL;
	kmem_cache_destroy(hoarding);
	CHECK_EQ(kmem_debugging(), 0);
	CHECK_EQ(uma_compat_set_policy("solaris.kmem_flags", "lite"), 0);
	CHECK(kmem_debugging() != 0);
	CHECK_EQ(uma_compat_set_policy("solaris.kmem_flags", "off"), 0);
}

/* What the ports to Linux add. */
static void of_the_ports(void)
{
	static const int flags[] = { KMC_KVMEM, KMC_SLAB, KMC_RECLAIMABLE,
				     KMC_KVMEM | KMC_NODEBUG | KMC_RECLAIMABLE };

	uma_compat_set_reporter(check_reporter);
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		kmem_cache_t *cache = kmem_cache_create("port", 100, 0, NULL, NULL, NULL, NULL, NULL,
							flags[i]);
		void *object = kmem_cache_alloc(cache, KM_SLEEP | KM_VMEM);

		CHECK(object != NULL);
		CHECK_EQ(spl_kmem_cache_inuse(cache), 1);
		CHECK_EQ(spl_kmem_cache_entry_size(cache), 100);
		kmem_cache_free(cache, object);
		CHECK_EQ(spl_kmem_cache_inuse(cache), 0);
		kmem_cache_destroy(cache);
	}
	for (int i = 0; i < 200; i++) {
		/* What was used before is zeroed, too. */
		char *memory = kmem_alloc(1000, KM_SLEEP | KM_ZERO | KM_VMEM);

		for (int at = 0; at < 1000; at++)
			CHECK_EQ(memory[at], 0);
		memset(memory, 1, 1000);
		kmem_free(memory, 1000);
	}
	CHECK_REPORTS(0, "");
	uma_compat_set_reporter(NULL);
}

int main(void)
{
	/* What is counted here happens when it is asked for, and not by time. */
	CHECK_EQ(uma_compat_set_policy("solaris.update", "off"), 0);
	check_stay();
	forms();
	flags();
	constructed_once();
	told();
	failing_constructor();
	reaping();
	figures();
	machine();
	of_the_ports();
	return 0;
}

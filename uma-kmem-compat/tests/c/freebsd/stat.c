/* What sysctl(3) tells of UMA. */
#include "../check.h"

#include <errno.h>
#include <stddef.h>
#include <uma/compat.h>
#include <uma/freebsd/uma.h>

static uma_zone_t counted;

SYSCTL_UMA_MAX(_kern_ipc, OID_AUTO, nmbclusters, CTLFLAG_RW, counted, "most clusters");
SYSCTL_UMA_CUR(_kern_ipc, OID_AUTO, clusters, CTLFLAG_RD, counted, "clusters in use");

static int get(const char *name, int *value, const int *set)
{
	size_t length = sizeof(*value);

	return uma_freebsd_sysctlbyname(name, value, &length, set, set == NULL ? 0 : sizeof(*set));
}

/*
 * The layout that programs of FreeBSD were compiled with, from its description: 16 bytes of header; for each
 * zone 32 of name, ten words of 32 bits and six of 64; for each CPU eight of 64.
 */
#define AT(type, field, offset)                                    \
	_Static_assert(offsetof(struct type, field) == (offset), #field)
_Static_assert(sizeof(struct uma_stream_header) == 16, "the header");
AT(uma_stream_header, ush_version, 0);
AT(uma_stream_header, ush_maxcpus, 4);
AT(uma_stream_header, ush_count, 8);
_Static_assert(sizeof(struct uma_type_header) == 120, "a zone");
AT(uma_type_header, uth_name, 0);
AT(uma_type_header, uth_align, 32);
AT(uma_type_header, uth_size, 36);
AT(uma_type_header, uth_rsize, 40);
AT(uma_type_header, uth_maxpages, 44);
AT(uma_type_header, uth_limit, 48);
AT(uma_type_header, uth_pages, 52);
AT(uma_type_header, uth_keg_free, 56);
AT(uma_type_header, uth_zone_free, 60);
AT(uma_type_header, uth_bucketsize, 64);
AT(uma_type_header, uth_zone_flags, 68);
AT(uma_type_header, uth_allocs, 72);
AT(uma_type_header, uth_frees, 80);
AT(uma_type_header, uth_fails, 88);
AT(uma_type_header, uth_sleeps, 96);
AT(uma_type_header, uth_xdomain, 104);
_Static_assert(sizeof(struct uma_percpu_stat) == 64, "a CPU");
AT(uma_percpu_stat, ups_allocs, 0);
AT(uma_percpu_stat, ups_frees, 8);
AT(uma_percpu_stat, ups_cache_free, 16);

/* The stream, read as libmemstat reads it. */
static void stream(void)
{
	struct uma_stream_header *header;
	struct uma_type_header *type;
	size_t length = 0, room;
	char *buffer, *at;
	int found = 0;

	CHECK_EQ(uma_freebsd_sysctlbyname("vm.zone_stats", NULL, &length, NULL, 0), 0);
	room = length + 4096;
	buffer = malloc(room);
	length = 8;
	CHECK_EQ(uma_freebsd_sysctlbyname("vm.zone_stats", buffer, &length, NULL, 0), ENOMEM);
	length = room;
	CHECK_EQ(uma_freebsd_sysctlbyname("vm.zone_stats", buffer, &length, NULL, 0), 0);
	header = (struct uma_stream_header *)buffer;
	CHECK_EQ(header->ush_version, UMA_STREAM_VERSION);
	CHECK_EQ(length, sizeof(*header) + header->ush_count * (sizeof(*type) + header->ush_maxcpus *
						 sizeof(struct uma_percpu_stat)));
	at = buffer + sizeof(*header);
	for (uint32_t i = 0; i < header->ush_count; i++) {
		uint64_t used, free_items;

		type = (struct uma_type_header *)at;
		at += sizeof(*type);
		used = type->uth_allocs - type->uth_frees;
		free_items = type->uth_zone_free;
		if (!(type->uth_zone_flags & UTH_ZONE_SECONDARY))
			free_items += type->uth_keg_free;
		for (uint32_t cpu = 0; cpu < header->ush_maxcpus; cpu++) {
			struct uma_percpu_stat *stat = (struct uma_percpu_stat *)at;

			used += stat->ups_allocs - stat->ups_frees;
			free_items += stat->ups_cache_free;
			at += sizeof(*stat);
		}
		if (strncmp(type->uth_name, "second", UTH_MAX_NAME) == 0)
			CHECK_EQ(type->uth_zone_flags, UTH_ZONE_SECONDARY);
		if (strncmp(type->uth_name, "counted", UTH_MAX_NAME) == 0) {
			found++;
			CHECK_EQ(type->uth_zone_flags, 0);
			CHECK(type->uth_rsize >= 2048);
			CHECK_EQ((size_t)type->uth_pages * 4096, uma_zone_memory(counted));
			/* Pages for a hundred items, to whole slabs. */
			CHECK(type->uth_maxpages >= 50 && type->uth_maxpages < 100);
			CHECK(type->uth_bucketsize > 0);
			CHECK_EQ(type->uth_allocs - type->uth_frees, 3);
			CHECK(type->uth_allocs >= 4);
			CHECK_EQ(type->uth_fails, 1);
			CHECK_EQ(type->uth_sleeps, 0);
			CHECK_EQ(type->uth_xdomain, 0);
			CHECK_EQ(used, 3);
			CHECK(free_items > 0);
			CHECK_EQ(type->uth_size, 2048);
			CHECK_EQ(type->uth_limit, 100);
			CHECK_EQ(type->uth_align, 7);
		}
	}
	CHECK_EQ(found, 1);
	free(buffer);
}

static void texts(void)
{
	static char text[1 << 18];
	size_t length = sizeof(text);
	int count = 0;
	static const char *const columns[] = { "ITEM", "SIZE", "LIMIT", "USED", "FREE",
					       "REQ",  "FAIL", "SLEEP", "XDOMAIN" };
	char name[32], *line = text;
	unsigned long long size, limit, used, free_items, req, fail, sleeps, xdomain;

	CHECK_EQ(uma_freebsd_sysctlbyname("vm.zone", text, &length, NULL, 0), 0);
	for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
		line += strspn(line, " ");
		CHECK(strncmp(line, columns[i], strlen(columns[i])) == 0);
		line += strlen(columns[i]);
	}
	CHECK(*line == '\n');
	line = strstr(text, "\ncounted ");
	CHECK(line != NULL);
	CHECK_EQ(sscanf(line, "%31s %llu %llu %llu %llu %llu %llu %llu %llu", name, &size, &limit, &used,
			&free_items, &req, &fail, &sleeps, &xdomain),
		 9);
	CHECK_EQ(size, 2048);
	CHECK_EQ(limit, 100);
	CHECK_EQ(used, 3);
	CHECK(free_items > 0 && req >= 4);
	CHECK_EQ(fail, 1);
	CHECK_EQ(sleeps + xdomain, 0);
	length = sizeof(text);
	CHECK_EQ(uma_freebsd_sysctlbyname("vm.uma", text, &length, NULL, 0), 0);
	CHECK(strstr(text, "{\"name\":\"counted\",\"size\":2048") != NULL);
	CHECK(strstr(text, "\"flags\":\"ZINIT | NOFREE\"") != NULL);
	CHECK(strstr(text, "\"primary\":\"counted\"") != NULL);
	CHECK_EQ(get("vm.zone_count", &count, NULL), 0);
	CHECK_EQ(count, 3);
}

static void names(void)
{
	int value = 0, more = 200;
	size_t total = 0, length = sizeof(total);
	unsigned long limit = 1UL << 40;

	CHECK_EQ(get("kern.ipc.nmbclusters", &value, &more), 0);
	CHECK_EQ(value, 100);
	CHECK_EQ(uma_zone_get_max(counted), 200);
	CHECK_EQ(get("kern.ipc.clusters", &value, NULL), 0);
	CHECK_EQ(value, 3);
	CHECK_EQ(get("kern.ipc.clusters", &value, &more), EPERM);
	CHECK_EQ(get("vm.zone_count", &value, &more), EPERM);
	CHECK_EQ(get("kern.nothing", &value, NULL), ENOENT);
	CHECK_EQ(get(NULL, &value, NULL), EINVAL);
	SYSCTL_ADD_UMA_MAX(NULL, "net.mine", OID_AUTO, "max", CTLFLAG_RD, counted, "");
	SYSCTL_ADD_UMA_CUR(NULL, "net.mine", OID_AUTO, "cur", CTLFLAG_RD, counted, "");
	CHECK_EQ(get("net.mine.max", &value, NULL), 0);
	CHECK_EQ(value, 200);
	CHECK_EQ(get("net.mine.cur", &value, NULL), 0);
	CHECK_EQ(value, 3);
	CHECK_EQ(uma_freebsd_sysctlbyname("vm.uma_kmem_total", &total, &length, NULL, 0), 0);
	CHECK_EQ(total, uma_size());
	CHECK_EQ(uma_freebsd_sysctlbyname("vm.uma_kmem_limit", NULL, NULL, &limit, sizeof(limit)), 0);
	CHECK_EQ(uma_limit(), limit);
	CHECK_EQ(uma_freebsd_sysctlbyname("vm.uma_kmem_limit", NULL, NULL, &more, sizeof(more)), EINVAL);
}

int main(void)
{
	uma_zone_t kept, second;
	void *items[4];
	int value;

	/* While the variable is null there is no such name. */
	CHECK_EQ(get("kern.ipc.clusters", &value, NULL), ENOENT);
	counted = uma_zcreate("counted", 2048, NULL, NULL, NULL, NULL, UMA_ALIGN_PTR, 0);
	kept = uma_zcreate("kept", 64, NULL, NULL, NULL, NULL, 7, UMA_ZONE_ZINIT | UMA_ZONE_NOFREE);
	second = uma_zsecond_create("second", NULL, NULL, NULL, NULL, counted);
	uma_zone_set_max(counted, 100);
	for (int i = 0; i < 4; i++)
		items[i] = uma_zalloc(counted, M_WAITOK);
	uma_zfree(counted, items[3]);
	/* One fails. */
	uma_zone_set_max(counted, 3);
	CHECK(uma_zalloc(counted, M_NOWAIT) == NULL);
	uma_zone_set_max(counted, 100);
	uma_zfree(counted, uma_zalloc(counted, M_WAITOK));
	stream();
	texts();
	names();
	for (int i = 0; i < 3; i++)
		uma_zfree(counted, items[i]);
	uma_zdestroy(second);
	uma_zdestroy(counted);
	counted = NULL;
	uma_zdestroy(kept);
	return 0;
}

/* What sysctl(3) tells of UMA. */
#include "../check.h"

#include <errno.h>
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
		if (strncmp(type->uth_name, "counted", UTH_MAX_NAME) == 0) {
			found++;
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

	CHECK_EQ(uma_freebsd_sysctlbyname("vm.zone", text, &length, NULL, 0), 0);
	CHECK(strstr(text, "ITEM") != NULL && strstr(text, "counted") != NULL);
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

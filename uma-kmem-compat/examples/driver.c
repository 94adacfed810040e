/*
 * A driver that was written for Linux, in user space: its memory comes from uma, by the names that it
 * has always used. docs/compat.md says how it is compiled; ci/install.sh does so, and runs it.
 */
#include <linux/mempool.h>
#include <linux/slab.h>

#include <stdio.h>

struct request {
	int tag;
	char command[60];
};

struct bio {
	char data[200];
};

static struct kmem_cache *requests, *bios;
static mempool_t *urgent;	/* of these some can be had when memory is short */

/* Once for each request, when memory enters the cache; what it sets, every use must leave so. */
static void request_ctor(void *request)
{
	((struct request *)request)->tag = -1;
}

static int driver_init(void)
{
	requests = kmem_cache_create("request", sizeof(struct request), 0,
				     SLAB_HWCACHE_ALIGN | SLAB_PANIC, request_ctor);
	bios = KMEM_CACHE(bio, SLAB_PANIC);
	urgent = mempool_create_slab_pool(4, bios);
	return urgent == NULL ? -1 : 0;
}

static void driver_exit(void)
{
	mempool_destroy(urgent);
	kmem_cache_destroy(bios);
	kmem_cache_destroy(requests);	/* says so if a request was not freed */
}

int main(void)
{
	struct request *request;
	struct bio *bio;
	char *log;
	int good;

	if (driver_init() != 0)
		return 1;
	request = kmem_cache_alloc(requests, GFP_KERNEL);
	bio = mempool_alloc(urgent, GFP_ATOMIC);
	log = kzalloc(100, GFP_KERNEL);
	good = request != NULL && request->tag == -1 && bio != NULL && log != NULL;
	printf("driver: %s, %zu bytes for a log of 100\n", good ? "ok" : "FAILED", ksize(log));
	kfree(log);
	mempool_free(bio, urgent);
	kmem_cache_free(requests, request);
	driver_exit();
	return !good;
}

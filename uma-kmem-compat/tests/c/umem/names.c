/* libumem's own symbols, as a program has them that was compiled with its header. */
#include "../check.h"

void *umem_alloc(size_t, int);
void *umem_zalloc(size_t, int);
void umem_free(void *, size_t);
void *umem_alloc_align(size_t, size_t, int);
void umem_free_align(void *, size_t);
void *umem_alloc_aligned(size_t, size_t, int);
void umem_free_aligned(void *, size_t);
void umem_nofail_callback(int (*)(void));
void umem_reap(void);
void *umem_cache_create(char *, size_t, size_t, int (*)(void *, void *, int), void (*)(void *, void *),
			void (*)(void *), void *, void *, int);
void umem_cache_destroy(void *);
void *umem_cache_alloc(void *, int);
void umem_cache_free(void *, void *);
void umem_cache_reap_now(void *);

static int give_up(void)
{
	return 0x100 | 4;
}

int main(void)
{
	char name[] = "named";
	void *cache, *object, *memory;
	int status;
	pid_t child;

	umem_nofail_callback(give_up);
	child = fork();
	if (child == 0)
		umem_alloc((size_t)1 << 60, 0x100);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(WEXITSTATUS(status), 4);
	cache = umem_cache_create(name, 100, 0, NULL, NULL, NULL, NULL, NULL, 0);
	object = umem_cache_alloc(cache, 0);
	CHECK(object != NULL);
	umem_cache_free(cache, object);
	umem_cache_reap_now(cache);
	umem_cache_destroy(cache);
	umem_free(umem_alloc(100, 0), 100);
	memory = umem_zalloc(100, 0);
	CHECK_EQ(((char *)memory)[99], 0);
	umem_free(memory, 100);
	umem_free_align(umem_alloc_align(100, 256, 0), 100);
	umem_free_aligned(umem_alloc_aligned(100, 256, 0), 100);
	umem_reap();
	return 0;
}

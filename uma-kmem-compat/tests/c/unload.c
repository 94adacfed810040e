/* The library is loaded while the program runs, used by threads, and closed: it stays. Its path is the argument. */
#include "check.h"

#include <dlfcn.h>
#include <pthread.h>

static void *(*create)(const char *, unsigned int, unsigned int, unsigned int, void (*)(void *));
static void *(*take)(void *, unsigned int);
static void (*give)(void *, void *);
static void *cache;

static void look_up(void *library, const char *name, void *function)
{
	void *found = dlsym(library, name);

	CHECK(found != NULL);
	memcpy(function, &found, sizeof(found));
}

static void use(void)
{
	void *objects[200];

	for (int i = 0; i < 200; i++) {
		objects[i] = take(cache, 0);
		CHECK(objects[i] != NULL);
	}
	for (int i = 0; i < 200; i++)
		give(cache, objects[i]);
}

static void *use_twice(void *path)
{
	void *library = dlopen(path, RTLD_NOW);

	CHECK(library != NULL);
	use();
	CHECK_EQ(dlclose(library), 0);
	use();
	return NULL;
}

int main(int count, char **arguments)
{
	pthread_t threads[4];
	void *library;

	CHECK_EQ(count, 2);
	library = dlopen(arguments[1], RTLD_NOW);
	if (library == NULL)
		fprintf(stderr, "%s\n", dlerror());
	CHECK(library != NULL);
	look_up(library, "uma_linux_kmem_cache_create", &create);
	look_up(library, "uma_linux_kmem_cache_alloc", &take);
	look_up(library, "uma_linux_kmem_cache_free", &give);
	cache = create("stays", 100, 0, 0, NULL);
	CHECK(cache != NULL);
	use();
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, use_twice, arguments[1]), 0);
	CHECK_EQ(dlclose(library), 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	/* Nobody has it open any more, and it is there. */
	CHECK(dlopen(arguments[1], RTLD_NOW | RTLD_NOLOAD) != NULL);
	use();
	CHECK_COPIES(2, use());
	return 0;
}

/* _umem_debug_init and its like: the words for what is not in the environment. The program runs itself. */
#include "../check.h"

#include <umem.h>

const char *_umem_debug_init(void);
const char *_umem_options_init(void);
const char *_umem_logging_init(void);

const char *_umem_debug_init(void)
{
	return "guards";
}

/* One that has nothing to say. */
const char *_umem_options_init(void)
{
	return NULL;
}

const char *_umem_logging_init(void)
{
	return "fail,bananas";
}

static void past_the_end(void)
{
	umem_cache_t *cache = umem_cache_create("init", 64, 0, NULL, NULL, NULL, NULL, NULL, 0);
	char *object = umem_cache_alloc(cache, UMEM_NOFAIL);

	object[64] = 1;
	umem_cache_free(cache, object);
	umem_cache_destroy(cache);
}

static void words(void)
{
	CHECK_ABORTS("umem: checks: ", past_the_end());
	CHECK_ABORTS("umem: UMEM_LOGGING: \"bananas\" is not known", past_the_end());
	CHECK_ABORTS("umem_alloc: 1152921504606846976 bytes", umem_alloc((size_t)1 << 60, UMEM_DEFAULT);
		     abort());
}

/* What is in the environment comes first, also if it is nothing. */
static void environment(void)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		setenv("UMEM_DEBUG", "", 1);
		setenv("UMEM_LOGGING", "", 1);
		past_the_end();
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
}

int main(void)
{
	unsetenv("UMEM_DEBUG");
	unsetenv("UMEM_OPTIONS");
	unsetenv("UMEM_LOGGING");
	words();
	environment();
	return 0;
}

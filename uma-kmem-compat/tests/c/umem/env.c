/* UMEM_DEBUG, UMEM_OPTIONS, UMEM_LOGGING: the program runs itself with them. */
#include "../check.h"

#include <umem.h>

static char **arguments;

/* Runs this program with a variable set, to do something. Returns the status; what it said is in `said'. */
static char said[16384], rest[4096];

static int run(const char *variable, const char *value, const char *what)
{
	int ends[2], status, length = 0, more;
	pid_t child;

	CHECK_EQ(pipe(ends), 0);
	child = fork();
	if (child == 0) {
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		setenv(variable, value, 1);
		execl(arguments[0], arguments[0], what, (char *)NULL);
		_exit(98);
	}
	close(ends[1]);
	while (length < (int)sizeof(said) - 1 &&
	       (more = (int)read(ends[0], said + length, sizeof(said) - 1 - (size_t)length)) > 0)
		length += more;
	said[length] = '\0';
	/* What it says beyond that must not end it by a closed pipe. */
	while (read(ends[0], rest, sizeof(rest)) > 0)
		continue;
	close(ends[0]);
	CHECK_EQ(waitpid(child, &status, 0), child);
	return status;
}

static void aborts(const char *variable, const char *value, const char *what, const char *text)
{
	int status = run(variable, value, what);

	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || strstr(said, text) == NULL) {
		fprintf(stderr, "%s=%s %s: status %#x, and it said: %s\n", variable, value, what,
			(unsigned int)status, said);
		_exit(1);
	}
}

static void goes_on(const char *variable, const char *value, const char *what, const char *text)
{
	int status = run(variable, value, what);

	if (status != 0 || strstr(said, text) == NULL || (*text == '\0' && *said != '\0')) {
		fprintf(stderr, "%s=%s %s: status %#x, and it said: %s\n", variable, value, what,
			(unsigned int)status, said);
		_exit(1);
	}
}

static int act(const char *what)
{
	umem_cache_t *cache = umem_cache_create("act", 64, 0, NULL, NULL, NULL, NULL, NULL, 0);
	char *object = umem_cache_alloc(cache, UMEM_NOFAIL), *memory;
	int failed = 0;

	if (strcmp(what, "twice") == 0) {
		umem_cache_free(cache, object);
		umem_cache_free(cache, object);
	} else if (strcmp(what, "past") == 0) {
		object[64] = 1;
		umem_cache_free(cache, object);
	} else if (strcmp(what, "after") == 0) {
		umem_cache_free(cache, object);
		object[20] = 1;
		for (int i = 0; i < 10000; i++)
			umem_cache_alloc(cache, UMEM_DEFAULT);
	} else if (strcmp(what, "page") == 0) {
		umem_cache_free(cache, object);
		object[20] = 1;
	} else if (strcmp(what, "size") == 0) {
		/* Where there is no room for a tag but with guards. */
		memory = umem_alloc(61, UMEM_DEFAULT);
		memset(memory, 0, 61);
		umem_free(memory, 64);
	} else if (strcmp(what, "mtbf") == 0) {
		umem_cache_free(cache, object);
		for (int i = 0; i < 100; i++) {
			object = umem_cache_alloc(cache, UMEM_DEFAULT);
			failed += object == NULL;
			if (object != NULL)
				umem_cache_free(cache, object);
		}
		CHECK_EQ(failed, 10);
		CHECK(umem_cache_alloc(cache, UMEM_NOFAIL) != NULL);
	} else if (strcmp(what, "fail") == 0) {
		CHECK(umem_alloc((size_t)1 << 60, UMEM_DEFAULT) == NULL);
	} else {
		memory = umem_alloc(100, UMEM_DEFAULT);
		memset(memory, 1, 100);
		umem_free(memory, 100);
		umem_cache_free(cache, object);
		umem_cache_destroy(cache);
	}
	return 0;
}

int main(int count, char **argv)
{
	static const char *const nothing[] = { "nosignal", "maxverify=3", "random", "allverbose",
					       "checknull" };
	static const char *const options[] = { "backend=mmap",	   "allocator=best",
					       "perthread_cache=1m", "concurrency=4",
					       "max_contention=2", "size_add=100",
					       "size_clear",	   "size_remove=8",
					       "sbrk_minalloc=1k", "sbrk_pagesize=4k" };

	arguments = argv;
	if (count > 1)
		return act(argv[1]);
	unsetenv("UMEM_DEBUG");
	aborts("UMEM_DEBUG", "default", "twice", "umem: checks: ");
	aborts("UMEM_DEBUG", "default", "past", "umem: checks: ");
	aborts("UMEM_DEBUG", "default", "after", "umem: checks: ");
	goes_on("UMEM_DEBUG", "default", "nothing", "");
	aborts("UMEM_DEBUG", "audit", "twice", "umem: checks: ");
	aborts("UMEM_DEBUG", "audit=20", "twice", "allocated");
	aborts("UMEM_DEBUG", "contents", "after", "umem: checks: ");
	aborts("UMEM_DEBUG", "contents=100", "after", "umem: checks: ");
	aborts("UMEM_DEBUG", "guards", "past", "umem: checks: ");
	aborts("UMEM_DEBUG", "guards", "size", "freed with 64 bytes, allocated with 61");
	aborts("UMEM_DEBUG", "lite", "twice", "umem: checks: ");
	/* A guard page: the write itself is what ends it. */
	CHECK_EQ(WTERMSIG(run("UMEM_DEBUG", "firewall=64", "page")), SIGSEGV);
	goes_on("UMEM_DEBUG", "firewall=65", "page", "");
	goes_on("UMEM_DEBUG", "guards,noabort", "past", "umem: checks: ");
	goes_on("UMEM_DEBUG", "mtbf=10", "mtbf", "");
	goes_on("UMEM_DEBUG", "verbose", "nothing", "");
	goes_on("UMEM_DEBUG", "firewall", "nothing", "has no value, or a bad one");
	goes_on("UMEM_DEBUG", "audit=many", "nothing", "has no value, or a bad one");
	goes_on("UMEM_DEBUG", "audit,bananas", "nothing", "umem: UMEM_DEBUG: \"bananas\" is not known");
	for (int i = 0; i < 5; i++)
		goes_on("UMEM_DEBUG", nothing[i], "nothing", "has no effect here");
	for (int i = 0; i < 10; i++)
		goes_on("UMEM_OPTIONS", options[i], "nothing", "has no effect here");
	goes_on("UMEM_OPTIONS", "nomagazines,reap_interval=5", "nothing", "");
	goes_on("UMEM_OPTIONS", "bananas", "nothing", "UMEM_OPTIONS: \"bananas\" is not known");
	goes_on("UMEM_LOGGING", "transaction=64k,fail", "nothing", "");
	aborts("UMEM_LOGGING", "transaction", "twice", "umem: checks: ");
	goes_on("UMEM_LOGGING", "fail", "fail", "umem_alloc: 1152921504606846976 bytes");
	goes_on("UMEM_LOGGING", "contents", "nothing", "has no effect here");
	goes_on("UMEM_LOGGING", "slab=1m", "nothing", "has no effect here");
	return 0;
}

/*
 * One program of several files, one for each system, because each binds the same names to symbols of its own:
 *
 *     main.c      threads, slots, tokens, the balance
 *     solaris.c umem.c linux.c netbsd.c freebsd.c      what each has to offer, as a table
 */
#ifndef MIXED_H
#define MIXED_H

#include <stddef.h>
#include <stdint.h>

/* What memory a system has: caches, pools, zones, and what has any size. */
struct kind {
	const char *name;
	/* Memory of which `size` bytes, 16 or more, may be written, or NULL if the kind may fail. */
	void *(*get)(uint64_t random, size_t *size);
	void (*put)(void *memory, size_t size);
	/* What of it is in use, by the system's own figures. */
	uint64_t (*used)(void);
	/* Whether NULL is an answer. */
	int may_fail;
};

struct dialect {
	const char *name;
	const struct kind *kinds;
	size_t count;
	void (*start)(void);
	/* Reaps, drains, shrinks while others allocate. */
	void (*reap)(void);
	/* Destroys what `start` made, of which nothing is in use. */
	void (*end)(void);
	/* Objects that were constructed and not destructed. */
	int64_t *constructed;
	/* Whether an object is had by the way that is compiled in, which starts with the second. */
	int (*hits)(void);
};

/* The same for any cache: its first object, and what the short way leads to then, if it is there. */
#if defined(UMA_INLINE_HITS) && defined(__x86_64__)
#define HITS(cache, mark, alloc, free)                                         \
	static int hits(void)                                                  \
	{                                                                      \
		void *object = alloc, *again = NULL;                           \
                                                                               \
		CHECK(!uma_push_(cache, mark + 1, object));                    \
		CHECK(!uma_push_(NULL, mark, object));                         \
		CHECK(!uma_push_(cache, mark, (char *)object + 1));            \
		/* Unless it comes to another CPU just now. */                 \
		for (int i = 0; i < 100 && again == NULL; i++) {               \
			if (!uma_push_(cache, mark, object))                   \
				free;                                          \
			CHECK(uma_pop_(cache, mark + 1) == NULL);              \
			again = uma_pop_(cache, mark);                         \
			object = again != NULL ? again : alloc;                \
		}                                                              \
		free;                                                          \
		return again != NULL;                                          \
	}
#else
#define HITS(cache, mark, alloc, free)                  \
	static int hits(void)                           \
	{                                               \
		void *object = alloc;                   \
                                                        \
		free;                                   \
		return 0;                               \
	}
#endif

extern const struct dialect solaris, umem, linux_, netbsd, freebsd;

/* What a constructor writes at the end of an object, where users leave it. */
#define CONSTRUCTED 0x636f6e7374727563u

struct built {
	char rest[120];
	uint64_t mark;
};

static inline void built_by(int64_t *count, void *object)
{
	((struct built *)object)->mark = CONSTRUCTED;
	__atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
}

static inline void unbuilt_by(int64_t *count, void *object)
{
	CHECK_EQ(((struct built *)object)->mark, CONSTRUCTED);
	((struct built *)object)->mark = 0;
	__atomic_sub_fetch(count, 1, __ATOMIC_RELAXED);
}

/* An object as it is got and put: constructed; its rest may be written. */
static inline void *built(void *object, size_t *size)
{
	if (object != NULL)
		CHECK_EQ(((struct built *)object)->mark, CONSTRUCTED);
	*size = sizeof(((struct built *)object)->rest);
	return object;
}

/* Memory that is to be zeros, if so asked for. */
static inline void *zeros(void *memory, size_t size, int asked)
{
	if (memory != NULL && asked)
		for (size_t at = 0; at < size; at++)
			CHECK_EQ(((char *)memory)[at], 0);
	return memory;
}

#define COUNT(kinds) (sizeof(kinds) / sizeof(*(kinds)))

#endif

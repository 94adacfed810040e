/*
 * The few other things of the kernel that code around kmem caches needs, over threads: locks and conditions,
 * ASSERT, and soft state of drivers. With a C11 program, link with -lpthread where that is a library.
 */
#ifndef UMA_SOLARIS_DDI_H
#define UMA_SOLARIS_DDI_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <uma/bind.h>
#include <uma/solaris/kmem.h>

#define KSTAT_STRLEN 31

typedef struct uma_solaris_kmutex {
	pthread_mutex_t lock;
} kmutex_t;

typedef struct uma_solaris_kcondvar {
	pthread_cond_t condition;
} kcondvar_t;

typedef enum { MUTEX_ADAPTIVE = 0, MUTEX_SPIN = 1, MUTEX_DRIVER = 4, MUTEX_DEFAULT = 6 } kmutex_type_t;
typedef enum { CV_DEFAULT, CV_DRIVER } kcv_type_t;

static inline void mutex_init(kmutex_t *mutex, const char *name, kmutex_type_t type, void *cookie)
{
	(void)name;
	(void)type;
	(void)cookie;
	pthread_mutex_init(&mutex->lock, NULL);
}

static inline void mutex_destroy(kmutex_t *mutex)
{
	pthread_mutex_destroy(&mutex->lock);
}

static inline void mutex_enter(kmutex_t *mutex)
{
	pthread_mutex_lock(&mutex->lock);
}

static inline int mutex_tryenter(kmutex_t *mutex)
{
	return pthread_mutex_trylock(&mutex->lock) == 0;
}

static inline void mutex_exit(kmutex_t *mutex)
{
	pthread_mutex_unlock(&mutex->lock);
}

static inline void cv_init(kcondvar_t *cv, const char *name, kcv_type_t type, void *cookie)
{
	(void)name;
	(void)type;
	(void)cookie;
	pthread_cond_init(&cv->condition, NULL);
}

static inline void cv_destroy(kcondvar_t *cv)
{
	pthread_cond_destroy(&cv->condition);
}

static inline void cv_wait(kcondvar_t *cv, kmutex_t *mutex)
{
	pthread_cond_wait(&cv->condition, &mutex->lock);
}

static inline void cv_signal(kcondvar_t *cv)
{
	pthread_cond_signal(&cv->condition);
}

static inline void cv_broadcast(kcondvar_t *cv)
{
	pthread_cond_broadcast(&cv->condition);
}

/* The example of the manual leaves `vmp' out. So that it compiles, eight arguments will do here. */
#define UMA_SOLARIS_PICK_(a, b, c, d, e, f, g, h, i, name, ...) name
#define kmem_cache_create(...)                                                                 \
	UMA_SOLARIS_PICK_(__VA_ARGS__, kmem_cache_create, uma_solaris_create_without_arena, 0) \
	(__VA_ARGS__)

static inline kmem_cache_t *uma_solaris_create_without_arena(
	const char *name, size_t bufsize, size_t align, int (*constructor)(void *, void *, int),
	void (*destructor)(void *, void *), void (*reclaim)(void *), void *private_, int cflags)
{
	return (kmem_cache_create)(name, bufsize, align, constructor, destructor, reclaim, private_,
				   NULL, cflags);
}

#ifndef ASSERT
#define ASSERT(condition)                                                                      \
	((condition) ? (void)0 :                                                               \
		       (fprintf(stderr, "assertion failed: %s, file: %s, line: %d\n",          \
				#condition, __FILE__, __LINE__),                               \
			abort()))
#endif

/* A device: its number is all that it has here. */
typedef struct uma_solaris_dev_info {
	int instance;
} dev_info_t;

static inline int ddi_get_instance(dev_info_t *dip)
{
	return dip->instance;
}

/* Soft state: an array of structures, one for each instance. */
struct uma_solaris_soft_state {
	size_t size;
	size_t count;
	void **states;
};

static inline int ddi_soft_state_init(void **state, size_t size, size_t count)
{
	struct uma_solaris_soft_state *soft =
		(struct uma_solaris_soft_state *)calloc(1, sizeof(*soft));

	if (soft == NULL)
		return 12;
	soft->size = size;
	soft->count = count == 0 ? 1 : count;
	soft->states = (void **)calloc(soft->count, sizeof(void *));
	*state = soft;
	return soft->states == NULL ? 12 : 0;
}

static inline int ddi_soft_state_zalloc(void *state, int item)
{
	struct uma_solaris_soft_state *soft = (struct uma_solaris_soft_state *)state;

	if (item < 0 || (size_t)item >= soft->count || soft->states[item] != NULL)
		return -1;
	soft->states[item] = calloc(1, soft->size);
	return soft->states[item] == NULL ? -1 : 0;
}

static inline void *ddi_get_soft_state(void *state, int item)
{
	struct uma_solaris_soft_state *soft = (struct uma_solaris_soft_state *)state;

	return item < 0 || (size_t)item >= soft->count ? NULL : soft->states[item];
}

static inline void ddi_soft_state_fini(void **state)
{
	struct uma_solaris_soft_state *soft = (struct uma_solaris_soft_state *)*state;

	for (size_t item = 0; item < soft->count; item++)
		free(soft->states[item]);
	free(soft->states);
	free(soft);
	*state = NULL;
}

#endif

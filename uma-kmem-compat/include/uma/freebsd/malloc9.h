/*
 * malloc(9) of FreeBSD, in user space: memory of a type. docs/uma.md of the project says what differs.
 *
 * malloc, free and realloc are those of malloc(9) where they are called with its arguments, and the C
 * library's where they are called with its.
 */
#ifndef UMA_FREEBSD_MALLOC9_H
#define UMA_FREEBSD_MALLOC9_H

#include <stddef.h>
#include <stdint.h>
/* Before the names below become macros. */
#include <stdlib.h>
#if defined(__cplusplus)
#include <cstdlib>
#endif
#if defined(__has_include)
#if __has_include(<malloc.h>)
#include <malloc.h>
#endif
#endif

#include <uma/bind.h>
#include <uma/freebsd/mflags.h>

struct malloc_type {
	const char *ks_shortdesc;
	const char *ks_longdesc;
	void *ks_handle;
};

/* A type may be used without anything else: it is listed at its first use. */
#define MALLOC_DEFINE(type, shortdesc, longdesc) \
	struct malloc_type type[1] = { { shortdesc, longdesc, 0 } }
#define MALLOC_DECLARE(type) extern struct malloc_type type[1]

UMA_C_BEGIN

extern struct malloc_type M_TEMP[1] UMA_SYMBOL(uma_freebsd_M_TEMP);
extern struct malloc_type M_CACHE[1] UMA_SYMBOL(uma_freebsd_M_CACHE);
extern struct malloc_type M_DEVBUF[1] UMA_SYMBOL(uma_freebsd_M_DEVBUF);

void *uma_freebsd_malloc(size_t size, struct malloc_type *type, int flags);
void uma_freebsd_free(void *addr, struct malloc_type *type);
void *uma_freebsd_realloc(void *addr, size_t size, struct malloc_type *type, int flags);
void *uma_freebsd_reallocf(void *addr, size_t size, struct malloc_type *type, int flags);
size_t uma_freebsd_malloc_usable_size(const void *addr);

void *malloc_aligned(size_t size, size_t align, struct malloc_type *type, int flags)
	UMA_SYMBOL(uma_freebsd_malloc_aligned);
void *mallocarray(size_t nmemb, size_t size, struct malloc_type *type, int flags)
	UMA_SYMBOL(uma_freebsd_mallocarray);
void zfree(void *addr, struct malloc_type *type) UMA_SYMBOL(uma_freebsd_zfree);
void malloc_init(void *type) UMA_SYMBOL(uma_freebsd_malloc_init);
void malloc_uninit(void *type) UMA_SYMBOL(uma_freebsd_malloc_uninit);

/* Not of FreeBSD: figures of a type. Bit n of sizes: some had more than 2^(n-1) bytes and at most 2^n. */
struct uma_freebsd_malloc_stats {
	uint64_t allocs;
	uint64_t frees;
	uint64_t bytes;
	uint64_t high;
	uint64_t sizes;
};
void uma_freebsd_malloc_type_stats(struct malloc_type *type, struct uma_freebsd_malloc_stats *into);

UMA_C_END

#define UMA_PICK_2_(a, b, name, ...) name
#define UMA_PICK_3_(a, b, c, name, ...) name
#define UMA_PICK_4_(a, b, c, d, name, ...) name

#define malloc(...) UMA_PICK_3_(__VA_ARGS__, uma_freebsd_malloc, uma_bad_, malloc, 0)(__VA_ARGS__)
#define free(...) UMA_PICK_2_(__VA_ARGS__, uma_freebsd_free, free, 0)(__VA_ARGS__)
#define realloc(...) \
	UMA_PICK_4_(__VA_ARGS__, uma_freebsd_realloc, uma_bad_, realloc, 0)(__VA_ARGS__)
#define reallocf(addr, size, type, flags) uma_freebsd_reallocf(addr, size, type, flags)
#define malloc_usable_size(addr) uma_freebsd_malloc_usable_size(addr)

#endif

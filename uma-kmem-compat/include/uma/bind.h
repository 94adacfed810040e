/*
 * What the headers of uma-kmem-compat share: declarations that are C11 and C++17, bound to symbols that
 * carry the name of their system.
 *
 *     UMA_C_BEGIN
 *     void *kmem_cache_alloc(struct kmem_cache *, gfp_t) UMA_SYMBOL(uma_linux_kmem_cache_alloc);
 *     UMA_C_END
 *
 * The source says kmem_cache_alloc; the linker sees uma_linux_kmem_cache_alloc. So programs compile
 * unchanged, and files that are written for different systems can be linked together.
 *
 * With -I<prefix>/include/uma as well, sources find <linux/slab.h>, <solaris/kmem.h> and so on. So no
 * header here may have the name of one of the C library's below its directory.
 */
#ifndef UMA_BIND_H
#define UMA_BIND_H

#if !defined(__GNUC__)
#error "uma: binding names to symbols needs a compiler with GNU asm labels (gcc, clang)"
#endif

#define UMA_STRING_(text) #text
#define UMA_STRING(text) UMA_STRING_(text)

/* The symbol that a declaration is bound to. */
#define UMA_SYMBOL(symbol) __asm__(UMA_STRING(__USER_LABEL_PREFIX__) #symbol)

#if defined(__cplusplus)
#define UMA_C_BEGIN extern "C" {
#define UMA_C_END }
#else
#define UMA_C_BEGIN
#define UMA_C_END
#endif

/* Functions whose result must not be dropped. */
#define UMA_MUST_CHECK __attribute__((__warn_unused_result__))
/* printf-like functions: which argument is the format, and which the first of its own. */
#define UMA_PRINTF(format, first) __attribute__((__format__(__printf__, format, first)))

#endif

/* Memory of any size (kmem) of NetBSD, in user space: it is freed with its size. */
#ifndef UMA_NETBSD_KMEM_H
#define UMA_NETBSD_KMEM_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <uma/bind.h>

typedef unsigned int km_flag_t;

/* One of them. */
#define KM_SLEEP 0x00000001u
#define KM_NOSLEEP 0x00000002u

UMA_C_BEGIN

void *kmem_alloc(size_t size, km_flag_t flags) UMA_SYMBOL(uma_netbsd_kmem_alloc);
void *kmem_zalloc(size_t size, km_flag_t flags) UMA_SYMBOL(uma_netbsd_kmem_zalloc);
void kmem_free(void *memory, size_t size) UMA_SYMBOL(uma_netbsd_kmem_free);
size_t kmem_roundup_size(size_t size) UMA_SYMBOL(uma_netbsd_kmem_roundup_size);

/* Not of NetBSD: how many allocations are in use. */
uint64_t uma_netbsd_kmem_active(void);

UMA_C_END

/* There are no interrupts, so these are the same. */
static inline void *kmem_intr_alloc(size_t size, km_flag_t flags)
{
	return kmem_alloc(size, flags);
}

static inline void *kmem_intr_zalloc(size_t size, km_flag_t flags)
{
	return kmem_zalloc(size, flags);
}

static inline void kmem_intr_free(void *memory, size_t size)
{
	kmem_free(memory, size);
}

static inline void kmem_init(void)
{
}

/* A copy of a string, and how many bytes it takes with its end, if lenp is not null. */
static inline char *kmem_strdupsize(const char *string, size_t *lenp, km_flag_t flags)
{
	size_t size = strlen(string) + 1;
	char *copy = (char *)kmem_alloc(size, flags);

	if (copy == NULL)
		return NULL;
	if (lenp != NULL)
		*lenp = size;
	return (char *)memcpy(copy, string, size);
}

static inline char *kmem_strdup(const char *string, km_flag_t flags)
{
	return kmem_strdupsize(string, NULL, flags);
}

/* Of the first so many bytes of a string. */
static inline char *kmem_strndup(const char *string, size_t most, km_flag_t flags)
{
	const char *end = (const char *)memchr(string, '\0', most);
	size_t length = end != NULL ? (size_t)(end - string) : most;
	char *copy = (char *)kmem_alloc(length + 1, flags);

	if (copy == NULL)
		return NULL;
	memcpy(copy, string, length);
	copy[length] = '\0';
	return copy;
}

/* Frees a string, which still ends where it did. NULL is nothing. */
static inline void kmem_strfree(char *string)
{
	if (string != NULL)
		kmem_free(string, strlen(string) + 1);
}

/* A string as printf has it; NULL if that cannot be. */
static inline UMA_PRINTF(1, 2) char *kmem_asprintf(const char *format, ...)
{
	va_list arguments;
	char *string = NULL;
	int length;

	va_start(arguments, format);
	length = vsnprintf(NULL, 0, format, arguments);
	va_end(arguments);
	if (length >= 0)
		string = (char *)kmem_alloc((size_t)length + 1, KM_SLEEP);
	if (string != NULL) {
		va_start(arguments, format);
		vsnprintf(string, (size_t)length + 1, format, arguments);
		va_end(arguments);
	}
	return string;
}

/* The memory that the caller has on the stack, if it is large enough. */
static inline void *kmem_tmpbuf_alloc(size_t size, void *stack, size_t stack_size, km_flag_t flags)
{
	return size <= stack_size ? stack : kmem_alloc(size, flags);
}

static inline void kmem_tmpbuf_free(void *memory, size_t size, void *stack)
{
	if (memory != stack)
		kmem_free(memory, size);
}

#endif

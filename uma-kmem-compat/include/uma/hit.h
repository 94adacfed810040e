/*
 * The short way of a hit, compiled into the program. Where UMA_INLINE_HITS is defined before the first of these
 * headers, allocating from and freeing to a cache calls nothing if the running CPU has an object, or room for
 * one, at hand: kmem_cache_alloc and kmem_cache_free (Solaris, Linux), umem_cache_alloc and umem_cache_free,
 * pool_cache_get and pool_cache_put, uma_zalloc and uma_zfree. All else is as it is without.
 *
 * It is for programs, and for libraries that are never unloaded: the kernel may keep a pointer into code that has
 * run. What is compiled here goes with the library's mark: with a library of another layout it
 * finds no cache live, and calls the function. On other machines than x86-64 with Linux it is not there.
 */
#ifndef UMA_HIT_H
#define UMA_HIT_H

#include <stddef.h>
#include <stdint.h>

#if defined(UMA_INLINE_HITS) && defined(__x86_64__) && defined(__linux__) && !defined(__ILP32__)

#define UMA_HITS_ 1

/* The beginning of what a kmem_cache_t * and its like point to. */
struct uma_handle_ {
	/* The alignment of objects, less one; what this is. */
	uint32_t mask;
	uint32_t mark;
	void *next;
	uintptr_t unused[2];
	/* Where the thread's rseq area is and, in the lower half, how many CPUs there are, or 0; and their slots. */
	uintptr_t way;
	const char *slots;
} __attribute__((__may_alias__));

/* Handles of a kind, which has two letters, are marked so, in version 2 of all this. */
#define UMA_MARK_(one, two) \
	(UINT32_C(0x756d6148) ^ UINT32_C(2) << 18 ^ (uint32_t)((one) | (two) << 8) << 2)

/*
 * A restartable sequence: from 3 to 4; where it is interrupted it starts again at 2. Both sections are in the group of
 * the function, so that they go if it does.
 */
#define UMA_SEQUENCE_(code)                       \
	"2:\n\t"                                  \
	"leaq 7f(%%rip), %%rdx\n\t"               \
	"movq %%rdx, %%fs:8(%[offset])\n"         \
	"3:\n\t"                                  \
	"movl %%fs:4(%[offset]), %%edx\n\t"       \
	"cmpq %[cpus], %%rdx\n\t"                 \
	code                                      \
	"4:\n\t"                                  \
	".pushsection __rseq_cs, \"aw?\", @progbits\n\t" \
	".balign 32\n"                            \
	"7:\n\t"                                  \
	".long 0, 0\n\t"                          \
	".quad 3b, 4b - 3b, 6f\n\t"               \
	".popsection\n\t"                         \
	".pushsection __rseq_failure, \"ax?\", @progbits\n\t" \
	".byte 0x0f, 0xb9, 0x3d\n\t"              \
	".long 0x53053053\n"                      \
	"6:\n\t"                                  \
	"jmp 2b\n\t"                              \
	".popsection\n"

/* An object of the running CPU's bucket, or NULL. */
static inline __attribute__((__always_inline__)) void *uma_pop_(const void *cache, uint32_t mark)
{
	const struct uma_handle_ *handle = (const struct uma_handle_ *)cache;
	uintptr_t way;
	void *object;

	if (__builtin_expect(handle == NULL || handle->mark != mark, 0))
		return NULL;
	way = __atomic_load_n(&handle->way, __ATOMIC_ACQUIRE);
	if (__builtin_expect(way == 0, 0))
		return NULL;
	__asm__ volatile(UMA_SEQUENCE_("movl $0, %k[object]\n\t"
				       "jae 5f\n\t"
				       "shlq $6, %%rdx\n\t"
				       "movq (%[slots],%%rdx), %%rcx\n\t"
				       "movq (%%rcx), %%rsi\n\t"
				       "movzbl %%sil, %%edx\n\t"
				       "testl %%edx, %%edx\n\t"
				       "jz 5f\n\t"
				       "movq 8(%%rcx,%%rdx,8), %[object]\n\t"
				       "addq $0x100ff, %%rsi\n\t"
				       "movq %%rsi, (%%rcx)\n") "5:\n"
			 : [object] "=&r"(object)
			 : [offset] "r"((intptr_t)way >> 32), [cpus] "r"((uintptr_t)(uint32_t)way),
			   [slots] "r"(handle->slots)
			 : "rcx", "rdx", "rsi", "memory", "cc");
	return object;
}

/* Whether there was room for an object in the running CPU's buckets. */
static inline __attribute__((__always_inline__)) int uma_push_(const void *cache, uint32_t mark,
							       void *object)
{
	const struct uma_handle_ *handle = (const struct uma_handle_ *)cache;
	uintptr_t way;

	if (__builtin_expect(handle == NULL || object == NULL || handle->mark != mark ||
				     ((uintptr_t)object & handle->mask) != 0,
			     0))
		return 0;
	way = __atomic_load_n(&handle->way, __ATOMIC_ACQUIRE);
	if (__builtin_expect(way == 0, 0))
		return 0;
	__asm__ goto(UMA_SEQUENCE_("jae %l[full]\n\t"
				   "shlq $6, %%rdx\n\t"
				   "movq (%[slots],%%rdx), %%rcx\n\t"
				   "movq (%%rcx), %%rsi\n\t"
				   "testl $0xff00, %%esi\n\t"
				   "jnz 8f\n\t"
				   "movq 8(%[slots],%%rdx), %%rcx\n\t"
				   "movq (%%rcx), %%rsi\n\t"
				   "testl $0xff00, %%esi\n\t"
				   "jz %l[full]\n"
				   "8:\n\t"
				   "movzbl %%sil, %%edx\n\t"
				   "movq %[object], 16(%%rcx,%%rdx,8)\n\t"
				   "subq $0xff, %%rsi\n\t"
				   "movq %%rsi, (%%rcx)\n")
		     :
		     : [offset] "r"((intptr_t)way >> 32), [cpus] "r"((uintptr_t)(uint32_t)way),
		       [slots] "r"(handle->slots), [object] "r"(object)
		     : "rcx", "rdx", "rsi", "memory", "cc"
		     : full);
	return 1;
full:
	return 0;
}

#endif

#endif

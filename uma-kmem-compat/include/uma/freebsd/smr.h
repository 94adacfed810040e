/*
 * Safe memory reclamation, smr(9) of FreeBSD, in user space. docs/uma.md of the project says, for every
 * function, what it does here and where that differs.
 */
#ifndef UMA_FREEBSD_SMR_H
#define UMA_FREEBSD_SMR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uma/bind.h>

/* 64 bits, which do not wrap. In FreeBSD, 32. */
typedef uint64_t smr_seq_t;
typedef struct smr *smr_t;

#define SMR_SEQ_INVALID 0
#define SMR_SEQ_INIT 1
#define SMR_LAZY 0x0001
#define SMR_DEFERRED 0x0002

UMA_C_BEGIN

/* The limit and the flags mean nothing here: nobody is ever that lazy. */
smr_t smr_create(const char *name, int limit, int flags) UMA_SYMBOL(uma_freebsd_smr_create);
/* Waits for readers. */
void smr_destroy(smr_t smr) UMA_SYMBOL(uma_freebsd_smr_destroy);
void smr_enter(smr_t smr) UMA_SYMBOL(uma_freebsd_smr_enter);
void smr_exit(smr_t smr) UMA_SYMBOL(uma_freebsd_smr_exit);
smr_seq_t smr_advance(smr_t smr) UMA_SYMBOL(uma_freebsd_smr_advance);
smr_seq_t smr_current(smr_t smr) UMA_SYMBOL(uma_freebsd_smr_current);
bool smr_poll(smr_t smr, smr_seq_t goal, bool wait) UMA_SYMBOL(uma_freebsd_smr_poll);
void smr_synchronize(smr_t smr) UMA_SYMBOL(uma_freebsd_smr_synchronize);
bool uma_freebsd_smr_entered(smr_t smr);

UMA_C_END

static inline void smr_wait(smr_t smr, smr_seq_t goal)
{
	(void)smr_poll(smr, goal, true);
}

static inline void smr_lazy_enter(smr_t smr)
{
	smr_enter(smr);
}

static inline void smr_lazy_exit(smr_t smr)
{
	smr_exit(smr);
}

static inline void smr_init(void)
{
}

#define SMR_ENTERED(smr) uma_freebsd_smr_entered(smr)
#define SMR_ASSERT_ENTERED(smr) ((void)(smr))
#define SMR_ASSERT_NOT_ENTERED(smr) ((void)(smr))
#define SMR_ASSERT(condition, function) ((void)sizeof(condition))

/* Pointers that readers follow: smr_types.h. */
#define SMR_POINTER(type)         \
	struct {                  \
		type __ptr;       \
	}

#define smr_entered_load(p, smr) ((void)(smr), __atomic_load_n(&(p)->__ptr, __ATOMIC_ACQUIRE))
#define smr_serialized_load(p, ex) ((void)(ex), (p)->__ptr)
#define smr_unserialized_load(p, ew) ((void)(ew), (p)->__ptr)
#define smr_serialized_store(p, v, ex) \
	((void)(ex), __atomic_store_n(&(p)->__ptr, v, __ATOMIC_RELEASE))
#define smr_unserialized_store(p, v, ew) ((void)(ew), (void)((p)->__ptr = (v)))
#define smr_serialized_swap(p, v, ex) \
	((void)(ex), __atomic_exchange_n(&(p)->__ptr, v, __ATOMIC_ACQ_REL))

#endif

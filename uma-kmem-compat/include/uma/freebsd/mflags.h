/*
 * M_*: how to allocate, for zones and for malloc(9), with FreeBSD's values. Exactly one of M_NOWAIT and
 * M_WAITOK belongs there.
 *
 * M_WAITOK waits as long as it takes, at a zone's limit and for memory, which may be freed into any zone or come
 * from the zone's supplier of pages; the policy freebsd.waitok can have it end the process or return NULL instead.
 * With M_NOVM it waits at the limit only.
 */
#ifndef UMA_FREEBSD_MFLAGS_H
#define UMA_FREEBSD_MFLAGS_H

#define M_NOWAIT 0x0001
#define M_WAITOK 0x0002
#define M_NORECLAIM 0x0080
#define M_ZERO 0x0100
#define M_NOVM 0x0200
#define M_USE_RESERVE 0x0400
#define M_NODUMP 0x0800
#define M_FIRSTFIT 0x1000
#define M_BESTFIT 0x2000
#define M_EXEC 0x4000
#define M_NEXTFIT 0x8000
#define M_NEVERFREED 0x10000

#endif

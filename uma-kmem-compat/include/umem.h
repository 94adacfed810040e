/* libumem's header by its own name. */
#ifndef UMA_UMEM_H
#define UMA_UMEM_H

#include <uma/umem/umem.h>

#endif

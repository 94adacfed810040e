/* With -I<prefix>/include/uma/solaris, sources find <sys/vmem.h>. */
#ifndef UMA_SOLARIS_SYS_VMEM_H
#define UMA_SOLARIS_SYS_VMEM_H

#include <uma/solaris/vmem.h>

#endif

/* With -I<prefix>/include/uma/solaris, sources find <sys/kmem.h>. */
#ifndef UMA_SOLARIS_SYS_KMEM_H
#define UMA_SOLARIS_SYS_KMEM_H

#include <uma/solaris/kmem.h>

#endif

/* With -I<prefix>/include/uma/solaris, sources find <sys/sunddi.h>. */
#ifndef UMA_SOLARIS_SYS_SUNDDI_H
#define UMA_SOLARIS_SYS_SUNDDI_H

#include <uma/solaris/ddi.h>

#endif

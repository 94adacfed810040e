/* With -I<prefix>/include/uma/solaris, sources find <sys/ddi.h>. */
#ifndef UMA_SOLARIS_SYS_DDI_H
#define UMA_SOLARIS_SYS_DDI_H

#include <uma/solaris/ddi.h>

#endif

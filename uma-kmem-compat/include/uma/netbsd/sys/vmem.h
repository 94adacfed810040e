/* Where sources of NetBSD look for it, with -I<prefix>/include/uma/netbsd. */
#include <uma/netbsd/vmem.h>

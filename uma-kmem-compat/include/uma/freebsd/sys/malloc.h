/* Where sources of FreeBSD look for it, with -I<prefix>/include/uma/freebsd. */
#include <uma/freebsd/malloc9.h>

#!/usr/bin/env bash
# The C libraries of uma-kmem-compat can be installed, and found by pkg-config: a program is compiled and run
# with the shared library, and with the static one.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! pkg-config --version >/dev/null 2>&1; then
    echo "install.sh: NOT RUN: there is no pkg-config"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

uma-kmem-compat/install.sh --prefix "$work/usr" --libumem 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
export PKG_CONFIG_PATH=$work/usr/lib/pkgconfig
program=uma-kmem-compat/examples/driver.c
read -ra flags < <(pkg-config --cflags --libs uma_kmem_compat)
gcc -std=c11 -Wall -Wextra -Werror -I"$work/usr/include/uma" "$program" -o "$work/shared" "${flags[@]}"
LD_LIBRARY_PATH=$work/usr/lib "$work/shared"
readelf --wide --dynamic "$work/shared" | grep -q 'NEEDED.*libuma_kmem_compat\.so\.[0-9]' || {
    echo "install.sh: the program does not ask for the library by its version" >&2
    exit 1
}
read -ra flags < <(pkg-config --cflags --libs --static uma_kmem_compat | sed 's/-luma_kmem_compat/-l:libuma_kmem_compat.a/')
gcc -std=c11 -Wall -Wextra -Werror -I"$work/usr/include/uma" "$program" -o "$work/static" "${flags[@]}"
"$work/static"
# A program for libumem, which knows nothing of this library.
cat >"$work/umem.c" <<'PROGRAM'
#include <umem.h>

int main(void)
{
	void *memory = umem_alloc(100, UMEM_NOFAIL);

	umem_free(memory, 100);
	return memory == NULL;
}
PROGRAM
gcc -std=c11 -Wall -Wextra -Werror "$work/umem.c" -o "$work/umem" -I"$work/usr/include" -L"$work/usr/lib" -lumem
LD_LIBRARY_PATH=$work/usr/lib "$work/umem"
echo "install.sh: ok: $(pkg-config --modversion uma_kmem_compat), shared and static, and -lumem"

#!/usr/bin/env bash
# Builds and installs the C libraries, their headers and a pkg-config file: what `cargo cinstall` does, with
# cargo alone.
#
#   install.sh [--prefix /usr/local] [--libdir PREFIX/lib] [--destdir DIR] [--libumem] [-- cargo's options]
#
# With --libumem, -lumem leads to the library, too: do that where there is no other libumem.
set -euo pipefail
cd "$(dirname "$0")"

prefix=/usr/local
libdir=
destdir=
libumem=
while (($# > 0)); do
    case $1 in
        --prefix) prefix=${2:?--prefix needs a directory}; shift 2 ;;
        --libdir) libdir=${2:?--libdir needs a directory}; shift 2 ;;
        --destdir) destdir=${2:?--destdir needs a directory}; shift 2 ;;
        --libumem) libumem=yes; shift ;;
        --) shift; break ;;
        *) echo "install.sh: what is $1?" >&2; exit 1 ;;
    esac
done
libdir=${libdir:-$prefix/lib}

version=$(cargo pkgid | sed 's/.*[#@]//')
major=${version%%.*}
soname=libuma_kmem_compat.so.$major
# A target directory of its own, because of the name of the shared library in it.
target=${CARGO_TARGET_DIR:-../target}/install
mkdir -p "$target"
target=$(cd "$target" && pwd)

cargo rustc --release --target-dir "$target" --crate-type cdylib "$@" -- -C link-arg="-Wl,-soname,$soname"
private=$(cargo rustc --release --target-dir "$target" --crate-type staticlib "$@" -- \
    --print native-static-libs 2>&1 | tee /dev/stderr | sed -n 's/^note: native-static-libs: //p')

install -d "$destdir$libdir/pkgconfig" "$destdir$prefix/include"
install -m 644 "$target/release/libuma_kmem_compat.a" "$destdir$libdir/"
install -m 755 "$target/release/libuma_kmem_compat.so" "$destdir$libdir/libuma_kmem_compat.so.$version"
ln -sf "libuma_kmem_compat.so.$version" "$destdir$libdir/$soname"
ln -sf "$soname" "$destdir$libdir/libuma_kmem_compat.so"
if [[ $libumem ]]; then
    printf '/* GNU ld script: the functions of libumem are in another library. */\nINPUT(-luma_kmem_compat)\n' \
        >"$destdir$libdir/libumem.so"
fi
(cd include && find . -name '*.h' -exec install -D -m 644 {} "$destdir$prefix/include/{}" \;)
sed -e "s|@PREFIX@|$prefix|" -e "s|@LIBDIR@|$libdir|" -e "s|@VERSION@|$version|" \
    -e "s|@PRIVATE@|$private|" uma_kmem_compat.pc.in >"$destdir$libdir/pkgconfig/uma_kmem_compat.pc"
echo "install.sh: libuma_kmem_compat $version is in $destdir$libdir"

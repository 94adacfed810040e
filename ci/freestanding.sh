#!/usr/bin/env bash
# The no_std crates need neither std nor a C library: a program of them is linked with nothing else,
# and run. On other systems than x86-64 Linux there is no such program, and this fails.
set -euo pipefail
cd "$(dirname "$0")/.."

manifest=ci/freestanding/Cargo.toml
target=${CARGO_TARGET_DIR:-target}/freestanding

fail() {
    echo "freestanding.sh: $*" >&2
    exit 1
}

# Crates that stand on std or on the system, and the feature by which others would.
tree=$(cargo tree --locked --manifest-path "$manifest" --edges normal,features --prefix none)
for crate in libc memmap2 parking_lot parking_lot_core rustix uma uma-backend-mmap; do
    ! grep -q "^$crate v" <<<"$tree" || fail "$crate is among the dependencies"
done
! grep -q 'feature "std"' <<<"$tree" || fail "a dependency is built with its feature std"

for profile in dev release; do
    cargo build --locked --manifest-path "$manifest" --target-dir "$target" --profile "$profile"
    program=$target/${profile/dev/debug}/uma-freestanding

    undefined=$(nm --undefined-only "$program")
    [[ -z $undefined ]] || fail "undefined symbols: $undefined"
    readelf --wide --dynamic "$program" | grep -q 'no dynamic section' ||
        fail "the program has a dynamic section"
    ! readelf --wide --program-headers "$program" | grep -q INTERP ||
        fail "the program asks for a dynamic linker"

    "$program" || fail "the program ended with status $?"
done

#!/usr/bin/env bash
# What a pair of kmem_cache_alloc and kmem_cache_free costs from C, beside the same of a raw zone in Rust, in
# interleaved runs: nanoseconds, the least and the median of the runs, and the ratio of the least. The goal is
# a ratio of at most 1.5.
#
#   bench/pair.sh [runs] [pairs per run]
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${1:-25}
pairs=${2:-5000000}
target=${CARGO_TARGET_DIR:-../target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
cargo build --quiet --release -p uma-kmem-compat --example raw_pair --target-dir "$target"
cargo build --quiet --release -p uma-kmem-compat --lib --target-dir "$target"
gcc -O2 -std=gnu11 -Wall -Wextra -Iinclude bench/pair.c -o "$target/release/pair-shared" \
    -L"$target/release" -luma_kmem_compat -Wl,-rpath,"$target/release,--disable-new-dtags"
gcc -O2 -std=gnu11 -Iinclude bench/pair.c -o "$target/release/pair-static" \
    "$target/release/libuma_kmem_compat.a" -lpthread -ldl -lm
mkdir -p "$target/release/empty"
gcc -O2 -std=gnu11 -Iinclude -fPIC -shared bench/empty.c -o "$target/release/empty/libuma_kmem_compat.so"
for ((run = 0; run < runs; run++)); do
    echo "rust $("$target/release/examples/raw_pair" "$pairs")"
    echo "shared $("$target/release/pair-shared" "$pairs")"
    echo "empty $(LD_PRELOAD="$target/release/empty/libuma_kmem_compat.so" "$target/release/pair-shared" "$pairs")"
    echo "static $("$target/release/pair-static" "$pairs")"
done | sort -k1,1 -k2,2n | awk '
    { count[$1]++; time[$1, count[$1]] = $2 }
    function show(what, name,   least, median) {
        least = time[name, 1]; median = time[name, int((count[name] + 1) / 2)]
        printf "%s: %.2f ns (median %.2f), ratio %.2f\n", what, least, median, least / time["rust", 1]
    }
    END {
        show("RawZone, inlined in Rust", "rust")
        show("kmem_cache from C, static library", "static")
        show("kmem_cache from C, shared library", "shared")
        show("the same calls, to functions that do nothing", "empty")
    }'

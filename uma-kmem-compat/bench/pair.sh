#!/usr/bin/env bash
# What a pair of an allocation and a free of 64 bytes costs from C, on hits, beside the same of a raw zone in
# Rust, in interleaved runs: of every face, with the static library, with the shared one, and with the short way
# compiled into the program (UMA_INLINE_HITS); of functions that do nothing; of mimalloc and of another
# libumem, where they are installed. Nanoseconds of the processor, the least and the median, and the ratio of the medians.
# The goals: at most 1.5 times the raw zone, 0.6 of libumem, 0.85 of mimalloc.
#
#   bench/pair.sh [runs] [pairs per run]
#
# LIBUMEM and MIMALLOC are directories with libumem.so and libmimalloc.so, if they are where the linker does not
# look.
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${1:-25}
pairs=${2:-5000000}
target=${CARGO_TARGET_DIR:-../target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
cargo build --quiet --release -p uma-kmem-compat --example raw_pair --target-dir "$target"
cargo build --quiet --release -p uma-kmem-compat --lib --target-dir "$target"
work=$target/release/pair
rm -rf "$work"
mkdir -p "$work"
common=(-O2 -std=gnu11 -Wall -Wextra -Iinclude)
static=("$target/release/libuma_kmem_compat.a" -lpthread -ldl -lm)
shared=(-L"$target/release" -luma_kmem_compat "-Wl,-rpath,$target/release,--disable-new-dtags")

names=("raw zone, inlined in Rust")
programs=("$target/release/examples/raw_pair")
add() { # <name> <program> <gcc's arguments>
    names+=("$1")
    programs+=("$work/$2")
    gcc "${common[@]}" "${@:3}" -o "$work/$2"
}
for face in linux solaris umem netbsd freebsd; do
    macro=-DPAIR_${face^^}
    add "$face, static" "$face-static" "$macro" bench/pair.c "${static[@]}"
    add "$face, shared" "$face-shared" "$macro" bench/pair.c "${shared[@]}"
    add "$face, compiled in" "$face-inline" "$macro" -DUMA_INLINE_HITS bench/pair.c "${shared[@]}"
done
gcc "${common[@]}" -fPIC -shared bench/empty.c -o "$work/libempty.so"
gcc "${common[@]}" -c bench/empty.c -o "$work/empty.o"
add "calls of nothing, static" empty-static -DPAIR_EMPTY bench/pair.c "$work/empty.o"
add "calls of nothing, shared" empty-shared -DPAIR_EMPTY bench/pair.c -L"$work" -lempty "-Wl,-rpath,$work"
other() { # <name> <macro> <library> <directory or nothing>
    local where=()
    if [[ $4 ]]; then where=(-L"$4" "-Wl,-rpath,$4"); fi
    if ! gcc "${common[@]}" "-D$2" bench/pair.c -o "$work/$1" "${where[@]}" "-l$3" -lpthread 2>/dev/null; then
        echo "pair.sh: NOT RUN: $1, which is not installed" >&2
    elif ldd "$work/$1" | grep -q uma_kmem_compat; then
        echo "pair.sh: NOT RUN: $1, because -l$3 is this library" >&2
    else
        names+=("$1, shared")
        programs+=("$work/$1")
    fi
}
other libumem PAIR_LIBUMEM umem "${LIBUMEM:-}"
other mimalloc PAIR_MIMALLOC mimalloc "${MIMALLOC:-}"

for ((run = 0; run < runs; run++)); do
    for which in "${!programs[@]}"; do
        printf '%02d|%s|%s\n' "$which" "${names[which]}" "$("${programs[which]}" "$pairs")"
    done
done | sort -t'|' -k1,1n -k3,3n | awk -F'|' '
    !($2 in count) { order[++kinds] = $2 }
    { time[$2, ++count[$2]] = $3 }
    function median(name) { return time[name, int((count[name] + 1) / 2)] }
    END {
        printf "%-28s %8s %8s %9s", "nanoseconds of a pair", "least", "median", "of Rust"
        if ("libumem, shared" in count) printf " %11s", "of libumem"
        if ("mimalloc, shared" in count) printf " %11s", "of mimalloc"
        print ""
        for (i = 1; i <= kinds; i++) {
            name = order[i]
            printf "%-28s %8.2f %8.2f %9.2f", name, time[name, 1], median(name), median(name) / median(order[1])
            if ("libumem, shared" in count) printf " %11.2f", median(name) / median("libumem, shared")
            if ("mimalloc, shared" in count) printf " %11.2f", median(name) / median("mimalloc, shared")
            print ""
        }
    }'

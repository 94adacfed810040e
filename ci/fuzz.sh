#!/usr/bin/env bash
# Every fuzz target, for so many seconds each (3 unless given), beginning with the corpus that is kept in
# fuzz/corpus. New findings go to a scratch directory; only a failing input stays, in fuzz/artifacts.
#
#   ci/fuzz.sh                    all targets, 3 seconds each, from the same seed each time; optimised less, which is
#                                 slower to run but much faster to build
#   ci/fuzz.sh 600 zone_ops       one of them, ten minutes
#   ci/fuzz.sh --minimise DIR     makes fuzz/corpus anew from itself and DIR/<target>, for review
#
# It needs a nightly compiler; without one it says that it did NOT run. cargo-fuzz is installed if missing.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "fuzz.sh: $*" >&2
    exit 1
}

seed=0
(($# > 0)) || seed=1
minimise=
if [[ ${1:-} == --minimise ]]; then
    minimise=${2:?--minimise needs a directory}
    shift 2
    seconds=0
else
    seconds=${1:-3}
    (($# == 0)) || shift
fi
[[ $seconds =~ ^[0-9]+$ ]] || fail "not a number of seconds: $seconds"

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz.sh: NOT RUN: there is no nightly compiler (rustup toolchain install nightly)"
    exit 0
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz.sh: installing cargo-fuzz"
    cargo install --quiet cargo-fuzz --locked
fi

# A file of a target that the manifest does not name would never run.
mapfile -t targets < <(cargo +nightly fuzz list | grep -v '^control_')
for file in fuzz/fuzz_targets/*.rs; do
    name=$(basename "$file" .rs)
    [[ " ${targets[*]} " == *" $name "* ]] || fail "fuzz/Cargo.toml does not name the target $name"
done
(($# == 0)) || targets=("$@")

CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
export CARGO_TARGET_DIR
if ((seed == 1)); then
    export CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=0 RUSTFLAGS="${RUSTFLAGS:-} -Ccodegen-units=16"
fi
cargo +nightly fuzz build
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
bin=$CARGO_TARGET_DIR/$host/release

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# What is wrong on purpose is found: an item that is read after its free, of a zone and of each face.
if [[ -z $minimise ]]; then
    for which in 0 1 2 3 4 5; do
        printf "\\x0$which" >"$scratch/which"
        if "$bin/control_use_after_free" "$scratch/which" >"$scratch/log" 2>&1 ||
            ! grep -q "AddressSanitizer: use-after-poison" "$scratch/log"; then
            tail -n 20 "$scratch/log" >&2
            fail "a use after free inside a slab was NOT found (control $which)"
        fi
    done
    echo "fuzz.sh: uses after free inside slabs are found"
fi

for target in "${targets[@]}"; do
    [[ -x $bin/$target ]] || fail "there is no target $target"
    seeds=fuzz/corpus/$target
    mkdir -p "$seeds"
    if [[ -n $minimise ]]; then
        # Small inputs, as few as reach what all of them do; of those the smallest that fit the bounds.
        rm -rf "$scratch/new" && mkdir "$scratch/new"
        "$bin/$target" -set_cover_merge=1 -max_len=512 -timeout=100 "$scratch/new" "$seeds" "$minimise/$target" \
            >"$scratch/log" 2>&1 || fail "$target: $(tail -n 20 "$scratch/log")"
        find "$seeds" -type f -delete
        find "$scratch/new" -type f -printf '%s %p\n' | sort -n |
            awk 'BEGIN { srand(1) } { line[NR] = $2 } END {
                step = NR > 40 ? NR / 40 : 1
                for (at = 1; int(at) <= NR; at += step) print line[int(at)]
            }' | xargs -r cp -t "$seeds"
        echo "fuzz.sh: $target: $(find "$seeds" -type f | wc -l) seeds"
        continue
    fi
    mkdir -p "fuzz/artifacts/$target" "$scratch/$target"
    if ! "$bin/$target" -max_total_time="$seconds" -max_len=2048 -len_control=20 -timeout=100 -seed=$seed \
        -artifact_prefix="fuzz/artifacts/$target/" "$scratch/$target" "$seeds" >"$scratch/log" 2>&1; then
        # What went wrong, with the program as Rust; without the fuzzer's own stack.
        grep -v -E '^#[0-9]+|^INFO|NEW_FUNC|^ +#[0-9]+ ' "$scratch/log" | tail -n 80 >&2
        echo "fuzz.sh: the program that failed, as Rust:" >&2
        for input in "fuzz/artifacts/$target"/*; do
            cargo +nightly fuzz fmt "$target" "$input" 2>/dev/null >&2 || true
        done
        fail "$target: FAILED; the input is in fuzz/artifacts/$target"
    fi
    rmdir --ignore-fail-on-non-empty "fuzz/artifacts/$target"
    echo "fuzz.sh: $target: $(sed -n 's/^Done \(.*\) runs in \(.*\) second(s)/\1 executions in \2 s/p' "$scratch/log"), $(find "$seeds" -type f | wc -l) seeds"
done
rmdir --ignore-fail-on-non-empty fuzz/artifacts 2>/dev/null || true

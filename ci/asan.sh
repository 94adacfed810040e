#!/usr/bin/env bash
# The tests of the layers under AddressSanitizer, with free items poisoned (feature `asan`), so that a use of
# one is found at once; and one that is wrong on purpose, which must be found, or the rest means nothing.
#
# It needs a nightly compiler; without one it says that it did NOT run.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $(uname -sm) != "Linux x86_64" ]]; then
    echo "asan.sh: NOT RUN: the sanitizer is told of items on Linux on x86-64 only"
    exit 0
fi
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "asan.sh: NOT RUN: there is no nightly compiler (rustup toolchain install nightly)"
    exit 0
fi

host=x86_64-unknown-linux-gnu
export RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=address"
# What is leaked on purpose (zones with items in use) is not what is looked for here; and tests of guard pages
# want to see the signal.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0:handle_segv=0:allocator_may_return_null=1}"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/asan
cargo=(cargo +nightly)

# (Left out: a footprint, which would be the sanitizer's, and exact figures of zones without checks.)
"${cargo[@]}" test --quiet --target $host -p uma-core -p uma-keg -p uma-cache -p uma-debug -p uma \
    --features uma/asan --lib --tests -- --skip a_million_items \
    --skip items_on_cpus_add_up --skip the_stream_says_what_the_program_did

# Says which misuse; the program must end with a report of it.
negative() {
    local misuse=$1 words=$2 output
    if output=$("${cargo[@]}" run --quiet --target $host -p uma --features asan --example asan "$misuse" 2>&1); then
        echo "asan.sh: $misuse was NOT found" >&2
        exit 1
    fi
    if [[ $output != *"AddressSanitizer: $words"* ]]; then
        echo "$output" >&2
        echo "asan.sh: $misuse did not end with a report of \"$words\"" >&2
        exit 1
    fi
    echo "asan.sh: $misuse is found"
}

"${cargo[@]}" run --quiet --target $host -p uma --features asan --example asan nothing
negative read-after-free use-after-poison
negative write-after-free use-after-poison
negative overflow use-after-poison
negative underflow use-after-poison

#!/usr/bin/env bash
# The tests of the layers under AddressSanitizer, with free items poisoned (feature `asan`), so that a use of
# one is found at once; and four that are wrong on purpose, which must be found, or the rest means nothing.
#
#   ci/asan.sh            without programs that look at forks, at figures, at the environment and at the clock
#   ci/asan.sh 1200       all of them but `footprint`; a program may take so many seconds, as it may without
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
# Optimised a little, with all assertions: the checks that the sanitizer adds to code that is not take most of the time.
# Reports name functions; for lines, CARGO_PROFILE_DEV_DEBUG=line-tables-only.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=${CARGO_PROFILE_DEV_DEBUG:-0}
cargo=(cargo +nightly)

# Each program of tests alone, so that one that hangs is ended and named; and all of them, in any case.
# Left out: footprints, which would be the sanitizer's (`footprint` has no other test); and exact figures of zones
# without checks, since the tier keeps what is freed back for a while; and a process that has no memory left, of which the
# sanitizer needs some itself.
skip=()
for test in a_million_items items_on_cpus_add_up the_stream_says_what_the_program_did zones_as_sources \
    large_items_are_whole_and_not_hoarded a_lowered_group_refuses_what_it_can_never_hold what_is_cached_is_bounded; do
    skip+=(--skip "$test")
done
patience=${1:-1200}
left_out=(footprint lock_without_memory)
(($# != 0)) || left_out+=(alarm environment events fork_first fork_hook fork_locks fork_shared fork_visit idle
    statistics upkeep warnings_off wordindex)
tests=()
for file in uma{-core,-keg,-cache,-debug,}/tests/{*.rs,*/main.rs}; do
    [[ $file == */main.rs ]] && file=${file%/main.rs}
    name=$(basename "$file" .rs)
    # (Models are not for this.)
    [[ ! -e $file || $name == loom_* || " ${left_out[*]} " == *" $name "* ]] || tests+=(--test "$name")
done
mapfile -t programs < <("${cargo[@]}" test --quiet --no-run --message-format=json --target $host -p uma-core \
    -p uma-keg -p uma-cache -p uma-debug -p uma --features uma/asan,uma/async,uma/tracing --lib "${tests[@]}" |
    sed -n 's|.*"manifest_path":"\([^"]*\)/Cargo.toml".*"executable":"\([^"]*\)".*|\1 \2|p')
if ((${#programs[@]} < 10)); then
    echo "asan.sh: the tests do not compile, or are not found" >&2
    exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()
for program in "${programs[@]}"; do
    read -r home file <<<"$program"
    start=$SECONDS
    if ! (cd "$home" && exec timeout --kill-after=10 "$patience" "$file" --quiet "${skip[@]}") >"$log" 2>&1; then
        grep -A 8 -E 'panicked at|AddressSanitizer|FAILED|running for over' "$log" >&2 || tail -n 50 "$log" >&2
        failed+=("${file##*/}")
    elif grep -q '^running 0 tests' "$log"; then
        echo "asan.sh: ${file##*/} has no tests: a feature is missing, or all are left out" >&2
        failed+=("${file##*/}")
    fi
    ((SECONDS - start < 20)) || echo "asan.sh: ${file##*/} took $((SECONDS - start)) s"
done
if ((${#failed[@]} != 0)); then
    echo "asan.sh: FAILED, or not done in $patience s: ${failed[*]}" >&2
    exit 1
fi
echo "asan.sh: ${#programs[@]} programs of tests passed"

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

#!/usr/bin/env bash
# ThreadSanitizer over a program that uses zones in many ways from many threads (5 seconds, or as many as
# given), and over a control with a planted race, which it must find. Slots are reached by locks, since the
# sanitizer cannot look into restartable sequences; those have a torture test of their own.
# It needs a nightly compiler; without one it says that it did NOT run.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "tsan.sh: NOT RUN: there is no nightly compiler (rustup toolchain install nightly)"
    exit 0
fi

fail() {
    echo "tsan.sh: $*" >&2
    exit 1
}

target=${CARGO_TARGET_DIR:-target}/tsan
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
# The standard library as it comes is not instrumented: the compiler has to be told that this is meant.
RUSTFLAGS="${RUSTFLAGS:-} -Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
    cargo +nightly build --quiet --release --manifest-path ci/tsan/Cargo.toml --target "$host" --target-dir "$target"
program=$target/$host/release/uma-tsan

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export UMA_PERCPU=locks TSAN_OPTIONS="halt_on_error=0 exitcode=66"

if "$program" race >"$log" 2>&1; then
    fail "the planted race was not found"
fi
grep -q "WARNING: ThreadSanitizer: data race" "$log" || fail "the control failed otherwise: $(tail -n 5 "$log")"
echo "tsan.sh: the planted race was found"

if ! "$program" "${1:-5}" >"$log" 2>&1; then
    cat "$log" >&2
    fail "see above"
fi
echo "tsan.sh: no race in $(tail -n 1 "$log")"

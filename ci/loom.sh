#!/usr/bin/env bash
# The concurrent protocols of the limit and the cache, model checked: loom goes through every order of
# events in which threads are stopped against their will a few times (LOOM_MAX_PREEMPTIONS says how
# often, for all models), also those that weak memory allows; shuttle goes through many random ones
# (SHUTTLE_ITERATIONS, for each model), the same each time unless SHUTTLE_RANDOM_SEED says otherwise.
# Prints each model, how many histories it had, and how long they took.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
export SHUTTLE_RANDOM_SEED=${SHUTTLE_RANDOM_SEED:-1}
# No lines: a failure is told by its model and its words, and most of the time would go into them.
export CARGO_PROFILE_RELEASE_DEBUG=${CARGO_PROFILE_RELEASE_DEBUG:-0}

models() {
    local checker=$1
    echo "== $checker"
    RUSTFLAGS="${RUSTFLAGS:-} --cfg $checker" RUST_BACKTRACE=${RUST_BACKTRACE:-0} \
        cargo test --quiet --release --target-dir "$target/$checker" -p uma-core -p uma-cache \
        --test 'loom_*' --no-fail-fast -- --nocapture --format pretty
}

models loom
models shuttle

#!/usr/bin/env bash
# The tests: once as everybody runs them, with debug assertions; and once optimised and with every feature,
# because races and misjudged lifetimes show only there. Programs at random are the same each time here, unless
# PROPTEST_RNG_SEED says otherwise; a plain `cargo test` tries others.
#
#   ci/test.sh debug       all tests of all crates, and the examples of the documentation
#   ci/test.sh release     the tests of the engine, optimised, and its torture test. Left out: the test kit, whose
#                          programs are optimised in debug, too; the faces of other systems, which ci/valgrind.sh
#                          and ci/install.sh use optimised; the benchmarks; documentation
#   ci/test.sh             debug, and optimised everything
set -euo pipefail
cd "$(dirname "$0")/.."

export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}

case ${1:-} in
    debug)
        cargo test --workspace
        ;;
    release)
        # Most of the time goes into the compiler: without debug information, which no test reads here, and without
        # looking at each crate's parts a second time.
        export CARGO_PROFILE_RELEASE_DEBUG=${CARGO_PROFILE_RELEASE_DEBUG:-0}
        export CARGO_PROFILE_RELEASE_LTO=${CARGO_PROFILE_RELEASE_LTO:-off}
        features=$(ci/features-of | tr , '\n' | grep -v -e '^uma-kmem-compat/' -e '^uma-testkit/' | paste -sd,)
        cargo test --workspace --exclude uma-kmem-compat --exclude uma-testkit --exclude uma-bench --release \
            --features "$features" --lib --bins --tests
        cargo run --release -p uma-testkit --bin torture -- rseq 3 || {
            status=$?
            ((status == 3)) || exit $status
            echo "test.sh: torture was NOT RUN: this machine has no restartable sequences"
        }
        ;;
    '')
        cargo test --workspace
        cargo test --workspace --release --features "$(ci/features-of)"
        ;;
    *)
        echo "test.sh: not a pass: $1" >&2
        exit 2
        ;;
esac

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

# cargo test, by these words. What tests that pass have printed is left out, but not that one could not do its work
# here, which the harness would keep to itself.
tests() {
    # It prints "successes:" twice: before what they have printed, and before their names.
    local line test='' part=0
    cargo test "$@" -- --show-output | while IFS= read -r line; do
        case $line in
            successes:) part=$((part + 1)) ;;
            failures: | 'test result: '*) ((part != 2)) || part=0 ;;
            '---- '*' stdout ----') test=${line#---- } test=${test% stdout ----} ;;
        esac
        if ((part == 0)); then
            printf '%s\n' "$line"
        elif [[ $part$line =~ ^1.*(NOT (RUN|TESTED): .*) ]]; then
            printf 'test.sh: %s: %s\n' "$test" "${BASH_REMATCH[1]}"
        fi
    done
}

case ${1:-} in
    debug)
        tests --workspace
        ;;
    release)
        # Most of the time goes into the compiler: without debug information, which no test reads here, and without
        # looking at each crate's parts a second time.
        export CARGO_PROFILE_RELEASE_DEBUG=${CARGO_PROFILE_RELEASE_DEBUG:-0}
        export CARGO_PROFILE_RELEASE_LTO=${CARGO_PROFILE_RELEASE_LTO:-off}
        features=$(ci/features-of | tr , '\n' | grep -v -e '^uma-kmem-compat/' -e '^uma-testkit/' | paste -sd,)
        tests --workspace --exclude uma-kmem-compat --exclude uma-testkit --exclude uma-bench --release \
            --features "$features" --lib --bins --tests
        cargo run --release -p uma-testkit --bin torture -- rseq 3 || {
            status=$?
            ((status == 3)) || exit $status
            echo "test.sh: torture was NOT RUN: this machine has no restartable sequences"
        }
        ;;
    '')
        tests --workspace
        tests --workspace --release --features "$(ci/features-of)"
        ;;
    *)
        echo "test.sh: not a pass: $1" >&2
        exit 2
        ;;
esac

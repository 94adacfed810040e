#!/usr/bin/env bash
# The tests (`ci/test.sh debug`), and which lines of the engine they run: a line for each crate, and each unsafe
# block that no test ran. It fails if a test does, or if a crate is below 90 %.
#
#   ci/coverage.sh            as above
#   ci/coverage.sh strict     with every feature; it also fails if an unsafe block is not run and not explained in
#                             ci/unsafe-not-run.txt. Without, it is named: some run with a feature only, and some
#                             only if two threads meet, which no test can promise
#
# What counts lines is rustup's component llvm-tools, which is installed if that is possible; else the tests run
# without, and the script says that coverage was NOT measured.
set -euo pipefail
cd "$(dirname "$0")/.."

crates=(uma-core uma-keg uma-cache uma-vmem uma-debug uma-backend-mmap uma-backend-static uma uma-malloc uma-kmem-compat)
how=${1:-lenient}
tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
[[ -x $tools/llvm-profdata ]] || rustup component add llvm-tools >/dev/null 2>&1 || true
if [[ ! -x $tools/llvm-profdata ]]; then
    ci/test.sh debug
    echo "coverage.sh: the tests passed; coverage was NOT RUN: there is no llvm-tools (rustup component add llvm-tools)"
    exit 0
fi

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/coverage
rm -rf "$target/profiles"
mkdir -p "$target/profiles"
(
    export CARGO_TARGET_DIR=$target
    # Counters live in the file itself (%c), so that processes which abort, as some tests have them do, count too.
    export LLVM_PROFILE_FILE="$target/profiles/%m-%p%c.profraw"
    export RUSTFLAGS="${RUSTFLAGS:-} -Cinstrument-coverage -Cllvm-args=-runtime-counter-relocation"
    # The counters have a table of lines of their own.
    export CARGO_PROFILE_DEV_DEBUG=${CARGO_PROFILE_DEV_DEBUG:-0}
    if [[ $how == strict ]]; then
        # (Left out: names of functions, which are not all right in instrumented programs.)
        PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1} cargo test --workspace --features "$(ci/features-of)" --tests -- \
            --skip reports_name_functions
    else
        ci/test.sh debug
    fi
)

"$tools/llvm-profdata" merge --sparse --failure-mode=all -o "$target/all.profdata" "$target/profiles"/*.profraw
rm -rf "$target/profiles"
# Each program on its own, since of a function that is in several llvm-cov would look at one only. Programs without
# any code of ours have nothing to say.
find "$target/debug" "$target/debug/deps" -maxdepth 1 -type f -executable -not -name '*.so' -print0 |
    xargs -0 -n 1 "$tools/llvm-cov" export --format=lcov --instr-profile="$target/all.profdata" \
        --ignore-filename-regex='/(registry|rustc|tests|examples|benches)/' >"$target/lcov" 2>"$target/log" || true
python3 ci/coverage.py "$target/lcov" "$how" "${crates[@]}"

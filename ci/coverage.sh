#!/usr/bin/env bash
# Which lines of the engine the tests run: a line for each crate, and each unsafe block that no test ran. It
# fails if a crate is below 90 %. With `strict` it also fails if an unsafe block is not run and not explained in
# ci/unsafe-not-run.txt; without, it is named: some run only if two threads meet, which no test can promise.
# It needs rustup's component llvm-tools, and installs it if that is possible; else it says that it did NOT run.
set -euo pipefail
cd "$(dirname "$0")/.."

crates=(uma-core uma-keg uma-cache uma-vmem uma-debug uma-backend-mmap uma-backend-static uma uma-malloc uma-kmem-compat)
tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
[[ -x $tools/llvm-profdata ]] || rustup component add llvm-tools >/dev/null 2>&1 || true
if [[ ! -x $tools/llvm-profdata ]]; then
    echo "coverage.sh: NOT RUN: there is no llvm-tools (rustup component add llvm-tools)"
    exit 0
fi

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/coverage
rm -rf "$target/profiles"
mkdir -p "$target/profiles"
# Counters live in the file itself (%c), so that processes which abort, as some tests have them do, count too.
export LLVM_PROFILE_FILE="$target/profiles/%m-%p%c.profraw"
export RUSTFLAGS="${RUSTFLAGS:-} -Cinstrument-coverage -Cllvm-args=-runtime-counter-relocation"
# Programs at random are the same each time, as in ci/test.sh.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}
features=$(ci/features-of)
packages=()
for crate in "${crates[@]}"; do
    [[ -d $crate ]] && packages+=(-p "$crate")
done
run() {
    cargo test --quiet --target-dir "$target" "${packages[@]}" -p uma-testkit --features "$features" --tests "$@"
}
# (Left out: a footprint, which runs what others run, a million times; and names of functions, which are not
# all right in instrumented programs.)
if ! run --no-fail-fast -- --skip a_million_items --skip reports_name_functions >"$target/log" 2>&1; then
    grep -A 5 -E 'panicked at|^error|^test .* FAILED' "$target/log" >&2 || tail -n 50 "$target/log" >&2
    echo "coverage.sh: a test failed" >&2
    exit 1
fi
mapfile -t objects < <(run --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | sort -u)
# Programs that tests start.
mapfile -t -O "${#objects[@]}" objects < <(find "$target/debug" -maxdepth 1 -type f -executable -not -name '*.so')

"$tools/llvm-profdata" merge --sparse --failure-mode=all -o "$target/all.profdata" "$target/profiles"/*.profraw
"$tools/llvm-cov" export --format=lcov --instr-profile="$target/all.profdata" \
    --ignore-filename-regex='/(registry|rustc|tests|examples|benches)/' "${objects[@]/#/--object=}" >"$target/lcov" 2>"$target/log"
rm -rf "$target/profiles"
python3 ci/coverage.py "$target/lcov" "${1:-lenient}" "${crates[@]}"

#!/usr/bin/env bash
# The tests: once as everybody runs them, with debug assertions; once optimised and with every
# feature, because races and misjudged lifetimes show only there. Programs at random are the same each time here, unless
# PROPTEST_RNG_SEED says otherwise; a plain `cargo test` tries others.
set -euo pipefail
cd "$(dirname "$0")/.."

all=$(ci/features-of)
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}

cargo test --workspace
cargo test --workspace --release --features "$all"

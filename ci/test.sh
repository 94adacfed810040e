#!/usr/bin/env bash
# The tests: once as everybody runs them, with debug assertions; once optimised and with every
# feature, because races and misjudged lifetimes show only there.
set -euo pipefail
cd "$(dirname "$0")/.."

all=$(ci/features-of)

cargo test --workspace
cargo test --workspace --release --features "$all"

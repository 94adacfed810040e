#!/usr/bin/env bash
# No warning of the compiler or of clippy with all features; with `all`, with default features, too (of the
# compiler's own warnings there, ci/features.sh sees to them). The lints are chosen in Cargo.toml; they become errors
# only here.
set -euo pipefail
cd "$(dirname "$0")/.."

all=$(ci/features-of)

if [[ ${1:-} == all ]]; then
    cargo clippy --workspace --all-targets -- -D warnings
fi
cargo clippy --workspace --all-targets --features "$all" -- -D warnings
cargo clippy --manifest-path ci/freestanding/Cargo.toml \
    --target-dir "${CARGO_TARGET_DIR:-target}/freestanding" -- -D warnings

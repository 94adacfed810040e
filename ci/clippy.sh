#!/usr/bin/env bash
# No warning of the compiler or of clippy, with default features and with all of them. The lints are
# chosen in Cargo.toml; they become errors only here.
set -euo pipefail
cd "$(dirname "$0")/.."

all=$(ci/features-of)

cargo clippy --workspace --all-targets -- -D warnings
cargo clippy --workspace --all-targets --features "$all" -- -D warnings
cargo clippy --manifest-path ci/freestanding/Cargo.toml \
    --target-dir "${CARGO_TARGET_DIR:-target}/freestanding" -- -D warnings

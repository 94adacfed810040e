#!/usr/bin/env bash
# The documentation builds without a warning: no broken link, nothing malformed.
set -euo pipefail
cd "$(dirname "$0")/.."

all=$(ci/features-of)

RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --features "$all"

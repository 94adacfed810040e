#!/usr/bin/env bash
# Features only add: each published crate compiles without a warning with no features, with the
# default ones, with each alone, and with all together.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="${RUSTFLAGS:-} -D warnings"

check() {
    echo "  cargo check $*"
    cargo check --quiet "$@"
}

for crate in uma*/; do
    crate=${crate%/}
    grep -q '^publish = false' "$crate/Cargo.toml" && continue
    mapfile -t features < <(ci/features-of "$crate")

    check -p "$crate" --no-default-features
    check -p "$crate"
    for feature in "${features[@]}"; do
        check -p "$crate" --no-default-features --features "$feature"
    done
    if ((${#features[@]} > 1)); then
        check -p "$crate" --features "$(IFS=,; echo "${features[*]}")"
    fi
done

#!/usr/bin/env bash
# The instructions of a hit are those in docs/fast-path.txt: no call, no atomic operation, nothing new that
# nobody has looked at. With --bless the file is written anew, for review with the change that caused it.
# The exact instructions depend on the compiler, so they are compared with the one named in the file only.
set -euo pipefail
cd "$(dirname "$0")/.."

golden=docs/fast-path.txt
target=${CARGO_TARGET_DIR:-target}
compiler=$(rustc --version)

if [[ $(uname -sm) != "Linux x86_64" ]]; then
    echo "fast-path.sh: NOT CHECKED: the hit path in $golden is for Linux on x86-64"
    exit 0
fi

cargo build --quiet --release -p uma --example fast_path
now=$(mktemp)
trap 'rm -f "$now"' EXIT
{
    echo "compiler: $compiler"
    python3 ci/fast-path.py "$target/release/examples/fast_path" \
        fast_path_alloc fast_path_free fast_path_pair
} >"$now"

for what in calls atomic; do
    ! grep -E "^  $what +[1-9]" "$now" || { echo "fast-path.sh: there are $what on a hit" >&2; exit 1; }
done

if [[ ${1:-} == --bless ]]; then
    cp "$now" "$golden"
    echo "fast-path.sh: wrote $golden"
elif [[ $(head -n 1 "$golden") != "compiler: $compiler" ]]; then
    echo "fast-path.sh: NOT COMPARED: $golden is of another compiler ($compiler here); no calls, no atomics"
elif ! diff -u "$golden" "$now"; then
    echo "fast-path.sh: the hit path has changed; if that is right, run ci/fast-path.sh --bless" >&2
    exit 1
else
    echo "fast-path.sh: the hit path is as in $golden"
fi

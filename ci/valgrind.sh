#!/usr/bin/env bash
# The C programs of uma-kmem-compat with the optimised library, under valgrind: no access to memory that is not
# theirs, nothing lost.
# Without valgrind it says that it did NOT run.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! valgrind --version >/dev/null 2>&1; then
    echo "valgrind.sh: NOT RUN: there is no valgrind"
    exit 0
fi
UMA_TEST_VALGRIND=1 cargo test --quiet --release -p uma-kmem-compat --test c programs -- --nocapture

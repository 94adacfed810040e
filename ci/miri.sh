#!/usr/bin/env bash
# Tests under Miri, with strict provenance: no memory is read that was not written, no pointer leads out of what
# it was made for, no reference is used after another was. It is slow, so these are the small tests of the layers
# that hand out memory; more by name: ci/miri.sh -p uma-keg --test misuse
#
# Not part of .ci/run. It needs a nightly compiler with Miri; without it says that it did NOT run. Tests in which
# threads meet at a lock are left out: parking_lot makes pointers of integers there.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "miri.sh: NOT RUN: there is no Miri (rustup component add miri rust-src --toolchain nightly)"
    exit 0
fi

export MIRIFLAGS="${MIRIFLAGS:--Zmiri-strict-provenance -Zmiri-symbolic-alignment-check}"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/miri
miri=(cargo +nightly miri test --quiet)

if (($# > 0)); then
    exec "${miri[@]}" "$@"
fi
"${miri[@]}" -p uma-core --lib --test batches --test forwarding
"${miri[@]}" -p uma-core --doc
"${miri[@]}" -p uma-cache --lib
"${miri[@]}" -p uma-cache --test small_cache -- --exact a_drain_goes_on_after_a_panic \
    a_panic_while_it_is_dropped_leaves_nothing discarded_items_are_taken_apart
"${miri[@]}" -p uma-keg --lib -- slab::
"${miri[@]}" -p uma-vmem --test import -- --exact a_parent_is_called_without_the_lock_and_may_unwind \
    a_span_that_the_parent_does_not_take_back constraints_and_imports what_leaks_stays_allocated_in_the_parent
"${miri[@]}" -p uma-vmem --test quantum -- --exact a_batch_with_an_item_that_goes_back_twice \
    an_item_that_goes_back_twice faster_than_the_arena

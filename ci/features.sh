#!/usr/bin/env bash
# Features only add: each published crate compiles without a warning with no features, with the
# default ones, with each alone, and with all together; or with every set of them.
#
#   ci/features.sh                         as above, for all crates
#   ci/features.sh powerset [crate...]     every set, which takes long: 2 to the number of features
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="${RUSTFLAGS:-} -D warnings"

check() {
    echo "  cargo check $*"
    cargo check --quiet "$@"
}

powerset() {
    local crate=$1 set at
    shift
    for ((set = 0; set < 1 << $#; set++)); do
        local chosen=()
        for ((at = 0; at < $#; at++)); do
            ((set >> at & 1)) && chosen+=("${@:at+1:1}")
        done
        check -p "$crate" --no-default-features --features "$(IFS=,; echo "${chosen[*]}")"
    done
}

sets=${1:-}
case $sets in
'') ;;
powerset) shift ;;
*) echo "features.sh: not a kind of sets: $sets" >&2; exit 2 ;;
esac

for crate in uma*/; do
    crate=${crate%/}
    grep -q '^publish = false' "$crate/Cargo.toml" && continue
    (($# == 0)) || [[ " $* " == *" $crate "* ]] || continue
    mapfile -t features < <(ci/features-of "$crate")

    if [[ $sets == powerset ]]; then
        powerset "$crate" "${features[@]}"
        continue
    fi
    check -p "$crate" --no-default-features
    check -p "$crate"
    for feature in "${features[@]}"; do
        check -p "$crate" --no-default-features --features "$feature"
    done
    if ((${#features[@]} > 1)); then
        check -p "$crate" --features "$(IFS=,; echo "${features[*]}")"
    fi
done

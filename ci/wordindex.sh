#!/usr/bin/env bash
# The example `wordindex` on at least 50 MB of text: its counts are those of tr, sort and uniq, and it
# gives its memory back.
set -euo pipefail
cd "$(dirname "$0")/.."

size=60000000
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Whatever text this machine has, and in any case these sources; repeated until it is enough.
places=(.)
for place in "${CARGO_HOME:-$HOME/.cargo}/registry/src" /usr/include /usr/share/doc; do
    if [[ -d $place ]]; then places+=("$place"); fi
done
{ find "${places[@]}" -name target -prune -o -name .git -prune -o -type f -readable -print0 \
    | xargs -0 cat 2>"$work/ignored" || true; } | head -c "$((size / 2))" >"$work/base"
[[ -s $work/base ]]
# Every file ends in an end of line, so that `cat` joins no words.
echo >>"$work/base"
have=0
while ((have < size)); do
    # The same text as one file, and as many small ones, which make many postings.
    mkdir -p "$work/text/$have"
    cp "$work/base" "$work/text/$have/whole"
    split -l 250 -a 6 "$work/base" "$work/text/$have/part-"
    have=$((have + 2 * $(stat -c %s "$work/base")))
done
rm "$work/base"

echo "$have bytes of text"
find "$work/text" -type f -exec cat {} + | LC_ALL=C tr -cs 'A-Za-z' '\n' | LC_ALL=C tr 'A-Z' 'a-z' \
    | sed '/^$/d' | LC_ALL=C sort | uniq -c | sed 's/^ *//' >"$work/expected"

cargo run --quiet --release -p uma --example wordindex -- \
    --threads 2 --top 5 --counts "$work/counts" "$work/text"

if ! cmp "$work/expected" "$work/counts"; then
    diff "$work/expected" "$work/counts" | head -20 || true
    echo "wordindex: FAILED: the counts differ"
    exit 1
fi
echo "wordindex: ok: $(wc -l <"$work/counts") words, counted as sort and uniq count them"

#!/usr/bin/env python3
"""Reads what lines ran (lcov), and says how much of each crate and which unsafe blocks did not."""

import collections
import pathlib
import re
import sys

LEAST = 90.0
EXPLAINED = pathlib.Path("ci/unsafe-not-run.txt")


def lines_run(report):
    """{path: {line: times}} of the files of this repository."""
    here = str(pathlib.Path.cwd()) + "/"
    run, times = {}, None
    for line in open(report, encoding="utf-8"):
        if line.startswith("SF:"):
            path = line[3:].strip()
            times = run.setdefault(path.removeprefix(here), {}) if path.startswith(here) else None
        elif line.startswith("DA:") and times is not None:
            at, count = line[3:].split(",")[:2]
            times[int(at)] = max(times.get(int(at), 0), int(count))
    return run


def end_of_block(lines, at, column):
    """The line on which the brace closes that opens at or after the column."""
    depth, opened = 0, False
    for number in range(at, len(lines)):
        text = re.sub(r"//.*|'[{}]'|\"[^\"]*\"", "", lines[number])
        for char in text[column if number == at else 0 :]:
            if char == "{":
                depth, opened = depth + 1, True
            elif char == "}":
                depth -= 1
                if opened and depth == 0:
                    return number
    return at


def not_for_tests(lines):
    """Numbers of the lines before the first module of unit tests."""
    for number, text in enumerate(lines):
        if re.match(r"\s*#\[cfg\((all\()?test", text):
            return number
    return len(lines)


def unsafe_blocks(path, times):
    """(first line, whether it ran, key) of each unsafe block that has code. The key is the text of the line; where
    that stands in the file already, with a number: ` #2` for the second."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    before = collections.Counter()
    for number, text in enumerate(lines[: not_for_tests(lines)]):
        code = text.split("//")[0]
        for found in re.finditer(r"\bunsafe \{", code):
            last = end_of_block(lines, number, found.start())
            seen = [times[at] for at in range(number + 1, last + 2) if at in times]
            if seen:
                key = text.strip()
                before[key] += 1
                yield number + 1, any(seen), key if before[key] == 1 else f"{key} #{before[key]}"


def explained():
    """{(path, key)} of blocks that need not run, each with its reason in the file."""
    known = {}
    if EXPLAINED.exists():
        for line in EXPLAINED.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                path, text, reason = (part.strip() for part in line.split(" | ", 2))
                known[path, text] = reason
    return known


def main():
    strict, crates = sys.argv[2] == "strict", sys.argv[3:]
    run, known = lines_run(sys.argv[1]), explained()
    failed, used = False, set()
    print(f"{'crate':<22} {'lines':>7} {'run':>7} {'%':>6}   unsafe blocks: run, explained, not run")
    for crate in crates:
        files = {path: times for path, times in run.items() if path.startswith(f"{crate}/src/")}
        if not files:
            continue
        total = hit = 0
        counts, missing = collections.Counter(), []
        for path, times in sorted(files.items()):
            end = not_for_tests(pathlib.Path(path).read_text(encoding="utf-8").splitlines())
            own = [count for at, count in times.items() if at <= end]
            total, hit = total + len(own), hit + sum(1 for count in own if count)
            for at, ran, text in unsafe_blocks(path, times):
                if ran:
                    counts["run"] += 1
                elif (path, text) in known:
                    counts["explained"] += 1
                    used.add((path, text))
                else:
                    counts["not run"] += 1
                    missing.append(f"    {path}:{at}: {text}")
        share = 100.0 * hit / total if total else 100.0
        sums = ", ".join(str(counts[key]) for key in ("run", "explained", "not run"))
        low = share < LEAST
        print(f"{crate:<22} {total:>7} {hit:>7} {share:>6.1f}   {sums}{'   TOO LITTLE' if low else ''}")
        print("\n".join(missing), end="\n" if missing else "")
        failed |= low or (strict and bool(missing))
    for path, text in sorted(set(known) - used):
        print(f"{EXPLAINED}: runs after all, or is gone: {path} | {text}")
    sys.exit(1 if failed else 0)


main()

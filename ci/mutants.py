#!/usr/bin/env python3
"""Puts the faults of ci/mutants.toml into a copy of the engine, one at a time, and checks that each is found.

    ci/mutants.py                  all of them (it takes a while)
    ci/mutants.py WORD...          those whose description or file contains one of the words
    ci/mutants.py --table FILE     also writes the table of docs/proof.md

A fault is found if a command of its lanes fails or does not come to an end in time. One that does not compile is
an error of the list. A fault that nothing finds is a failure. All lanes are run without a fault first: they must pass.

What is built goes to mutants/ in CARGO_TARGET_DIR (or target), and the copy to a directory in TMPDIR; several runs at a time
need their own of each.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

SECONDS = 300


def run(command, where, environment):
    """(what came of it, seconds)"""
    begin = time.monotonic()
    process = subprocess.Popen(
        ["bash", "-c", command],
        cwd=where,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=SECONDS)
        outcome = "passes" if process.returncode == 0 else "fails"
        if outcome == "fails" and "could not compile" in said:
            outcome = "does not compile"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        said, _ = process.communicate()
        # One test may fail, and another wait for ever.
        outcome = "fails" if "--- FAILED" in said else "hangs"
    return outcome, said, time.monotonic() - begin


def why(said):
    """The first line that tells what was found."""
    for mark in ("panicked at", "data race", "FAILED", "SIG", "fault", "error"):
        for line in said.splitlines():
            if mark in line and "could not compile" not in line:
                return line.strip()
    return ""


def main():
    words = sys.argv[1:]
    table = None
    if words[:1] in (["--help"], ["-h"]):
        print(__doc__.strip())
        return
    if words[:1] == ["--table"]:
        table, words = pathlib.Path(words[1]).resolve(), words[2:]
    os.chdir(pathlib.Path(__file__).resolve().parent.parent)
    listed = tomllib.loads(pathlib.Path("ci/mutants.toml").read_text(encoding="utf-8"))
    mutants = [
        mutant
        for mutant in listed["mutant"]
        if not words or any(word in mutant["what"] + mutant["file"] for word in words)
    ]
    if not mutants:
        sys.exit(f"mutants.py: no fault's description or file contains any of {words}")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")).resolve() / "mutants"
    environment = dict(os.environ, CARGO_TARGET_DIR=str(target), RUST_BACKTRACE="0", CARGO_TERM_COLOR="never")
    rows, bad = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        copy = pathlib.Path(scratch) / "uma"
        files = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
        for name in filter(None, files.split("\0")):
            if pathlib.Path(name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                # With the time of now: what an earlier run built from a faulty copy must not pass for fresh.
                shutil.copy(name, copy / name)
        # What fails without a fault finds none.
        for lane in sorted({lane for mutant in mutants for lane in mutant["lane"]}):
            outcome, said, _ = run(listed["lanes"][lane], copy, environment)
            if outcome != "passes":
                sys.exit(f"mutants.py: without any fault, {lane} {outcome}: {why(said)}\n{said[-2000:]}")
        for mutant in mutants:
            path = copy / mutant["file"]
            whole = path.read_text(encoding="utf-8")
            if whole.count(mutant["from"]) != 1:
                print(f"ERROR     {mutant['what']}: `from` occurs {whole.count(mutant['from'])} times", flush=True)
                bad += 1
                continue
            path.write_text(whole.replace(mutant["from"], mutant["to"]), encoding="utf-8")
            found = None
            for lane in mutant["lane"]:
                outcome, said, seconds = run(listed["lanes"][lane], copy, environment)
                if outcome != "passes":
                    found = (lane, outcome, why(said))
                    break
            path.write_text(whole, encoding="utf-8")
            if found is None:
                print(f"NOT FOUND {mutant['what']} ({mutant['file']})", flush=True)
                bad += 1
            elif found[1] == "does not compile":
                print(f"ERROR     {mutant['what']}: does not compile", flush=True)
                bad += 1
            else:
                print(f"found     {mutant['what']}: {found[0]} {found[1]} ({seconds:.0f} s): {found[2]}", flush=True)
                rows.append(f"| {mutant['what']} | `{mutant['file']}` | {found[0]} {found[1]} |")
    print(f"{len(mutants) - bad} of {len(mutants)} faults found")
    if table:
        head = "| fault | where | found by |\n|---|---|---|\n"
        table.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
    sys.exit(1 if bad else 0)


main()

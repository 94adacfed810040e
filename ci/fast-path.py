#!/usr/bin/env python3
"""Follows the hit path of a function in a disassembly and counts its instructions.

A hit never calls anything, so: of all ways from a function's entry to a `ret`, leave out those through a
block that calls, and of the rest take the ones through a restartable sequence (a store to %fs:8) if there
are any, else all. Prints the shortest such way and what is on it.

usage: fast-path.py PROGRAM FUNCTION...
"""

import re
import subprocess
import sys

LINE = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
TARGET = re.compile(r"^([0-9a-f]+) <")


def disassemble(program):
    """The instructions of each function: lists of (address, mnemonic, operands)."""
    text = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", "-M", "att", program],
        check=True, capture_output=True, text=True).stdout
    functions, current = {}, None
    for line in text.splitlines():
        head = re.match(r"^[0-9a-f]+ <(.+)>:$", line)
        if head:
            current = functions.setdefault(head.group(1), [])
        elif current is not None and (found := LINE.match(line)):
            mnemonic, operands = found.group(2), found.group(3)
            if mnemonic in ("lock", "rep", "data16", "notrack"):
                mnemonic, operands = f"{mnemonic} {operands.split()[0]}", " ".join(operands.split()[1:])
            current.append((int(found.group(1), 16), mnemonic, operands.split("#")[0].strip()))
    return functions


def ways(code):
    """All acyclic ways from the entry to a `ret` that call nothing."""
    index = {address: at for at, (address, _, _) in enumerate(code)}
    found, stack = [], [(0, [])]
    while stack:
        at, way = stack.pop()
        while at < len(code):
            address, mnemonic, operands = code[at]
            if mnemonic.startswith("call") or mnemonic in ("ud2", "int3") or at in way:
                break
            way = way + [at]
            if mnemonic.startswith("ret"):
                found.append(way)
                break
            target = TARGET.match(operands) if mnemonic.startswith("j") else None
            to = index.get(int(target.group(1), 16)) if target else None
            if mnemonic.startswith("jmp"):
                if to is None:
                    break  # out of the function: a tail call
                at = to
                continue
            if to is not None:
                stack.append((to, way))
            at += 1
    return found


def describe(code, way):
    steps = [code[at] for at in way]
    memory = [(m, o) for _, m, o in steps if "(" in o or "%fs:" in o]
    memory = [(m, o) for m, o in memory if not m.startswith(("lea", "nop"))]
    writes = [m for m, o in memory if re.search(r"(\)|%fs:\S+)$", o) and not m.startswith(("cmp", "test"))]
    return {
        "instructions": len(steps),
        "branches": sum(m.startswith("j") for _, m, _ in steps),
        "stack pushes and pops": sum(m.startswith(("push", "pop")) for _, m, _ in steps),
        "loads": len(memory) - len(writes),
        "stores": len(writes),
        "atomic": sum(m.startswith("lock ") or (m.startswith("xchg") and "(" in o) for _, m, o in steps),
        "calls": sum(m.startswith("call") for _, m, _ in steps),
    }


def main():
    program, names = sys.argv[1], sys.argv[2:]
    functions = disassemble(program)
    for name in names:
        code = functions.get(name)
        if not code:
            sys.exit(f"fast-path: no function {name} in {program}")
        found = ways(code)
        through = [w for w in found
                   if any(code[at][1].startswith("mov") and code[at][2].split(",")[-1].startswith("%fs:0x8")
                          for at in w)]
        # A way that leaves a sequence by its miss branch has no store to a bucket: keep those that store
        # most, and of these the shortest.
        pool = through or found
        if not pool:
            sys.exit(f"fast-path: {name} has no way that calls nothing")
        best = max(describe(code, w)["stores"] for w in pool)
        way = min((w for w in pool if describe(code, w)["stores"] == best), key=len)
        print(f"{name}:")
        for what, count in describe(code, way).items():
            print(f"  {what:<22} {count}")
        for at in way:
            _, mnemonic, operands = code[at]
            operands = re.sub(r"\b[0-9a-f]+ <[^>]*>", "<label>", operands)
            operands = re.sub(r"0x[0-9a-f]+\(%rip\)", "<static>", operands)
            print(f"    {mnemonic:<8} {operands}".rstrip())


main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Breaks one branch of the forwarding program at a time and sees whether the packet tests notice.

usage: sudo tests/bpf/mutate.py [--build DIR] [--only TEXT] [--every N] [--list]

Every mutant is one change in one line of bpf/: a condition made always false or always true, a
comparison shifted, a constant changed. Its object is built aside and given to the built tests by
NLB_BPF_OBJECT. A mutant is killed when a test fails or the kernel refuses the program; one whose
object is the same as the original's, byte for byte, is equivalent. Survivors are listed: each is
either a test that is missing or a branch that changes nothing. Not part of `make check`: a mutant
takes seconds.
"""
import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCES = ["nlb.bpf.c", "headers.h", "vip.h", "filter.h", "ring.h", "flow.h", "guard.h", "fragment.h",
           "icmp.h", "answer.h", "encap.h", "link.h", "parse.h"]
TESTS = ["malformed", "encap", "flow", "filter", "fragment", "icmp", "fuzz"]
FLAGS = ["-target", "bpf", "-mcpu=v3", "-std=gnu17", "-O2", "-g", "-w", "-I.", "-idirafter",
         "/usr/include/" + os.uname().machine + "-linux-gnu"]

# What is said to a condition, and to an operator.
OPERATORS = [(" == ", " != "), (" != ", " == "), (" < ", " <= "), (" > ", " >= "), (" <= ", " < "),
             (" >= ", " > "), (" && ", " || "), (" || ", " && "), (" + ", " - "), (" += ", " -= ")]


def condition_of(line):
    """Start and end of what is between the parentheses of an `if` that ends in this line."""
    found = re.match(r"\s*(?:\} else )?if \(", line)
    if not found or line.count("(") != line.count(")"):
        return None
    begin = found.end()
    depth, at = 1, begin
    while depth and at < len(line):
        depth += {"(": 1, ")": -1}.get(line[at], 0)
        at += 1
    return begin, at - 1


def mutants_of(lines):
    """Line numbers and what becomes of these lines."""
    in_comment = False
    for number, line in enumerate(lines):
        code = line.strip()
        in_comment = in_comment or code.startswith("/*")
        if in_comment or not line.startswith("\t") or code.startswith(("#", "_Static", "struct", "asm")):
            in_comment = in_comment and "*/" not in code
            continue
        condition = condition_of(line)
        if condition:
            begin, end = condition
            for value in "0", "1":
                yield number, line[:begin] + value + line[end:]
        for before, after in OPERATORS:
            at = line.find(before)
            while at >= 0:
                yield number, line[:at] + after + line[at + len(before):]
                at = line.find(before, at + 1)
        if re.match(r"\t+[\w>.\-\[\]*]+ ?[|+-]?= .*;$", line) and not re.match(r"\t+(__|struct|bool)", line):
            yield number, re.match(r"\t+", line).group() + ";"


def build(folder, out):
    return subprocess.run(["clang", *FLAGS, "-c", "-o", out, "bpf/nlb.bpf.c"], cwd=folder,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def code_of(path):
    """A hash of what the kernel would run, without debug information."""
    stripped = path + ".stripped"
    subprocess.run(["llvm-objcopy", "--only-section=xdp", "--only-section=.text", path, stripped], check=True)
    text = subprocess.run(["llvm-objdump", "-d", stripped], capture_output=True, check=True).stdout
    return hashlib.sha256(text.split(b"\n", 3)[-1]).hexdigest()


def killer_of(tests, path):
    """The first test that fails with this object, or None."""
    environment = dict(os.environ, NLB_BPF_OBJECT=path, NLB_FUZZ_PACKETS="5000")
    for name in TESTS:
        try:
            run = subprocess.run([os.path.join(tests, "test_nlb_" + name)], env=environment, timeout=120,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        except subprocess.TimeoutExpired:
            return name + " (hung)"
        if run.returncode != 0:
            return name
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--only", default="", help="only mutants of files whose names contain this")
    parser.add_argument("--every", type=int, default=1, help="only every N-th mutant")
    parser.add_argument("--list", action="store_true", help="say what would be done")
    options = parser.parse_args()

    plan = []
    for name in SOURCES:
        with open(os.path.join(ROOT, "bpf", name), encoding="utf-8") as source:
            lines = source.read().split("\n")
        if options.only in name:
            plan += [(name, lines, number, line) for number, line in mutants_of(lines)]
    plan = plan[::options.every]
    if options.list:
        for name, _, number, line in plan:
            print(f"{name}:{number + 1}: {line.strip()}")
        return 0

    counts = {"killed": 0, "equivalent": 0, "not built": 0, "survived": 0}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(os.path.join(ROOT, "bpf"), os.path.join(folder, "bpf"))
        tests, path = os.path.join(options.build, "tests/bpf"), os.path.join(folder, "nlb.o")
        if not build(folder, path) or killer_of(tests, path):
            sys.exit("the tests fail without any change: build them first (make tests), run as root")
        original = code_of(path)
        for name, lines, number, line in plan:
            target = os.path.join(folder, "bpf", name)
            with open(target, "w", encoding="utf-8") as source:
                source.write("\n".join(lines[:number] + [line] + lines[number + 1:]))
            if not build(folder, path):
                counts["not built"] += 1
            elif code_of(path) == original:
                counts["equivalent"] += 1
            elif killer_of(tests, path):
                counts["killed"] += 1
            else:
                counts["survived"] += 1
                print(f"survived: bpf/{name}:{number + 1}\n  - {lines[number].strip()}\n  + {line.strip()}",
                      flush=True)
            with open(target, "w", encoding="utf-8") as source:
                source.write("\n".join(lines))
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return 1 if counts["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())

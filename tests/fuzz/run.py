#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs fuzz harnesses one after another, for so many seconds each; `make fuzz` calls it.

usage: run.py [--seconds N] [--merge] [NAME...]

Each begins with tests/fuzz/corpus/NAME and with what earlier runs found (build/fuzz/found/NAME).
--merge afterwards copies into tests/fuzz/corpus/NAME what reaches code that nothing there reaches,
the smallest first, up to MERGE_BYTES for each harness: git shows what is new. A crash is kept in
build/fuzz/crashes, and the line that repeats it is printed; the exit status is then 1.
"""

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join("build", "fuzz")
PROGRAMS = os.path.join(BUILD, "tests", "fuzz")
CRASHES = os.path.join(BUILD, "crashes")
INPUT_TIMEOUT_S = 20  # for one input, on a loaded machine under two sanitizers
MERGE_BYTES = 9000
ENV = {
    "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1"
    ":allocator_may_return_null=1:handle_abort=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
}


def run(name, *arguments):
    return subprocess.run(
        [os.path.join(PROGRAMS, name), *arguments],
        cwd=ROOT,
        env={**os.environ, **ENV},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        errors="replace",
    )


def folders(name):
    found = os.path.join(BUILD, "found", name)
    kept = os.path.join("tests", "fuzz", "corpus", name)
    for folder in (found, kept):
        os.makedirs(os.path.join(ROOT, folder), exist_ok=True)
    return found, kept


def options(name):
    """What libFuzzer is told about this harness."""
    dictionary = os.path.join("tests", "fuzz", "dictionaries", f"{name}.dict")
    out = ["-max_len=4096", f"-timeout={INPUT_TIMEOUT_S}", "-rss_limit_mb=1024", "-use_value_profile=1"]
    # What looks for leaks after each input is slow; an input that leaks is found all the same.
    if os.path.exists(os.path.join(ROOT, dictionary)):
        out.append(f"-dict={dictionary}")
    return out


def fuzz(name, seconds):
    """Returns (crash file or None, runs, edges reached, output)."""
    os.makedirs(os.path.join(ROOT, CRASHES), exist_ok=True)
    prefix = os.path.join(CRASHES, name + "-")
    done = run(
        name,
        f"-max_total_time={seconds}",
        f"-artifact_prefix={prefix}",
        "-print_final_stats=1",
        *options(name),
        *folders(name),
    )
    crash = re.search(r"Test unit written to (\S+)", done.stdout)
    runs = re.search(r"number_of_executed_units: (\d+)", done.stdout)
    edges = re.findall(r" cov: (\d+)", done.stdout)
    ok = done.returncode == 0
    return (
        None if ok else (crash[1] if crash else f"exit status {done.returncode}"),
        int(runs[1]) if runs else 0,
        int(edges[-1]) if edges else 0,
        done.stdout,
    )


def merge(name):
    """Copies finds that matter; returns how many."""
    found, kept = folders(name)
    copied = size = 0
    with tempfile.TemporaryDirectory() as both:
        # What is in the first folder stays there: it is where the search begins.
        for file in glob.glob(os.path.join(ROOT, kept, "*")):
            shutil.copy(file, both)
        before = set(os.listdir(both))
        run(name, "-merge=1", f"-timeout={INPUT_TIMEOUT_S}", both, found)
        fresh = [os.path.join(both, f) for f in os.listdir(both) if f not in before]
        for file in sorted(fresh, key=os.path.getsize):
            size += os.path.getsize(file)
            if size > MERGE_BYTES:
                break
            shutil.copy(file, os.path.join(ROOT, kept, "found-" + os.path.basename(file)[:12]))
            copied += 1
    return copied


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--merge", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    built = sorted(
        os.path.basename(p)
        for p in glob.glob(os.path.join(ROOT, PROGRAMS, "*"))
        if os.access(p, os.X_OK) and os.path.isfile(p)
    )
    unknown = [n for n in args.names if n not in built]
    if unknown or not built:
        print(f"no harness {', '.join(unknown)}; there are: {', '.join(built)}", file=sys.stderr)
        return 2
    failed = {}
    print(f"{'harness':20} {'runs':>9} {'per s':>7} {'edges':>6}  result")
    for name in args.names or built:
        began = time.monotonic()
        crash, runs, edges, output = fuzz(name, args.seconds)
        per_s = runs / max(time.monotonic() - began, 0.001)
        result = "ok" if crash is None else f"CRASH {crash}"
        if args.merge and crash is None:
            result += f", {merge(name)} inputs kept"
        print(f"{name:20} {runs:9} {per_s:7.0f} {edges:6}  {result}", flush=True)
        if crash is not None:
            failed[name] = (crash, output)
    for name, (crash, output) in failed.items():
        print(f"\n== {name}")
        print("\n".join(output.splitlines()[-40:]))
        print(f"to repeat: {PROGRAMS}/{name} {crash}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

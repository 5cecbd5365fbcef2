#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Which lines the tests reach; `make coverage` calls it. usage: coverage.py [unit] [bpf] [fuzz] [e2e]

Runs these parts (default: unit fuzz) of the programs in build/cov, which count lines as they run, and
prints a table of folders. build/cov/coverage.txt has every file with the lines that nothing reached;
build/cov/html too, where lcov is installed. What was killed or runs in the kernel is not counted.
"""

import collections
import glob
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join("build", "cov")
FOLDERS = ("lib", "registry", "nlb", "gateway")


def forget():
    for file in glob.glob(os.path.join(ROOT, BUILD, "**", "*.gcda"), recursive=True):
        os.unlink(file)


def read_counts():
    """{file: {line: times}} of our own sources."""
    counts = collections.defaultdict(collections.Counter)
    objects = os.path.join(ROOT, BUILD, "obj")
    # The compiler's notes, of what never ran as well; gcov finds the counts beside them.
    data = glob.glob(os.path.join(objects, "**", "*.gcno"), recursive=True)
    data = [d for d in data if os.path.relpath(d, objects).startswith(FOLDERS)]
    with tempfile.TemporaryDirectory() as directory:
        if data:
            subprocess.run(
                ["gcov", "--json-format", "--hash-filenames", "--preserve-paths", *data],
                cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
            )
        for name in glob.glob(os.path.join(directory, "*.gcov.json.gz")):
            with gzip.open(name) as file:
                document = json.load(file)
            for source in document["files"]:
                path = os.path.relpath(os.path.join(ROOT, source["file"]), ROOT)
                if path.startswith(FOLDERS):
                    for line in source["lines"]:
                        counts[path][line["line_number"]] += line["count"]
    return counts


def folder_of(path):
    return os.path.dirname(path)


def write_details(counts, path):
    with open(path, "w", encoding="utf-8") as out:
        for file in sorted(counts):
            lines = counts[file]
            missed = [str(n) for n in sorted(lines) if not lines[n]]
            share = 100 * (len(lines) - len(missed)) / len(lines)
            print(f"{share:5.1f} %  {file}", f"  not reached: {' '.join(missed)}" if missed else "",
                  sep="", file=out)


def print_table(counts):
    folders = collections.defaultdict(lambda: [0, 0])
    for file, lines in counts.items():
        for name in (folder_of(file), "all"):
            folders[name][0] += len(lines)
            folders[name][1] += sum(1 for n in lines.values() if n)
    print(f"{'folder':20} {'lines':>7} {'reached':>8} {'share':>7}")
    for name in sorted(folders, key=lambda n: (n == "all", n)):
        total, reached = folders[name]
        print(f"{name:20} {total:7} {reached:8} {100 * reached / total:5.1f} %")


def write_html():
    if not shutil.which("lcov") or not shutil.which("genhtml"):
        print("no HTML: lcov is not installed")
        return
    info = os.path.join(BUILD, "coverage.info")
    html = os.path.join(BUILD, "html")
    subprocess.run(["lcov", "-q", "-c", "-d", BUILD, "-o", info, "--no-external", "-b", "."],
                   cwd=ROOT, check=True)
    subprocess.run(["genhtml", "-q", "-o", html, info], cwd=ROOT, check=True)
    print(f"{html}/index.html")


def main():
    parts = sys.argv[1:] or ["unit", "fuzz"]
    forget()
    env = {**os.environ, "GATEHOUSE_BUILD": BUILD}
    tests = subprocess.run([sys.executable, "tests/run.py", *parts], cwd=ROOT, env=env, check=False)
    counts = read_counts()
    if not any(any(lines.values()) for lines in counts.values()):
        print("nothing was counted: is build/cov built?", file=sys.stderr)
        return 2
    details = os.path.join(BUILD, "coverage.txt")
    write_details(counts, os.path.join(ROOT, details))
    print(f"\n{details} has every file; these are the folders, by {' '.join(parts)}:")
    print_table(counts)
    write_html()
    return tests.returncode


if __name__ == "__main__":
    sys.exit(main())

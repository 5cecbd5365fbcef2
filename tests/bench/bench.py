#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""All benchmarks: one table, one JSON document. `make bench` calls it.

usage: bench.py [--quick] [--only nlb|gateway|limits|registry] [--rounds N]
                 [--with OBJECT[:PROGRAM]]…
                [--json FILE] [--docs FILE]

A run also writes docs/benchmarks.md, where a part that was not measured this time stays as it was; a
quick one only with --docs. What cannot run here (no root, no BPF) is named and left out. --with
measures another load balancer's object file beside ours (one with Katran's maps).
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("GATEHOUSE_BUILD", "build")
sys.path.insert(1, HERE)
sys.dont_write_bytecode = True

import gateway  # noqa: E402
import limits  # noqa: E402
import packets  # noqa: E402
import registry  # noqa: E402
import tables  # noqa: E402
from procs import exit_on_signals  # noqa: E402

PARTS = ("nlb", "gateway", "limits", "registry")
TITLES = {"nlb": "Load balancer", "gateway": "Gateway", "limits": "Rate limits",
          "registry": "Registry"}

INTRODUCTION = """\
# Benchmarks

Written by `make bench`; do not edit. Machines differ and are noisy: an absolute figure means little,
so every figure stands beside a peer or a floor that was measured in the same run, in turns. Medians,
with the lowest and highest round in brackets.
"""

def run_text(argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return (done.stdout or done.stderr).strip()


def read_value(path, pattern):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            match = re.search(pattern, file.read(), re.MULTILINE)
    except OSError:
        return ""
    return match[1].strip() if match else ""


def machine():
    gib = int(read_value("/proc/meminfo", r"^MemTotal:\s+(\d+)") or 0) / 2**20
    return {
        "cpu": read_value("/proc/cpuinfo", r"^model name\s*:(.*)") or platform.machine(),
        "cpu_family_model": " ".join(
            read_value("/proc/cpuinfo", rf"^{key}\s*:(.*)") for key in ("cpu family", "model")
        ),
        "cores": os.cpu_count(),
        "memory_gib": round(gib, 1),
        "virtual": run_text(["systemd-detect-virt"]) or "unknown",
        "system": read_value("/etc/os-release", r'^PRETTY_NAME="(.*)"'),
        "kernel": platform.release(),
        "compiler": run_text(["gcc", "--version"]).partition("\n")[0],
        "openssl": run_text(["openssl", "version"]).partition(" (")[0],
        "revision": run_text(["git", "describe", "--always", "--dirty"]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "load_before": round(os.getloadavg()[0], 2),
    }


def machine_lines(about):
    yield f"- {about['cpu']} (family and model {about['cpu_family_model']}), {about['cores']} cores"
    yield f"- {about['memory_gib']} GiB of memory; virtualisation: {about['virtual']}"
    yield f"- {about['system']}, kernel {about['kernel']}"
    yield f"- {about['compiler']}; {about['openssl']}"
    yield f"- revision {about['revision']}, {about['date']}, load before the run {about['load_before']}"


def run_gateway(options):
    argv = ["--quick"] if options.quick else []
    if options.rounds:
        argv += ["--rounds", str(options.rounds)]
    return gateway.measure_all(gateway.parse(argv))


def markdown_table(rows):
    yield "| " + " | ".join(rows[0]) + " |"
    yield "| --- " * len(rows[0]) + "|"
    for row in rows[1:]:
        yield "| " + " | ".join(row) + " |"


def read_docs(path):
    """The figures that an earlier run left there."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.loads(file.read().rpartition("```json\n")[2].partition("\n```")[0])
    except (OSError, ValueError):
        return {}


def write_docs(path, document):
    lines = [INTRODUCTION]
    for part in PARTS:
        if part not in document:
            continue
        lines += [f"## {TITLES[part]}\n", *machine_lines(document[part]["machine"])]
        lines += [f"- again: `{document[part]['command']}`", ""]
        for title, notes, rows, *extra in sections(part, document[part]):
            lines += [f"### {title}\n", notes, *markdown_table(rows), "", *extra]
    lines += ["## The same as JSON\n", "```json", json.dumps(document, ensure_ascii=False), "```"]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short rounds: does it work?")
    parser.add_argument("--only", choices=PARTS, help="this part alone")
    parser.add_argument("--rounds", type=int, help="rounds of each part")
    parser.add_argument(
        "--with", metavar="OBJECT[:PROGRAM]", dest="peers", action="append", default=[],
        help="another load balancer's object file",
    )
    parser.add_argument("--json", metavar="FILE", help="default: bench.json in the build folder")
    parser.add_argument("--docs", metavar="FILE", help="write tables, machine and JSON there")
    options = parser.parse_args(argv)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def measure(part, options):
    """The figures of one part with all that belongs to them, or None."""
    about = machine()
    if part == "nlb":
        figures, reason = packets.measure(options)
        if not figures:
            print(f"skip  {part}: {reason}")
            return None
    elif part == "registry":
        figures = registry.measure(options)
    elif part == "limits":
        figures = limits.measure(limits.parse(
            ["--quick"] * options.quick + (["--rounds", str(options.rounds)] if options.rounds else [])))
    else:
        figures = run_gateway(options)
    words = " ".join("OBJECT" if word in options.peers else word for word in sys.argv[1:])
    command = "make bench" + (f" BENCH='{words}'" if words else "")
    return {**figures, "machine": about, "command": command}


def sections(part, figures):
    if part == "nlb":
        return packets.sections(figures)
    if part == "registry":
        return registry.sections(figures)
    if part == "limits":
        return limits.sections(figures)
    versions = [f"- {name}: {v}" for name, v in figures["versions"].items()]
    doubts = [f"- doubtful: {line}" for line in tables.warnings(figures)]
    parts = tables.sections(figures)
    return [*parts[:-1], (*parts[-1], *versions, *doubts, "")] if parts else []


def print_part(part, figures):
    for line in machine_lines(figures["machine"]):
        print(line)
    for title, _, rows, *extra in sections(part, figures):
        print(f"\n{title}\n")
        tables.print_table(rows)
        print("\n".join(extra))


def main():
    options = parse(sys.argv[1:])
    exit_on_signals()
    document = {}
    for part in PARTS:
        figures = measure(part, options) if options.only in (None, part) else None
        if figures:
            document[part] = figures
            print_part(part, figures)
    path = options.json or os.path.join(BUILD, "bench.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2, ensure_ascii=False)
        file.write("\n")
    print(f"figures: {path}")
    docs = options.docs
    if not docs and not options.quick:
        docs = os.path.join(ROOT, "docs", "benchmarks.md")
    if docs and document:
        os.makedirs(os.path.dirname(os.path.abspath(docs)), exist_ok=True)
        write_docs(docs, {**read_docs(docs), **document})
        print(f"written: {docs}")


if __name__ == "__main__":
    main()

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the test suite and sums it up. `make check` calls it; usage: run.py [unit] [bpf] [fuzz] [e2e]

GATEHOUSE_BUILD names the folder with the built programs (default: build), TEST_TIMEOUT_S how long
one test program may take (default: 60; longer under sanitizers). End-to-end tests deal with time,
networks and other programs on machines that may be busy: a few that failed get a second try, alone
and one after the other, and those that pass it are named (not under sanitizers, whose reports come
by chance and count the first time). Every skip is printed with its reason; the last line is `N passed, N failed, N skipped`, the exit status 1 if any failed.
Standard library only.
"""

import glob
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("GATEHOUSE_BUILD", "build")
IS_SANITIZED = re.search(r"/(asan|tsan)/?$", BUILD) is not None
PROGRAM_TIMEOUT_S = int(os.environ.get("TEST_TIMEOUT_S", 60)) * (4 if IS_SANITIZED else 1)
E2E = os.environ.get("GATEHOUSE_E2E", "tests/e2e")
SECOND_TRIES = 12  # more that failed are no accident
E2E_TIMEOUT_S = 1500 * (2 if IS_SANITIZED else 1)
TAP = re.compile(r"^(ok|not ok) \d+(?: -)?(?P<skip> # SKIP)? ?(?P<name>.*)$")
# A packet program ends with this before its first test where BPF cannot be used at all.
EXIT_SKIPPED = 77

# What is freed stays in a quarantine: at its usual 256 MB, tests of flat memory would measure that.
SANITIZER_ENV = {
    "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1"
    ":quarantine_size_mb=8",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=0:exitcode=66:second_deadlock_stack=1",
}


class Totals:
    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []
        self.unsteady = []

    def add_failed(self, name, output=""):
        self.failed.append(name)
        print(f"FAIL  {name}")
        for line in output.splitlines()[-60:]:
            print(f"      {line}")

    def add_skipped(self, name, reason):
        self.skipped.append((name, reason))
        print(f"skip  {name}: {reason}")


def run_program(argv, timeout_s, env=None):
    """Runs to the end or the time limit; returns (exit code or None, output, seconds)."""
    began = time.monotonic()
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **SANITIZER_ENV, **(env or {})},
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        code = None
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return code, output.decode("utf-8", "replace"), time.monotonic() - began


def how_it_ended(code):
    if code is None:
        return f"ended after {PROGRAM_TIMEOUT_S} s without being done"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"exit status {code}"


def run_cmocka(part, totals):
    """Every program of one folder; cmocka speaks TAP to us."""
    programs = sorted(glob.glob(os.path.join(ROOT, BUILD, "tests", part, "test_*")))
    programs = [p for p in programs if os.access(p, os.X_OK) and "." not in os.path.basename(p)]
    for program in programs:
        name = f"{part}/{os.path.basename(program)}"
        env = {"CMOCKA_MESSAGE_OUTPUT": "TAP", "GATEHOUSE_BUILD": BUILD}
        code, output, seconds = run_program([program], PROGRAM_TIMEOUT_S, env)
        tally = read_tap(name, output, totals)
        if code == EXIT_SKIPPED and not sum(tally):
            reason = (output.strip().splitlines() or ["no reason given"])[-1]
            totals.add_skipped(name, reason.removeprefix("SKIP: "))
        elif code != 0 and not tally[1]:
            # All tests read so far passed, and still it went wrong: a crash, a leak, a time-out.
            totals.add_failed(f"{name}: {how_it_ended(code)}", output)
        elif code == 0 and not sum(tally):
            totals.add_failed(f"{name}: reported no test at all", output)
        else:
            print(f"{'ok   ' if not tally[1] else '     '} {name}: {tally[0]} ({seconds:.1f} s)")


def read_tap(name, output, totals):
    """Counts the results in one program's output: (passed, failed, skipped)."""
    passed = failed = skipped = 0
    notes = []
    lines = output.splitlines()
    for i, line in enumerate(lines):
        match = TAP.match(line)
        if not match:
            notes.append(line)
            continue
        test = f"{name}: {match['name'].strip()}"
        if match["skip"]:
            skipped += 1
            said = [n for n in notes if n.strip() and not re.match(r"^(\d+\.\.\d+|# )", n)]
            reason = said[-1].strip().removeprefix("SKIP: ") if said else "no reason given"
            totals.add_skipped(test, reason)
        elif line.startswith("ok"):
            passed += 1
            totals.passed += 1
        else:
            failed += 1
            after = []
            for later in lines[i + 1 :]:
                if TAP.match(later):
                    break
                after.append(later)
            totals.add_failed(test, "\n".join(notes + after))
        notes = []
    return passed, failed, skipped


def run_fuzz(totals):
    """Each harness over its corpus: what was found once stays found. `make fuzz` looks further."""
    programs = sorted(glob.glob(os.path.join(ROOT, BUILD, "tests", "fuzz", "*")))
    for program in [p for p in programs if os.path.isfile(p) and os.access(p, os.X_OK)]:
        name = os.path.basename(program)
        corpus = os.path.join("tests", "fuzz", "corpus", name)
        code, output, seconds = run_program([program, corpus], PROGRAM_TIMEOUT_S)
        if code == 0:
            totals.passed += 1
            files = len(os.listdir(os.path.join(ROOT, corpus)))
            print(f"ok    fuzz/{name}: {files} inputs ({seconds:.1f} s)")
        else:
            totals.add_failed(f"fuzz/{name}: {how_it_ended(code)}", output)


def has_xdist():
    return importlib.util.find_spec("xdist") is not None


def call_pytest(words, report, timeout_s):
    """The exit code, None when it took too long. Output goes straight to the terminal: a long run
    shows where it is."""
    argv = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short",
            f"--junitxml={report}", *words]
    env = {"GATEHOUSE_BUILD": BUILD, "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        argv, cwd=ROOT, env={**os.environ, **SANITIZER_ENV, **env}, stdin=subprocess.DEVNULL
    )
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            process.terminate()  # its fixtures remove what they made
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run_pytest(totals):
    with tempfile.TemporaryDirectory() as directory:
        report = os.path.join(directory, "report.xml")
        # Most of their time is waiting, and labs run side by side: two files at a time.
        words = ["-n", "2", "--dist", "loadfile"] if has_xdist() else []
        code = call_pytest([*words, E2E], report, E2E_TIMEOUT_S)
        if code == 5:
            totals.add_failed("e2e: pytest found no tests")
            return
        if not os.path.exists(report):
            totals.add_failed(f"e2e: pytest: {how_it_ended(code)}, no report")
            return
        failed = read_junit(report, totals)
        if code != 0 and not failed:
            totals.add_failed(f"e2e: pytest: {how_it_ended(code)}")
        steady = set()
        if failed and len(failed) <= SECOND_TRIES and not IS_SANITIZED and None not in failed.values():
            steady = try_again(failed, os.path.join(directory, "again.xml"))
        for name in failed:
            if name in steady:
                totals.passed += 1
                totals.unsteady.append(name)
            else:
                totals.add_failed(name)  # pytest has shown the details


def try_again(failed, report):
    """Of the tests {name: pytest's id} those that pass now."""
    print(f"== e2e, a second try for {len(failed)}")
    call_pytest(list(failed.values()), report, E2E_TIMEOUT_S / 2)
    if not os.path.exists(report):
        return set()
    again = Totals()
    bad = read_junit(report, again)
    names = {case_name(case) for case in xml.etree.ElementTree.parse(report).iter("testcase")}
    return {name for name in failed if name in names and name not in bad} if again.passed else set()


def case_name(case):
    return f"e2e/{case.get('classname', '').rpartition('.')[2]}: {case.get('name')}"


def read_junit(path, totals):
    """Counts what passed and what was skipped; returns the failed ones, {name: pytest's id}, the id
    None for what is no test (a file that cannot be read)."""
    failed = {}
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            module = case.get("classname", "").rpartition(".")[2]
            failed[case_name(case)] = f"{E2E}/{module}.py::{case.get('name')}" if module else None
        elif skip is not None:
            totals.add_skipped(case_name(case), skip.get("message") or "no reason given")
        else:
            totals.passed += 1
    return failed


def main():
    parts = sys.argv[1:] or ["unit", "bpf", "fuzz", "e2e"]
    if not set(parts) <= {"unit", "bpf", "fuzz", "e2e"}:
        print(__doc__, file=sys.stderr)
        return 2
    # So that pytest, and what it started, is ended in order when we are told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.stdout.reconfigure(line_buffering=True)
    totals = Totals()
    began = time.monotonic()
    for part in parts:
        print(f"== {part}")
        if part == "e2e":
            run_pytest(totals)
        elif part == "fuzz":
            run_fuzz(totals)
        else:
            run_cmocka(part, totals)
    print(f"== {time.monotonic() - began:.0f} s")
    if not totals.passed and not totals.failed and not totals.skipped:
        totals.add_failed("no tests were found: is it built?")
    for name in totals.unsteady:
        print(f"unsteady: {name} passed at the second try only")
    for name in totals.failed:
        print(f"FAILED {name}")
    print(
        f"{totals.passed} passed, {len(totals.failed)} failed, {len(totals.skipped)} skipped"
    )
    return 1 if totals.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

# SPDX-License-Identifier: Apache-2.0
"""The test runner: whatever goes wrong in a test program must show in the total and the status."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.fixture
def run_script(tmp_path):
    """Runs the suite's unit part with one test program, given as shell; (status, output)."""

    def run(script, **env):
        folder = tmp_path / "tests" / "unit"
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "test_fake"
        program.write_text("#!/bin/sh\n" + script + "\n")
        program.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-B", os.path.join(ROOT, "tests", "run.py"), "unit"],
            env={**os.environ, "GATEHOUSE_BUILD": str(tmp_path), **env},
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.returncode, done.stdout

    return run


@pytest.mark.parametrize(
    "script,status,total,told",
    [
        ("echo 1..2; echo ok 1 - a; echo ok 2 - b", 0, "2 passed, 0 failed, 0 skipped", ""),
        ("echo ok 1 - a; echo not ok 2 - b; echo '# 1 != 2'; exit 1", 1,
         "1 passed, 1 failed, 0 skipped", "# 1 != 2"),
        ("echo ok 1 - a; echo no BPF here; echo 'not ok 2 # SKIP b'", 0,
         "1 passed, 0 failed, 1 skipped", "b: no BPF here"),
        ("echo needs root; exit 77", 0, "0 passed, 0 failed, 1 skipped", "needs root"),
        ("echo ok 1 - a; kill -SEGV $$", 1, "1 passed, 1 failed, 0 skipped", "SIGSEGV"),
        ("echo ok 1 - a; echo 'ERROR: LeakSanitizer: leaks'; exit 23", 1,
         "1 passed, 1 failed, 0 skipped", "LeakSanitizer"),
        ("true", 1, "0 passed, 1 failed, 0 skipped", "no test at all"),
    ],
    ids=["good", "failed", "skipped", "all-skipped", "crash", "leak", "silent"],
)
def test_totals(run_script, script, status, total, told):
    code, output = run_script(script)
    assert code == status
    assert output.splitlines()[-1] == total
    assert told in output


def test_program_that_hangs_is_ended(run_script):
    code, output = run_script("echo ok 1 - a; sleep 20", TEST_TIMEOUT_S="1")
    assert code == 1 and output.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"
    assert "ended after 1 s" in output


def test_nothing_built_is_a_failure(tmp_path):
    done = subprocess.run(
        [sys.executable, "-B", os.path.join(ROOT, "tests", "run.py"), "unit"],
        env={**os.environ, "GATEHOUSE_BUILD": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"


UNSTEADY = """
import os

def test_good():
    pass

def test_unsteady():
    mark = os.path.join(os.path.dirname(__file__), "mark")
    was_there = os.path.exists(mark)
    open(mark, "w").close()
    assert was_there
"""


@pytest.mark.parametrize("more,status,total", [
    ("", 0, "2 passed, 0 failed, 0 skipped"),
    ("\ndef test_bad():\n    assert False\n", 1, "2 passed, 1 failed, 0 skipped"),
    ("\nimport pytest\n@pytest.mark.parametrize('n', range(20))\ndef test_many(n):\n    assert False\n",
     1, "1 passed, 21 failed, 0 skipped"),
], ids=["unsteady", "bad", "many"])
def test_second_try(tmp_path, more, status, total):
    (tmp_path / "test_it.py").write_text(UNSTEADY + more)
    done = subprocess.run(
        [sys.executable, "-B", os.path.join(ROOT, "tests", "run.py"), "e2e"],
        env={**os.environ, "GATEHOUSE_E2E": str(tmp_path), "PYTEST_ADDOPTS": "", "GATEHOUSE_BUILD": "build"},
        capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stdout
    assert done.stdout.splitlines()[-1] == total
    assert ("unsteady: e2e/test_it: test_unsteady passed" in done.stdout) == (more.count("many") == 0)


def test_file_that_cannot_be_read_is_a_failure(tmp_path):
    (tmp_path / "test_it.py").write_text("import nothing_of_that_name\n")
    done = subprocess.run(
        [sys.executable, "-B", os.path.join(ROOT, "tests", "run.py"), "e2e"],
        env={**os.environ, "GATEHOUSE_E2E": str(tmp_path), "PYTEST_ADDOPTS": "", "GATEHOUSE_BUILD": "build"},
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and " 0 failed" not in done.stdout.splitlines()[-1]

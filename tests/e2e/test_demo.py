# SPDX-License-Identifier: Apache-2.0
"""The demo as people run it: it shows every step, and leaves nothing behind however it ends."""

import json
import os
import signal
import subprocess
import sys

import pytest

from conftest import ROOT
from lab import STATE_ROOT
from procs import wait_until

pytestmark = [pytest.mark.usefixtures("lab_possible"), pytest.mark.limit(120)]

DEMO = [sys.executable, "-B", os.path.join(ROOT, "tests", "e2e", "demo.py")]


def labs_of(pid):
    """The labs that a process has made, by their state files."""
    found = set()
    for lab_id in os.listdir(STATE_ROOT) if os.path.isdir(STATE_ROOT) else []:
        try:
            with open(os.path.join(STATE_ROOT, lab_id, "state.json"), encoding="ascii") as file:
                owner = json.load(file)["owner"]
        except (OSError, ValueError):
            continue
        if owner and owner[0] == pid:
            found.add(lab_id)
    return found


def left_behind(lab_id):
    """Namespaces, state folder and mounts of a lab; others may run beside it."""
    found = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    found = [name for name in found if name.startswith(f"{lab_id}-")]
    if os.path.exists(os.path.join(STATE_ROOT, lab_id)):
        found.append(os.path.join(STATE_ROOT, lab_id))
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        found += [line.split()[1] for line in mounts if f"/{lab_id}/" in line]
    return found


@pytest.fixture
def demo(build, program, tmp_path):
    """Starts demo.py as a child in a session of its own, its output in a file."""
    for name in ("gatewayd", "nlbd", "nlbctl", "registryd"):
        program(name)
    output = tmp_path / "output"

    def start(*options):
        with open(output, "wb") as file:
            return subprocess.Popen(
                [*DEMO, *options],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "GATEHOUSE_BUILD": build},
                start_new_session=True,
                # A suite in the background of a shell ignores Ctrl-C; the demo must not inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    start.text = lambda: output.read_text(encoding="utf-8")
    return start


def watch(process, demo, until):
    """Waits until the demo says that, or ends; returns the one lab it has made."""
    wait_until(lambda: labs_of(process.pid) or process.poll() is not None, "a lab", 30)
    labs = labs_of(process.pid)
    assert len(labs) == 1, demo.text()
    wait_until(lambda: until in demo.text() or process.poll() is not None, until, 60)
    return labs.pop()


def test_demo_shows_every_step(demo):
    process = demo()
    lab_id = watch(process, demo, "1. Conn")
    assert process.wait(100) == 0, demo.text()
    assert not left_behind(lab_id)
    text = demo.text()
    for number in range(1, 11):
        assert f"\n{number}. " in text
    assert "✗" not in text and "\033" not in text, "no colour where there is no terminal"


@pytest.mark.parametrize(
    "number,when",
    [(signal.SIGINT, "registryd, 6"), (signal.SIGTERM, "1. Conn"), (signal.SIGINT, "4. ")],
    ids=["SIGINT-bring-up", "SIGTERM-steps", "SIGINT-steps"],
)
def test_interrupted_demo_cleans_up(demo, number, when):
    process = demo()
    lab_id = watch(process, demo, when)
    os.killpg(process.pid, number)
    assert process.wait(30) != 0, demo.text()
    assert not left_behind(lab_id)


def test_lab_stays_until_it_is_taken_down(demo, build):
    state = os.path.join(STATE_ROOT, "ghlab")
    if os.path.exists(state):
        pytest.skip("somebody plays with the lab (make lab-down takes it down)")
    process = demo("--lab")
    try:
        assert process.wait(60) == 0, demo.text()
        on = os.path.join(state, "on")
        with open(os.path.join(state, "rider.token"), encoding="ascii") as file:
            token = file.read()
        page = subprocess.run(
            [on, "client", "curl", "-sS", "-H", f"Authorization: Bearer {token}"]
            + ["https://api.rider.example.com/api/v2/user/profile"],
            capture_output=True,
            text=True,
        )
        assert '"app": "user-service-v2"' in page.stdout, page
        for words in (["nlb", "nlbctl", "status"], ["registry", "curl", "-sSf", "http://10.0.0.9:8761/v1/apps"]):
            done = subprocess.run([on, *words], capture_output=True, text=True)
            assert done.returncode == 0, done
        there = subprocess.run([on, "gw-r1", "gatewayctl", "status"], capture_output=True, text=True)
        assert there.returncode == 0 and "gw-r1" in there.stdout, there
        # The NLB's daemon is not to be had from a gateway's host.
        there = subprocess.run([on, "gw-r1", "nlbctl", "status"], capture_output=True, text=True)
        assert there.returncode == 1 and "nlbd does not answer" in there.stderr, there
        again = subprocess.run(
            [*DEMO, "--lab"], capture_output=True, text=True,
            env={**os.environ, "GATEHOUSE_BUILD": build},
        )
        assert again.returncode == 1 and "lab-down" in again.stderr
    finally:
        assert subprocess.run([*DEMO, "--down"]).returncode == 0
    assert not left_behind("ghlab")

# SPDX-License-Identifier: Apache-2.0
"""registryctl against a real registry: what it prints, and its exit status."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from procs import wait_until


@pytest.fixture
def ctl(registry, program):
    """Runs a command against the registry; (status, stdout, stderr)."""

    def run(*argv, url=registry.url):
        done = subprocess.run(
            [program("registryctl"), *argv], capture_output=True, text=True, timeout=20,
            env={"GATEHOUSE_REGISTRY": url},
        )
        return done.returncode, done.stdout, done.stderr

    return run


def rows(text):
    return [line.split() for line in text.splitlines()]


def test_register_look_and_deregister(ctl, registry):
    assert ctl("register", "User", "h:1/x", "10.1.0.5:80", "--zone", "a", "--weight", "7",
               "--release", "2.0", "--lease", "60", "--metadata", "k=v w", "--secure") == (0, "", "")
    assert ctl("register", "feed", "f1", "[2001:db8::1]:81", "--status", "STARTING")[0] == 0
    status, out, _ = ctl("instances")
    assert status == 0
    assert rows(out)[1:] == [
        ["feed", "f1", "[2001:db8::1]:81", "STARTING", "-", "100", "-", "30", "s", "-"],
        ["user", "h:1/x", "10.1.0.5:80", "UP", "a", "7", "2.0", "60", "s", "k=v", "w"],
    ]
    assert rows(ctl("apps")[1]) == [["APP", "INSTANCES", "UP", "NOT", "UP"],
                                    ["feed", "1", "0", "1"], ["user", "1", "1", "0"]]
    assert len(rows(ctl("instances", "--status", "UP")[1])) == 2
    assert len(rows(ctl("instances", "user", "--zone", "b")[1])) == 1
    document = json.loads(ctl("instances", "USER", "--json")[1])
    assert document["instances"][0]["secure"] is True
    assert document["instances"] == registry.instances("user")
    assert ctl("deregister", "user", "h:1/x")[0] == 0
    status, _, err = ctl("deregister", "user", "h:1/x")
    assert status == 1 and "h:1/x" in err


def test_status(ctl, registry):
    ctl("register", "user", "u1", "10.1.0.5:80")
    assert ctl("status", "user", "u1", "OUT_OF_SERVICE")[0] == 0
    assert registry.instances("user")[0]["status"] == "OUT_OF_SERVICE"
    assert "OUT_OF_SERVICE (set)" in ctl("instances")[1]
    assert ctl("status", "user", "u1", "clear")[0] == 0
    assert registry.instances("user")[0]["status"] == "UP"
    status, _, err = ctl("status", "user", "u2", "UP")
    assert status == 1 and "u2" in err and "register" not in err
    for wrong in (("instances", "--status", "FOO"), ("register", "a", "b", "1.2.3.4:5", "--status", "FOO")):
        status, out, err = ctl(*wrong)
        assert (status, out) == (2, "") and "FOO: must be UP" in err
    status, out, _ = ctl("status")
    assert status == 0 and rows(out)[0] == ["REGISTRY", registry.url] and "self-preservation" in out
    assert json.loads(ctl("status", "--json")[1])["apps"] == 1


def test_keep_renews_and_leaves(registry, procs, program):
    proc = procs.start("keep", [program("registryctl"), "--url", registry.url, "register",
                                "--keep", "user", "u1", "10.1.0.5:80", "--lease", "1"])
    wait_until(lambda: registry.instances("user"), "registered", 5, proc)
    index = registry.instances("user")[0]["index"]
    with pytest.raises(Exception):
        wait_until(lambda: not registry.instances("user"), "expiry", 2.5)
    assert registry.instances("user")[0]["index"] == index, "one registration, then renewals"
    proc.stopped_on_purpose = True
    proc.signal(signal.SIGINT)
    assert proc.popen.wait(5) == 0
    assert registry.instances("user") == []


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_watch(ctl, registry, procs, program, options):
    ctl("register", "user", "u1", "10.1.0.5:80")
    proc = procs.start("watch", [program("registryctl"), "--url", registry.url, *options,
                                 "watch", "user"])
    wait_until(lambda: "u1" in proc.log(), "first state", 5, proc)
    ctl("register", "other", "o1", "10.1.0.5:80")
    ctl("status", "user", "u1", "DOWN")
    ctl("deregister", "user", "u1")
    wait_until(lambda: "delete" in proc.log(), "events", 5, proc)
    lines = proc.log().splitlines()
    assert len(lines) == 3 and "o1" not in proc.log()
    if options:
        assert [json.loads(line)["event"] for line in lines] == ["reset", "status", "delete"]
    else:
        assert [line.split()[1] for line in lines] == ["has", "status", "delete"]
    proc.stopped_on_purpose = True
    proc.kill()


def test_usage(ctl):
    assert ctl("--help")[0] == 0 and "Exit status" in ctl("--help")[1]
    for argv in ([], ["nonsense"], ["register", "a"], ["apps", "x"], ["--nonsense"],
                 ["register", "a", "b", "host:80"], ["register", "a", "b", "10.0.0.1"],
                 ["status", "a", "b", "SLEEPING"], ["status", "a"],
                 ["register", "a", "b", "10.0.0.1:1", "--weight", "0"],
                 ["register", "a", "b", "10.0.0.1:1", "--metadata", "k"],
                 ["register", "a", "b", "10.0.0.1:1", "--zone", "x" * 65]):
        status, out, err = ctl(*argv)
        assert status == 2 and out == "" and "--help" in err, argv


def test_failures(ctl):
    status, out, err = ctl("apps", url="http://127.0.0.1:1")
    assert status == 1 and out == "" and "http://127.0.0.1:1" in err and "refused" in err
    assert len(err.strip().splitlines()) == 1
    status, _, err = ctl("apps", url="http://no-such-host.invalid")
    assert status == 1 and "no-such-host.invalid" in err
    assert ctl("apps", url="ftp://127.0.0.1")[0] == 2
    status, _, err = ctl("instances", "a b")
    assert status == 1 and "app" in err


# --- register … -- COMMAND ----------------------------------------------------------------------

# Listens once a file is there; says which signals came, and ends as told.
SERVICE = """
import os, signal, socket, sys, time
folder, port, status = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def on_signal(number, frame):
    print("signal", number, time.monotonic(), flush=True)
    if number in (signal.SIGTERM, signal.SIGINT):
        sys.exit(status)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, on_signal)
print("began", os.getpid(), os.getpgid(0), flush=True)
while not os.path.exists(folder + "/listen"):
    time.sleep(0.01)
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("127.0.0.1", port))
sock.listen(16)
while not os.path.exists(folder + "/end"):
    time.sleep(0.01)
sys.exit(status)
"""


class Wrapped:
    def __init__(self, procs, program, registry, folder, *options, status=0):
        self.registry, self.folder = registry, folder
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        script = folder / "service.py"
        script.write_text(SERVICE)
        self.proc = procs.start(f"wrapped-{self.port}", [
            program("registryctl"), "--url", registry.url, "register", "user", "u1",
            f"127.0.0.1:{self.port}", "--lease", "2", *options, "--", sys.executable, str(script),
            str(folder), str(self.port), str(status)])
        self.proc.wait_log("began")

    def touch(self, name):
        (self.folder / name).write_text("")

    def child(self):
        return int(self.proc.wait_log(r"began (\d+)")[1])

    def states(self):
        return [i["status"] for i in self.registry.instances("user")]

    def end(self, timeout_s=10):
        self.proc.stopped_on_purpose = True
        code = self.proc.popen.wait(timeout_s)
        assert not os.path.exists(f"/proc/{self.child()}"), "reaped"
        return code


def test_runs_a_service_and_registers_it_while_it_lives(registry, procs, program, tmp_path):
    run = Wrapped(procs, program, registry, tmp_path, status=7)
    with pytest.raises(Exception):
        wait_until(lambda: registry.instances("user"), "registered too early", 1)
    run.touch("listen")
    wait_until(lambda: run.states() == ["UP"], "registered", 10, run.proc)
    index = registry.instances("user")[0]["index"]
    with pytest.raises(Exception):
        wait_until(lambda: not registry.instances("user"), "expiry", 3)
    assert registry.instances("user")[0]["index"] == index, "renewed"
    run.proc.signal(signal.SIGUSR1)
    run.proc.wait_log(f"signal {int(signal.SIGUSR1)}")
    run.touch("end")
    assert run.end() == 7
    assert registry.instances("user") == []


def test_drains_before_it_forwards_the_signal(registry, procs, program, tmp_path):
    run = Wrapped(procs, program, registry, tmp_path, "--drain", "60000", status=3)
    run.touch("listen")
    wait_until(lambda: run.states() == ["UP"], "registered", 10, run.proc)
    run.proc.signal(signal.SIGTERM)
    wait_until(lambda: run.states() == ["OUT_OF_SERVICE"], "out of service", 10, run.proc)
    assert "signal" not in run.proc.log()
    run.proc.signal(signal.SIGTERM)  # enough of it
    assert run.end() == 3
    assert f"signal {int(signal.SIGTERM)}" in run.proc.log()
    assert registry.instances("user") == []


def test_ends_with_its_service_also_by_a_signal(registry, procs, program, tmp_path):
    run = Wrapped(procs, program, registry, tmp_path, "--at-once", "--drain", "50")
    wait_until(lambda: run.states() == ["UP"], "registered without its port", 10, run.proc)
    os.kill(run.child(), signal.SIGKILL)
    assert run.end() == 128 + signal.SIGKILL
    assert registry.instances("user") == []
    second = Wrapped(procs, program, registry, tmp_path, "--at-once", "--drain", "50", status=5)
    wait_until(lambda: second.states() == ["UP"], "registered", 10, second.proc)
    second.proc.signal(signal.SIGINT)
    assert second.end() == 5 and f"signal {int(signal.SIGINT)}" in second.proc.log()


def test_a_service_outlives_its_registry(registry, procs, program, tmp_path):
    registry.proc.kill()
    if os.path.exists(registry.snapshot):
        os.unlink(registry.snapshot)
    run = Wrapped(procs, program, registry, tmp_path, "--at-once", status=0)
    registry.start()
    wait_until(lambda: run.states() == ["UP"], "registered later", 15, run.proc)
    registry.proc.kill()
    run.touch("listen")
    run.touch("end")
    assert run.end(15) == 0, "nobody to tell is no reason to stay"


def test_command_that_cannot_be_started(ctl, registry, program):
    status, _, err = ctl("register", "user", "u1", "127.0.0.1:9", "--at-once", "--", "/nonexistent")
    assert status == 127 and "/nonexistent" in err
    status, _, err = ctl("register", "user", "u1", "127.0.0.1:9", "--", "/etc/passwd")
    assert status == 126 and "/etc/passwd" in err
    assert ctl("register", "user", "u1", "127.0.0.1:9", "--")[0] == 2
    assert ctl("apps", "--", "true")[0] == 2
    status, _, err = ctl("register", "user", "u1", "127.0.0.1:9", "--", "sh", "-c", "exit 9")
    assert status == 9 and err == ""
    # Nothing of ours is handed on: neither the token nor descriptors.
    done = subprocess.run(
        [program("registryctl"), "register", "user", "u1", "127.0.0.1:9", "--", "sh", "-c",
         "echo $REGISTRY_TOKEN $KEPT; ls /proc/self/fd"],
        capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL,
        env={"GATEHOUSE_REGISTRY": registry.url, "REGISTRY_TOKEN": "x" * 20, "KEPT": "kept",
             "PATH": os.environ["PATH"]})
    assert done.stdout.split() == ["kept", "0", "1", "2", "3"], done  # 3: of ls itself
    # Its options are its own, and no shell looks at them.
    status, out, _ = ctl("register", "user", "u1", "127.0.0.1:9", "--", "echo", "--zone", "$HOME;x")
    assert (status, out) == (0, "--zone $HOME;x\n")
    assert registry.instances("user") == []

# SPDX-License-Identifier: Apache-2.0
"""registryctl against a real registry: what it prints, and its exit status."""

import json
import signal
import subprocess

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

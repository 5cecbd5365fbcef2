# SPDX-License-Identifier: Apache-2.0
"""gatewayctl: what it says of a configuration and of a running gatewayd, to people and programs."""

import copy
import json
import os
import re
import shutil
import socket
import subprocess

import pytest

import identity
from procs import wait_until


@pytest.fixture
def own_rig(tmp_path, make_rig, procs):
    return make_rig(tmp_path, procs)


@pytest.fixture
def gatewayctl(program):
    def run(*words, prefix=(), env=None):
        return subprocess.run(
            [*prefix, program("gatewayctl"), *words],
            env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=20,
        )

    return run


def expire(certificate, key, directory):
    """A certificate like this one, of the day before yesterday."""
    expired = os.path.join(directory, "expired.crt")
    request = os.path.join(directory, "expired.csr")
    identity.openssl("req", "-new", "-key", key, "-subj", "/CN=expired", "-out", request)
    identity.openssl(
        *("x509", "-req", "-in", request, "-signkey", key, "-days", "-1", "-out", expired)
    )
    return expired


# --- check ------------------------------------------------------------------------------------


def mistaken(rig):
    config = copy.deepcopy(rig.config)
    config["domain"] = 7
    config["listeners"][1]["tls"]["certificates"].append(
        {"certificate": rig.certificate, "key": rig.signers["rs"].key}
    )
    config["auth"]["rs"]["algorithms"] = ["ES256"]
    config["auth"]["es"]["jwks"]["file"] = "/nowhere/keys.json"
    config["routes"][0]["match"]["methods"] = ["GTE", "PURGE"]
    config["access_log"] = {"path": "/nowhere/access.log"}
    config["registry"] = {"urls": ["http://127.0.0.1:1"], "cache": "/nowhere/cache.json"}
    return config


MISTAKES = [
    "domain",
    "listeners[1].tls.certificates[1].key",
    "auth.rs.algorithms",
    "auth.es.jwks.file",
    "access_log.path",
]


def test_check_finds_files_and_members_in_one_run(own_rig, gatewayctl):
    own_rig.write(mistaken(own_rig))
    done = gatewayctl("--json", "check", own_rig.config_path)
    assert done.returncode == 1 and done.stderr == ""
    said = json.loads(done.stdout)
    assert (said["ok"], said["errors"]) == (False, len(MISTAKES)), said
    assert sorted(m["path"] for m in said["mistakes"]) == sorted(MISTAKES)
    texts = {m["path"]: m["text"] for m in said["mistakes"] + said["warnings"]}
    assert texts["listeners[1].tls.certificates[1].key"].startswith(own_rig.signers["rs"].key)
    assert "no token could be good" in texts["auth.rs.algorithms"]
    assert "No such file" in texts["access_log.path"]
    assert sorted(m["path"] for m in said["warnings"]) == ["registry.cache", "routes[0].match.methods"]
    assert 'did you mean "GET"?' in texts["routes[0].match.methods"]

    # The same for people, and when the daemon is started with it.
    lines = gatewayctl("check", own_rig.config_path).stderr.splitlines()
    assert len(lines) == len(MISTAKES) + 2
    assert sum(": warning: " in line for line in lines) == 2
    start = subprocess.run([own_rig.program, "-c", own_rig.config_path], capture_output=True, text=True,
                           timeout=20)
    assert start.returncode == 1 and start.stderr.splitlines() == lines


def test_warnings_alone_are_no_failure(own_rig, gatewayctl):
    own_rig.config["routes"][0]["match"]["methods"] = ["GTE"]
    own_rig.write()
    done = gatewayctl("check", own_rig.config_path)
    assert done.returncode == 0 and ": warning: " in done.stderr and ": ok, " in done.stdout


def test_start_in_json_is_json(own_rig):
    def lines_of(config):
        own_rig.write(config)
        done = subprocess.run(
            [own_rig.program, "-c", own_rig.config_path, "--log-format", "json"],
            capture_output=True, text=True, timeout=20,
        )
        assert done.returncode == 1
        return [json.loads(line) for line in done.stderr.splitlines()]

    assert len(lines_of(mistaken(own_rig))) == len(MISTAKES) + 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", own_rig.ports["plain"]))
        taken.listen()
        assert "in use" in json.dumps(lines_of(own_rig.config))


def test_expired_certificate_is_served_and_told(own_rig, gatewayctl, tmp_path, authority):
    certificates = own_rig.config["listeners"][1]["tls"]["certificates"]
    old, old_key = authority.issue("old", ["old.example.org"], directory=str(tmp_path))
    certificates.append({"certificate": expire(old, old_key, str(tmp_path)), "key": old_key})
    own_rig.write()
    done = gatewayctl("check", own_rig.config_path)
    assert done.returncode == 0
    assert "listeners[1].tls.certificates[1].certificate: warning: " in done.stderr
    assert "has expired" in done.stderr
    own_rig.start()
    assert "has expired" in own_rig.proc.log()
    assert own_rig.ask("GET", "/ping", listener="tls").status == 200


# --- a running gatewayd -----------------------------------------------------------------------


def test_refused_reload_tells_everything(own_rig, gatewayctl):
    own_rig.start()
    where = ("--socket", own_rig.config["admin"]["socket"])
    for n in range(30):
        own_rig.config[f"surprise-of-some-length-{n}"] = n
    own_rig.write()
    done = gatewayctl(*where, "reload")
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 30, done.stderr
    assert all(re.fullmatch(r"gatewayctl: \S+: surprise-\S+: unknown member", x) for x in lines)
    done = gatewayctl(*where, "--json", "reload")
    assert done.returncode == 1 and done.stderr.splitlines() == lines
    assert json.loads(done.stdout)["detail"].count("unknown member") == 30


def status(rig, gatewayctl):
    done = gatewayctl("--socket", rig.config["admin"]["socket"], "--json", "status")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def instances_of(document, service):
    found = next(s for s in document["services"] if s["name"] == service)["instances"]
    return {i["address"]: i for i in found}


def test_status_tells_what_the_workers_know(own_rig, gatewayctl, services, procs, start_service):
    sick = start_service(procs, "echo", "echo-sick")
    addresses = [f"127.0.0.1:{s.port}" for s in (*services, sick)]
    own_rig.config["services"]["echo"]["endpoints"] = [{"address": a} for a in addresses]
    own_rig.config["services"]["echo"]["balance"] = "round_robin"
    own_rig.config["services"]["echo"]["retries"] = 0
    own_rig.config["workers"] = 1
    own_rig.start()
    before = status(own_rig, gatewayctl)
    assert {i["state"] for i in instances_of(before, "echo").values()} == {"up"}
    assert [w["requests"] for w in before["per_worker"]] == [0] and before["pid"] == own_rig.proc.pid
    for _ in range(30):
        own_rig.ask("GET", "/echo/x?fault=status=500,only=echo-sick")
    found = instances_of(status(own_rig, gatewayctl), "echo")
    assert [found[a]["state"] for a in addresses] == ["up", "up", "ejected"]
    assert [found[a]["errors"] for a in addresses] == [0, 0, 5]
    assert sum(i["requests"] for i in found.values()) == 30
    assert all(found[a]["latency_ms"] > 0 for a in addresses[:2])
    with own_rig.connect() as busy:
        busy.send(b"GET /one/x?fault=delay_ms=3000 HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until(
            lambda: instances_of(status(own_rig, gatewayctl), "one")[addresses[0]]["in_flight"] == 1,
            "the request under way is shown",
        )
    text = gatewayctl("--socket", own_rig.config["admin"]["socket"], "status").stdout
    row = next(line.split() for line in text.splitlines() if addresses[2] in line)
    assert "ejected" in row and "5" in row


def test_status_under_load_while_workers_change(own_rig, gatewayctl):
    """Workers are asked in their own threads, whatever happens to their services meanwhile."""
    own_rig.start()
    for i in range(10):
        own_rig.config["services"][f"more-{i}"] = {"endpoints": [{"address": "127.0.0.1:1"}]}
        own_rig.reload()
        assert own_rig.ask("GET", "/echo/x").status == 200
        found = status(own_rig, gatewayctl)
        assert len(instances_of(found, f"more-{i}")) == 1


def test_top_counts_what_happens_between_two_looks(own_rig):
    own_rig.start()
    for _ in range(50):
        own_rig.ask("GET", "/ping")  # before: no part of it
    words = ["--socket", own_rig.config["admin"]["socket"], "--interval", "0.5"]
    ctl = own_rig.program.replace("gatewayd", "gatewayctl")
    with subprocess.Popen([ctl, *words, "--json", "top"], stdout=subprocess.PIPE, text=True) as asking:
        try:
            first = json.loads(asking.stdout.readline())
            assert first["requests_s"] == 0 and first["seconds"] >= 0.5
            assert all(r["p50_ms"] is None for r in first["routes"])
            for _ in range(20):
                assert own_rig.ask("GET", "/echo/x").status == 200
            for _ in range(10):
                own_rig.ask("GET", "/nowhere")
            told = []
            counted = 0
            while counted < 30:  # perhaps in two looks
                told.append(json.loads(asking.stdout.readline()))
                counted += round(told[-1]["requests_s"] * told[-1]["seconds"])
        finally:
            asking.terminate()

    def total(of):
        return sum(round(of(look) * look["seconds"]) for look in told)

    def route(look, name):
        return next(r for r in look["routes"] if r["name"] == name)

    assert counted == 30
    assert total(lambda look: route(look, "echo")["status_s"]["2xx"]) == 20
    assert total(lambda look: route(look, "")["status_s"]["4xx"]) == 10
    assert total(lambda look: route(look, "ping")["requests_s"]) == 0
    busy = next(route(look, "echo") for look in told if route(look, "echo")["requests_s"])
    assert 0 < busy["p50_ms"] <= busy["p99_ms"] < 60000
    echo = [next(s for s in look["services"] if s["name"] == "echo")["instances"] for look in told]
    assert sum(round(i["requests_s"] * look["seconds"]) for look, e in zip(told, echo) for i in e) == 20


def test_top_is_plain_without_a_terminal_and_ends(own_rig, gatewayctl):
    own_rig.start()
    where = ("--socket", own_rig.config["admin"]["socket"])
    done = gatewayctl(*where, "--interval", "0.1", "--count", "3", "top")
    assert done.returncode == 0 and "\x1b" not in done.stdout
    assert done.stdout.count("requests a second") == 3 and done.stdout.count("SERVICE") == 3
    # On a terminal each look replaces the one before.
    script = f"{own_rig.program.replace('gatewayd', 'gatewayctl')} {' '.join(where)} --interval 0.1 --count 2 top"
    done = subprocess.run(["script", "-qec", script, "/dev/null"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and done.stdout.count("\x1b[H\x1b[J") == 2
    for words in (("--interval", "0"), ("--interval", "x"), ("--count", "0"), ("--count", "-1")):
        assert gatewayctl(*where, *words, "top").returncode == 2
    own_rig.proc.stop()
    done = gatewayctl(*where, "--count", "1", "top")
    assert done.returncode == 1 and "no gatewayd answers" in done.stderr


def test_metrics_know_when_it_began(own_rig):
    own_rig.start()
    metrics = own_rig.admin("GET", "/metrics").body.decode()
    said = float(re.search(r"^process_start_time_seconds (\S+)$", metrics, re.MULTILINE)[1])
    with open(f"/proc/{own_rig.proc.pid}/stat", encoding="ascii") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    with open("/proc/stat", encoding="ascii") as file:
        booted = int(re.search(r"^btime (\d+)$", file.read(), re.MULTILINE)[1])
    assert abs(said - booted - ticks / os.sysconf("SC_CLK_TCK")) < 2


def test_status_of_another_program_is_none(own_rig, gatewayctl, tmp_path):
    path = str(tmp_path / "other.sock")
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\nConnection: close\r\n\r\n" + b'{"program":"nlbd"}'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        asking = subprocess.Popen(
            [own_rig.program.replace("gatewayd", "gatewayctl"), "--socket", path, "status"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(answer)
        connection.close()
        out, err = asking.communicate(timeout=10)
    assert asking.returncode == 1 and out == ""
    assert err == f"gatewayctl: unix:{path} is not gatewayd's, nlbd answers there\n"


def test_nlbctl_knows_a_gatewayd_when_it_meets_one(own_rig, program):
    own_rig.start()
    path = own_rig.config["admin"]["socket"]
    for words in ([], ["--json"]):
        done = subprocess.run([program("nlbctl"), "-s", path, *words, "status"], capture_output=True,
                              text=True, timeout=20)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr == f"nlbctl: {path} is not nlbd's, gatewayd answers there\n"


def test_what_does_not_answer_is_named_with_the_reason(gatewayctl, tmp_path):
    for path, why in ((tmp_path / "none.sock", "No such file or directory"), (tmp_path, "refused")):
        done = gatewayctl("--socket", str(path), "status")
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1 and "--socket" in done.stderr
        assert str(path) in done.stderr and why in done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_finds_the_only_socket(gatewayctl, program, tmp_path):
    """In a mount namespace of its own, so that the host's /run plays no part."""
    make = "mount -t tmpfs none /run && mkdir /run/gatehouse"
    bind = (
        "import socket, sys\n"
        "for p in sys.argv[1:]: socket.socket(socket.AF_UNIX).bind('/run/gatehouse/' + p)"
    )

    def told(*names):
        script = f'{make} && python3 -c "$1" {" ".join(names)}; {program("gatewayctl")} status'
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", bind],
                              capture_output=True, text=True, timeout=20)
        assert done.returncode == 1
        return done.stderr

    assert "no gatewayd has a socket in /run/gatehouse" in told("nlb.sock")
    assert "unix:/run/gatehouse/rider.sock: connection refused" in told("nlb.sock", "rider.sock")
    both = told("rider.sock", "driver.sock")
    assert "--socket with one of" in both
    assert "/run/gatehouse/rider.sock" in both and "/run/gatehouse/driver.sock" in both

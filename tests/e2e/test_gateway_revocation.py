# SPDX-License-Identifier: Apache-2.0
"""Revocations: by file and by gatewayctl, at once in all workers, over reloads and restarts."""

import json
import os
import resource
import subprocess
import time

import pytest

import websocket
from conftest import assert_problem, headers_of, seen
from issuer import Key, key_set
from procs import wait_until
from rig import bearer
from scripted import Scripted

ISSUER = "https://id.example.com/r"


@pytest.fixture(scope="module")
def key():
    return Key("k")


@pytest.fixture
def rig(tmp_path, make_rig, procs, key, program):
    """A gateway of two workers with routes /es and /key, and .ctl for its admin socket."""
    rig = make_rig(tmp_path, procs)
    (tmp_path / "es.json").write_bytes(key_set(key))
    (tmp_path / "revoked.json").write_text('{"revoked": []}')
    rig.config["auth"]["es"] = {
        **{"type": "jwt", "issuer": ISSUER, "algorithms": ["ES256"], "leeway_s": 0},
        "jwks": {"file": str(tmp_path / "es.json")},
    }
    rig.config["auth"]["key"] = {"type": "api_key", "keys_file": str(tmp_path / "keys.json")}
    rig.config["routes"].append({"name": "key", "match": {"path": "/key/*"}, "auth": "key", "service": "echo"})
    rig.config["revocations"] = {
        "file": str(tmp_path / "revoked.json"),
        "state": str(tmp_path / "revoked.state"),
    }
    words = ["api-key", "new", "--user", "acme", "--id", "acme-1", "--file", str(tmp_path / "keys.json")]
    done = subprocess.run([program("gatewayctl"), *words], capture_output=True, text=True, check=True)
    rig.api_key = done.stdout.strip()

    def ctl(*words):
        argv = [program("gatewayctl"), "--socket", rig.config["admin"]["socket"], *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=20)

    rig.ctl = ctl
    return rig


def ask(rig, token):
    return rig.ask("GET", "/es/x", bearer(token))


def statuses(rig, token, count=12):
    """Over connections of their own, so that every worker is asked."""
    return {ask(rig, token).status for _ in range(count)}


def revoke(rig, *words, command="revoke"):
    done = rig.ctl(command, *words)
    assert done.returncode == 0, done.stderr
    return done


def listed(rig):
    document = json.loads(rig.ctl("--json", "revocations").stdout)
    assert document["count"] == len(document["revoked"])
    return document["revoked"]


def test_one_token_of_a_user(rig, key, services):
    rig.start()
    bad, good = (key.token(ISSUER, jti=f"t-{n}") for n in range(2))
    assert statuses(rig, bad) == statuses(rig, good) == {200}  # remembered by now
    for service in services:
        service.forget()
    done = revoke(rig, "--jti", "t-0", "--until", "+3600")
    assert "in all workers" in done.stdout and not done.stderr
    assert statuses(rig, bad) == {401}
    assert not seen(services)
    answer = ask(rig, bad)
    assert_problem(answer, 401)
    assert "revoked" in answer.first("WWW-Authenticate")
    assert statuses(rig, good) == {200}
    assert [entry["jti"] for entry in listed(rig)] == ["t-0"]
    assert "t-0" in rig.ctl("revocations").stdout
    rig.reload()
    assert statuses(rig, bad) == {401}
    revoke(rig, "--jti", "t-0", command="unrevoke")
    assert statuses(rig, bad) == {200} and not listed(rig)
    assert rig.ctl("unrevoke", "--jti", "t-0").returncode == 1


def test_everything_a_user_was_given_so_far(rig, key):
    rig.start()
    now = int(time.time())
    old, undated, other = (
        key.token(ISSUER, iat=now - 5),
        key.token(ISSUER, iat=None),
        key.token(ISSUER, sub="u2", iat=now - 5),
    )
    assert {ask(rig, token).status for token in (old, undated, other)} == {200}
    revoke(rig, "--sub", "u1", "--issued-before", str(now))
    assert ask(rig, old).status == ask(rig, undated).status == 401
    assert ask(rig, other).status == ask(rig, key.token(ISSUER, iat=now)).status == 200
    revoke(rig, "--sub", "u1", "--ban")
    assert ask(rig, key.token(ISSUER, iat=now)).status == 401
    # Of another issuer alone it is no concern of this one.
    revoke(rig, "--sub", "u2", "--auth", "rs")
    assert ask(rig, other).status == 200
    revoke(rig, "--sub", "u2", "--auth", "es", "--issued-before", "now")
    assert ask(rig, other).status == 401


def test_api_keys_too(rig):
    rig.start()
    header = [("X-API-Key", rig.api_key)]
    assert headers_of(rig.ask("GET", "/key/x", header))["x-user-id"] == ["acme"]
    revoke(rig, "--api-key", "acme-1")
    assert_problem(rig.ask("GET", "/key/x", header), 401)
    revoke(rig, "--api-key", "acme-1", command="unrevoke")
    assert rig.ask("GET", "/key/x", header).status == 200


def test_the_file_is_watched(rig, key, tmp_path):
    rig.start()
    path = tmp_path / "revoked.json"
    tokens = [key.token(ISSUER, jti=f"f-{n}") for n in range(3)]
    assert {ask(rig, token).status for token in tokens} == {200}

    def write(*entries):
        (tmp_path / "new").write_text(json.dumps({"revoked": entries}))
        os.rename(tmp_path / "new", path)

    write({"jti": "f-0"}, {"jti": "f-1", "until": "2020-01-01T00:00:00Z"})
    wait_until(lambda: statuses(rig, tokens[0]) == {401}, "the file read")
    assert statuses(rig, tokens[1]) == {200}  # over
    revoke(rig, "--jti", "f-2")
    path.write_text('{"revoked": [{"jit": "f-1"}]}')
    wait_until(lambda: "has a member that is none of" in rig.proc.log(), "the complaint")
    assert statuses(rig, tokens[0]) == {401}  # the last good one stays
    write()
    wait_until(lambda: statuses(rig, tokens[0]) == {200}, "the file read again")
    assert statuses(rig, tokens[2]) == {401}  # that of gatewayctl is none of the file's


def test_restart_and_upgrade_remember(rig, key, procs):
    rig.start()
    token = key.token(ISSUER, jti="s-1")
    revoke(rig, "--jti", "s-1")
    revoke(rig, "--jti", "s-2")
    revoke(rig, "--jti", "s-2", command="unrevoke")
    rig.proc.stop()
    rig.start()
    assert statuses(rig, token) == {401}
    assert [entry["jti"] for entry in listed(rig)] == ["s-1"]
    with open(rig.config["revocations"]["state"], encoding="ascii") as file:
        assert file.read() == '{"jti":"s-1"}\n'
    done = rig.ctl("upgrade")
    assert done.returncode == 0, done.stderr
    assert statuses(rig, token) == {401}
    revoke(rig, "--jti", "s-3")
    assert sorted(entry["jti"] for entry in listed(rig)) == ["s-1", "s-3"]
    # This process is none of the test's: it ends by the word of its tool.
    assert rig.ctl("drain", "--wait").returncode == 0


def test_a_state_file_that_is_gone_or_another_takes_nothing_back(rig, key):
    rig.start()
    state = rig.config["revocations"]["state"]
    tokens = [key.token(ISSUER, jti=f"d-{n}") for n in range(4)]
    revoke(rig, "--jti", "d-0")
    os.remove(state)
    revoke(rig, "--jti", "d-1")
    assert [statuses(rig, token, 4) for token in tokens[:2]] == [{401}, {401}]
    # Another process writes a file of its own, and at the same time there is one more word.
    with open(state + ".other", "w", encoding="ascii") as file:
        file.write("".join(f'{{"jti":"d-{n}"}}\n' for n in range(3)))
    os.rename(state + ".other", state)
    revoke(rig, "--jti", "d-3")
    assert [statuses(rig, token, 4) for token in tokens] == [{401}] * 4
    rig.proc.stop()
    rig.start()
    assert sorted(entry["jti"] for entry in listed(rig)) == ["d-0", "d-1", "d-2", "d-3"]


def test_half_a_line_does_not_spoil_the_next(rig, tmp_path):
    state = tmp_path / "revoked.state"
    # Larger than any other file of the gateway, so that the limit below is met by this one alone.
    state.write_text("".join(f'{{"sub":"user-{n}"}}\n' for n in range(20000)))
    rig.start()
    size = state.stat().st_size
    resource.prlimit(rig.proc.pid, resource.RLIMIT_FSIZE, (size + 5, resource.RLIM_INFINITY))
    assert rig.ctl("revoke", "--sub", "lost").returncode == 1
    resource.prlimit(rig.proc.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    revoke(rig, "--sub", "kept")
    lines = state.read_text().splitlines()
    assert len(lines) == 20001 and json.loads(lines[-1])["sub"] == "kept"


def test_without_a_state_file_it_says_so(rig, key):
    del rig.config["revocations"]
    rig.start()
    done = revoke(rig, "--jti", "x")
    assert "restart" in done.stderr
    assert ask(rig, key.token(ISSUER, jti="x")).status == 401


def test_an_open_websocket_is_closed(rig, key):
    def talks(peer):
        websocket.accept(peer)
        while peer.sock.recv(65536):
            pass
        raise OSError("over")

    service = Scripted(talks)
    try:
        rig.config["services"]["ws"] = {"endpoints": [{"address": service.address}]}
        rig.config["routes"].append(
            {"name": "ws", "match": {"path": "/ws"}, "auth": "es", "service": "ws", "websocket": True}
        )
        rig.start()
        sockets = []
        for user in ("u1", "u2"):
            socket = websocket.Http1(rig, "/ws", bearer(key.token(ISSUER, sub=user)))
            socket.open()
            sockets.append(socket)
        revoke(rig, "--sub", "u1", "--ban")
        assert sockets[0].connection.is_closed(20)
        assert not sockets[1].connection.is_closed(0.5)
        for socket in sockets:
            socket.connection.close()
    finally:
        service.stop()
    assert rig.wait_record(reason="revoked")["route"] == "ws"


@pytest.mark.parametrize(
    "words",
    [
        ("revoke",),
        ("revoke", "--jti", "a", "--sub", "b"),
        ("revoke", "--jti", "a", "--until", "soon"),
        ("revoke", "--jti", "a", "--ban"),
        ("revoke", "--sub", "a", "--ban", "--issued-before", "now"),
    ],
)
def test_usage(rig, words):
    done = rig.ctl(*words)
    assert done.returncode == 2 and done.stderr and not done.stdout


def test_only_over_the_socket(rig, key):
    rig.start()
    assert rig.ctl("revoke", "--jti", "a", "--auth", "nobody").returncode == 1
    for method, path in (("POST", "/revoke"), ("POST", "/unrevoke"), ("GET", "/revocations")):
        assert rig.admin(method, path).status == 403

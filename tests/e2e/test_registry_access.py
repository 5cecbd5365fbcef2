# SPDX-License-Identifier: Apache-2.0
"""Who may do what at registryd: tokens, TLS, limits; and its clients with both."""

import base64
import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess

import pytest

import client
from procs import wait_until
from rig import bearer

ADMIN = "admin-0123456789abcdef"
USER = "users-0123456789abcdef"
READER = "reader-0123456789abcdef"


def instance(**more):
    return {"address": "10.1.0.5", "port": 8080, "lease_s": 60, **more}


def basic(user, password):
    text = base64.b64encode(f"{user}:{password}".encode()).decode()
    return [("Authorization", f"Basic {text}")]


@pytest.fixture
def guarded(make_registry, tmp_path):
    """Three tokens: from a file, as a hash, and one that only reads."""
    secret = tmp_path / "admin.token"
    secret.write_text(ADMIN + "\n")
    return make_registry(
        tokens=[
            {"name": "admin", "token": f"$file:{secret}"},
            {"name": "users", "sha256": hashlib.sha256(USER.encode()).hexdigest(),
             "apps": ["user-*", "feed"]},
            {"name": "reader", "token": READER, "rights": ["read"]},
        ]
    ).start()


def put(registry, app, headers=(), **more):
    return registry.call("PUT", f"/v1/apps/{app}/instances/1", instance(**more), headers=headers)


def test_nothing_without_a_token(guarded):
    for method, path in (
        ("GET", "/v1/apps"), ("GET", "/v1/apps/feed"), ("GET", "/v1/watch"), ("GET", "/metrics"),
        ("GET", "/status"), ("GET", "/eureka/apps"), ("DELETE", "/v1/apps/feed/instances/1"),
        ("PUT", "/v1/apps/feed/instances/1"), ("POST", "/v1/apps/feed/instances/1/renew"),
        ("POST", "/v1/renew"), ("POST", "/eureka/apps/FEED"), ("PUT", "/eureka/v2/apps/FEED/1"),
        ("DELETE", "/v2/apps/FEED/1"), ("GET", "/nothing"), ("POST", "/eureka/anything"),
    ):
        answer = guarded.call(method, path, instance())
        assert answer.status == 401, (method, path, answer)
        assert answer.first("WWW-Authenticate").startswith("Bearer")
        assert "token" in answer.json()["detail"]
    assert guarded.call("GET", "/healthz").status == 200
    assert guarded.call("GET", "/readyz").status == 200
    for wrong in (bearer("x" * 30), bearer(""), basic("admin", "x"), basic("users", ADMIN),
                  [("Authorization", "Basic !!!")], [("Authorization", "Basic YWRtaW4=")],
                  [("Authorization", "Digest abc")], [("Authorization", ADMIN)]):
        assert guarded.call("GET", "/v1/apps", headers=wrong).status == 401, wrong
    text = guarded.call("GET", "/metrics", headers=bearer(ADMIN)).body.decode()
    assert 'denied_total{reason="no_token"} 15' in text
    assert 'denied_total{reason="bad_token"} 8' in text
    log = guarded.proc.log()
    assert ADMIN not in log and USER not in log and READER not in log


def test_rights_and_apps_of_a_token(guarded):
    assert put(guarded, "pay", bearer(ADMIN)).status == 201
    assert put(guarded, "user-v1", bearer(USER)).status == 201
    assert put(guarded, "USER-v2", basic("users", USER)).status == 201, "as Eureka's clients do"
    assert put(guarded, "feed", bearer(USER)).status == 201
    for app in ("pay", "feed2", "user"):
        answer = put(guarded, app, bearer(USER))
        assert answer.status == 403 and app in answer.json()["detail"], answer
    assert put(guarded, "feed", bearer(READER)).status == 403

    def get(path, token):
        return guarded.call("GET", path, headers=bearer(token)).status

    assert get("/v1/apps", READER) == 200 and get("/v1/apps/pay", READER) == 200
    assert get("/v1/apps/user-v1", USER) == 200 and get("/v1/apps/%75ser-v1", USER) == 200
    assert get("/v1/apps/pay", USER) == 403 and get("/v1/apps/p%61y", USER) == 403
    assert get("/v1/apps", USER) == 403 and get("/metrics", USER) == 403
    assert get("/v1/watch", USER) == 403 and get("/v1/watch?apps=", USER) == 403
    assert get("/v1/watch?apps=feed,pay", USER) == 403
    assert get("/eureka/apps/PAY", USER) == 403 and get("/eureka/apps/delta", USER) == 403
    assert get("/eureka/apps/FEED", USER) != 403 and get("/eureka/v2/apps/FEED", USER) != 403
    # Many leases in one request: what one may not change is as if unknown.
    pairs = [["pay", "1"], ["feed", "1"], ["user-v1", "1"], ["feed", "nobody"]]
    answer = guarded.call("POST", "/v1/renew", {"instances": pairs}, headers=bearer(USER))
    assert answer.status == 200
    assert answer.json()["unknown"] == [["pay", "1"], ["feed", "nobody"]]
    assert guarded.call("POST", "/v1/renew", {"instances": []},
                        headers=bearer(READER)).status == 403
    for path in ("/v1/apps/pay/instances/1", "/v1/apps/pay/instances/1/status"):
        assert guarded.call("DELETE", path, headers=bearer(USER)).status == 403
    # A stream of what it may read.
    sock = socket.create_connection(("127.0.0.1", guarded.port), 10)
    with sock:
        sock.sendall(f"GET /v1/watch?apps=feed HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {USER}"
                     "\r\n\r\n".encode())
        text = b""
        while b"event: reset" not in text:
            data = sock.recv(4096)
            assert data, text
            text += data


def test_open_reads_and_reload(guarded, tmp_path):
    guarded.reload(open_reads=True)
    assert guarded.call("GET", "/v1/apps").status == 200
    assert guarded.call("GET", "/v1/apps", headers=bearer("nonsense")).status == 401
    assert put(guarded, "feed").status == 401
    (tmp_path / "admin.token").write_text("another-0123456789abcdef")
    guarded.reload(open_reads=False)
    assert put(guarded, "feed", bearer(ADMIN)).status == 401
    assert put(guarded, "feed", bearer("another-0123456789abcdef")).status == 201
    # A broken file changes nothing.
    guarded.write(tokens=[{"name": "x", "token": "short"}])
    guarded.proc.signal(1)
    guarded.proc.wait_log("nothing changed")
    assert put(guarded, "feed", bearer("another-0123456789abcdef")).status == 200


def test_bad_tokens_are_refused(make_registry):
    registry = make_registry(tokens=[
        {"name": "a", "token": "short"}, {"name": "a b", "sha256": "00"},
        {"name": "c", "rights": ["fly"], "token": "0123456789abcdef"},
        {"name": "d", "apps": ["no spaces", "*x"], "token": "0123456789abcdef"},
        {"name": "e", "token": "0123456789abcdef", "sha256": "0" * 64},
        {"name": "f"}, {"name": "f", "token": "0123456789abcdef"},
    ])
    done = subprocess.run([registry.program, "-c", registry.config_path, "--check"],
                          capture_output=True, text=True, timeout=10)
    assert done.returncode == 1
    told = done.stdout + done.stderr
    for path in ("tokens[0].token", "tokens[1].name", "tokens[1].sha256", "tokens[2].rights",
                 "tokens[3].apps", "tokens[4].sha256", "tokens[5].token", "tokens[6].name"):
        assert path in told, told
    assert "0123456789abcdef" not in told and '"short"' not in told


def test_limits(make_registry):
    registry = make_registry(
        limits={"instances": 8, "instances_per_client": 5, "watches": 2, "body_bytes": 4096},
        tokens=[{"name": n, "token": f"{n}-0123456789abcdef"} for n in ("one", "two")],
    ).start()

    def register(number, name="one", **more):
        path = f"/v1/apps/a/instances/{number}"
        return registry.call("PUT", path, instance(**more), headers=bearer(f"{name}-0123456789abcdef"))

    for number in range(5):
        assert register(number).status == 201
    answer = register(5)
    assert answer.status == 429 and "instances_per_client" in answer.json()["detail"]
    assert answer.first("Retry-After") and answer.first("Content-Type") == "application/problem+json"
    assert register(3).status == 200 and register(3, port=9).status == 200, "not one more"
    assert register(5, "two").status == 201, "another client"
    # Taken over by another, it still counts for the first.
    assert register(1, "two", port=10).status == 200
    assert register(6).status == 429
    registry.call("DELETE", "/v1/apps/a/instances/1", headers=bearer("two-0123456789abcdef"))
    assert register(6).status == 201
    assert register(7, "two").status == 201 and register(8, "two").status == 201
    assert register(9, "two").status == 507, "all of it is full"

    watches = []
    for _ in range(2):
        sock = socket.create_connection(("127.0.0.1", registry.port), 10)
        sock.sendall(b"GET /v1/watch HTTP/1.1\r\nHost: r\r\n"
                     b"Authorization: Bearer one-0123456789abcdef\r\n\r\n")
        assert sock.recv(15) == b"HTTP/1.1 200 OK"
        watches.append(sock)
    answer = registry.call("GET", "/v1/watch", headers=bearer("one-0123456789abcdef"))
    assert answer.status == 429 and "limits.watches" in answer.json()["detail"]

    def read(query=""):
        return registry.call("GET", f"/v1/apps{query}", headers=bearer("one-0123456789abcdef")).status

    assert read("?index=1") == 429
    assert read() == 200, "what does not wait is no watch"
    for sock in watches:
        sock.close()
    wait_until(lambda: read("?index=1") == 200, "room again")
    assert register(3, metadata={"k": "v" * 5000}).status == 413
    registry.reload(limits={**registry.config["limits"], "instances_per_client": 6,
                            "instances": 100})
    assert register(10).status == 201 and register(11).status == 429


def test_a_flood_of_registrations_is_bounded(make_registry):
    """Without tokens the address is the client."""
    registry = make_registry(limits={"instances_per_client": 300}).start()
    sock = socket.create_connection(("127.0.0.1", registry.port), 10)
    body = json.dumps(instance()).encode()
    with client.Connection(sock) as connection:
        statuses = [connection.request("PUT", f"/v1/apps/flood-{n}/instances/{n}", [], body).status
                    for n in range(1000)]
    assert statuses == [201] * 300 + [429] * 700
    assert registry.call("GET", "/status").json()["apps"] == 300


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture
def certificates(authority, tmp_path):
    """A copy that a test may replace: (certificate, key)."""
    def issue(name, **more):
        return authority.issue(name, ["localhost"], directory=str(tmp_path),
                               names=["IP:127.0.0.1"], **more)

    return issue


@pytest.fixture
def secure(make_registry, authority, certificates):
    certificate, key = certificates("registry")
    registry = make_registry(
        tls={"certificates": [{"certificate": certificate, "key": key}], "min_version": "1.3"},
        tokens=[{"name": "admin", "token": ADMIN}],
    )
    registry.tls = client.tls_context(authority.certificate)
    registry.url = registry.url.replace("http:", "https:")
    return registry.start()


def serial(registry):
    with socket.create_connection(("127.0.0.1", registry.port), 10) as sock:
        with registry.tls.wrap_socket(sock, server_hostname="127.0.0.1") as tls:
            return tls.getpeercert()["serialNumber"]


def test_tls(secure, authority, certificates, tmp_path):
    assert put(secure, "feed", bearer(ADMIN)).status == 201
    with pytest.raises((client.BadResponse, OSError)):
        client.http("127.0.0.1", secure.port, "GET", "/healthz")
    old = client.tls_context(authority.certificate)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, OSError)):
        client.http("127.0.0.1", secure.port, "GET", "/healthz", tls=old)
    # A large body and a large answer, over many records.
    big = {f"k{i}": "v" * 1000 for i in range(7)}
    for number in range(40):
        path = f"/v1/apps/big/instances/{number}"
        assert secure.call("PUT", path, instance(metadata=big), headers=bearer(ADMIN)).status == 201
    answer = secure.call("GET", "/v1/apps/big", headers=bearer(ADMIN))
    assert len(answer.json()["instances"]) == 40
    metrics = secure.call("GET", "/metrics", headers=bearer(ADMIN)).body.decode()
    assert "gatehouse_registry_http_failed_handshakes_total 2" in metrics

    # New files take over by themselves; broken ones do not.
    before = serial(secure)
    fresh = certificates("fresh")
    for source, target in zip(fresh, (str(tmp_path / "registry.crt"), str(tmp_path / "registry.key"))):
        shutil.copy(source, target + ".new")
        os.replace(target + ".new", target)
    wait_until(lambda: serial(secure) != before, "the new certificate", 15, secure.proc)
    now = serial(secure)
    (tmp_path / "registry.crt").write_text("nonsense")
    secure.proc.wait_log("stay")
    assert serial(secure) == now
    # TLS is not something to lose by a reload.
    secure.write(tls=None)
    secure.proc.signal(1)
    secure.proc.wait_log("nothing changed")
    assert serial(secure) == now


def test_client_certificates(make_registry, authority, certificates, program):
    certificate, key = certificates("registry")
    mine = certificates("mine", usage="clientAuth")
    registry = make_registry(
        tls={"certificates": [{"certificate": certificate, "key": key}], "client_auth": "require",
             "client_ca": authority.certificate},
    )
    registry.tls = client.tls_context(authority.certificate)
    registry.tls.load_cert_chain(*mine)
    registry.start()
    assert put(registry, "feed").status == 201
    with pytest.raises((ssl.SSLError, OSError, client.BadResponse)):
        client.http("127.0.0.1", registry.port, "GET", "/v1/apps",
                    tls=client.tls_context(authority.certificate))
    ctl = [program("registryctl"), "--url", f"https://127.0.0.1:{registry.port}",
           "--ca", authority.certificate, "apps"]
    assert subprocess.run(ctl, capture_output=True, timeout=20).returncode == 1
    ctl[1:1] = ["--certificate", mine[0], "--key", mine[1]]
    assert b"feed" in subprocess.run(ctl, capture_output=True, timeout=20, check=True).stdout


def test_registryctl_with_token_and_tls(secure, authority, program, procs, tmp_path):
    token = tmp_path / "token"
    token.write_text(ADMIN + "\n")

    def ctl(*argv, env=None):
        return subprocess.run(
            [program("registryctl"), *argv], capture_output=True, text=True, timeout=20,
            env={"GATEHOUSE_REGISTRY": secure.url.replace("127.0.0.1", "localhost"), **(env or {})})

    trust = ("--ca", authority.certificate)
    assert ctl(*trust, "--token", ADMIN, "register", "feed", "1", "10.0.0.1:80").returncode == 0
    assert "feed" in ctl(*trust, "apps", env={"REGISTRY_TOKEN": ADMIN}).stdout
    assert "feed" in ctl(*trust, "--token", f"@{token}", "apps").stdout
    done = ctl(*trust, "apps")
    assert done.returncode == 1 and "--token" in done.stderr
    done = ctl("--token", ADMIN, "apps")
    assert done.returncode == 1 and "certificate (--ca FILE" in done.stderr, done
    done = ctl("apps", env={"GATEHOUSE_REGISTRY": secure.url.replace("https", "http")})
    assert done.returncode == 1 and "https://" in done.stderr, done
    assert ctl(*trust, "--token", "@/nonexistent", "apps").returncode == 2
    keep = procs.start("keep", [program("registryctl"), "--url", secure.url, *trust, "--token",
                                f"@{token}", "register", "--keep", "feed", "2", "10.0.0.2:80",
                                "--lease", "1"])
    watch = procs.start("watch", [program("registryctl"), "--url", secure.url, *trust, "--token",
                                  ADMIN, "watch", "feed"])
    wait_until(lambda: "10.0.0.2:80" in watch.log(), "seen", 10, watch)
    with open(f"/proc/{watch.pid}/cmdline", "rb") as file:
        assert ADMIN.encode() not in file.read()
    assert keep.stop() == 0
    wait_until(lambda: "delete" in watch.log(), "left", 10, watch)
    watch.kill()


def test_gateway_with_token_and_tls(secure, authority, make_rig, services, procs, tmp_path):
    """Registers itself, watches, and takes a new token at a reload."""
    token = tmp_path / "gateway.token"
    token.write_text("not-the-right-one-0123")
    rig = make_rig(tmp_path, procs)
    rig.config["registry"] = {
        "urls": [secure.url], "token": f"$file:{token}", "tls": {"ca": authority.certificate},
        "register": {"app": "gateway", "id": "gw", "address": "127.0.0.1", "port": 443},
    }
    rig.config["services"]["found"] = {"discover": "found"}
    rig.config["routes"].append({"name": "found", "match": {"path": "/found"}, "service": "found"})
    found = {"address": "127.0.0.1", "port": services[0].port, "lease_s": 60}
    path = "/v1/apps/found/instances/1"
    assert secure.call("PUT", path, found, headers=bearer(ADMIN)).status == 201
    rig.write()
    rig.proc = procs.start("gatewayd", [rig.program, "-c", rig.config_path])
    rig.proc.wait_log("registry: lost: .* status 401")
    rig.proc.wait_log("registration refused: .*status 401")
    token.write_text(ADMIN)
    rig.proc.signal(1)

    def status():
        return client.http("127.0.0.1", rig.ports["plain"], "GET", "/found").status

    wait_until(lambda: status() == 200, "discovered", 20, rig.proc)
    wait_until(lambda: secure.call("GET", "/v1/apps/gateway", headers=bearer(ADMIN)
                                   ).json()["instances"], "registered", 20, rig.proc)
    assert ADMIN not in rig.proc.log()

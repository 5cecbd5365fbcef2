# SPDX-License-Identifier: Apache-2.0
"""Checks that registryd runs for services that cannot renew: HTTP, TCP and gRPC."""

import json
import signal
import socket
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from procs import wait_until

PATH = "/v1/apps/user/instances/u1"


class Health:
    """An HTTP service whose health is set by the test; it may also never answer."""

    def __init__(self):
        health = self
        self.status, self.paths, self.parallel, self.most = 200, [], 0, 0
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with health._lock:
                    health.paths.append(self.path)
                    health.parallel += 1
                    health.most = max(health.most, health.parallel)
                health.gate.wait(20)
                with health._lock:
                    health.parallel -= 1
                self.send_response(health.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def health():
    made = Health()
    yield made
    made.close()


def check(**more):
    return {"interval_ms": 300, "timeout_ms": 300, **more}


def register(registry, port, name="u1", **more):
    document = {"address": "127.0.0.1", "port": port, **more}
    return registry.call("PUT", f"/v1/apps/user/instances/{name}", document)


def state(registry):
    found = registry.instances("user")
    return found[0]["status"] if found else None


def becomes(registry, status):
    wait_until(lambda: state(registry) == status, status, 20, registry.proc)


def metric(registry, name):
    for line in registry.call("GET", "/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise AssertionError(f"no metric {name}")


def test_http_check_decides(registry, health):
    health.status = 503
    assert register(registry, health.port, check=check(type="http", path="/health?deep=1")).status == 201
    becomes(registry, "DOWN")
    health.status = 204
    becomes(registry, "UP")
    assert set(health.paths) == {"/health?deep=1"}
    found = registry.instances("user")[0]
    assert found["check"] == {"type": "http", "path": "/health?deep=1", "interval_ms": 300,
                              "timeout_ms": 300, "rise": 1, "fall": 2}
    assert found["lease_s"] == 86400, "the check renews it"
    # It says the same again: what the check knows stays.
    assert register(registry, health.port, check=check(type="http", path="/health?deep=1")).status == 200
    assert state(registry) == "UP" and registry.instances("user")[0]["index"] == found["index"]
    # An operator goes first, and lets go again.
    registry.status("user", "u1", "OUT_OF_SERVICE")
    health.status = 500
    wait_until(lambda: registry.instances("user")[0].get("reported") == "DOWN", "reported", 20)
    assert state(registry) == "OUT_OF_SERVICE"
    registry.call("DELETE", PATH + "/status")
    assert state(registry) == "DOWN"
    health.gate.clear()  # no answer is no good answer
    health.status = 200
    failed = metric(registry, 'gatehouse_registry_check_results_total{result="fail"}')
    wait_until(lambda: metric(registry, 'gatehouse_registry_check_results_total{result="fail"}')
               >= failed + 2, "no answers", 20)
    assert state(registry) == "DOWN"
    health.gate.set()
    becomes(registry, "UP")
    registry.call("DELETE", PATH)
    assert metric(registry, "gatehouse_registry_checks") == 0


def test_rise_and_fall_and_restart(registry, health):
    assert register(registry, health.port, status="DOWN", lease_s=60,
                    check=check(type="http", rise=3, fall=1)).status == 201
    becomes(registry, "UP")
    assert len(health.paths) >= 3
    health.status = 500
    becomes(registry, "DOWN")
    health.status = 200
    registry.proc.stopped_on_purpose = True
    registry.proc.signal(signal.SIGTERM)
    registry.proc.popen.wait(10)
    registry.start()
    assert state(registry) == "DOWN" and registry.instances("user")[0]["check"]["rise"] == 3
    before = len(health.paths)
    becomes(registry, "UP")
    assert len(health.paths) >= before + 3


def test_tcp_check_and_a_short_lease(registry):
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    assert register(registry, 9, check=check(type="tcp", port=port), lease_s=2).status == 201
    becomes(registry, "DOWN")
    sock.listen(8)
    becomes(registry, "UP")
    index = registry.instances("user")[0]["index"]
    with pytest.raises(Exception):
        wait_until(lambda: not registry.instances("user"), "expiry", 3)
    assert registry.instances("user")[0]["index"] == index, "passing checks renew"
    sock.close()
    becomes(registry, "DOWN")
    wait_until(lambda: not registry.instances("user"), "gone with its lease", 20)


class GrpcHealth:
    """grpc.health.v1.Health by hand; `answers` by service."""

    def __init__(self, grpc):
        self.answers, self.asked = {"": b"\x08\x01"}, []

        def answer(request, context):
            name = request[2:].decode()
            self.asked.append(name)
            if name not in self.answers:
                context.abort(grpc.StatusCode.NOT_FOUND, "unknown")
            return self.answers[name]

        handler = grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(answer)})
        self.server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(handler,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()


def test_grpc_check(registry):
    grpc = pytest.importorskip("grpc")
    service = GrpcHealth(grpc)
    try:
        assert register(registry, service.port, check=check(type="grpc", service="pay.v1")).status == 201
        becomes(registry, "DOWN")  # NOT_FOUND
        service.answers["pay.v1"] = b"\x08\x01"
        becomes(registry, "UP")
        service.answers["pay.v1"] = b"\x08\x02"  # NOT_SERVING
        becomes(registry, "DOWN")
        assert set(service.asked) == {"pay.v1"}
        registry.call("PUT", PATH, {"address": "127.0.0.1", "port": service.port,
                                    "check": check(type="grpc")})
        becomes(registry, "UP")
        service.answers[""] = b""  # UNKNOWN: the default of protobuf
        becomes(registry, "DOWN")
    finally:
        service.server.stop(None)
    # Something that speaks no HTTP/2 at all.
    with Http1Only() as port:
        registry.call("PUT", PATH, {"address": "127.0.0.1", "port": port, "status": "UP",
                                    "check": check(type="grpc", fall=1)})
        becomes(registry, "DOWN")


class Http1Only:
    def __enter__(self):
        self.health = Health()
        return self.health.port

    def __exit__(self, *_):
        self.health.close()


def test_checks_at_once_are_bounded(make_registry, health):
    registry = make_registry(limits={"checks_at_once": 3}).start()
    health.gate.clear()
    for number in range(20):
        register(registry, health.port, f"u{number}", check=check(type="http", fall=20))
    wait_until(lambda: metric(registry, "gatehouse_registry_checks_running") == 3, "three", 20)
    wait_until(lambda: len(health.paths) >= 12, "the others get their turn", 20)
    assert metric(registry, "gatehouse_registry_checks_running") <= 3
    assert metric(registry, "gatehouse_registry_checks") == 20
    health.gate.set()
    wait_until(lambda: all(i["status"] == "UP" for i in registry.instances("user")), "all up", 30)
    for number in range(20):
        registry.call("DELETE", f"/v1/apps/user/instances/u{number}")
    wait_until(lambda: metric(registry, "gatehouse_registry_checks_running") == 0, "none", 20)


@pytest.mark.parametrize(
    "document,field",
    [
        ([], "check"), ({}, "check.type"), ({"type": "ping"}, "check.type"),
        ({"type": "http", "path": "health"}, "check.path"),
        ({"type": "http", "path": "/a b"}, "check.path"),
        ({"type": "http", "path": "/a\r\nX: y"}, "check.path"),
        ({"type": "http", "path": "/" + "a" * 100}, "check.path"),
        ({"type": "tcp", "path": "/"}, "check.path"),
        ({"type": "http", "service": "x"}, "check.service"),
        ({"type": "tcp", "port": 0}, "check.port"),
        ({"type": "tcp", "interval_ms": 99}, "check.interval_ms"),
        ({"type": "tcp", "interval_ms": 1000, "timeout_ms": 2000}, "check.timeout_ms"),
        ({"type": "tcp", "rise": 21}, "check.rise"),
        ({"type": "tcp", "surprise": 1}, "check.surprise"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_bad_checks_are_refused(registry, document, field):
    answer = register(registry, 80, check=document)
    assert answer.status == 400 and answer.json()["field"] == field, answer
    assert registry.instances("user") == []

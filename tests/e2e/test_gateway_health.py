# SPDX-License-Identifier: Apache-2.0
"""Active checks of instances: by HTTP of both versions, by gRPC's protocol, by a mere connection."""

import socket
import ssl
import threading
from concurrent import futures

import pytest

import h2
from procs import wait_until
from rig import free_port
from scripted import Scripted

NAME = "service.internal.example"
CHECK = {"interval_ms": 100, "timeout_ms": 2000, "rise": 1, "fall": 2}


@pytest.fixture
def scripted(request):
    def start(serve, tls=None):
        service = Scripted(serve, tls)
        request.addfinalizer(service.stop)
        return service

    return start


@pytest.fixture
def start_rig(tmp_path, make_rig, procs):
    def start(address, health, **members):
        rig = make_rig(tmp_path, procs)
        rig.config["workers"] = 2
        rig.config["services"]["one"] = {
            "endpoints": [{"address": address}], "health": {**CHECK, **health}, **members}
        return rig.start()

    return start


def health_of(rig):
    services = rig.admin("GET", "/status").json()["services"]
    return next(s for s in services if s["name"] == "one")["instances"][0]["health"]


def wait_health(rig, wanted):
    wait_until(lambda: health_of(rig) == wanted, f"the instance is {wanted}", 15)


def why(rig):
    """What the log says of the last instance that failed."""
    return rig.proc.wait_log(r"instance=\S+: unhealthy: (.*)")[1]


def test_statuses_and_host(scripted, start_rig):
    good = threading.Event()

    def serve(peer):
        peer.read_head()
        peer.answer(b"", "418 Ready" if good.is_set() else "200 OK")

    service = scripted(serve)
    rig = start_rig(service.address,
                    {"path": "/up?x=1", "host": "one.example:8080", "statuses": ["410-418", 204]})
    wait_health(rig, "failing")
    assert why(rig) == "status 200"
    good.set()
    wait_health(rig, "healthy")
    assert service.heads[0].startswith("GET /up?x=1 HTTP/1.1\r\n")
    assert "Host: one.example:8080" in service.heads[0]


def test_redirects_are_well_by_default_and_errors_are_not(scripted, start_rig):
    status = ["302 Found"]
    rig = start_rig(scripted(lambda peer: (peer.read_head(), peer.answer(b"", status[0]))).address,
                    {"path": "/up"})
    wait_health(rig, "healthy")
    status[0] = "404 Not Found"
    wait_health(rig, "failing")


def test_mere_connections(start_rig):
    port = free_port()
    listener = socket.create_server(("127.0.0.1", port), backlog=64)
    rig = start_rig(f"127.0.0.1:{port}", {"type": "tcp"})
    wait_health(rig, "healthy")
    listener.close()
    wait_health(rig, "failing")
    assert why(rig) == "Connection refused"
    listener = socket.create_server(("127.0.0.1", port), backlog=64)
    wait_health(rig, "healthy")
    listener.close()


def test_another_port(start_rig):
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        port = listener.getsockname()[1]
        rig = start_rig("127.0.0.1:1", {"type": "tcp", "port": port, "fall": 1})
        accepted = listener.accept()[0]
        accepted.close()
        assert health_of(rig) == "healthy"


def answering(status):
    """HTTP/2 that says the status in the list."""

    def serve(peer):
        session = h2.Service(peer.sock).accept()
        while True:
            session.respond(session.request(), status=status[0])

    return serve


def test_http2(scripted, start_rig):
    status = [500]
    rig = start_rig(scripted(answering(status)).address, {"path": "/up"}, protocol="h2")
    wait_health(rig, "failing")
    assert why(rig) == "status 500"
    status[0] = 200
    wait_health(rig, "healthy")


def test_http2_from_one_that_does_not_speak_it(scripted, start_rig):
    def serve(peer):
        peer.read_head()
        peer.answer()

    rig = start_rig(scripted(serve).address, {"path": "/up"}, protocol="h2")
    wait_health(rig, "failing")
    assert why(rig) == "it does not speak HTTP/2"


def test_silence_is_no_answer(scripted, start_rig):
    rig = start_rig(scripted(lambda peer: peer.wait_closed()).address,
                    {"path": "/up", "timeout_ms": 100}, protocol="h2")
    wait_health(rig, "failing")
    assert why(rig) == "no answer in time"


@pytest.mark.parametrize("type_", ["http", "tcp"])
def test_tls(scripted, start_rig, authority, tmp_path, type_):
    """The certificate counts, as it would for requests."""
    pair = authority.issue("health", [NAME], directory=str(tmp_path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    context.set_alpn_protocols(["h2"])
    service = scripted(answering([200]), context)
    health = {"path": "/up"} if type_ == "http" else {"type": "tcp"}
    tls = {"ca": authority.certificate, "server_name": NAME}
    rig = start_rig(service.address, health, protocol="h2", tls=tls)
    wait_until(lambda: service.connections >= 3, "checks", 15)
    assert health_of(rig) == "healthy"
    rig.config["services"]["one"]["tls"]["server_name"] = "another.example"
    rig.reload()
    wait_health(rig, "failing")
    assert why(rig) == "hostname mismatch"


@pytest.fixture
def grpc_server(request):
    """A real one whose health is what `answers` says; returns its address and `answers`."""
    grpc = pytest.importorskip("grpc", reason="python3-grpcio is not installed (make deps)")
    answers = {b"": b"\x08\x01", b"\x0a\x04cart": b"\x08\x02"}

    def check(message, context):
        if message not in answers:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return answers[message]

    server = grpc.server(futures.ThreadPoolExecutor(4))
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    request.addfinalizer(lambda: server.stop(None))
    return f"127.0.0.1:{port}", answers


def test_grpc_health(grpc_server, start_rig):
    address, answers = grpc_server
    rig = start_rig(address, {"type": "grpc"}, protocol="grpc")
    wait_health(rig, "healthy")
    answers[b""] = b"\x08\x02"
    wait_health(rig, "failing")
    assert why(rig) == "NOT_SERVING"
    answers[b""] = b""  # proto3 leaves zeroes out: UNKNOWN
    rig.config["services"]["one"]["health"]["service"] = "cart"
    rig.reload()
    assert health_of(rig) == "failing"
    answers[b"\x0a\x04cart"] = b"\x08\x01"
    wait_health(rig, "healthy")


def test_grpc_health_of_a_service_nobody_knows(grpc_server, start_rig):
    rig = start_rig(grpc_server[0], {"type": "grpc", "service": "nobody"}, protocol="grpc")
    wait_health(rig, "failing")
    assert why(rig).startswith("grpc-status 5")


def test_grpc_health_of_an_http2_server(scripted, start_rig):
    rig = start_rig(scripted(answering([404])).address, {"type": "grpc"}, protocol="grpc")
    wait_health(rig, "failing")
    assert why(rig) == "status 404"

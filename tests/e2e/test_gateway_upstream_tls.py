# SPDX-License-Identifier: Apache-2.0
"""TLS from the gateway to services: whom it believes, what it keeps, and for how long."""

import hashlib
import re
import shutil
import ssl
import subprocess
from concurrent import futures

import pytest

import client
import identity
from conftest import assert_problem
from procs import wait_until
from scripted import Scripted

NAME = "service.internal.example"
LAST_CHUNK = b"\r\n0\r\n\r\n"


@pytest.fixture
def own_rig(tmp_path, make_rig, procs):
    own = make_rig(tmp_path, procs)
    own.config["workers"] = 1
    return own


def server_context(authority, directory, names=(NAME,), more=(), version=None, ask=None):
    pair = authority.issue(f"service-{names[0]}", list(names), directory=str(directory), names=more)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*pair)
    if version:
        made.minimum_version = made.maximum_version = ssl.TLSVersion[version]
    if ask:
        made.load_verify_locations(ask)
        made.verify_mode = ssl.CERT_REQUIRED
    return made


@pytest.fixture
def start(request):
    """Runs a TLS service, by default one that answers every request with its head."""

    def serve(peer):
        head = peer.read_head()
        peer.answer(head)

    def run(tls, script=serve):
        service = Scripted(script, tls)
        request.addfinalizer(service.stop)
        return service

    return run


def use(rig, service, **tls):
    rig.config["services"]["one"] = {
        "endpoints": [{"address": service.address}],
        "retries": 0,
        "connect_timeout_ms": 5000,
        "tls": tls,
    }


def metric(rig, name):
    text = rig.admin("GET", "/metrics").body.decode()
    return int(re.search(rf"^{name} (\d+)$", text, re.MULTILINE)[1])


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_verified_by_name_and_kept(own_rig, authority, tmp_path, start, version):
    tls = server_context(authority, tmp_path, version=version)
    names = []
    tls.sni_callback = lambda _sock, name, _context: names.append(name)
    service = start(tls)
    use(own_rig, service, ca=authority.certificate, server_name=NAME)
    own_rig.start()
    with own_rig.connect() as connection:
        for i in range(20):
            assert connection.request("GET", f"/one/{i}").status == 200
    assert names == [NAME]
    assert service.connections == 1, "tickets that come unasked do not end a kept connection"
    assert metric(own_rig, "gatehouse_gateway_upstream_tls_handshakes_total") == 1


def test_name_is_the_address_when_not_given(own_rig, authority, tmp_path, start):
    service = start(server_context(authority, tmp_path, more=["IP:127.0.0.1"]))
    use(own_rig, service, ca=authority.certificate)
    own_rig.start()
    assert own_rig.ask("GET", "/one/x").status == 200


@pytest.mark.parametrize("doubt", ["authority", "system", "name", "address", "server-use"])
def test_doubt_is_502_and_nothing_is_sent(own_rig, authority, tmp_path, start, doubt):
    if doubt == "server-use":
        pair = authority.issue("misused", [NAME], directory=str(tmp_path), usage="clientAuth")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*pair)
    else:
        tls = server_context(authority, tmp_path)
    service = start(tls)
    settings = {"ca": authority.certificate, "server_name": NAME}
    if doubt == "authority":
        settings["ca"] = identity.Authority(str(tmp_path / "others")).certificate
    elif doubt == "system":
        del settings["ca"]
    elif doubt == "name":
        settings["server_name"] = "other.internal.example"
    elif doubt == "address":
        del settings["server_name"]
    use(own_rig, service, **settings)
    own_rig.start()
    assert_problem(own_rig.ask("POST", "/one/x", body=b"secret"), 502)
    assert own_rig.wait_record(status=502)["reason"] == "connect_failed"
    assert not service.heads
    assert metric(own_rig, "gatehouse_gateway_upstream_tls_handshakes_failed_total") == 1
    why = {"name": "hostname mismatch", "address": "IP address mismatch", "server-use": "purpose"}
    told = f"service=one instance={service.address}: TLS: "
    own_rig.proc.wait_log(re.escape(told) + ".*" + why.get(doubt, "certificate"))
    assert own_rig.ask("GET", "/one/x").status == 502
    assert own_rig.proc.log().count(told) == 1, "not for each request"


def test_without_verification(own_rig, authority, tmp_path, start):
    service = start(server_context(authority, tmp_path))
    use(own_rig, service, verify=False, server_name="whoever.example")
    own_rig.write()
    done = subprocess.run(
        [own_rig.program, "-c", own_rig.config_path, "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "services.one.tls.verify: warning: " in done.stderr
    own_rig.start()
    assert own_rig.ask("GET", "/one/x").status == 200


def test_plain_service_is_no_tls_service(own_rig, authority, start):
    service = start(None)
    use(own_rig, service, ca=authority.certificate, server_name=NAME)
    own_rig.config["services"]["one"]["connect_timeout_ms"] = 500
    own_rig.start()
    assert own_rig.ask("GET", "/one/x").status in (502, 504)


def test_certificate_of_the_gateway(own_rig, authority, tmp_path, start):
    people = identity.Authority(str(tmp_path / "people"))
    certificate, key = people.issue("gateway", ["gateway"], usage="clientAuth")
    subjects = []

    def serve(peer):
        peer.read_head()
        subjects.append(dict(pair[0] for pair in peer.sock.getpeercert()["subject"]))
        peer.answer()

    service = start(server_context(authority, tmp_path, ask=people.certificate), serve)
    trust = {"ca": authority.certificate, "server_name": NAME}
    use(own_rig, service, certificate=certificate, key=key, **trust)
    own_rig.start()
    assert own_rig.ask("GET", "/one/x").status == 200
    assert subjects == [{"commonName": "gateway"}]
    use(own_rig, service, **trust)
    own_rig.reload()
    assert_problem(own_rig.ask("GET", "/one/x"), 502)
    assert len(subjects) == 1


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_sessions_are_resumed(own_rig, authority, tmp_path, start, version):
    reused = []

    def serve(peer):
        peer.read_head()
        reused.append(peer.sock.session_reused)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        peer.sock.unwrap()

    service = start(server_context(authority, tmp_path, version=version), serve)
    use(own_rig, service, ca=authority.certificate, server_name=NAME)
    own_rig.start()
    for _ in range(4):
        assert own_rig.ask("GET", "/one/x").status == 200
    assert reused == [False, True, True, True]
    assert metric(own_rig, "gatehouse_gateway_upstream_tls_handshakes_resumed_total") == 3


def test_other_trust_ends_connections_and_sessions(own_rig, authority, tmp_path, start):
    """What was verified by one authority is not used when another one is to be trusted."""
    service = start(server_context(authority, tmp_path))
    ca = tmp_path / "ca.pem"
    shutil.copyfile(authority.certificate, ca)
    use(own_rig, service, ca=str(ca), server_name=NAME)
    own_rig.start()
    for _ in range(2):
        assert own_rig.ask("GET", "/one/x").status == 200
    own_rig.reload()
    assert own_rig.ask("GET", "/one/x").status == 200
    assert service.connections == 1, "an unchanged policy keeps the pool"
    others = identity.Authority(str(tmp_path / "others"))
    shutil.copyfile(others.certificate, ca)
    wait_until(
        lambda: metric(own_rig, "gatehouse_gateway_tls_file_reloads_total") > 0, "the file", 10
    )
    wait_until(lambda: own_rig.ask("GET", "/one/x").status == 502, "the other trust", 5)


@pytest.mark.parametrize("length", ["known", "chunked"])
def test_long_bodies_both_ways(own_rig, authority, tmp_path, start, length):
    data = bytes(range(256)) * 20000

    def serve(peer):
        peer.read_head()
        is_known = length == "known"
        while len(peer.buffer) < len(data) if is_known else peer.buffer[-7:] != LAST_CHUNK:
            peer.buffer += peer.sock.recv(65536)
        body = peer.buffer if is_known else dechunked(peer.buffer)
        peer.buffer = b""
        peer.answer(body)

    service = start(server_context(authority, tmp_path), serve)
    use(own_rig, service, ca=authority.certificate, server_name=NAME)
    own_rig.start()
    for listener in ("plain", "tls"):
        with own_rig.connect(listener) as connection:
            if length == "known":
                answer = connection.request("POST", "/one/x", body=data)
            else:
                coding = [("Transfer-Encoding", "chunked")]
                head = client.head_of("POST", "/one/x", connection.host, coding)
                connection.send(head + b"%x\r\n" % len(data) + data + LAST_CHUNK)
                answer = connection.read_response()
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(data).digest()


def dechunked(data):
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        if int(size, 16) == 0:
            return body
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]


def test_answer_cut_without_a_closing_alert_is_noticed(own_rig, authority, tmp_path, start):
    def serve(peer):
        head = peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        if b"/one/clean" in head:
            peer.sock.unwrap()
        peer.sock.close()

    service = start(server_context(authority, tmp_path), serve)
    use(own_rig, service, ca=authority.certificate, server_name=NAME)
    own_rig.start()
    assert own_rig.ask("GET", "/one/clean").body == b"all of it"
    with pytest.raises((client.BadResponse, ConnectionError)):
        own_rig.ask("GET", "/one/cut")


def test_health_checks_use_the_same_tls(own_rig, authority, tmp_path, start):
    def serve(peer):
        head = peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n" + head[:4])

    good = start(server_context(authority, tmp_path), serve)
    wrong = start(server_context(authority, tmp_path, ["wrong.example"]), serve)
    use(own_rig, good, ca=authority.certificate, server_name=NAME)
    own_rig.config["services"]["one"]["endpoints"].append({"address": wrong.address})
    own_rig.config["services"]["one"]["health"] = {
        "path": "/health",
        "interval_ms": 100,
        "timeout_ms": 2000,
        "fall": 2,
    }
    own_rig.start()
    own_rig.proc.wait_log(f"service=one instance={wrong.address}: unhealthy: ")
    wait_until(lambda: any("/health" in head for head in good.heads), "a check by TLS", 10)
    assert f"instance={good.address}" not in own_rig.proc.log()
    for _ in range(10):
        assert own_rig.ask("GET", "/one/x").status == 200


@pytest.mark.parametrize("trust", ["good", "other"])
def test_http2_to_services(own_rig, authority, tmp_path, trust):
    grpc = pytest.importorskip("grpc", reason="python3-grpcio is not installed (make deps)")
    certificate, key = authority.issue("grpc", [NAME], directory=str(tmp_path))
    pair = (open(key, "rb").read(), open(certificate, "rb").read())
    calls = []

    class Echo(grpc.GenericRpcHandler):
        def service(self, details):
            def answer(message, _context):
                calls.append(details.method)
                return message

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Echo()])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    others = authority if trust == "good" else identity.Authority(str(tmp_path / "others"))
    own_rig.config["services"]["one"] = {
        "endpoints": [{"address": f"127.0.0.1:{port}"}],
        "protocol": "grpc",
        "retries": 0,
        "connect_timeout_ms": 5000,
        "tls": {"ca": others.certificate, "server_name": NAME},
    }
    own_rig.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{own_rig.ports['plain']}") as channel:
            call = channel.unary_unary("/one/Echo")
            if trust == "good":
                for i in range(5):
                    assert call(b"message %d" % i, timeout=10) == b"message %d" % i
                assert metric(own_rig, "gatehouse_gateway_upstream_tls_handshakes_total") == 1
            else:
                with pytest.raises(grpc.RpcError) as failure:
                    call(b"secret", timeout=10)
                assert failure.value.code() == grpc.StatusCode.UNAVAILABLE and not calls
    finally:
        server.stop(None)

# SPDX-License-Identifier: Apache-2.0
"""No spelling of an identity header from a client reaches a service: any route, protocol, upgrade."""

import re
import subprocess

import pytest

import client
import h2
import websocket
from issuer import Key, key_set
from rig import bearer
from scripted import Scripted

ISSUER = "https://id.example.com/s"
# What the configuration writes for the user, his tenant and his roles, and what the gateway says.
NAMES = ["X-User-Id", "X-Tenant", "X-User-Roles", "X-Forwarded-For", "X-Forwarded-Proto",
         "X-Forwarded-Host", "X-Forwarded-Client-Cert", "X-Real-Ip", "Forwarded"]
FORGED = "forged-by-the-client"
ROUTES = {  # name: auth, and what the service is told of the user
    "open": None,
    "wanted": "es",
    "maybe-absent": "maybe",
    "maybe-there": "maybe",
    "by-key": "key",
}


def spellings(name):
    """The same name in other cases, and with "_" wherever a service might fold it to "-"."""
    dashes = [i for i, letter in enumerate(name) if letter == "-"]
    forms = {name, name.lower(), name.upper(), name.swapcase(), name.replace("-", "_")}
    forms |= {name.replace("-", "_").upper(), name.replace("-", "_").lower()}
    forms |= {name[:i] + "_" + name[i + 1 :] for i in dashes}
    return sorted(forms)


ALL = [spelling for name in NAMES for spelling in spellings(name)]


def spy(peer):
    """Reads a request to its very end, trailers too, or becomes a WebSocket; keeps the bytes."""
    if b"\r\n\r\n" not in peer.buffer:
        peer.buffer += peer.sock.recv(65536) or b""
    head, _, rest = peer.buffer.partition(b"\r\n\r\n")
    if b"upgrade: websocket" in head.lower():
        websocket.accept(peer)
        peer.service.bodies.append(peer.sock.recv(65536))
        raise OSError("over")
    head = peer.read_head()
    chunked = b"transfer-encoding: chunked" in head.lower()
    while chunked and not re.search(rb"(^|\r\n)0\r\n(.+\r\n)*\r\n$", peer.buffer):
        peer.buffer += peer.sock.recv(65536)
    if not chunked and b"content-length: 3" in head.lower():
        while len(peer.buffer) < 3:
            peer.buffer += peer.sock.recv(65536)
    peer.service.bodies.append(peer.buffer)
    peer.buffer = b""
    peer.answer()


@pytest.fixture(scope="module")
def service():
    made = Scripted(spy)
    made.bodies = []
    yield made
    made.stop()


@pytest.fixture(scope="module")
def key():
    return Key("k")


@pytest.fixture(scope="module", params=[False, True], ids=["drop_", "keep_"])
def rig(request, tmp_path_factory, make_rig, service, key, program):
    folder = tmp_path_factory.mktemp("spoofing")
    rig = make_rig(folder)
    (folder / "es.json").write_bytes(key_set(key))
    forward = {"sub": "X-User-Id", "tenant": "X-Tenant", "roles": "X-User-Roles"}
    jwt = {
        **{"type": "jwt", "issuer": ISSUER, "algorithms": ["ES256"], "forward": forward},
        "jwks": {"file": str(folder / "es.json")},
    }
    argv = [program("gatewayctl"), "api-key", "new", "--user", "acme"]
    argv += ["--file", str(folder / "keys.json")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    rig.api_key = done.stdout.strip()
    rig.config["auth"] = {
        "es": jwt,
        "key": {"type": "api_key", "keys_file": str(folder / "keys.json")},
    }
    rig.config["services"] = {"spy": {"endpoints": [{"address": service.address}]}}
    rig.config["defaults"]["underscores_in_headers"] = request.param
    rig.config["routes"] = [
        {
            **{"name": name, "match": {"path": f"/{name}/*"}, "service": "spy", "websocket": True},
            **({"auth": "es" if auth == "maybe" else auth} if auth else {}),
            **({"auth_optional": True} if auth == "maybe" else {}),
        }
        for name, auth in ROUTES.items()
    ]
    return rig.start()


@pytest.fixture(params=sorted(ROUTES))
def route(request):
    return request.param


def credentials(rig, key, route):
    if route in ("wanted", "maybe-there"):
        return bearer(key.token(ISSUER, tenant="T"))
    return [("X-API-Key", rig.api_key)] if route == "by-key" else []


def check(rig, service, route, protocol):
    """What the service saw since the last look has nothing of the client's own word."""
    heads, bodies = list(service.heads), list(service.bodies)
    service.heads.clear()
    service.bodies.clear()
    assert heads, "the service got no request"
    for head in heads:
        lines = head.split("\r\n")[1:]
        assert FORGED not in head, (protocol, head)
        users = [
            line.partition(": ")[2]
            for line in lines
            if line.partition(":")[0].lower().replace("_", "-") == "x-user-id"
        ]
        want = {"wanted": ["u1"], "maybe-there": ["u1"], "by-key": ["acme"]}.get(route, [])
        assert users == want, (protocol, head)
        roles = [line for line in lines if line.lower().replace("_", "-").startswith("x-user-roles")]
        assert not roles, (protocol, head)
    assert FORGED.encode() not in b"".join(bodies), (protocol, bodies)


@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_headers_of_http1(rig, service, key, route, listener):
    mine = credentials(rig, key, route)
    requests = [[(spelling, FORGED)] for spelling in ALL]
    requests += [[(spelling, FORGED), (spelling, FORGED + "2")] for spelling in spellings("X-User-Id")]
    # Named in Connection: what is removed there must not take ours along, nor leave theirs.
    requests += [[("Connection", name), (name, FORGED)] for name in NAMES]
    requests += [[("Connection", "x_user_id, X-USER-ID"), ("x_user_id", FORGED), ("X-User-ID", FORGED)]]
    with rig.connect(listener) as connection:
        for forged in requests:
            for headers in (forged + mine, mine + forged):
                assert connection.request("GET", f"/{route}/x", headers).status == 200, headers
                check(rig, service, route, headers)


def test_headers_that_are_none(rig, service, key, route):
    """Spellings that only a sloppy reader would take for the header: refused, nothing forwarded."""
    mine = credentials(rig, key, route)
    for line in (f"X-User-Id : {FORGED}", f" X-User-Id: {FORGED}", f"X-User-Id\t: {FORGED}",
                 f"A: b\r X-User-Id: {FORGED}", f"A: b\n X-User-Id: {FORGED}",
                 f"A: b\rX-User-Id: {FORGED}", f"A: b\nX-User-Id: {FORGED}",
                 f"X-User-Id\x00: {FORGED}", f"X-User-Id\x0b: {FORGED}"):
        head = client.head_of("GET", f"/{route}/x", "api.test.example.com", mine)
        with rig.connect() as connection:
            connection.send(head[:-2] + line.encode("latin-1") + b"\r\n\r\n")
            assert connection.read_response().status == 400, line
    assert not service.heads


def test_trailers(rig, service, key, route):
    mine = credentials(rig, key, route)
    headers = [("Transfer-Encoding", "chunked"), ("Trailer", "X-User-Id"), *mine]
    head = client.head_of("POST", f"/{route}/x", "api.test.example.com", headers)
    for name in NAMES[:3]:
        trailers = "".join(f"{spelling}: {FORGED}\r\n" for spelling in spellings(name))
        with rig.connect() as connection:
            connection.send(head + b"3\r\nabc\r\n0\r\n" + trailers.encode() + b"X-Sum: 1\r\n\r\n")
            assert connection.read_response("POST").status == 200, name
        assert any(b"X-Sum: 1" in body for body in service.bodies)
        check(rig, service, route, f"trailer {name}")


def test_http2(rig, service, key, route):
    mine = [(name.lower(), value) for name, value in credentials(rig, key, route)]
    with h2.Session(rig.ports["plain"]) as session:
        stream = 1
        for spelling in ALL + ["x-user-id\x00", "x-user-id "]:
            forged = [(spelling.lower(), FORGED), (spelling.lower(), FORGED)]
            session.send(h2.request(stream, f"/{route}/x", fields=forged + mine))
            status, _ = session.answer(stream)
            if status == 200:
                check(rig, service, route, spelling)
            else:
                assert spelling[-1] in "\x00 " and not service.heads, (status, spelling)
            stream += 2
        # In upper case it is no HTTP/2 (RFC 9113 8.2.1).
        session.send(h2.request(stream, f"/{route}/x", fields=[("X-User-Id", FORGED)] + mine))
        status, _ = session.answer(stream)
        assert status in (None, 400) and not service.heads
        stream += 2
        # Trailers of a body, as gRPC clients send none.
        fields = [("content-type", "application/octet-stream"), ("te", "trailers"), *mine]
        session.send(h2.request(stream, f"/{route}/x", "POST", fields, ends=False))
        session.send(h2.frame(h2.DATA, 0, stream, b"abc"))
        block = b"".join(h2.field(s.lower(), FORGED) for s in spellings("X-User-Id"))
        session.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, block))
        assert session.answer(stream)[0] == 200
        check(rig, service, route, "h2 trailers")


@pytest.mark.parametrize("kind", ["h1", "h2"])
def test_websocket(rig, service, key, route, kind):
    make, listener = websocket.CLIENTS[kind]
    forged = [(spelling, FORGED) for name in NAMES[:3] for spelling in spellings(name)]
    forged += [("Sec-WebSocket-Protocol", "x-user-id")]
    with make(rig, f"/{route}/x", credentials(rig, key, route) + forged, listener).open() as ws:
        # What looks like a request within is bytes to the gateway, and a frame to the service.
        ws.send(websocket.frame(b"GET / HTTP/1.1\r\nX-User-Id: admin\r\n\r\n"))
    check(rig, service, route, f"websocket over {kind}")


def test_grpc(rig, key, tmp_path, make_rig, procs):
    grpc = pytest.importorskip("grpc", reason="python3-grpcio is not installed (make deps)")
    from concurrent import futures

    seen = []

    def unary(request, context):
        seen.append([(name, value) for name, value in context.invocation_metadata()])
        return request

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(unary)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"U": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    other = make_rig(tmp_path, procs)
    other.config["auth"] = rig.config["auth"]
    other.config["defaults"] = rig.config["defaults"]
    other.config["services"] = {
        "g": {"endpoints": [{"address": f"127.0.0.1:{port}"}], "protocol": "grpc"}
    }
    other.config["routes"] = [
        {"name": "g", "match": {"path": "/t.T/*"}, "service": "g", "auth": "es", "auth_optional": True}
    ]
    other.start()
    options = [("grpc.default_authority", "api.test.example.com"), ("grpc.enable_retries", 0)]
    try:
        with grpc.insecure_channel(f"127.0.0.1:{other.ports['plain']}", options=options) as channel:
            call = channel.unary_unary("/t.T/U")
            for token in (None, key.token(ISSUER)):
                for spelling in sorted({spelling.lower() for spelling in ALL}):
                    metadata = [(spelling, FORGED), (spelling, FORGED)]
                    metadata += [("authorization", f"Bearer {token}")] if token else []
                    assert call(b"x", timeout=10, metadata=metadata) == b"x"
                    got = seen.pop()
                    assert FORGED not in str(got), (spelling, got)
                    users = [v for n, v in got if n.replace("_", "-") == "x-user-id"]
                    assert users == (["u1"] if token else []) and "authorization" not in dict(got)
    finally:
        server.stop(0)

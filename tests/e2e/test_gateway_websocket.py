# SPDX-License-Identifier: Apache-2.0
"""WebSocket through the gateway: who may, what reaches the service when, both ways, to the end."""

import os
import re
import threading
import time

import pytest

import h2
import websocket
from procs import wait_until
from rig import bearer
from scripted import Scripted
from websocket import CLIENTS, Refused

GREETING = websocket.frame(b"hello from the service", mask=False)


def bytes_until_end(peer, service):
    """Answers with what it got, once the gateway ended its side."""
    websocket.accept(peer)
    got = b""
    while data := peer.sock.recv(65536):
        got += data
    peer.send(b"got %d bytes" % len(got))
    raise OSError("over")


def ends_first(peer):
    """Says goodbye and ends its side, then listens on."""
    websocket.accept(peer, b"goodbye")
    peer.sock.shutdown(1)
    got = b""
    while data := peer.sock.recv(65536):
        got += data
    peer.service.late = got
    raise OSError("over")


def deaf(peer):
    websocket.accept(peer)
    time.sleep(60)


def floods(peer):
    websocket.accept(peer)
    try:
        while True:
            peer.send(b"x" * 65536)
            peer.service.sent += 65536
    finally:
        peer.service.is_over.set()


def resets(peer):
    websocket.accept(peer)
    peer.sock.recv(1)
    peer.reset()


def declines(peer):
    peer.read_head()
    peer.answer(b"no", "403 Forbidden")


def ignores(peer):
    peer.read_head()
    peer.answer(b"plain")


def slow_to_agree(peer):
    head = peer.read_head()
    time.sleep(0.3)
    peer.sock.setblocking(False)
    try:
        peer.service.early = peer.buffer + peer.sock.recv(65536)
    except BlockingIOError:
        peer.service.early = peer.buffer
    peer.sock.setblocking(True)
    key = websocket.field_of(head, "Sec-WebSocket-Key")
    peer.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %s\r\n\r\n" % websocket.accept_of(key).encode()
    )
    while data := peer.sock.recv(65536):
        peer.send(data)
    raise OSError("over")


def greets(peer):
    websocket.accept(peer, GREETING, "X-Internal-Node: 7\r\nSec-WebSocket-Protocol: chat\r\n")
    peer.sock.recv(65536)


def wrong(head_of):
    def serve(peer):
        head = peer.read_head()
        key = websocket.field_of(head, "Sec-WebSocket-Key")
        peer.send(head_of(websocket.accept_of(key)).encode())
        peer.wait_closed()
        raise OSError("over")

    return serve


SWITCH = "HTTP/1.1 101 Switching Protocols\r\n"
WRONG = {
    "no-accept": lambda a: SWITCH + "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "other-accept": lambda a: SWITCH + "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {a[::-1]}\r\n\r\n",
    "other-protocol": lambda a: SWITCH + "Upgrade: h2c\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {a}\r\n\r\n",
    "no-upgrade": lambda a: SWITCH + f"Connection: Upgrade\r\nSec-WebSocket-Accept: {a}\r\n\r\n",
    "no-connection": lambda a: SWITCH + f"Upgrade: websocket\r\nSec-WebSocket-Accept: {a}\r\n\r\n",
    "with-length": lambda a: SWITCH + "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Content-Length: 3\r\nSec-WebSocket-Accept: {a}\r\n\r\nabc",
    "with-coding": lambda a: SWITCH + "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Transfer-Encoding: chunked\r\nSec-WebSocket-Accept: {a}\r\n\r\n",
}

SERVICES = {
    "echoing": websocket.echo,
    "untilend": lambda peer: bytes_until_end(peer, None),
    "endsfirst": ends_first,
    "deaf": deaf,
    "floods": floods,
    "resets": resets,
    "declines": declines,
    "ignores": ignores,
    "slow": slow_to_agree,
    "greets": greets,
    **{name: wrong(head) for name, head in WRONG.items()},
}


@pytest.fixture(scope="module")
def sockets(tmp_path_factory, make_rig, module_procs):
    """A gateway with a route and a scripted service for each of SERVICES."""
    rig = make_rig(tmp_path_factory.mktemp("websocket"), module_procs)
    rig.config["listeners"][1]["tls"]["alpn"] = ["h2", "http/1.1"]
    rig.scripted = {name: Scripted(serve) for name, serve in SERVICES.items()}
    for name, service in rig.scripted.items():
        service.sent, service.is_over, service.late, service.early = 0, threading.Event(), None, None
        rig.config["services"][name] = {
            "endpoints": [{"address": service.address}],
            "websocket_idle_timeout_ms": 1000 if name == "deaf" else 60000,
            "retries": 0,
        }
        rig.config["routes"].append(
            {"name": name, "match": {"path": f"/{name}"}, "service": name, "websocket": True}
        )
    rig.config["routes"] += [
        {"name": "off", "match": {"path": "/off"}, "service": "ignores"},
        {"name": "private", "match": {"path": "/private"}, "service": "echoing", "auth": "hs",
         "websocket": True},
        {"name": "few", "match": {"path": "/few"}, "service": "echoing", "websocket": True,
         "limits": ["global-5"]},
    ]
    rig.start()
    yield rig
    for service in rig.scripted.values():
        service.stop()


@pytest.fixture(params=sorted(CLIENTS))
def connect(request, sockets):
    kind, listener = CLIENTS[request.param]
    opened = []

    def make(path, headers=()):
        opened.append(kind(sockets, path, headers, listener))
        return opened[-1]

    make.name = request.param
    yield make
    for one in opened:
        one.__exit__()


def test_bytes_pass_in_both_directions(sockets, connect):
    heads = sockets.scripted["echoing"].heads
    heads.clear()
    with connect("/echoing").open() as ws:
        for text in (b"one", b"two", os.urandom(100)):
            data = websocket.frame(text)
            ws.send(data)
            assert ws.read(len(data)) == data
    (head,) = heads
    assert head.startswith("GET /echoing HTTP/1.1\r\n")
    fields = [line.split(": ", 1) for line in head.split("\r\n")[1:]]
    names = [name.lower() for name, _ in fields]
    assert [value for name, value in fields if name.lower() == "upgrade"] == ["websocket"]
    assert [value for name, value in fields if name.lower() == "connection"] == ["Upgrade"]
    assert names.count("sec-websocket-key") == 1 and names.count("sec-websocket-version") == 1
    assert "content-length" not in names and "transfer-encoding" not in names


def test_bytes_behind_the_switch_in_one_packet(connect):
    with connect("/greets", [("Sec-WebSocket-Protocol", "chat")]).open() as ws:
        assert ws.read(len(GREETING)) == GREETING
        if isinstance(ws, websocket.Http1):
            assert ws.headers.first("Sec-WebSocket-Protocol") == "chat"
            assert ws.headers.first("X-Internal-Node") is None
        else:
            assert b"X-Internal" not in ws.headers.payload


def test_nothing_is_forwarded_before_the_switch(sockets, connect):
    """A service that answers the GET as a GET would take early bytes for a second request."""
    early = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    with connect("/slow") as ws:
        if isinstance(ws, websocket.Http2):
            ws.session.until(lambda f: f.kind == h2.SETTINGS)
        ws.send(early)
        ws.open()
        assert sockets.scripted["slow"].early == b""
        assert ws.read(len(early)) == early


def test_client_ends_first_and_still_reads(connect):
    if connect.name == "h1-tls":
        pytest.skip("Python's ssl cannot send close_notify and go on reading")
    with connect("/untilend").open() as ws:
        ws.send(b"a" * 1000)
        ws.end()
        assert ws.rest() == b"got 1000 bytes"


def test_service_ends_first_and_still_reads(sockets, connect):
    service = sockets.scripted["endsfirst"]
    service.late = None
    with connect("/endsfirst").open() as ws:
        if connect.name == "h1-tls":  # Python's ssl answers close_notify with its own
            assert ws.read(7) == b"goodbye"
            ws.abort()
        else:
            assert ws.rest() == b"goodbye"
            ws.send(b"one more thing")
            ws.end()
        wait_until(lambda: service.late is not None, "the service's end", 5)
        assert service.late == (b"" if connect.name == "h1-tls" else b"one more thing")


def test_service_that_resets(connect):
    with connect("/resets").open() as ws:
        ws.send(b"x")
        if isinstance(ws, websocket.Http1):
            assert ws.connection.is_closed()
        else:
            got = ws.session.until(lambda f: f.kind == h2.RST_STREAM)
            assert got[-1].stream == 1


def test_client_that_vanishes(sockets, connect):
    service = sockets.scripted["floods"]
    service.is_over.clear()
    with connect("/floods").open() as ws:
        ws.read(10000)
        ws.abort()
        assert service.is_over.wait(5), "the service was told"


def test_slow_client_stops_the_service(sockets, connect):
    service = sockets.scripted["floods"]
    service.is_over.clear()
    service.sent = 0
    before, _ = sockets.memory_kib()
    with connect("/floods").open():
        last = -1
        while last != service.sent:  # until nothing moves any more
            last = service.sent
            time.sleep(0.3)
        after, _ = sockets.memory_kib()
    assert service.is_over.wait(5)
    assert last < 64 << 20
    assert after - before < 16 * 1024


def test_deaf_service_stops_the_client(sockets):
    """Over HTTP/1.1; over HTTP/2 the window does it, which h2spec's cases look at."""
    with websocket.Http1(sockets, "/deaf").open() as ws:
        before, _ = sockets.memory_kib()
        ws.connection.sock.settimeout(0.3)
        sent = 0
        try:
            while sent < 256 << 20:
                sent += ws.connection.sock.send(b"x" * 65536)
        except OSError:
            pass
        after, _ = sockets.memory_kib()
    assert sent < 64 << 20
    assert after - before < 16 * 1024


def test_idle_one_is_closed(sockets, connect):
    with connect("/deaf").open() as ws:
        began = time.monotonic()
        assert ws.rest() == b""
        assert 0.8 < time.monotonic() - began < 5
    record = sockets.wait_record(route="deaf", reason="websocket_idle",
                                 protocol="HTTP/2" if "h2" in connect.name else "HTTP/1.1")
    assert record["status"] == (200 if "h2" in connect.name else 101)


def test_record_tells_bytes_and_status(sockets, connect):
    path = f"/echoing?{connect.name}"
    with connect(path).open() as ws:
        ws.send(b"z" * 3000)
        ws.read(3000)
        if connect.name != "h1-tls":
            ws.end()
            assert ws.rest() == b""
    protocol = "HTTP/2" if "h2" in connect.name else "HTTP/1.1"

    def find():
        return [r for r in sockets.records()
                if r["route"] == "echoing" and r["protocol"] == protocol and r["bytes_out"] == 3000
                and bool(r.get("tls")) == ("tls" in connect.name)]

    record = wait_until(find, "the record", 5)[0]
    assert record["bytes_in"] >= 3000 and record["method"] == "GET"
    assert record["status"] == (200 if "h2" in connect.name else 101)


@pytest.mark.parametrize("path,status", [("/private", 401), ("/nowhere", 404), ("/declines", 403)])
def test_refusals_are_ordinary_answers(connect, path, status):
    with connect(path) as ws, pytest.raises(Refused) as refused:
        ws.open()
    assert refused.value.status == status


def test_token_opens_it(sockets, connect):
    token = sockets.signers["hs"].token("u1")
    heads = sockets.scripted["echoing"].heads
    heads.clear()
    forged = [("X-User-Id", "admin"), ("x_user_id", "admin")]
    with connect("/private", bearer(token) + forged).open() as ws:
        ws.send(b"x")
        assert ws.read(1) == b"x"
    ids = [line for line in heads[0].split("\r\n") if "user" in line.lower() and "id:" in line.lower()]
    assert ids == ["X-User-Id: u1"]
    assert "uthorization" not in heads[0]


def test_limits_apply(sockets):
    statuses = []
    for _ in range(8):
        try:
            with websocket.Http1(sockets, "/few") as ws:
                ws.open()
                statuses.append(101)
        except Refused as refused:
            statuses.append(refused.status)
    assert statuses == [101] * 5 + [429] * 3


def test_route_must_allow_it(sockets):
    """Over HTTP/1.1 the wish is ignored, an extended CONNECT cannot be anything else."""
    heads = sockets.scripted["ignores"].heads
    heads.clear()
    with websocket.Http1(sockets, "/off") as ws:
        assert ws.connection.read_response().body == b"plain"
        assert ws.connection.request("GET", "/ping").body == b"pong"
    assert not re.search(r"^(upgrade|connection):", heads[0], re.M | re.I)
    with websocket.Http2(sockets, "/off") as ws, pytest.raises(Refused) as refused:
        ws.open()
    assert refused.value.status == 501


def test_service_that_ignores_the_wish(sockets):
    """A 200 is an answer over HTTP/1.1; over HTTP/2 it would say that the WebSocket is open."""
    with websocket.Http1(sockets, "/ignores") as ws:
        assert ws.connection.read_response().body == b"plain"
        assert ws.connection.request("GET", "/ping").body == b"pong"
    with websocket.Http2(sockets, "/ignores") as ws, pytest.raises(Refused) as refused:
        ws.open()
    assert refused.value.status == 502


@pytest.mark.parametrize("name", sorted(WRONG))
def test_switch_that_is_not_what_was_asked_for(connect, name):
    with connect(f"/{name}") as ws, pytest.raises(Refused) as refused:
        ws.open()
    assert refused.value.status == 502


@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.0", "websocketx", "connect-udp"])
def test_other_protocols_are_ignored(sockets, protocol):
    heads = sockets.scripted["ignores"].heads
    heads.clear()
    fields = [("Upgrade", protocol), ("Connection", "Upgrade, HTTP2-Settings"),
              ("HTTP2-Settings", "AAMAAABkAAQAAP__")]
    assert sockets.ask("GET", "/ignores", fields).body == b"plain"
    assert not re.search(r"^(upgrade|connection|http2-settings):", heads[0], re.M | re.I)
    with h2.Session(sockets.ports["plain"]) as session:
        session.send(websocket.connect_request(1, "/ignores", protocol))
        assert session.answer(1)[0] == 501
    assert len(heads) == 1


HANDSHAKE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
             "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
BROKEN = {
    "key-missing": ({"Sec-WebSocket-Key": None}, 400),
    "key-short": ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j"}, 400),
    "key-long": ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==dGhl"}, 400),
    "key-alphabet": ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j-Q=="}, 400),
    "key-empty": ({"Sec-WebSocket-Key": ""}, 400),
    "version-missing": ({"Sec-WebSocket-Version": None}, 426),
    "version-8": ({"Sec-WebSocket-Version": "8"}, 426),
    "version-list": ({"Sec-WebSocket-Version": "13, 8"}, 426),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_broken_handshake(sockets, name):
    change, status = BROKEN[name]
    heads = sockets.scripted["echoing"].heads
    heads.clear()
    fields = [(k, v) for k, v in {**HANDSHAKE, **change}.items() if v is not None]
    answer = sockets.ask("GET", "/echoing", fields)
    assert answer.status == status and not heads
    if status == 426:
        assert answer.first("Sec-WebSocket-Version") == "13"


def test_two_keys_or_a_body_are_refused(sockets):
    heads = sockets.scripted["echoing"].heads
    heads.clear()
    fields = list(HANDSHAKE.items())
    again = [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")]
    assert sockets.ask("GET", "/echoing", fields + again).status == 400
    assert sockets.ask("POST", "/echoing", fields, b"").status == 400
    assert sockets.ask("GET", "/echoing", fields, b"hello").status == 400
    assert not heads


def test_http_1_0_cannot_switch(sockets):
    with sockets.connect() as connection:
        lines = "".join(f"{k}: {v}\r\n" for k, v in HANDSHAKE.items())
        connection.send(f"GET /ignores HTTP/1.0\r\nHost: h\r\n{lines}\r\n".encode())
        assert connection.read_response().body == b"plain"


def test_extended_connect_is_announced(sockets):
    with h2.Session(sockets.ports["plain"]) as session:
        settings = session.until(lambda f: f.kind == h2.SETTINGS)[-1]
        pairs = [settings.payload[i : i + 6] for i in range(0, len(settings.payload), 6)]
        assert b"\x00\x08\x00\x00\x00\x01" in pairs


def test_drain_lets_it_go_on_for_a_while(make_rig, tmp_path, procs):
    rig = make_rig(tmp_path, procs)
    service = Scripted(websocket.echo)
    try:
        rig.config["services"]["ws"] = {"endpoints": [{"address": service.address}]}
        rig.config["routes"].append(
            {"name": "ws", "match": {"path": "/ws"}, "service": "ws", "websocket": True}
        )
        rig.config["drain_delay_ms"], rig.config["drain_timeout_ms"] = 100, 1500
        rig.start()
        with websocket.Http1(rig, "/ws").open() as one, websocket.Http2(rig, "/ws").open() as two:
            began = time.monotonic()
            rig.proc.stopped_on_purpose = True
            rig.proc.signal(15)
            wait_until(lambda: refuses(rig), "no new connections", 5)
            for ws in (one, two):
                ws.send(b"still here")
            assert one.read(10) == b"still here"
            assert one.rest() == b""
            assert 1.0 < time.monotonic() - began < 8
            wait_until(lambda: rig.proc.exit_code() is not None, "the end", 5)
            assert rig.proc.exit_code() == 0
    finally:
        service.stop()


GOING_AWAY = b"\x03\xe9"
CLOSE = websocket.frame(GOING_AWAY, 8, mask=False)
WHOLE = websocket.frame(b"in two halves", mask=False)
LATE = websocket.frame(b"too late", mask=False)


def waits_for_close(first, second):
    """Sends, and sends the rest when it was told that the gateway goes away."""

    def serve(peer):
        websocket.accept(peer)
        peer.send(first)
        got = b""
        while data := peer.sock.recv(65536):
            got += data
            if len(got) == 8:
                peer.send(second)
        peer.service.told.append(got)
        raise OSError("over")

    service = Scripted(serve)
    service.told = []
    return service


def test_drain_says_goodbye_between_frames(make_rig, tmp_path, procs):
    """Both sides get a Close, never within a frame, and nothing behind it."""
    rig = make_rig(tmp_path, procs)
    services = {"idle": waits_for_close(b"", LATE),
                "half": waits_for_close(WHOLE[:5], WHOLE[5:])}
    for name, service in services.items():
        rig.config["services"][name] = {"endpoints": [{"address": service.address}]}
        rig.config["routes"].append(
            {"name": name, "match": {"path": f"/{name}"}, "service": name, "websocket": True}
        )
    rig.config["listeners"][1]["tls"]["alpn"] = ["h2", "http/1.1"]
    rig.config["drain_delay_ms"], rig.config["drain_timeout_ms"] = 50, 5000
    try:
        rig.start()
        opened = [
            (name, kind(rig, f"/{name}", listener=listener).open())
            for name in services for kind, listener in CLIENTS.values()
        ]
        rig.proc.stopped_on_purpose = True
        rig.proc.signal(15)
        for name, ws in opened:
            with ws:
                assert name == "idle" or ws.read(len(WHOLE)) == WHOLE
                assert ws.read(len(CLOSE)) == CLOSE
                ws.send(websocket.frame(GOING_AWAY, 8))
                assert ws.rest() == b""
        wait_until(lambda: rig.proc.exit_code() is not None, "the end", 10)
        assert rig.proc.exit_code() == 0
        for service in services.values():
            wait_until(lambda: len(service.told) == len(CLIENTS), "the services' ends", 5)
            for got in service.told:
                assert got[:2] == b"\x88\x82" and len(got) == 8
                assert bytes(b ^ got[2 + i] for i, b in enumerate(got[6:])) == GOING_AWAY
    finally:
        for service in services.values():
            service.stop()


def refuses(rig):
    try:
        rig.connect().close()
        return False
    except OSError:
        return True

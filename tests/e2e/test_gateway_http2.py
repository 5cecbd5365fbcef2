# SPDX-License-Identifier: Apache-2.0
"""The gateway's HTTP/2 towards clients that are odd, greedy or hostile."""

import json
import re
import socket
import struct
import threading
import time

import pytest

import h2
from conftest import is_sanitized, seen
from scripted import Scripted


@pytest.fixture(autouse=True)
def forget(services):
    for service in services:
        service.forget()


@pytest.fixture
def session(rig):
    with h2.Session(rig.ports["plain"]) as session:
        yield session


@pytest.fixture
def start_rig(tmp_path, make_rig, procs):
    """A gateway of this test with one worker; scripted services by name, routed by /name/*."""
    started = []

    def start(client_conf=None, **scripts):
        rig = make_rig(tmp_path, procs)
        rig.config["workers"] = 1
        rig.config["client"] = client_conf or {}
        for name, serve in scripts.items():
            service = Scripted(serve)
            started.append(service)
            rig.config["services"][name] = {"endpoints": [{"address": service.address}]}
            rig.config["routes"].append(
                {"name": name, "match": {"path": f"/{name}/*"}, "service": name}
            )
        rig.services = started
        return rig.start()

    yield start
    for service in started:
        service.stop()


def floods(rig):
    text = rig.admin("GET", "/metrics").body.decode()
    return int(re.search(r"^gatehouse_gateway_http2_floods_total (\d+)$", text, re.M)[1])


def hang(peer):
    peer.read_head()
    peer.wait_closed()


# --- requests -----------------------------------------------------------------------------------


def test_request_of_pseudo_headers_alone(session):
    session.send(h2.request(1, "/echo/x"))
    status, body = session.answer(1)
    assert status == 200 and json.loads(body)["path"] == "/echo/x"


def test_cookie_crumbs_become_one_field(session):
    crumbs = [("cookie", f"c{i}={i}") for i in range(95)]
    session.send(h2.request(1, "/echo/x", fields=crumbs))
    status, body = session.answer(1)
    assert status == 200
    got = [value for name, value in json.loads(body)["headers"] if name.lower() == "cookie"]
    assert got == ["; ".join(value for _, value in crumbs)]


def test_other_fields_keep_their_order_around_crumbs(session):
    fields = [("x-a", "1"), ("cookie", "a=1"), ("x-b", "2"), ("cookie", "b=2"), ("x-c", "3")]
    session.send(h2.request(1, "/echo/x", fields=fields))
    _, body = session.answer(1)
    got = [
        [name.lower(), value]
        for name, value in json.loads(body)["headers"]
        if name.lower() in ("x-a", "x-b", "x-c", "cookie")
    ]
    assert got == [["x-a", "1"], ["cookie", "a=1; b=2"], ["x-b", "2"], ["x-c", "3"]]


@pytest.mark.skipif(is_sanitized(), reason="measures memory")
def test_crumbs_of_one_byte_cost_no_square(start_rig):
    """HPACK repeats a field of the table in one byte: what it stands for is all they may cost."""
    rig = start_rig(slow=hang)
    block = h2.head("/slow/x") + h2.field("cookie", "c" * 300, indexed=True)
    again = h2.head("/slow/x") + h2.LAST_INDEXED
    with h2.Session(rig.ports["plain"]) as session:
        session.settle()
        before, _ = rig.memory_kib()
        for i in range(100):
            payload = (again if i else block) + h2.LAST_INDEXED * 54
            flags = h2.END_HEADERS | h2.END_STREAM
            session.send(h2.frame(h2.HEADERS, flags, 1 + 2 * i, payload))
        time.sleep(0.3)
        assert len(rig.services[0].heads) == 100
        after, _ = rig.memory_kib()
    # 100 requests of 16 KB each: three copies and the service's connection
    assert after - before < 100 * 80, f"{before} KiB before, {after} KiB after"


@pytest.mark.parametrize("method", ["FOO", "get", "GET /x HTTP/1.1", "GET\r\nX: y", "M-SEARCHY"])
def test_unknown_method_reaches_no_service(session, services, method):
    """As with HTTP/1: what it cannot spell must not be forwarded."""
    session.send(h2.request(1, "/echo/x", method, fields=[("user-agent", "t")]))
    status, _ = session.answer(1)
    assert status in (501, None)
    assert not seen(services)


@pytest.mark.parametrize("method", ["PROPFIND", "M-SEARCH", "PURGE"])
def test_known_methods_are_forwarded(session, services, method):
    session.send(h2.request(1, "/echo/x", method))
    assert session.answer(1)[0] == 200
    assert [request["method"] for request in seen(services)] == [method]


def test_malformed_head_costs_that_stream_alone(start_rig):
    """... also when the time for its head has passed."""
    def slow(peer):
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n")
        for _ in range(16):
            time.sleep(0.1)
            peer.send(b"x")

    rig = start_rig({"head_timeout_ms": 500}, slow=slow)
    with h2.Session(rig.ports["plain"]) as session:
        session.settle()
        session.send(h2.request(1, "/slow/x"))
        session.send(h2.request(3, "/echo/x", fields=[("Upper", "x")]))
        assert session.answer(1) == (200, b"x" * 16)


def test_unfinished_head_still_has_its_time(start_rig):
    rig = start_rig({"head_timeout_ms": 400})
    with h2.Session(rig.ports["plain"]) as session:
        session.settle()
        session.send(h2.frame(h2.HEADERS, h2.END_STREAM, 1, h2.head("/echo/x")))
        session.until(lambda got: False)
        assert session.is_closed


def test_client_that_left_with_its_window_closed_keeps_nothing(rig):
    """Nothing can open the window any more: not kept until the time limit."""
    with h2.Session(rig.ports["plain"], settings=[(4, 1)]) as session:
        session.settle()
        session.send(h2.request(1, "/echo/x?fault=bytes=100000"))
        session.until(lambda got: got.kind == h2.DATA)
        session.sock.shutdown(socket.SHUT_WR)
        session.until(lambda got: False)
        assert session.is_closed


def test_client_that_left_before_its_body_ended_keeps_nothing(rig):
    with h2.Session(rig.ports["plain"]) as session:
        session.settle()
        session.send(h2.request(1, "/echo/x", "POST", ends=False))
        session.sock.shutdown(socket.SHUT_WR)
        session.until(lambda got: False)
        assert session.is_closed


def test_half_a_preface_and_the_end_is_no_request(rig):
    with h2.Session(rig.ports["plain"], first=h2.PREFACE[:10]) as session:
        session.sock.shutdown(socket.SHUT_WR)
        session.sock.settimeout(5)
        while data := session.sock.recv(65536):
            assert data.startswith(b"HTTP/1.1 400 "), data


def test_client_that_ended_its_side_still_gets_its_answer(rig):
    with h2.Session(rig.ports["plain"]) as session:
        session.settle()
        session.send(h2.request(1, "/echo/x?fault=delay_ms=300"))
        session.sock.shutdown(socket.SHUT_WR)
        assert session.answer(1)[0] == 200


def test_streams_before_the_limit_is_known(rig, services):
    """A client may open more than we allow until it has read our SETTINGS."""
    with h2.Session(rig.ports["plain"]) as session:
        session.send(h2.window_update(0, 1 << 20) + b"".join(
            h2.request(1 + 2 * i, "/echo/x?fault=delay_ms=300") for i in range(220)
        ))
        ended = {}
        while len(ended) < 220:
            got = session.read()
            assert got is not None and got.kind != h2.GOAWAY, (got, len(ended))
            if got.kind == h2.RST_STREAM:
                ended[got.stream] = got.error()
            elif got.stream and got.flags & h2.END_STREAM and got.kind in (h2.DATA, h2.HEADERS):
                ended[got.stream] = "answered"
    refused = [code for code in ended.values() if code == h2.REFUSED_STREAM]
    assert len(refused) + list(ended.values()).count("answered") == 220
    assert refused and len(seen(services)) == 220 - len(refused)


LARGE_HEAD = {"max_head_bytes": 262144, "max_fields": 128, "head_timeout_ms": 3000}


def test_head_beyond_64_kib_when_it_is_allowed(start_rig):
    rig = start_rig(LARGE_HEAD)
    fields = [(f"x{i}", "y" * 1000) for i in range(80)]
    assert rig.ask("GET", "/ping", fields).status == 200
    with h2.Session(rig.ports["plain"]) as session:
        session.settle()
        block = h2.head("/ping", fields=fields)
        pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)]
        session.send(h2.frame(h2.HEADERS, h2.END_STREAM, 1, pieces[0]))
        for piece in pieces[1:-1]:
            session.send(h2.frame(h2.CONTINUATION, 0, 1, piece))
        session.send(h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, pieces[-1]))
        assert session.answer(1) == (200, b"pong")


# --- floods -------------------------------------------------------------------------------------

FREE_FRAMES = {
    "unknown-type": h2.frame(0x77, 0, 0),
    "unknown-type-large": h2.frame(0x77, 0, 0, b"x" * 16384),
    "altsvc": h2.frame(0x0A, 0, 0, b"\x00\x00a"),
    "priority-update": h2.frame(0x10, 0, 0, b"\x00\x00\x00\x01u=1"),
    "priority": h2.frame(h2.PRIORITY, 0, 1, b"\x00\x00\x00\x00\x01"),
    "ping": h2.frame(h2.PING, 0, 0, b"12345678"),
    "ping-ack": h2.frame(h2.PING, h2.ACK, 0, b"12345678"),
    "settings": h2.frame(h2.SETTINGS, 0, 0),
    "window-update": h2.window_update(0, 1),
    "empty-data": h2.frame(h2.DATA, 0, 1),
    "padded-empty-data": h2.frame(h2.DATA, h2.PADDED, 1, b"\x00"),
    "padding-alone": h2.frame(h2.DATA, h2.PADDED, 1, b"\x0f" + b"\x00" * 15),
}


def read_away(session):
    try:
        while session.sock.recv(65536):
            pass
    except OSError:
        pass


@pytest.mark.parametrize("name", FREE_FRAMES)
def test_frames_for_nothing_end_the_connection(rig, name):
    before = floods(rig)
    with h2.Session(rig.ports["plain"]) as session:
        got = []
        reader = threading.Thread(target=lambda: got.extend(session.until(lambda _: False)))
        reader.start()
        session.send(h2.request(1, "/echo/x", "POST", ends=False))
        for _ in range(1000):
            if not session.try_send(FREE_FRAMES[name] * 10):
                break
        reader.join()
        assert session.is_closed
    goaways = [each.error() for each in got if each.kind == h2.GOAWAY]
    assert goaways and goaways[0] == h2.ENHANCE_YOUR_CALM
    assert floods(rig) == before + 1


RESETS = {
    "by-the-client": lambda stream: h2.request(stream, "/slow/x")
    + h2.frame(h2.RST_STREAM, 0, stream, struct.pack("!I", 8)),
    "body-shorter-than-announced": lambda stream: h2.request(
        stream, "/slow/x", "POST", [("content-length", "5")], ends=False
    )
    + h2.frame(h2.DATA, h2.END_STREAM, stream, b"abc"),
    "body-longer-than-announced": lambda stream: h2.request(
        stream, "/slow/x", "POST", [("content-length", "2")], ends=False
    )
    + h2.frame(h2.DATA, 0, stream, b"abc"),
    "window-beyond-its-limit": lambda stream: h2.request(stream, "/slow/x")
    + h2.window_update(stream, 0x7FFFFFFF),
    "window-by-nothing": lambda stream: h2.request(stream, "/slow/x")
    + h2.window_update(stream, 0),
    "data-after-the-end": lambda stream: h2.request(stream, "/slow/x")
    + h2.frame(h2.DATA, 0, stream, b"x"),
}


@pytest.mark.parametrize("name", RESETS)
def test_resets_are_paid_for_whoever_sends_them(start_rig, name):
    """Requests begun and cancelled at once: so many, and the connection ends."""
    rig = start_rig(slow=hang)
    with h2.Session(rig.ports["plain"]) as session:
        session.settle()
        reader = threading.Thread(target=read_away, args=(session,))
        reader.start()
        stream = 1
        while stream < 4000 and session.try_send(RESETS[name](stream)):
            stream += 2
            time.sleep(0.001)  # so that the request is begun before it is cancelled
        reader.join()
    assert stream < 4000
    assert len(rig.services[0].heads) < 300


def test_others_are_served_during_a_flood(start_rig):
    """One worker, three connections that send without end: each round is everybody's."""
    rig = start_rig()
    stop = threading.Event()
    pipelined = b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n" * 2000

    def flood():
        with rig.connect(timeout_s=30) as connection:
            reader = threading.Thread(target=drop_all, args=(connection.sock,))
            reader.start()
            while not stop.is_set():
                connection.send(pipelined)
            connection.sock.shutdown(2)
            reader.join()

    def drop_all(sock):
        try:
            while sock.recv(1 << 20):
                pass
        except OSError:
            pass

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        with rig.connect(timeout_s=30) as connection:
            for _ in range(20):
                assert connection.request("GET", "/ping").body == b"pong"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# --- slow readers -------------------------------------------------------------------------------


def test_response_taken_by_single_bytes_is_ended(start_rig):
    """Each byte is progress, but the client does not keep the stream for ever by that."""
    rig = start_rig({"write_timeout_ms": 600})
    with h2.Session(rig.ports["plain"], settings=[(4, 0)]) as session:
        session.settle()
        session.send(h2.request(1, "/echo/x?fault=bytes=60000"))
        began = time.monotonic()
        ended = None
        while not ended and time.monotonic() - began < 10:
            session.send(h2.window_update(1, 1))
            ended = [got for got in session.drain(0.2) if got.kind == h2.RST_STREAM]
        assert ended and ended[0].stream == 1


def test_response_taken_slowly_but_steadily_is_not(start_rig):
    rig = start_rig({"write_timeout_ms": 600})
    with h2.Session(rig.ports["plain"], settings=[(4, 0)]) as session:
        session.settle()
        session.send(h2.request(1, "/echo/x?fault=bytes=6000"))
        received = 0
        while received < 6000:
            session.send(h2.window_update(1, 400))
            for got in session.drain(0.1):
                assert got.kind != h2.RST_STREAM, got
                received += len(got.payload) if got.kind == h2.DATA else 0
        assert received == 6000


def test_reader_of_http1_that_trickles_is_ended(start_rig):
    """More than the kernel buffers, read by a few bytes now and then."""
    rig = start_rig({"write_timeout_ms": 700})
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", rig.ports["plain"]))
    with sock:
        sock.sendall(b"GET /echo/x?fault=bytes=100000000 HTTP/1.1\r\nHost: h\r\n\r\n")
        record = None
        deadline = time.monotonic() + 15
        while not record and time.monotonic() < deadline:
            try:
                sock.recv(64)
            except OSError:
                pass
            time.sleep(0.05)
            record = next((r for r in rig.records() if r["bytes_out"] > 0), None)
        assert record and record["bytes_out"] < 100_000_000

# SPDX-License-Identifier: Apache-2.0
"""The gateway and services that speak HTTP/2: well (nghttpd), and frame by frame badly."""

import shutil
import socket
import subprocess
import threading
import time

import pytest

import h2
from conftest import assert_problem
from procs import wait_until
from rig import free_port
from scripted import Scripted

MIB = 1 << 20


@pytest.fixture
def scripted():
    """Starts services whose script gets each connection as an h2.Service before its SETTINGS."""
    started = []

    def start(serve, settings=()):
        def run(peer):
            serve(h2.Service(peer.sock, settings))
            raise OSError("the script is over")

        started.append(Scripted(run))
        return started[-1]

    yield start
    for service in started:
        service.stop()


@pytest.fixture
def start_rig(tmp_path, make_rig, procs):
    """A gateway of one worker before services that speak HTTP/2; /name/* leads to each."""

    def start(**services):
        rig = make_rig(tmp_path, procs)
        rig.config["workers"] = 1
        rig.config["services"] = {
            name: {"protocol": "h2", "response_timeout_ms": 3000, "connect_timeout_ms": 1000,
                   **members,
                   "endpoints": [{"address": address} for address in members["endpoints"]]}
            for name, members in services.items()
        }
        rig.config["routes"] = [
            {"name": name, "match": {"path": f"/{name}/*"}, "service": name,
             "response": {"remove": ["X-Secret"]}}
            for name in services
        ]
        return rig.start()

    return start


def one(start_rig, service, **members):
    return start_rig(s={"endpoints": [service.address], **members})


# --- nghttpd --------------------------------------------------------------------------------------


@pytest.fixture
def nghttpd(tmp_path, procs):
    program = shutil.which("nghttpd") or shutil.which("nghttpd", path="/usr/sbin:/usr/bin")
    if not program:
        pytest.skip("nghttpd is not installed (make deps)")

    def start(*options):
        port = free_port()
        (tmp_path / "docs" / "s").mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / "s" / "big").write_bytes(bytes(range(256)) * (MIB // 256) * 8)
        (tmp_path / "docs" / "s" / "small").write_text("small")
        procs.start("nghttpd", [program, "--no-tls", "-d", str(tmp_path / "docs"), *options,
                                "-a", "127.0.0.1", str(port)])

        def is_up():
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            except OSError:
                return False

        wait_until(is_up, "nghttpd", 10)
        return f"127.0.0.1:{port}"

    return start


def test_nghttpd_serves_files(nghttpd, start_rig):
    rig = start_rig(s={"endpoints": [nghttpd()]})
    with rig.connect() as connection:
        assert connection.request("GET", "/s/small").body == b"small"
        answer = connection.request("GET", "/s/big")
        assert answer.status == 200 and len(answer.body) == 8 * MIB
        assert answer.body == bytes(range(256)) * (8 * MIB // 256)
        assert connection.request("HEAD", "/s/big").status == 200
        assert connection.request("GET", "/s/none").status == 404
    with h2.Session(rig.ports["plain"]) as session:
        session.settle()
        session.send(h2.request(1, "/s/small"))
        assert session.answer(1) == (200, b"small")


def test_nghttpd_takes_bodies_back(nghttpd, start_rig, tmp_path):
    """By curl, which reads while it sends."""
    rig = start_rig(s={"endpoints": [nghttpd("--echo-upload")]})
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)) * (4 * MIB // 256))
    for version in ("--http1.1", "--http2-prior-knowledge"):
        url = f"http://127.0.0.1:{rig.ports['plain']}/s/x"
        answer = subprocess.run(
            ["curl", "-sS", "--fail", version, "-H", "Expect:", "--data-binary", f"@{body}", url],
            stdout=subprocess.PIPE, timeout=30, check=True)
        assert answer.stdout == body.read_bytes()


def test_as_many_streams_as_the_service_allows(nghttpd, start_rig):
    """Twenty at once with two streams a connection: none refused, none waiting for another."""
    rig = start_rig(s={"endpoints": [nghttpd("-m", "2")], "retries": 0})
    answers = []

    def ask():
        answers.append(rig.ask("GET", "/s/small").body)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [b"small"] * 20


# --- copies -----------------------------------------------------------------------------------------


def test_copy_of_a_request_with_a_body(nghttpd, scripted, start_rig):
    """The copy's body is given before its connection is there, and must not be forgotten then."""
    copies = []

    def take(service):
        service.accept()
        while True:
            stream, body = service.request(), b""
            while not (got := service.wait(h2.DATA, stream)).flags & h2.END_STREAM:
                body += got.payload
            copies.append(body + got.payload)
            service.respond(stream)

    shadow = scripted(take)
    rig = start_rig(s={"endpoints": [nghttpd("--echo-upload")]}, shadow={"endpoints": [shadow.address]})
    rig.config["routes"][0]["mirror"] = {"service": "shadow"}
    rig.reload()

    def copied(count):
        # A worker may take up a new configuration a moment after it is in force.
        assert rig.ask("POST", "/s/x", body=b"the body").body == b"the body"
        return len(copies) >= count

    wait_until(lambda: copied(2), "the copies", 20)
    assert set(copies) == {b"the body"}


# --- what the service sees ------------------------------------------------------------------------


def test_requests_share_a_connection(scripted, start_rig):
    def serve(service):
        service.accept()
        streams = [service.request() for _ in range(5)]
        for stream in reversed(streams):
            service.respond(stream, b"stream %d" % stream)
        service.wait(h2.GOAWAY)

    service = scripted(serve)
    rig = one(start_rig, service)
    with h2.Session(rig.ports["plain"]) as session:
        for stream in range(1, 11, 2):
            session.send(h2.request(stream, "/s/x"))
        ended = session.until(lambda got: got.kind == h2.DATA and got.stream == 1)
    assert {f.payload for f in ended if f.kind == h2.DATA} == {
        b"stream %d" % n for n in range(1, 11, 2)}
    assert service.connections == 1


def test_trailers_both_ways(scripted, start_rig):
    seen = []

    def serve(service):
        service.accept()
        stream = service.request()
        while True:
            got = service.read()
            if got.kind == h2.HEADERS:
                seen.append(got.payload)
                break
        service.head(stream)
        service.data(stream, b"body")
        block = h2.field("x-sum", "42") + h2.field("x-secret", "s") + h2.field("server", "me")
        service.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, block))
        service.wait(h2.GOAWAY)

    rig = one(start_rig, scripted(serve))
    with h2.Session(rig.ports["plain"]) as session:
        session.send(h2.request(1, "/s/x", "POST", ends=False))
        session.send(h2.frame(h2.DATA, 0, 1, b"hello"))
        block = h2.field("x-up", "1") + h2.field("x_forwarded_for", "6.6.6.6")
        block += h2.field("x-user-id", "admin") + h2.field("authorization", "none")
        session.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, block))
        frames = session.until(lambda got: got.kind == h2.HEADERS and got.flags & h2.END_STREAM)
    # One trailer each way, in whatever form of HPACK: short names have their own Huffman codes.
    assert [f.kind for f in frames if f.stream == 1][-3:] == [h2.HEADERS, h2.DATA, h2.HEADERS]
    assert len(seen) == 1 and len(seen[0]) < 12, seen
    assert len(frames[-1].payload) < 12, frames[-1]


def test_cancelled_request_is_reset_at_the_service(scripted, start_rig):
    codes = []

    def serve(service):
        service.accept()
        stream = service.request()
        codes.append(service.wait(h2.RST_STREAM, stream).error())
        service.respond(service.request(), b"next")
        service.wait(h2.GOAWAY)

    service = scripted(serve)
    rig = one(start_rig, service)
    with h2.Session(rig.ports["plain"]) as session:
        session.send(h2.request(1, "/s/x"))
        time.sleep(0.2)
        session.send(h2.frame(h2.RST_STREAM, 0, 1, b"\0\0\0\x08"))
        wait_until(lambda: codes, "RST_STREAM at the service", 5)
        session.send(h2.request(3, "/s/x"))
        assert session.answer(3) == (200, b"next")
    assert codes == [h2.CANCEL] and service.connections == 1


@pytest.mark.parametrize("code, wanted", [(h2.CANCEL, h2.CANCEL), (h2.PROTOCOL_ERROR, 2)])
def test_reset_within_a_response_reaches_the_client(scripted, start_rig, code, wanted):
    def serve(service):
        service.accept()
        stream = service.request()
        service.head(stream)
        service.data(stream, b"some")
        service.reset(stream, code)
        service.wait(h2.GOAWAY)

    rig = one(start_rig, scripted(serve))
    with h2.Session(rig.ports["plain"]) as session:
        session.send(h2.request(1, "/s/x"))
        assert session.answer(1) == (None, wanted)


# --- what may be repeated -------------------------------------------------------------------------


def test_goaway_is_not_seen_by_clients(scripted, start_rig):
    """Every connection takes one request, answers it, and refuses the next one by GOAWAY."""

    def serve(service):
        service.accept()
        stream = service.request()
        service.respond(stream)
        service.request()
        service.goaway(stream)

    service = scripted(serve)
    rig = one(start_rig, service, retries=0)
    for _ in range(6):
        answer = rig.ask("POST", "/s/x", body=b"not idempotent")
        assert answer.status == 200, answer
    assert service.connections >= 6


def test_refused_stream_is_repeated_whatever_the_method(scripted, start_rig):
    attempts = []

    def serve(service):
        service.accept()
        while True:
            stream = service.request()
            attempts.append(stream)
            if len(attempts) == 1:
                service.reset(stream, h2.REFUSED_STREAM)
            else:
                service.respond(stream)

    rig = one(start_rig, scripted(serve), retries=0)
    assert rig.ask("POST", "/s/x", body=b"once").status == 200
    assert len(attempts) == 2


def test_service_that_refuses_everything_is_left_alone(scripted, start_rig):
    attempts = []

    def serve(service):
        service.accept()
        while True:
            attempts.append(service.request())
            service.reset(attempts[-1], h2.REFUSED_STREAM)

    rig = one(start_rig, scripted(serve), retries=1)
    assert_problem(rig.ask("GET", "/s/x"), 502)
    assert len(attempts) <= 3


def test_other_resets_are_not_repeated(scripted, start_rig):
    attempts = []

    def serve(service):
        service.accept()
        while True:
            attempts.append(service.request())
            service.reset(attempts[-1], h2.CANCEL)

    rig = one(start_rig, scripted(serve), retries=2)
    assert_problem(rig.ask("POST", "/s/x", body=b"x"), 502)
    assert len(attempts) == 1


def test_connection_closed_while_idle(scripted, start_rig):
    """The request that meets it was never sent there, so even a POST is answered."""

    def serve(service):
        service.accept()
        service.respond(service.request())

    service = scripted(serve)
    rig = one(start_rig, service, retries=0)
    for _ in range(10):
        assert rig.ask("POST", "/s/x", body=b"x").status == 200
        wait_until(lambda: not service.open, "the service's end of the connection", 10)
    assert service.connections == 10


# --- misbehaviour ---------------------------------------------------------------------------------


def head_of(*pairs):
    return b"".join(h2.field(name, value) for name, value in pairs)


OK = (":status", "200")
BAD_HEADS = {
    "no-status": head_of(("x", "y")),
    "connection": head_of(OK, ("connection", "close")),
    "transfer-encoding": head_of(OK, ("transfer-encoding", "chunked")),
    "keep-alive": head_of(OK, ("keep-alive", "1")),
    "upgrade": head_of(OK, ("upgrade", "x")),
    "upper-case": head_of(OK, ("X-Upper", "1")),
    "space-in-name": head_of(OK, ("x y", "1")),
    "newline-in-value": head_of(OK, ("x", "a\nb")),
    "nul-in-value": head_of(OK, ("x", "a\0b")),
    "two-statuses": head_of(OK, OK),
    "status-101": head_of((":status", "101")),
    "status-20": head_of((":status", "20")),
    "status-999": head_of((":status", "999")),
    "pseudo-behind": head_of(("x", "y"), OK),
    "request-pseudo": head_of(OK, (":path", "/")),
    "two-lengths": head_of(OK, ("content-length", "2"), ("content-length", "3")),
    "length-negative": head_of(OK, ("content-length", "-2")),
    "too-many": head_of(OK, *[("x", str(n)) for n in range(101)]),
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_head_that_is_refused(scripted, start_rig, name):
    def serve(service):
        service.accept()
        stream = service.request()
        service.send(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, BAD_HEADS[name]))
        service.data(stream, b"ok", ends=True)
        service.respond(service.request(), b"good")
        service.wait(h2.GOAWAY)

    rig = one(start_rig, scripted(serve), retries=0)
    answer = rig.ask("GET", "/s/x")
    assert_problem(answer, 502)
    assert rig.ask("GET", "/s/x").body == b"good", "only the stream was at fault"


def test_head_that_is_too_large(scripted, start_rig):
    def serve(service):
        service.accept()
        stream = service.request()
        block = head_of(OK, *[(f"x{n}", "v" * 1000) for n in range(40)])
        service.send(h2.frame(h2.HEADERS, 0, stream, block[:16384]))
        service.send(h2.frame(h2.CONTINUATION, 0, stream, block[16384:32768]))
        service.send(h2.frame(h2.CONTINUATION, h2.END_HEADERS, stream, block[32768:]))
        service.wait(h2.GOAWAY)

    rig = one(start_rig, scripted(serve), retries=0)
    assert_problem(rig.ask("GET", "/s/x"), 502)


@pytest.mark.parametrize("length, body", [("3", b"ok"), ("1", b"ok")])
def test_length_that_does_not_match_cuts_the_response(scripted, start_rig, length, body):
    def serve(service):
        service.accept()
        service.respond(service.request(), body, fields=[("content-length", length)])
        service.wait(h2.GOAWAY)

    rig = one(start_rig, scripted(serve), retries=0)
    with h2.Session(rig.ports["plain"]) as session:
        session.send(h2.request(1, "/s/x"))
        status, _ = session.answer(1)
    assert status is None, "must not look complete"


GARBAGE = {
    "http/1.1": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "zeros": bytes(64),
    "too-long-frame": h2.frame(h2.SETTINGS, 0, 0) + b"\xff\xff\xff" + bytes(6),
    "noise": bytes(range(1, 256)),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_from_the_start(scripted, start_rig, name):
    def serve(service):
        service.sock.recv(65536)
        service.send(GARBAGE[name])
        service.sock.recv(65536)

    rig = one(start_rig, scripted(serve), retries=0)
    began = time.monotonic()
    assert_problem(rig.ask("POST", "/s/x", body=b"x"), 502)
    assert time.monotonic() - began < 5


def test_garbage_is_repeated_at_another_instance(scripted, start_rig):
    """Nothing was sent before the service's SETTINGS, so a POST may be repeated."""

    def bad(service):
        service.sock.recv(65536)
        service.send(GARBAGE["http/1.1"])

    def good(service):
        service.accept()
        while True:
            service.respond(service.request())

    rig = start_rig(s={"endpoints": [scripted(bad).address, scripted(good).address],
                       "balance": "round_robin", "retries": 1})
    for _ in range(6):
        assert rig.ask("POST", "/s/x", body=b"x").status == 200


def test_garbage_amid_a_response_ends_all_streams(scripted, start_rig):
    def serve(service):
        service.accept()
        first, second = service.request(), service.request()
        service.head(first)
        service.send(h2.frame(h2.DATA, 0, 0, b"no stream"))
        service.head(second)
        service.wait(h2.GOAWAY)

    rig = one(start_rig, scripted(serve), retries=0)
    with h2.Session(rig.ports["plain"]) as session:
        session.send(h2.request(1, "/s/x") + h2.request(3, "/s/x"))
        ends = {}
        while len(ends) < 2:
            got = session.read()
            if got.stream and (got.kind == h2.RST_STREAM or got.flags & h2.END_STREAM):
                ends[got.stream] = got.kind
    assert ends[1] == h2.RST_STREAM


def test_service_that_never_says_settings(scripted, start_rig):
    def serve(service):
        service.sock.recv(65536)
        threading.Event().wait(5)

    rig = one(start_rig, scripted(serve), retries=0, connect_timeout_ms=300)
    assert_problem(rig.ask("GET", "/s/x"), 504)
    assert rig.wait_record(reason="connect_timeout")


def test_service_that_hangs_is_found_by_ping(scripted, start_rig):
    pings = []

    def serve(service):
        service.accept()
        service.head(service.request())
        pings.append(service.wait(h2.PING))
        threading.Event().wait(5)

    rig = one(start_rig, scripted(serve), retries=0, ping_after_ms=300, ping_timeout_ms=300,
              response_timeout_ms=60000)
    with h2.Session(rig.ports["plain"]) as session:
        session.send(h2.request(1, "/s/x"))
        began = time.monotonic()
        assert session.answer(1)[0] is None
    assert len(pings) == 1 and time.monotonic() - began < 5


def test_silent_service_is_pinged_once(scripted, start_rig):
    pings = []

    def serve(service):
        service.accept()
        stream = service.request()
        service.head(stream)
        until = time.monotonic() + 1.5
        service.sock.settimeout(0.1)
        while time.monotonic() < until:
            try:
                got = service.read()
            except TimeoutError:
                continue
            if got.kind == h2.PING:
                pings.append(got)
                service.send(h2.frame(h2.PING, h2.ACK, 0, got.payload))
        service.sock.settimeout(10)
        service.data(stream, b"late", ends=True)
        service.wait(h2.GOAWAY)

    rig = one(start_rig, scripted(serve), ping_after_ms=200, ping_timeout_ms=300)
    assert rig.ask("GET", "/s/x").body == b"late"
    assert len(pings) == 1


def test_window_that_stays_shut_ends_in_time(scripted, start_rig):
    def serve(service):
        service.accept()
        service.request()
        service.wait(h2.GOAWAY)

    rig = one(start_rig, scripted(serve, settings=[(4, 0)]), retries=0, response_timeout_ms=500)
    assert_problem(rig.ask("POST", "/s/x", body=b"x" * 1000), 504)


def test_slow_client_holds_up_nobody_else(scripted, start_rig):
    """One response that is not taken: bounded memory, and the connection's others go on."""
    sent = [0]

    def serve(service):
        service.accept()
        slow = service.request()
        service.head(slow)
        window, connection = 256 * 1024, 8 * MIB
        service.sock.settimeout(0.5)
        while True:
            while window >= 16384 and connection >= 16384:
                service.data(slow, bytes(16384))
                sent[0] += 16384
                window, connection = window - 16384, connection - 16384
            try:
                got = service.read()
            except TimeoutError:
                continue
            if got is None:
                return
            if got.kind == h2.WINDOW_UPDATE:
                more = int.from_bytes(got.payload, "big")
                window += more if got.stream == slow else 0
                connection += more if got.stream == 0 else 0
            elif got.kind == h2.HEADERS:
                service.respond(got.stream, b"quick")

    service = scripted(serve)
    rig = one(start_rig, service)
    with h2.Session(rig.ports["plain"]) as session:
        session.send(h2.request(1, "/s/x"))  # and its window is never opened again
        wait_until(lambda: sent[0] >= 128 * 1024, "the response has begun", 10)
        time.sleep(0.5)
        for _ in range(5):
            assert rig.ask("GET", "/s/x").body == b"quick"
        assert service.connections == 1
        assert sent[0] < MIB, sent


def test_instance_that_leaves_ends_with_its_last_stream(scripted, start_rig):
    ended = threading.Event()
    begun = threading.Event()
    go = threading.Event()

    def leaving(service):
        service.accept()
        stream = service.request()
        begun.set()
        assert go.wait(10)
        service.respond(stream, b"old")
        service.wait(h2.GOAWAY)
        ended.set()

    def fresh(service):
        service.accept()
        while True:
            service.respond(service.request(), b"new")

    old, new = scripted(leaving), scripted(fresh)
    rig = one(start_rig, old)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(rig.ask("GET", "/s/x").body))
    thread.start()
    assert begun.wait(10)
    rig.config["services"]["s"]["endpoints"] = [{"address": new.address}]
    rig.reload()
    wait_until(lambda: rig.ask("GET", "/s/x").body == b"new", "the new instance", 5)
    assert not ended.is_set()
    go.set()
    thread.join(10)
    assert answers == [b"old"]
    assert ended.wait(3), "closed at once, not when it was idle for long"


def test_grpc_timeout_is_the_deadline(scripted, start_rig):
    codes = []

    def serve(service):
        service.accept()
        codes.append(service.wait(h2.RST_STREAM, service.request()).error())
        service.wait(h2.GOAWAY)

    rig = one(start_rig, scripted(serve))
    fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "300m")]
    with h2.Session(rig.ports["plain"]) as session:
        session.send(h2.request(1, "/s/x", "POST", fields))
        assert session.answer(1) == (200, b"")
    record = rig.wait_record(reason="request_timeout")
    assert record["grpc_status"] == 4 and 250 <= record["latency_ms"] < 2500
    wait_until(lambda: codes == [h2.CANCEL], "RST_STREAM at the service", 5)


# --- trailers of HTTP/1.1 -------------------------------------------------------------------------


@pytest.fixture
def chunked(tmp_path, make_rig, procs):
    """A service of HTTP/1.1 that answers with trailers; (rig, bytes it received)."""
    got = []

    def serve(peer):
        peer.read_head()
        while b"0\r\n" not in peer.buffer or not peer.buffer.endswith(b"\r\n\r\n"):
            peer.buffer += peer.sock.recv(65536)
        got.append(peer.buffer)
        peer.buffer = b""
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
                  b"X-Sum: 42\r\nx-secret: s\r\nServer: me\r\n\r\n")

    service = Scripted(serve)
    rig = make_rig(tmp_path, procs)
    rig.config["services"]["s"] = {"endpoints": [{"address": service.address}]}
    rig.config["routes"].append({"name": "s", "match": {"path": "/s/*"}, "service": "s",
                                 "response": {"remove": ["X-Secret"]}})
    yield rig.start(), got
    service.stop()


UP = b"3\r\nabc\r\n0\r\nX-Up: yes\r\nX_Forwarded_For: 6.6.6.6\r\nX-User-Id: admin\r\nForwarded: x\r\n\r\n"


@pytest.mark.parametrize("te", [True, False])
def test_trailers_of_http1(chunked, te):
    rig, got = chunked
    head = "POST /s/x HTTP/1.1\r\nHost: api.test.example.com\r\nTransfer-Encoding: chunked\r\n"
    head += "TE: trailers\r\nConnection: TE\r\n" if te else ""
    with rig.connect() as connection:
        connection.send(head.encode() + b"\r\n" + UP)
        answer = connection.read_response("POST")
    assert answer.status == 200 and answer.body == b"ok"
    assert answer.trailers == ([("X-Sum", "42")] if te else [])
    assert got == [b"3\r\nabc\r\n0\r\nX-Up: yes\r\n\r\n"]


def test_trailers_of_http1_reach_http2(chunked):
    rig, _ = chunked
    with h2.Session(rig.ports["plain"]) as session:
        session.send(h2.request(1, "/s/x", "POST", ends=False))
        session.send(h2.frame(h2.DATA, h2.END_STREAM, 1, b"abc"))
        frames = session.until(lambda got: got.stream == 1 and got.flags & h2.END_STREAM)
    mine = [f for f in frames if f.stream == 1 and f.kind in (h2.HEADERS, h2.DATA)]
    assert [f.kind for f in mine] == [h2.HEADERS, h2.DATA, h2.HEADERS]
    assert mine[1].payload == b"ok" and len(mine[2].payload) < 12


def test_connection_is_used_again_after_a_body(scripted, tmp_path, make_rig, procs):
    """A body of known length is over with its last byte, not with the next request's first."""

    def serve(peer):
        peer.read_head()
        while len(peer.buffer) < 5:
            peer.buffer += peer.sock.recv(65536)
        peer.buffer = peer.buffer[5:]
        peer.answer()

    service = Scripted(serve)
    rig = make_rig(tmp_path, procs)
    rig.config["workers"] = 1
    rig.config["services"]["s"] = {"endpoints": [{"address": service.address}]}
    rig.config["routes"].append({"name": "s", "match": {"path": "/s/*"}, "service": "s"})
    rig.start()
    with rig.connect() as connection:
        for _ in range(5):
            assert connection.request("POST", "/s/x", body=b"12345").status == 200
    assert service.connections == 1
    service.stop()

# SPDX-License-Identifier: Apache-2.0
"""Services that break in every way at every stage: the right status in bounded time, no connection
used again that is in doubt, nothing sent twice that may have been done.

Each fault is a script of a service with two instances, for GET and POST, for clients of HTTP/1.1
and HTTP/2. A client that waits longer than ten seconds fails.
"""

import itertools
import json
import socket
import threading

import pytest

import client
import h2
from conftest import assert_problem
from scripted import Gone, Scripted

CUT = "cut"  # the client cannot take the response for complete
# On a kept connection it may have been too late: a new one is tried at no cost, then another
# instance.
TOO_LATE_PERHAPS = {"GET": 3, "POST": 1}
TWICE_IF_SAFE = {"GET": 2, "POST": 1}
ONCE = {"GET": 1, "POST": 1}
ALWAYS_TWICE = {"GET": 2, "POST": 2}

NUMBERS = itertools.count(1)


def head(*lines, status=b"200 OK"):
    return b"\r\n".join((b"HTTP/1.1 " + status,) + lines) + b"\r\n\r\n"


# --- HTTP/1.1: what a service does with a connection on which a request came ---------------------


def resets_at_once(peer):
    peer.reset()


def closes_at_once(peer):
    raise OSError("closes")


def half_closes(peer):
    peer.sock.shutdown(socket.SHUT_WR)


def sends(*pieces, then=None):
    def script(peer):
        for piece in pieces:
            peer.send(piece)
        if then:
            then(peer)

    return script


def stalls(peer):
    """Nothing more: what comes then is looked at by `attend`."""


LENGTH = head(b"Content-Length: 10")
CHUNKED = head(b"Transfer-Encoding: chunked")

# name: (script, what the client gets, how often the service is asked)
HTTP1 = {
    "reset-before-head": (resets_at_once, 502, TOO_LATE_PERHAPS),
    "close-before-head": (closes_at_once, 502, TOO_LATE_PERHAPS),
    "half-close-before-head": (half_closes, 502, TOO_LATE_PERHAPS),
    "stall-before-head": (stalls, 504, TWICE_IF_SAFE),
    "reset-in-head": (sends(b"HTTP/1.1 200 OK\r\nConte", then=resets_at_once), 502, ONCE),
    "close-in-head": (sends(b"HTTP/1.1 200 OK\r\nConte", then=closes_at_once), 502, ONCE),
    "close-in-status-line": (sends(b"HTT", then=closes_at_once), 502, ONCE),
    "stall-in-head": (sends(b"HTTP/1.1 200 OK\r\nConte"), 504, ONCE),
    "reset-after-head": (sends(LENGTH, then=resets_at_once), CUT, ONCE),
    "close-after-head": (sends(LENGTH, then=closes_at_once), CUT, ONCE),
    "reset-in-body": (sends(LENGTH + b"12345", then=resets_at_once), CUT, ONCE),
    "short-body": (sends(LENGTH + b"12345", then=closes_at_once), CUT, ONCE),
    "half-close-in-body": (sends(LENGTH + b"12345", then=half_closes), CUT, ONCE),
    "stall-in-body": (sends(LENGTH + b"12345"), CUT, ONCE),
    "stall-in-chunk-size": (sends(CHUNKED + b"5\r\nhello\r\n1"), CUT, ONCE),
    "close-before-last-chunk": (sends(CHUNKED + b"5\r\nhello\r\n", then=closes_at_once), CUT, ONCE),
    "close-in-trailers": (sends(CHUNKED + b"0\r\nX-A: 1\r\n", then=closes_at_once), CUT, ONCE),
    "chunk-size-garbage": (sends(CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n"), CUT, ONCE),
    "chunk-size-signed": (sends(CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"), CUT, ONCE),
    "chunk-size-overflow": (sends(CHUNKED + b"f" * 17 + b"\r\nhello"), CUT, ONCE),
    "chunk-without-crlf": (sends(CHUNKED + b"5\r\nhelloXX0\r\n\r\n"), CUT, ONCE),
    "chunk-bare-lf": (sends(CHUNKED + b"5\nhello\n0\n\n"), CUT, ONCE),
    "garbage": (sends(b"\x00\x16\x03nonsense\r\n\r\n"), 502, ONCE),
    "tls-alert": (sends(b"\x15\x03\x03\x00\x02\x02\x28" + b"\r\n\r\n"), 502, ONCE),
    "http2-frames": (sends(h2.frame(h2.SETTINGS, 0, 0) + b"\r\n\r\n"), 502, ONCE),
    "old-version": (sends(b"HTTP/0.9 200 OK\r\n\r\n"), 502, ONCE),
    "two-lengths": (sends(head(b"Content-Length: 2", b"Content-Length: 3") + b"okk"), 502, ONCE),
    "length-and-chunked": (
        sends(head(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"ok"), 502, ONCE),
    "unknown-coding": (sends(head(b"Transfer-Encoding: gzip") + b"ok"), 502, ONCE),
    "folded-field": (sends(head(b"X-A: 1", b" 2", b"Content-Length: 2") + b"ok"), 502, ONCE),
    "nul-in-field": (sends(head(b"X-A: \x00", b"Content-Length: 2") + b"ok"), 502, ONCE),
    "bare-lf": (sends(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"), 502, ONCE),
    "status-out-of-range": (sends(head(b"Content-Length: 2", status=b"099 X") + b"ok"), 502, ONCE),
    "switches-unasked": (
        sends(head(b"Connection: upgrade", b"Upgrade: x", status=b"101 X")), 502, ONCE),
    "over-long-head": (sends(head(b"X-A: " + b"a" * 200_000)), 502, ONCE),
    "endless-head": (sends(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 40_000), 502, ONCE),
    "interim-flood": (sends(head(b"X: y", status=b"103 Hint") * 50), 502, ONCE),
    "interim-then-close": (sends(head(status=b"103 H"), then=closes_at_once), 502, ONCE),
    "interim-then-stall": (sends(head(status=b"103 H")), 504, ONCE),
    # Not faults, though the connection cannot be used again:
    "until-close": (sends(head() + b"0123456789", then=closes_at_once), 200, ONCE),
    "until-half-close": (sends(head() + b"0123456789", then=half_closes), 200, ONCE),
    "until-reset": (sends(head() + b"0123456789", then=resets_at_once), CUT, ONCE),
    "whole-then-half-close": (sends(LENGTH + b"0123456789", then=half_closes), 200, ONCE),
    "whole-then-garbage": (sends(LENGTH + b"0123456789HTTP/1.1 200 OK\r\n"), 200, ONCE),
    "says-close-and-stays": (
        sends(head(b"Connection: close", b"Content-Length: 10") + b"0123456789"), 200, ONCE),
    "old-and-without-keep-alive": (
        sends(b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"), 200, ONCE),
}


class Faulty:
    """Two instances of a service that do as the path says; keeps what came, and on what."""

    def __init__(self, scripts, attend):
        self.scripts = scripts
        self.lock = threading.Lock()
        self.copies = {}  # path: how often it came
        self.current = ""  # path of the request under way: heads of HTTP/2 are not decoded here
        self.reused = []  # paths of faults after which the connection brought another request
        self.instances = [Scripted(lambda peer: attend(self, peer)) for _ in "ab"]
        self.addresses = [instance.address for instance in self.instances]

    def note(self, path):
        """The script of a request, None for one to be answered well."""
        name = path.split("/")[2]
        with self.lock:
            self.copies[path] = self.copies.get(path, 0) + 1
        return self.scripts[name][0] if name in self.scripts else None

    def stop(self):
        for instance in self.instances:
            instance.stop()


def read_body(peer, text):
    """What the request announced; clients of HTTP/2 announce no length."""
    lengths = [line for line in text.lower().split("\r\n") if line.startswith("content-length: ")]
    if lengths:
        size = int(lengths[0].split(": ")[1])
    elif "transfer-encoding: chunked" in text.lower():
        size = len(b"4\r\nonce\r\n0\r\n\r\n")
    else:
        return
    while len(peer.buffer) < size:
        more = peer.sock.recv(65536)
        if not more:
            raise Gone("no body")
        peer.buffer += more
    peer.buffer = peer.buffer[size:]


def attend_http1(service, peer):
    text = peer.read_head().decode()
    path = text.split(" ")[1]
    read_body(peer, text)
    script = service.note(path)
    if not script:
        peer.answer(b"well")
        return
    script(peer)
    try:
        peer.read_head()
    except Gone:
        return
    with service.lock:
        service.reused.append(path)


# --- HTTP/2 --------------------------------------------------------------------------------------


def h2_closes(session, _):
    raise OSError("closes")


def h2_resets(code, *before):
    def script(session, stream):
        for step in before:
            step(session, stream)
        session.reset(stream, code)

    return script


def h2_sends(*frames, then=None):
    def script(session, stream):
        for make in frames:
            session.send(make(stream))
        if then:
            then(session, stream)

    return script


def fields(*pairs, ends=False):
    """HEADERS of a response."""
    block = b"".join(h2.field(name, value) for name, value in pairs)
    flags = h2.END_HEADERS | (h2.END_STREAM if ends else 0)
    return lambda stream: h2.frame(h2.HEADERS, flags, stream, block)


def data(payload, ends=False):
    return lambda stream: h2.frame(h2.DATA, h2.END_STREAM if ends else 0, stream, payload)


OK = fields((":status", "200"), ("content-length", "10"))
INTERNAL = 2

HTTP2 = {
    "close-before-head": (h2_closes, 502, TOO_LATE_PERHAPS),
    "reset-before-head": (h2_resets(INTERNAL), 502, TWICE_IF_SAFE),
    "cancel-before-head": (h2_resets(h2.CANCEL), 502, TWICE_IF_SAFE),
    "refused": (h2_resets(h2.REFUSED_STREAM), 502, ALWAYS_TWICE),
    "goaway-below": (lambda session, stream: session.goaway(0), 502, ALWAYS_TWICE),
    "stall-before-head": (lambda session, stream: None, 504, TWICE_IF_SAFE),
    "goaway-then-close": (
        lambda session, stream: (session.goaway(stream), h2_closes(session, stream)), 502,
        TOO_LATE_PERHAPS),
    "reset-after-head": (h2_sends(OK, then=h2_resets(INTERNAL)), CUT, ONCE),
    "close-after-head": (h2_sends(OK, then=h2_closes), CUT, ONCE),
    "reset-in-body": (h2_sends(OK, data(b"12345"), then=h2_resets(INTERNAL)), CUT, ONCE),
    "close-in-body": (h2_sends(OK, data(b"12345"), then=h2_closes), CUT, ONCE),
    "stall-in-body": (h2_sends(OK, data(b"12345")), CUT, ONCE),
    "short-body": (h2_sends(OK, data(b"12345", ends=True)), CUT, ONCE),
    "long-body": (h2_sends(OK, data(b"123456789012345", ends=True)), CUT, ONCE),
    "no-body-after-all": (h2_sends(
        fields((":status", "200"), ("content-length", "10"), ends=True)), 502, TWICE_IF_SAFE),
    "data-before-head": (h2_sends(data(b"12345", ends=True)), 502, TWICE_IF_SAFE),
    "garbage": (lambda session, stream: session.send(b"HTTP/1.1 200 OK\r\n\r\n" * 3), 502,
                TWICE_IF_SAFE),
    "broken-compression": (
        h2_sends(lambda stream: h2.frame(h2.HEADERS, h2.END_HEADERS, stream, b"\xff\xff\xff\xff")),
        502, TWICE_IF_SAFE),
    "frame-over-size": (
        h2_sends(lambda stream: h2.frame(h2.DATA, 0, stream, b"x" * 20_000)), 502, TWICE_IF_SAFE),
    "no-status": (h2_sends(fields(("server", "x"))), 502, TWICE_IF_SAFE),
    "bad-status": (h2_sends(fields((":status", "abc"))), 502, TWICE_IF_SAFE),
    "connection-field": (
        h2_sends(fields((":status", "200"), ("connection", "close"))), 502, TWICE_IF_SAFE),
    "upper-case-field": (h2_sends(fields((":status", "200"), ("X-A", "1"))), 502, TWICE_IF_SAFE),
    "over-long-head": (
        h2_sends(*[lambda stream: b""],
                 then=lambda session, stream: long_head(session, stream)), 502, TWICE_IF_SAFE),
    "interim-flood": (h2_sends(*[fields((":status", "103"))] * 50), 502, ONCE),
    "interim-then-close": (h2_sends(fields((":status", "103")), then=h2_closes), 502, ONCE),
    "ends-and-cancels": (
        h2_sends(OK, data(b"0123456789", ends=True), then=h2_resets(h2.NO_ERROR)), 200, ONCE),
}


def long_head(session, stream):
    """200 KB in as many frames as it takes."""
    block = h2.field(":status", "200") + h2.field("x-a", "a" * 200_000)
    pieces = [block[i : i + 16_000] for i in range(0, len(block), 16_000)]
    session.send(h2.frame(h2.HEADERS, 0, stream, pieces[0]))
    for piece in pieces[1:-1]:
        session.send(h2.frame(h2.CONTINUATION, 0, stream, piece))
    session.send(h2.frame(h2.CONTINUATION, h2.END_HEADERS, stream, pieces[-1]))


def attend_http2(service, peer):
    session = h2.Service(peer.sock).accept()
    while True:
        stream = session.request()
        script = service.note(service.current)
        if script:
            script(session, stream)
        else:
            session.respond(stream, b"well")


# --- the gateway ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty():
    services = {"http1": Faulty(HTTP1, attend_http1), "http2": Faulty(HTTP2, attend_http2)}
    yield services
    for service in services.values():
        service.stop()


@pytest.fixture(scope="module")
def rig(tmp_path_factory, make_rig, faulty):
    """Each service twice: once with time, once in a hurry, for the faults that are stalls."""
    rig = make_rig(tmp_path_factory.mktemp("faults"))
    rig.config.update(workers=1, auth={}, services={}, routes=[])
    for protocol, service in faulty.items():
        for kind, wait_ms in (("calm", 8000), ("hasty", 300)):
            name = f"{protocol}-{kind}"
            rig.config["services"][name] = {
                "protocol": {"http1": "http/1.1", "http2": "h2"}[protocol],
                "endpoints": [{"address": address} for address in service.addresses],
                "connect_timeout_ms": 5000,
                "response_timeout_ms": wait_ms,
                "stream_idle_timeout_ms": wait_ms,
                "retries": 1,
                "balance": "round_robin",
                "ejection": {"failures": 0},
            }
            rig.config["routes"].append({"name": name, "match": {"path": f"/{name}/*"},
                                         "service": name})
    return rig.start()


def ask(rig, version, method, path, body=None):
    """Status and body, CUT for a response that has no end."""
    if version == "http1":
        try:
            with rig.connect() as connection:
                answer = connection.request(method, path, body=body)
        except client.BadResponse:
            return CUT, b""
        if answer.status >= 500:
            assert_problem(answer, answer.status)
        return answer.status, answer.body
    with h2.Session(rig.ports["plain"]) as session:
        session.settle()
        session.send(h2.request(1, path, method, ends=body is None))
        if body is not None:
            session.send(h2.frame(h2.DATA, h2.END_STREAM, 1, body))
        status, answer = session.answer(1)
    if isinstance(answer, bytes) and answer.startswith(b'{"type":"about:blank"'):
        status = json.loads(answer)["status"]
    return (CUT, b"") if status is None else (status, answer)


def check(rig, service, protocol, version, method, name):
    kind = "hasty" if "stall" in name else "calm"
    _, wanted, copies = service.scripts[name]
    for _ in range(5):  # retries have to be earned; and all is well before each fault
        service.current = f"/{protocol}-{kind}/well/1"
        assert ask(rig, "http1", "GET", service.current) == (200, b"well")
    path = f"/{protocol}-{kind}/{name}/{next(NUMBERS)}"
    service.current = path
    status, body = ask(rig, version, method, path, b"once" if method == "POST" else None)
    assert status == wanted, (status, body)
    assert status != 200 or body == b"0123456789"
    assert service.copies[path] == copies[method], "copies of the request"
    service.current = f"/{protocol}-{kind}/well/2"
    for _ in range(2):  # both instances
        assert ask(rig, "http1", "POST", service.current, b"x") == (200, b"well")
    assert path not in service.reused, "a connection in doubt was used again"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("version", ["http1", "http2"])
@pytest.mark.parametrize("name", HTTP1)
def test_service_of_http1(rig, faulty, name, version, method):
    check(rig, faulty["http1"], "http1", version, method, name)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("version", ["http1", "http2"])
@pytest.mark.parametrize("name", HTTP2)
def test_service_of_http2(rig, faulty, name, version, method):
    check(rig, faulty["http2"], "http2", version, method, name)


# --- what a table cannot say ---------------------------------------------------------------------


@pytest.fixture
def start(tmp_path, make_rig, procs):
    """A gateway of its own with one service of one scripted instance."""
    started = []

    def run(serve, protocol="http/1.1", **members):
        if protocol == "h2":
            started.append(Scripted(lambda peer: serve(h2.Service(peer.sock).accept())))
        else:
            started.append(Scripted(serve))
        rig = make_rig(tmp_path, procs)
        service = {"endpoints": [{"address": started[-1].address}], "protocol": protocol, **members}
        rig.config.update(workers=1, auth={}, services={"s": service})
        rig.config["routes"] = [{"name": "s", "match": {"path": "/s/*"}, "service": "s"}]
        return rig.start(), started[-1]

    yield run
    for service in started:
        service.stop()


EARLY = head(b"Content-Length: 5", status=b"413 No") + b"large"


@pytest.mark.parametrize("version", ["http1", "http2"])
@pytest.mark.parametrize("ending", ["stays", "closes", "half-closes"])
def test_answer_while_the_body_is_still_sent(start, version, ending):
    """It reaches the client, and the connection, with half a request on it, serves nobody else."""

    def serve(peer):
        text = peer.read_head()
        if b"/s/well" in text:
            peer.answer(b"well")
            return
        peer.send(EARLY)
        if ending == "half-closes":
            peer.sock.shutdown(socket.SHUT_WR)
        if ending == "closes":
            raise OSError("closes")
        peer.wait_closed()

    rig, service = start(serve)
    if version == "http1":
        with rig.connect() as connection:
            connection.send(b"POST /s/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
                            + b"x" * 1000)
            answer = connection.read_response("POST")
            assert (answer.status, answer.body) == (413, b"large")
    else:
        with h2.Session(rig.ports["plain"]) as session:
            session.settle()
            session.send(h2.request(1, "/s/x", "POST", ends=False))
            session.send(h2.frame(h2.DATA, 0, 1, b"x" * 1000))
            assert session.answer(1) == (413, b"large")
    assert rig.ask("GET", "/s/well").body == b"well"
    assert len(service.heads) == 2 and service.connections == 2


@pytest.mark.parametrize("version", ["http1", "http2"])
def test_answer_of_http2_while_the_body_is_still_sent(start, version):
    def serve(session):
        stream = session.request()
        session.head(stream, 413, [("content-length", "5")])
        session.data(stream, b"large", ends=True)
        session.reset(stream, h2.NO_ERROR)
        session.respond(session.request(), b"well")

    rig, service = start(serve, "h2")
    if version == "http1":
        with rig.connect() as connection:
            connection.send(b"POST /s/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
                            + b"x" * 1000)
            answer = connection.read_response("POST")
            assert (answer.status, answer.body) == (413, b"large")
    else:
        with h2.Session(rig.ports["plain"]) as session:
            session.settle()
            session.send(h2.request(1, "/s/x", "POST", ends=False))
            session.send(h2.frame(h2.DATA, 0, 1, b"x" * 1000))
            assert session.answer(1) == (413, b"large")
    assert rig.ask("GET", "/s/well").body == b"well"
    assert service.connections == 1, "other streams are not concerned"


def test_service_that_reads_nothing_ends_in_time(start):
    """Neither a client that sends for ever nor one that waits for ever."""

    def serve(peer):
        peer.read_head()
        while not stopped.wait(0.1):
            pass

    stopped = threading.Event()
    rig, service = start(serve, response_timeout_ms=400)
    try:
        with rig.connect() as connection:
            connection.send(b"POST /s/x HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n")
            try:
                while True:
                    connection.send(b"x" * 65536)
            except OSError:
                pass
        assert rig.wait_record(reason="response_timeout")["status"] == 504
        assert len(service.heads) == 1
    finally:
        stopped.set()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_request_races_with_the_end_of_an_idle_connection(start, method):
    """The service closes in the moment in which the next request is on its way."""

    def serve(peer):
        peer.read_head()
        peer.answer(b"well")
        if peer.number == 1:
            peer.read_head()  # the next one is lost with the connection
            raise OSError("closes")

    rig, service = start(serve, retries=0)
    assert rig.ask("GET", "/s/1").body == b"well"
    answer = rig.ask(method, "/s/2", body=b"once" if method == "POST" else None)
    if method == "GET":
        assert answer.body == b"well" and len(service.heads) == 3
    else:
        assert_problem(answer, 502)
        assert len(service.heads) == 2, "what may have been done is not done again"


def test_only_instance_that_stalls_is_a_time_out(start):
    """Not "no instance could be reached": there was nobody else to ask."""
    rig, service = start(lambda peer: (peer.read_head(), peer.wait_closed()),
                         response_timeout_ms=300, retries=3)
    assert_problem(rig.ask("GET", "/s/x"), 504)
    assert len(service.heads) == 1

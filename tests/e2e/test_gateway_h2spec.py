# SPDX-License-Identifier: Apache-2.0
"""The gateway's HTTP/2 by the letter: RFC 9113 sections 3 to 8 and RFC 7541, rule by rule.

Each case begins with a connection whose SETTINGS are exchanged, sends some bytes, and names what
must come back: an answer, an error of the stream or one of the connection. An error of the
connection may stand for one of the stream (RFC 9113 5.4.2), never the other way round, and never
silence. Whatever is refused reached no service as a whole request.
"""

import struct

import pytest

import client
import h2
from conftest import seen
from h2 import (
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
)

NO_ERROR, PROTOCOL, INTERNAL, FLOW, TIMEOUT, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION = range(10)
PUSH_PROMISE, PRIORITY_FLAG, ACK = 5, 0x20, 1
HOST = "api.test.example.com"
PATH = "/echo/spec"
SLOW = "/echo/spec?fault=delay_ms=300"
MAX_FRAME = 16384
BASE = [(":method", "GET"), (":scheme", "http"), (":path", PATH), (":authority", HOST)]


def block(pairs):
    return b"".join(h2.field(name, value) for name, value in pairs)


def get(*more, base=BASE, stream=1, flags=END_HEADERS | END_STREAM):
    return frame(HEADERS, flags, stream, block(list(base) + list(more)))


def post(*more, stream=1, path=PATH):
    base = [(":method", "POST"), *BASE[1:2], (":path", path), BASE[3]]
    return get(*more, base=base, stream=stream, flags=END_HEADERS)


def raw(tail, stream=1):
    """A request whose header block ends in these bytes."""
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, block(BASE) + tail)


def without(name):
    return [pair for pair in BASE if pair[0] != name]


def setting(identifier, value):
    return frame(SETTINGS, 0, 0, struct.pack("!HI", identifier, value))


def u32(value):
    return struct.pack("!I", value)


def unread_window(increment, stream):
    return frame(WINDOW_UPDATE, 0, stream, u32(increment))


HALF_CLOSED = get(base=[BASE[0], BASE[1], (":path", SLOW), BASE[3]])
RESET = post(path=SLOW) + frame(RST_STREAM, 0, 1, u32(CANCEL))

# name, bytes, kind ("stream" or "connection"), codes
ERRORS = [
    # --- 4.2 frame size, 4.3 header blocks
    ("4.2-data-too-long", post() + frame(DATA, 0, 1, bytes(MAX_FRAME + 1)), "stream", {SIZE}),
    ("4.2-headers-too-long", frame(HEADERS, END_HEADERS, 1, bytes(MAX_FRAME + 1)), "connection",
     {SIZE}),
    ("4.2-settings-too-long", frame(SETTINGS, 0, 0, bytes(6 * 2731)), "connection", {SIZE}),
    ("4.3-invalid-block", raw(b"\xff\xff\xff\xff\xff\xff"), "connection", {COMPRESSION}),
    ("4.3-priority-within-block", get(flags=END_STREAM) + frame(PRIORITY, 0, 1, bytes(5)),
     "connection", {PROTOCOL}),
    ("4.3-headers-of-another-within-block", get(flags=END_STREAM) + get(stream=3), "connection",
     {PROTOCOL}),
    ("4.3-ping-within-block", get(flags=END_STREAM) + frame(PING, 0, 0, bytes(8)), "connection",
     {PROTOCOL}),
    # --- 5.1 stream states
    ("5.1-idle-data", frame(DATA, END_STREAM, 1, b"x"), "connection", {PROTOCOL}),
    ("5.1-idle-reset", frame(RST_STREAM, 0, 1, u32(CANCEL)), "connection", {PROTOCOL}),
    ("5.1-idle-window-update", unread_window(100, 1), "connection", {PROTOCOL}),
    ("5.1-idle-continuation", frame(CONTINUATION, END_HEADERS, 1, block(BASE)), "connection",
     {PROTOCOL}),
    ("5.1-half-closed-data", HALF_CLOSED + frame(DATA, END_STREAM, 1, b"x"), "stream", {CLOSED}),
    ("5.1-half-closed-headers", HALF_CLOSED + get(), "stream", {CLOSED}),
    ("5.1-half-closed-continuation", HALF_CLOSED + frame(CONTINUATION, END_HEADERS, 1, block(BASE)),
     "connection", {CLOSED, PROTOCOL}),
    ("5.1-reset-data", RESET + frame(DATA, END_STREAM, 1, b"x"), "stream", {CLOSED}),
    ("5.1-reset-headers", RESET + get(), "stream", {CLOSED}),
    ("5.1-reset-continuation", RESET + frame(CONTINUATION, END_HEADERS, 1, block(BASE)),
     "connection", {CLOSED, PROTOCOL}),
    # --- 5.1.1 stream ids
    ("5.1.1-even", get(stream=2), "connection", {PROTOCOL}),
    ("5.1.1-lower", get(stream=5) + get(stream=3), "connection", {PROTOCOL}),
    ("5.1.1-lower-with-body", get(stream=5) + post(stream=1), "connection", {PROTOCOL}),
    ("5.1.1-skipped-data", get(stream=5) + frame(DATA, END_STREAM, 3, b"x"), "connection",
     {CLOSED, PROTOCOL}),
    ("5.1.1-zero-headers", frame(HEADERS, END_HEADERS | END_STREAM, 0, block(BASE)), "connection",
     {PROTOCOL}),
    # --- 5.3 priorities
    ("5.3-headers-on-themselves", frame(HEADERS, END_HEADERS | END_STREAM | PRIORITY_FLAG, 1,
                                        u32(1) + b"\xff" + block(BASE)), "stream", {PROTOCOL}),
    ("5.3-priority-on-itself", frame(PRIORITY, 0, 1, u32(1) + b"\xff"), "stream", {PROTOCOL}),
    # --- 6.1 DATA
    ("6.1-stream-0", frame(DATA, 0, 0, b"x"), "connection", {PROTOCOL}),
    ("6.1-padding-too-long", post() + frame(DATA, PADDED | END_STREAM, 1, b"\x06hello"),
     "connection", {PROTOCOL}),
    ("6.1-padding-alone", post() + frame(DATA, PADDED | END_STREAM, 1, b"\x01"), "connection",
     {PROTOCOL}),
    ("6.1-padded-without-length", post() + frame(DATA, PADDED | END_STREAM, 1, b""), "connection",
     {PROTOCOL, SIZE}),
    # --- 6.2 HEADERS
    ("6.2-padding-too-long", frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1,
                                   b"\xff" + block(BASE)), "connection", {PROTOCOL}),
    ("6.2-padded-without-length", frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, b""),
     "connection", {PROTOCOL, SIZE}),
    ("6.2-priority-cut", frame(HEADERS, PRIORITY_FLAG | END_HEADERS | END_STREAM, 1, b"\0\0"),
     "connection", {PROTOCOL, SIZE}),
    # --- 6.3 PRIORITY
    ("6.3-stream-0", frame(PRIORITY, 0, 0, bytes(5)), "connection", {PROTOCOL}),
    ("6.3-size", get() + frame(PRIORITY, 0, 1, bytes(4)), "stream", {SIZE}),
    ("6.3-size-long", get() + frame(PRIORITY, 0, 1, bytes(6)), "stream", {SIZE}),
    # --- 6.4 RST_STREAM
    ("6.4-stream-0", frame(RST_STREAM, 0, 0, u32(CANCEL)), "connection", {PROTOCOL}),
    ("6.4-size", post() + frame(RST_STREAM, 0, 1, bytes(3)), "connection", {SIZE}),
    ("6.4-size-long", post() + frame(RST_STREAM, 0, 1, bytes(5)), "connection", {SIZE}),
    # --- 6.5 SETTINGS
    ("6.5-ack-with-payload", frame(SETTINGS, ACK, 0, bytes(6)), "connection", {SIZE}),
    ("6.5-on-a-stream", frame(SETTINGS, 0, 1, bytes(6)), "connection", {PROTOCOL}),
    ("6.5-size", frame(SETTINGS, 0, 0, bytes(3)), "connection", {SIZE}),
    ("6.5.2-enable-push-2", setting(2, 2), "connection", {PROTOCOL}),
    ("6.5.2-window-over-2^31-1", setting(4, 1 << 31), "connection", {FLOW}),
    ("6.5.2-frame-size-small", setting(5, MAX_FRAME - 1), "connection", {PROTOCOL}),
    ("6.5.2-frame-size-large", setting(5, 1 << 24), "connection", {PROTOCOL}),
    ("8441-connect-protocol-2", setting(8, 2), "connection", {PROTOCOL}),
    # --- 6.6 PUSH_PROMISE: clients never
    ("6.6-push-promise", post() + frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + block(BASE)),
     "connection", {PROTOCOL}),
    # --- 6.7 PING
    ("6.7-on-a-stream", frame(PING, 0, 1, bytes(8)), "connection", {PROTOCOL}),
    ("6.7-size", frame(PING, 0, 0, bytes(6)), "connection", {SIZE}),
    ("6.7-size-long", frame(PING, 0, 0, bytes(9)), "connection", {SIZE}),
    # --- 6.8 GOAWAY
    ("6.8-on-a-stream", frame(GOAWAY, 0, 1, bytes(8)), "connection", {PROTOCOL}),
    ("6.8-size", frame(GOAWAY, 0, 0, bytes(7)), "connection", {SIZE}),
    # --- 6.9 WINDOW_UPDATE
    ("6.9-zero", unread_window(0, 0), "connection", {PROTOCOL}),
    ("6.9-zero-on-a-stream", post() + unread_window(0, 1), "stream", {PROTOCOL}),
    ("6.9-size", frame(WINDOW_UPDATE, 0, 0, bytes(3)), "connection", {SIZE}),
    ("6.9.1-overflow", unread_window((1 << 31) - 1, 0) * 2, "connection", {FLOW}),
    ("6.9.1-overflow-of-a-stream", post(path=SLOW) + unread_window((1 << 31) - 1, 1) * 2, "stream",
     {FLOW}),
    ("6.9.2-overflow-by-settings", post(path=SLOW) + unread_window((1 << 31) - 1 - 65535, 1)
     + setting(4, 65536), "stream", {FLOW}),  # nghttp2 resets the stream, not the connection
    # More than the sockets in between can hold for a service that reads nothing.
    ("6.9.1-more-data-than-window", post(path="/one/x?fault=no_read")
     + frame(DATA, 0, 1, bytes(MAX_FRAME)) * 1000, "stream", {FLOW}),
    # --- 6.10 CONTINUATION
    ("6.10-after-end-headers", get(flags=END_HEADERS) + frame(CONTINUATION, END_HEADERS, 1, b""),
     "connection", {PROTOCOL}),
    ("6.10-stream-0", get(flags=END_STREAM) + frame(CONTINUATION, END_HEADERS, 0, b""),
     "connection", {PROTOCOL}),
    ("6.10-of-another", get(flags=END_STREAM) + frame(CONTINUATION, END_HEADERS, 3, b""),
     "connection", {PROTOCOL}),
    ("6.10-after-data", post() + frame(DATA, 0, 1, b"x") + frame(CONTINUATION, END_HEADERS, 1, b""),
     "connection", {PROTOCOL}),
    ("6.10-unknown-frame-within", get(flags=END_STREAM) + frame(0x16, 0, 0, b"x"), "connection",
     {PROTOCOL}),
    # --- 8.1 the order of frames
    ("8.1-second-head-without-end", post() + get(base=[("x", "y")], flags=END_HEADERS), "stream",
     {PROTOCOL}),
    ("8.1-pseudo-in-trailers", post() + get(base=[(":method", "GET")]), "stream", {PROTOCOL}),
    ("8.1-path-in-trailers", post() + get(base=[("x", "y"), (":path", "/admin")]), "stream",
     {PROTOCOL}),
    # --- 8.2 fields
    ("8.2.1-upper-case", get(("X-Test", "ok")), "stream", {PROTOCOL}),
    ("8.2.1-space-in-name", get(("x test", "ok")), "stream", {PROTOCOL}),
    ("8.2.1-colon-in-name", get(("x:test", "ok")), "stream", {PROTOCOL}),
    ("8.2.1-control-in-name", get(("x\x01", "ok")), "stream", {PROTOCOL}),
    ("8.2.1-non-ascii-name", get(("x\xe4", "ok")), "stream", {PROTOCOL}),
    ("8.2.1-empty-name", get(("", "ok")), "stream", {PROTOCOL}),
    ("8.2.1-nul-in-value", get(("x", "a\0b")), "stream", {PROTOCOL}),
    ("8.2.1-cr-in-value", get(("x", "a\rb")), "stream", {PROTOCOL}),
    ("8.2.1-lf-in-value", get(("x", "a\nx-user-id: 1")), "stream", {PROTOCOL}),
    ("8.2.1-crlf-in-path", get(base=[*BASE[:2], (":path", "/echo/ HTTP/1.1\r\nx: y"), BASE[3]]),
     "stream", {PROTOCOL}),
    ("8.2.1-lf-in-method", get(base=[(":method", "GET\n"), *BASE[1:]]), "stream", {PROTOCOL}),
    ("8.2.1-space-in-method", get(base=[(":method", "GET /x"), *BASE[1:]]), "stream", {PROTOCOL}),
    ("8.2.1-space-in-authority", get(base=[*BASE[:3], (":authority", "a b")]), "stream", {PROTOCOL}),
    ("8.2.2-connection", get(("connection", "keep-alive")), "stream", {PROTOCOL}),
    ("8.2.2-proxy-connection", get(("proxy-connection", "keep-alive")), "stream", {PROTOCOL}),
    ("8.2.2-keep-alive", get(("keep-alive", "1")), "stream", {PROTOCOL}),
    ("8.2.2-transfer-encoding", get(("transfer-encoding", "chunked")), "stream", {PROTOCOL}),
    ("8.2.2-upgrade", get(("upgrade", "websocket")), "stream", {PROTOCOL}),
    ("8.2.2-te-gzip", get(("te", "trailers, deflate;q=0.5")), "stream", {PROTOCOL}),
    # --- 8.3 pseudo-headers
    ("8.3-after-fields", get(base=[*BASE[:3], ("x", "y"), BASE[3]]), "stream", {PROTOCOL}),
    ("8.3-unknown", get(base=[*BASE, (":test", "ok")]), "stream", {PROTOCOL}),
    ("8.3-status", get(base=[*BASE, (":status", "200")]), "stream", {PROTOCOL}),
    ("8.3.1-path-empty", get(base=[*BASE[:2], (":path", ""), BASE[3]]), "stream", {PROTOCOL}),
    ("8.3.1-path-relative", get(base=[*BASE[:2], (":path", "echo/x"), BASE[3]]), "stream",
     {PROTOCOL}),
    ("8.3.1-path-asterisk", get(base=[*BASE[:2], (":path", "*"), BASE[3]]), "stream", {PROTOCOL}),
    ("8.3.1-no-method", get(base=without(":method")), "stream", {PROTOCOL}),
    ("8.3.1-no-scheme", get(base=without(":scheme")), "stream", {PROTOCOL}),
    ("8.3.1-no-path", get(base=without(":path")), "stream", {PROTOCOL}),
    ("8.3.1-no-authority", get(base=without(":authority")), "stream", {PROTOCOL}),
    *[(f"8.3.1-two-{name[1:]}", get(base=[*BASE, (name, value)]), "stream", {PROTOCOL})
      for name, value in BASE],
    ("8.3.1-two-hosts", get(("host", HOST), ("host", "other.example.com")), "stream", {PROTOCOL}),
    ("8.5-connect-with-path", get(base=[(":method", "CONNECT"), *BASE[1:]]), "stream", {PROTOCOL}),
    ("8441-protocol-without-connect", get(base=[*BASE, (":protocol", "websocket")]), "stream",
     {PROTOCOL}),
    # --- 8.1.1 length of the body
    ("8.1.1-length-too-long", post(("content-length", "2")) + frame(DATA, END_STREAM, 1, b"x"),
     "stream", {PROTOCOL}),
    ("8.1.1-length-too-short", post(("content-length", "1")) + frame(DATA, END_STREAM, 1, b"xx"),
     "stream", {PROTOCOL}),
    ("8.1.1-length-of-several", post(("content-length", "1")) + frame(DATA, 0, 1, b"x")
     + frame(DATA, END_STREAM, 1, b"x"), "stream", {PROTOCOL}),
    ("8.1.1-length-without-body", get(("content-length", "1")), "stream", {PROTOCOL}),
    ("8.1.1-two-lengths", post(("content-length", "1"), ("content-length", "2"))
     + frame(DATA, END_STREAM, 1, b"x"), "stream", {PROTOCOL}),
    ("8.1.1-length-sign", post(("content-length", "+1")) + frame(DATA, END_STREAM, 1, b"x"),
     "stream", {PROTOCOL}),
    # --- RFC 7541
    ("hpack-2.3.3-index-beyond", raw(b"\xff\x00"), "connection", {COMPRESSION}),
    ("hpack-6.1-index-0", raw(b"\x80"), "connection", {COMPRESSION}),
    ("hpack-6.2-name-index-beyond", raw(b"\x7f\x7f\x01x"), "connection", {COMPRESSION}),
    ("hpack-4.2-size-update-at-the-end", raw(b"\x21"), "connection", {COMPRESSION}),
    ("hpack-6.3-size-update-too-large", frame(HEADERS, END_HEADERS | END_STREAM, 1,
                                              b"\x3f\xff\xff\x07" + block(BASE)), "connection",
     {COMPRESSION}),
    ("hpack-5.1-integer-overflow", raw(b"\x00\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
     "connection", {COMPRESSION}),
    ("hpack-5.2-string-cut", raw(b"\x00\x05x"), "connection", {COMPRESSION}),
    ("hpack-5.2-padding-over-7-bits", raw(b"\x00\x01x\x82\x1f\xff"), "connection", {COMPRESSION}),
    ("hpack-5.2-padding-of-zeroes", raw(b"\x00\x01x\x81\x18"), "connection", {COMPRESSION}),
    ("hpack-5.2-eos", raw(b"\x00\x01x\x84\xff\xff\xff\xff"), "connection", {COMPRESSION}),
]

# After an answer that ended both sides of stream 1.
CLOSED_BY_BOTH = [
    ("5.1-closed-data", frame(DATA, END_STREAM, 1, b"x"), "connection", {CLOSED}),
    ("5.1-closed-headers", get(), "connection", {CLOSED}),
    ("5.1-closed-continuation", frame(CONTINUATION, END_HEADERS, 1, block(BASE)), "connection",
     {CLOSED, PROTOCOL}),
    ("5.1-closed-trailers", frame(HEADERS, END_HEADERS | END_STREAM, 1, block([("x", "y")])),
     "connection", {CLOSED}),
]

# What is right, if odd, and must be answered with this status.
RIGHT = [
    ("5.5-unknown-frame", frame(0x16, 0, 0, b"x" * 8) + get(), 200),
    ("5.5-unknown-frame-on-a-stream", post() + frame(0x16, 0xFF, 1, b"x")
     + frame(DATA, END_STREAM, 1, b"x"), 200),
    ("4.1-unknown-flags", frame(HEADERS, END_HEADERS | END_STREAM | 0x52, 1, block(BASE)), 200),
    ("4.1-reserved-bit", frame(HEADERS, END_HEADERS | END_STREAM, 1 | 1 << 31, block(BASE)), 200),
    ("6.1-padded-data", post() + frame(DATA, PADDED | END_STREAM, 1, b"\x03hello" + bytes(3)), 200),
    ("6.2-padded-headers", frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1,
                                 b"\x04" + block(BASE) + bytes(4)), 200),
    ("6.2-priority", frame(HEADERS, PRIORITY_FLAG | END_HEADERS | END_STREAM, 1,
                           u32(0) + b"\x10" + block(BASE)), 200),
    ("6.3-priority-of-idle-streams", frame(PRIORITY, 0, 3, u32(0) + b"\x10")
     + frame(PRIORITY, 0, 7, u32(3) + b"\x10") + get(), 200),
    ("6.4-reset-then-another", RESET + get(stream=3), 200),
    ("6.5.2-unknown-setting", setting(0x2F, 5) + get(), 200),
    ("6.5.3-settings-in-turn", setting(4, 100) + setting(4, 65535) + get(), 200),
    ("6.7-ping-ack-unasked", frame(PING, ACK, 0, bytes(8)) + get(), 200),
    ("6.9-window-of-closed-stream", RESET + unread_window(1, 1) + get(stream=3), 200),
    ("6.10-continuations", frame(HEADERS, END_STREAM, 1, block(BASE[:1]))
     + frame(CONTINUATION, 0, 1, block(BASE[1:3])) + frame(CONTINUATION, 0, 1, b"")
     + frame(CONTINUATION, END_HEADERS, 1, block(BASE[3:])), 200),
    ("5.1.1-ids-skipped", get(stream=41), 200),
    ("8.1-trailers", post() + frame(DATA, 0, 1, b"x") + get(base=[("x", "y")]), 200),
    ("8.2.2-te-trailers", get(("te", "trailers")), 200),
    ("8.3.1-host-instead", get(("host", HOST), base=without(":authority")), 200),
    ("8.3.1-host-equal", get(("host", HOST)), 200),
    ("8.3.1-asterisk", get(base=[(":method", "OPTIONS"), BASE[1], (":path", "*"), BASE[3]]), 404),
    ("8.1.1-length-0", get(("content-length", "0")), 200),
    ("8.5-connect", get(base=[(":method", "CONNECT"), BASE[3]]), 501),
    ("hpack-4.2-size-update-first", frame(HEADERS, END_HEADERS | END_STREAM, 1,
                                          b"\x20" + block(BASE)), 200),
    ("hpack-never-indexed", raw(b"\x10\x01x\x01y"), 200),
    ("hpack-empty-value", raw(b"\x00\x01x\x00"), 200),
]


@pytest.fixture(autouse=True)
def forget(services):
    for service in services:
        service.forget()


@pytest.fixture(scope="module")
def spec(tmp_path_factory, make_rig, module_procs):
    rig = make_rig(tmp_path_factory.mktemp("h2spec"), module_procs)
    rig.config["listeners"][1]["tls"]["alpn"] = ["h2", "http/1.1"]
    return rig.start()


@pytest.fixture(params=["plain", "tls"])
def session(request, spec):
    tls = client.tls_context(spec.authority.certificate, ["h2"]) if request.param == "tls" else None
    with h2.Session(spec.ports[request.param], tls=tls, server_name=HOST) as one:
        yield one.settle()


def error_of(session):
    """("stream" or "connection", code) of the first error; ("closed", None) without GOAWAY."""
    while (got := session.read()) is not None:
        if got.kind in (RST_STREAM, GOAWAY) and got.error() != NO_ERROR:
            return "stream" if got.kind == RST_STREAM else "connection", got.error()
    return "closed", None


def expect_error(session, kind, codes):
    got, code = error_of(session)
    assert got == "connection" or got == kind, (got, code)
    assert code in codes, (got, code)
    if got == "connection":
        session.drain(5)
        assert session.is_closed, "GOAWAY, and the connection goes on"


def ids(cases):
    return [case[0] for case in cases]


@pytest.mark.parametrize("name,data,kind,codes", ERRORS, ids=ids(ERRORS))
def test_error(session, services, name, data, kind, codes):
    session.try_send(data)
    expect_error(session, kind, codes)
    # What was well-formed before the error may be there; what was not, never as a whole.
    if name.startswith("8.") or "hpack" in name:
        assert not [r for r in seen(services) if r["complete"]]


@pytest.mark.parametrize("name,data,kind,codes", CLOSED_BY_BOTH, ids=ids(CLOSED_BY_BOTH))
def test_frame_on_a_closed_stream(session, name, data, kind, codes):
    session.send(get())
    assert session.answer(1)[0] == 200
    assert session.try_send(data)
    expect_error(session, kind, codes)


@pytest.mark.parametrize("name,data,status", RIGHT, ids=ids(RIGHT))
def test_right(session, name, data, status):
    session.send(data)
    stream = {"5.1.1-ids-skipped": 41, "6.4-reset-then-another": 3,
              "6.9-window-of-closed-stream": 3}.get(name, 1)
    assert session.answer(stream)[0] == status


@pytest.mark.parametrize("name", ["wrong-word", "cut", "no-settings"])
def test_3_4_preface(spec, name):
    """On TLS, where ALPN leaves no doubt that it is HTTP/2."""
    first = {"wrong-word": b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "cut": h2.PREFACE[:10] + bytes(20),
             "no-settings": h2.PREFACE + frame(PING, 0, 0, bytes(8))}[name]
    tls = client.tls_context(spec.authority.certificate, ["h2"])
    with h2.Session(spec.ports["tls"], tls=tls, server_name=HOST, first=first) as session:
        expect_error_or_close(session)


def expect_error_or_close(session):
    got, code = error_of(session)
    assert got == "closed" or (got, code) == ("connection", PROTOCOL), (got, code)


def test_3_4_settings_come_first(session, spec):
    with h2.Session(spec.ports["plain"]) as another:
        assert another.read().kind == SETTINGS


def test_6_5_3_settings_are_acknowledged(session):
    session.send(setting(4, 1000))
    assert session.until(lambda f: f.kind == SETTINGS and f.flags & ACK)[-1].payload == b""


def test_6_7_ping_is_answered_with_its_bytes(session):
    session.send(frame(PING, 0, 0, b"h2spec!!"))
    got = session.until(lambda f: f.kind == PING)[-1]
    assert got.flags & ACK and got.payload == b"h2spec!!"


def test_6_9_2_window_of_one_byte(session):
    session.send(setting(4, 1) + get(base=[*BASE[:2], (":path", "/ping"), BASE[3]]))
    got = session.until(lambda f: f.kind == DATA)[-1]
    assert got.payload == b"p"
    assert not [f for f in session.drain(0.2) if f.kind == DATA]
    session.send(unread_window(3, 1))
    assert session.until(lambda f: f.flags & END_STREAM and f.kind == DATA)[-1].payload == b"ong"


def test_6_9_2_window_that_becomes_negative(session):
    session.send(setting(4, 3) + get(base=[*BASE[:2], (":path", "/ping"), BASE[3]]))
    assert session.until(lambda f: f.kind == DATA)[-1].payload == b"pon"
    session.send(setting(4, 2) + unread_window(1, 1))
    assert not [f for f in session.drain(0.2) if f.kind == DATA], "the window is 0, not 1"
    session.send(unread_window(1, 1))
    assert session.until(lambda f: f.kind == DATA)[-1].payload == b"g"


def test_5_1_2_too_many_streams(session):
    slow = [BASE[0], BASE[1], (":path", SLOW), BASE[3]]
    session.send(b"".join(get(base=slow, stream=2 * i + 1) for i in range(101)))
    got = session.until(lambda f: f.kind in (RST_STREAM, GOAWAY))[-1]
    # 101 open at once, and the bound was acknowledged.
    assert (got.kind, got.error()) in ((RST_STREAM, REFUSED), (GOAWAY, PROTOCOL)), got


def test_5_1_what_we_cut_is_ignored(session, services):
    """After our own reset its DATA and trailers may be on their way: no error."""
    session.send(post(path="/nowhere"))
    session.until(lambda f: f.kind == RST_STREAM)
    session.send(frame(DATA, 0, 1, b"late") + frame(HEADERS, END_HEADERS | END_STREAM, 1,
                                                    block([("x", "y")])) + get(stream=3))
    assert session.answer(3)[0] == 200


def test_6_8_goaway_of_the_client_lets_answers_come(session):
    session.send(HALF_CLOSED + frame(GOAWAY, 0, 0, u32(0) + u32(NO_ERROR)))
    assert session.answer(1)[0] == 200


def test_8_1_answer_has_no_connection_fields(session):
    session.send(get())
    got = session.until(lambda f: f.kind == HEADERS)[-1]
    for name in (b"connection", b"transfer-encoding", b"keep-alive"):
        assert name not in got.payload


def test_hpack_table_survives_what_was_refused(session):
    """A refused request's block still changes the table: the next one must be understood."""
    session.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(BASE)
                 + h2.field("x-entry", "kept", indexed=True) + h2.field("Bad", "x")))
    assert session.answer(1) == (None, PROTOCOL)
    session.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, block(BASE) + h2.LAST_INDEXED))
    status, body = session.answer(3)
    assert status == 200 and b'["x-entry", "kept"]' in body

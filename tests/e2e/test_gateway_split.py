# SPDX-License-Identifier: Apache-2.0
"""Strictness does not depend on where the network cuts: each message of the corpus, cut at each byte.

Requests of malformed.py, and responses of services. All cuts of a case go over connections of their
own at the same time: first all first parts, then, when the gateway has seen them, the rest.
"""

import concurrent.futures
import hashlib
import json
import socket
import threading
import time

import pytest

import client
from conftest import seen
from malformed import BAD_PATHS, MALFORMED, WELL_FORMED
from rig import HOST
from scripted import Scripted

CUTS_MAX = 400  # of a long message: those at its beginning, and its last ones
SEEN_S = 0.05  # so long the gateway has for all first parts


@pytest.fixture(autouse=True)
def forget(services):
    for service in services:
        service.forget()


def cuts(data):
    if len(data) <= CUTS_MAX:
        return range(1, len(data))
    return [*range(1, CUTS_MAX - 50), *range(len(data) - 50, len(data))]


def send(sock, data):
    try:
        sock.sendall(data)
    except OSError:
        pass  # refused already


def read_all(sock):
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def answers(rig, data, end=True):
    """(cut, all that the gateway answered until it closed) for each cut."""
    socks = []
    for cut in cuts(data):
        sock = socket.create_connection(("127.0.0.1", rig.ports["plain"]), 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(data[:cut])
        socks.append((cut, sock))
    time.sleep(SEEN_S)
    for cut, sock in socks:
        send(sock, data[cut:])
        if end:
            try:
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
    for cut, sock in socks:
        got = read_all(sock)
        sock.close()
        yield cut, got


def statuses_of(got):
    """Of all responses in there, interim ones left out; they must be well-formed."""
    found = []
    while got:
        head, _, rest = got.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if status >= 200:
            found.append(status)
        got = rest[length:]
    return found


@pytest.mark.parametrize("name,data,statuses", MALFORMED, ids=[case[0] for case in MALFORMED])
def test_malformed_request(rig, services, name, data, statuses):
    for cut, got in answers(rig, data, end=False):
        found = statuses_of(got)
        assert len(found) == 1 and found[0] in statuses, (cut, data[:cut], got)
        assert b"Connection: close" in got, (cut, got)
    assert not [r for r in seen(services) if r["complete"] or "smuggled" in r["target"]]


@pytest.mark.parametrize("name,data,statuses", BAD_PATHS, ids=[case[0] for case in BAD_PATHS])
def test_bad_path(rig, services, name, data, statuses):
    for cut, got in answers(rig, data):
        found = statuses_of(got)
        assert len(found) == 1 and found[0] in statuses, (cut, data[:cut], got)
    assert not seen(services)


@pytest.mark.parametrize("name,data,path,body", WELL_FORMED, ids=[case[0] for case in WELL_FORMED])
def test_well_formed_request(rig, services, name, data, path, body):
    total = 0
    for cut, got in answers(rig, data, end=False):
        assert statuses_of(got) == [200], (cut, data[:cut], got)
        told = json.loads(got[got.rindex(b"\r\n\r\n") :])
        assert told["path"] == path and told["body_bytes"] == len(body), (cut, told)
        assert told["body_sha256"] == hashlib.sha256(body).hexdigest()
        total += 1
    assert sum(service.seen()["count"] for service in services) == total


# --- responses --------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"


def _ok(*fields, body=b"abc"):
    return OK + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


_CHUNKED = b"Transfer-Encoding: chunked"

# Nothing of it may reach the client: 502.
BAD_HEADS = {
    "length-and-chunked": _ok(b"Content-Length: 3", _CHUNKED, body=b"0\r\n\r\n"),
    "two-lengths": _ok(b"Content-Length: 3", b"Content-Length: 4"),
    "two-equal-lengths": _ok(b"Content-Length: 3", b"Content-Length: 3"),
    "length-list": _ok(b"Content-Length: 3, 3"),
    "length-sign": _ok(b"Content-Length: +3"),
    "length-hex": _ok(b"Content-Length: 0x3"),
    "length-empty": _ok(b"Content-Length: "),
    "length-overflow": _ok(b"Content-Length: 18446744073709551619"),
    "chunked-twice": _ok(_CHUNKED, _CHUNKED, body=b"0\r\n\r\n"),
    "coding-list": _ok(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "coding-unknown": _ok(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "coding-in-1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
    "bare-lf-in-value": _ok(b"X: a\nSet-Cookie: b", b"Content-Length: 3"),
    "bare-cr-in-value": _ok(b"X: a\rSet-Cookie: b", b"Content-Length: 3"),
    "space-before-colon": _ok(b"Content-Length : 3"),
    "nul-in-value": _ok(b"X: a\x00b", b"Content-Length: 3"),
    "control-in-value": _ok(b"X: a\x01b", b"Content-Length: 3"),
    "name-space": _ok(b"X A: b", b"Content-Length: 3"),
    "name-empty": _ok(b": b", b"Content-Length: 3"),
    "line-without-colon": _ok(b"X", b"Content-Length: 3"),
    "obs-fold": _ok(b"X: a", b" b", b"Content-Length: 3"),
    "status-of-two-digits": b"HTTP/1.1 20 OK\r\nContent-Length: 3\r\n\r\nabc",
    "status-of-four-digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 3\r\n\r\nabc",
    "status-099": b"HTTP/1.1 099 OK\r\nContent-Length: 3\r\n\r\nabc",
    "status-600": b"HTTP/1.1 600 OK\r\nContent-Length: 3\r\n\r\nabc",
    "status-word": b"HTTP/1.1 OK OK\r\nContent-Length: 3\r\n\r\nabc",
    "version-2": b"HTTP/2.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    "version-lower-case": b"http/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    "empty-line-first": b"\r\n" + _ok(b"Content-Length: 3"),
    "not-http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "switching-unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "coding-in-204": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding-in-103": b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n"
    + _ok(b"Content-Length: 3"),
    "endless-interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17 + _ok(b"Content-Length: 3"),
    "cut-head": OK + b"Content-Length: 3\r\n",
}
# The head is right: the client must see that the body is not.
BAD_BODIES = {
    "shorter-than-length": _ok(b"Content-Length: 4"),
    "chunk-size-sign": _ok(_CHUNKED, body=b"+3\r\nabc\r\n0\r\n\r\n"),
    "chunk-size-0x": _ok(_CHUNKED, body=b"0x3\r\nabc\r\n0\r\n\r\n"),
    "chunk-size-space": _ok(_CHUNKED, body=b"3 \r\nabc\r\n0\r\n\r\n"),
    "chunk-size-overflow": _ok(_CHUNKED, body=b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    "chunk-bare-lf": _ok(_CHUNKED, body=b"3\nabc\n0\n\n"),
    "chunk-longer": _ok(_CHUNKED, body=b"2\r\nabc\r\n0\r\n\r\n"),
    "chunk-without-crlf": _ok(_CHUNKED, body=b"3\r\nabc0\r\n\r\n"),
    "chunks-without-end": _ok(_CHUNKED, body=b"3\r\nabc\r\n"),
    "trailer-length": _ok(_CHUNKED, body=b"3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n"),
}
RESPONSES = {**BAD_HEADS, **BAD_BODIES}


@pytest.fixture(scope="module")
def cutting(tmp_path_factory, make_rig, module_procs):
    """A gateway before a service that sends the named response cut at the named byte."""

    def serve(peer):
        target = peer.read_head().split(b" ")[1].decode()
        _, _, name, cut = target.split("/")
        data = RESPONSES[name] if name in RESPONSES else _ok(b"Content-Length: 3")
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.send(data[: int(cut)])
        time.sleep(0.005)
        peer.send(data[int(cut) :])
        if name in RESPONSES:
            raise OSError("over")

    service = Scripted(serve)
    rig = make_rig(tmp_path_factory.mktemp("cutting"), module_procs)
    rig.config["services"]["cut"] = {
        "endpoints": [{"address": service.address}],
        "retries": 0,
    }
    rig.config["routes"].append({"name": "cut", "match": {"path": "/cut/*"}, "service": "cut"})
    yield rig.start()
    service.stop()


def ask(rig, name, cut):
    """The status and whether the response was whole."""
    with rig.connect() as connection:
        connection.send(client.head_of("POST", f"/cut/{name}/{cut}", HOST, [], b""))
        status = None
        try:
            while True:
                status, headers = connection.read_head()
                if status >= 200:
                    break
            connection.buffer = (
                b"HTTP/1.1 200 OK\r\n"
                + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers)
                + b"\r\n"
                + connection.buffer
            )
            connection.read_response("GET")
            return status, True
        except (client.BadResponse, OSError):
            return status, False


def ask_all(rig, name, data):
    """In turn, some at a time: each fault counts against the instance, the only one."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda cut: (cut, *ask(rig, name, cut)), cuts(data)))


@pytest.mark.parametrize("name", sorted(BAD_HEADS))
def test_malformed_response_head(cutting, name):
    for cut, status, whole in ask_all(cutting, name, BAD_HEADS[name]):
        assert (status, whole) == (502, True), (cut, status, whole)
    assert ask(cutting, "right", 1) == (200, True)


@pytest.mark.parametrize("name", sorted(BAD_BODIES))
def test_malformed_response_body(cutting, name):
    for cut, status, whole in ask_all(cutting, name, BAD_BODIES[name]):
        # Known to be wrong before anything was sent, or the client sees the cut.
        assert (status, whole) in ((502, True), (200, False), (None, False)), (cut, status, whole)
    assert ask(cutting, "right", 1) == (200, True)


def test_corpus_is_as_large_as_promised():
    names = [case[0] for case in MALFORMED + BAD_PATHS]
    assert len(names) == len(set(names)) >= 150
    assert threading.active_count() < 100

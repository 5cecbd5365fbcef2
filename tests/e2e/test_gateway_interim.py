# SPDX-License-Identifier: Apache-2.0
"""Interim responses, Expect, and events that must not wait for more."""

import threading

import pytest

import client
import h2
from conftest import seen
from rig import HOST
from scripted import Scripted

HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nX-Internal-Node: 7\r\nConnection: x\r\n\r\n"


@pytest.fixture(autouse=True)
def forget(services):
    for service in services:
        service.forget()


@pytest.fixture(scope="module")
def events(tmp_path_factory, make_rig, module_procs):
    """A gateway before a service that hints, and one that sends an event when it is told to."""

    def hints(peer):
        peer.read_head()
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" + HINT * 2)
        peer.answer(b"done")

    def streams(peer):
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\n")
        for i in range(5):
            assert rig.go.acquire(timeout=10)
            event = b"data: %d\n\n" % i
            peer.send(b"%x\r\n%s\r\n" % (len(event), event))
        peer.send(b"0\r\n\r\n")

    rig = make_rig(tmp_path_factory.mktemp("events"), module_procs)
    rig.config["listeners"][1]["tls"]["alpn"] = ["h2", "http/1.1"]
    rig.go = threading.Semaphore(0)
    scripted = {"hints": Scripted(hints), "streams": Scripted(streams)}
    for name, service in scripted.items():
        rig.config["services"][name] = {"endpoints": [{"address": service.address}]}
        rig.config["routes"].append({"name": name, "match": {"path": f"/{name}"}, "service": name})
    yield rig.start()
    for service in scripted.values():
        service.stop()


@pytest.fixture(params=["plain", "tls"])
def listener(request):
    return request.param


def h2_session(rig, listener):
    tls = client.tls_context(rig.authority.certificate, ["h2"]) if listener == "tls" else None
    no_table = [(1, 0)]  # so that every status is there in full
    return h2.Session(rig.ports[listener], no_table, tls=tls, server_name=HOST).settle()


def test_hints_reach_the_client(events, listener):
    """But for 100, which the client did not ask for, and for what is internal."""
    with events.connect(listener) as connection:
        connection.send(client.head_of("GET", "/hints", HOST))
        for _ in range(2):
            status, headers = connection.read_head()
            assert status == 103 and headers == [("Link", "</a.css>")]
        answer = connection.read_response()
        assert answer.status == 200 and answer.body == b"done"


def test_hints_reach_the_client_of_http2(events, listener):
    with h2_session(events, listener) as session:
        session.send(h2.request(1, "/hints"))
        frames = session.until(lambda f: f.kind == h2.DATA and f.flags & h2.END_STREAM)
        heads = [f for f in frames if f.kind == h2.HEADERS]
        assert [head.status() for head in heads] == [103, 103, 200]


def test_http_1_0_hears_of_no_hints(events):
    with events.connect() as connection:
        connection.send(b"GET /hints HTTP/1.0\r\nHost: a\r\n\r\n")
        answer = connection.read_response()
        assert answer.status == 200 and not answer.interim


def test_other_expectations_are_refused(rig, services, listener):
    for value in ("200-ok", "100-continue, x", "100-continue;q=1"):
        answer = rig.ask("POST", "/echo/x", [("Expect", value)], b"hello", listener)
        assert answer.status == 417, value
    assert not seen(services)


def test_expectation_of_http_1_0_is_nothing(rig):
    with rig.connect() as connection:
        connection.send(b"POST /echo/x HTTP/1.0\r\nHost: a\r\nExpect: x\r\nContent-Length: 1\r\n\r\nx")
        assert connection.read_response().status == 200


def test_refused_request_is_not_asked_for_its_body(rig, services, listener):
    headers = [("Expect", "100-continue"), ("Content-Length", "5")]
    with rig.connect(listener) as connection:
        connection.send(client.head_of("POST", "/hs/x", HOST, headers))
        answer = connection.read_response()
        assert answer.status == 401 and not answer.interim
        assert connection.is_closed(), "whether the body comes is not known"
    assert not seen(services)


def test_http2_is_told_to_continue(events, listener, services):
    with h2_session(events, listener) as session:
        fields = [("expect", "100-continue"), ("content-length", "5")]
        session.send(h2.request(1, "/echo/x", "POST", fields, ends=False))
        assert session.until(lambda f: f.kind == h2.HEADERS)[-1].status() == 100
        session.send(h2.frame(h2.DATA, h2.END_STREAM, 1, b"hello"))
        status, body = session.answer(1)
        assert status == 200 and b'"body_bytes": 5' in body


def test_each_event_comes_at_once(events, listener):
    """The service sends the next one only after the client has the last."""
    with events.connect(listener) as connection:
        connection.send(client.head_of("GET", "/streams", HOST))
        assert connection.read_head()[0] == 200
        for i in range(5):
            events.go.release()
            size = int(connection._line(), 16)
            assert connection._take(size) == b"data: %d\n\n" % i
            assert connection._take(2) == b"\r\n"
        assert connection._line() == b"0"


def test_each_event_comes_at_once_over_http2(events, listener):
    with h2_session(events, listener) as session:
        session.send(h2.request(1, "/streams"))
        assert session.until(lambda f: f.kind == h2.HEADERS)[-1].status() == 200
        for i in range(5):
            events.go.release()
            assert session.until(lambda f: f.kind == h2.DATA)[-1].payload == b"data: %d\n\n" % i

# SPDX-License-Identifier: Apache-2.0
"""The test service itself: what the other tests conclude from it must be true."""

import hashlib
import http.server
import json
import signal
import socket
import threading

import pytest

import client
from procs import wait_until


@pytest.fixture
def service(procs, start_service):
    return start_service(procs, "echo", "echo-1")


def open_connection(service):
    return client.Connection(socket.create_connection((service.address, service.port), 5))


def test_reports_what_it_received(service):
    with open_connection(service) as connection:
        body = b"x" * 100000
        answer = connection.request("POST", "/a/b?c=1&c=%20", [("X-One", "1"), ("x-one", "2")], body)
    document = answer.json()
    assert answer.status == 200
    assert answer.first("X-Internal-Server") == "db-prod-3.internal"
    assert document["instance"] == "echo-1"
    assert (document["method"], document["path"]) == ("POST", "/a/b")
    assert document["query"] == [["c", "1"], ["c", " "]]
    assert ["X-One", "1"] in document["headers"] and ["x-one", "2"] in document["headers"]
    assert document["body_bytes"] == len(body)
    assert document["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert service.requests() == [document | {"complete": True}]


def test_takes_and_sends_chunks_on_one_connection(service):
    with open_connection(service) as connection:
        head = client.head_of("PUT", "/x", "h", [("Transfer-Encoding", "chunked")])
        connection.send(head + b"3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nT: 1\r\n\r\n")
        first = connection.read_response()
        second = connection.request("GET", "/y?fault=chunked,bytes=50000")
    assert first.json()["body_sha256"] == hashlib.sha256(b"abcdefg").hexdigest()
    assert first.json()["trailers"] == ["T: 1"]
    assert second.first("Transfer-Encoding") == "chunked"
    assert second.body[:32] == b"000000000000000\n000000000000016\n" and len(second.body) == 50000
    assert service.requests()[1]["request_on_connection"] == 2


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        b"GET /  HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
    ],
)
def test_tells_malformed_requests(service, head):
    with open_connection(service) as connection:
        connection.send(head + b"x")
        assert connection.read_response().status == 400
    assert len(service.seen()["malformed"]) == 1


def test_faults(service):
    def ask(fault, **kwargs):
        with open_connection(service) as connection:
            connection.send(client.head_of("GET", "/", "h", [("X-Test-Fault", fault)]))
            return connection.read_response(**kwargs), connection.is_closed(0.2)

    assert ask("status=503")[0].status == 503
    assert ask("interim=3")[0].interim == [103] * 3
    assert ask("header=X-Powered-By:rust")[0].first("X-Powered-By") == "rust"
    assert ask("close")[1] and not ask("")[1]
    answer, closed = ask("close_delimited,bytes=70000")
    assert closed and len(answer.body) == 70000 and not answer.all("Content-Length")
    with pytest.raises(client.BadResponse, match="cut short by 90"):
        ask("cut=10,bytes=100")
    with pytest.raises(client.BadResponse):
        ask("silent")
    with pytest.raises(ConnectionResetError):
        ask("reset")
    assert ask("only=another,status=500")[0].status == 200


class FakeRegistry(http.server.BaseHTTPRequestHandler):
    """Just enough of a registry to see what a service says to it, and to forget it."""

    protocol_version = "HTTP/1.1"

    def _answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.calls.append((self.command, self.path, body))
        key = self.path.removesuffix("/renew")
        if self.command == "PUT":
            self.server.known.add(key)
            status = 201
        elif self.command == "DELETE":
            self.server.known.discard(key)
            status = 204
        else:
            status = 204 if key in self.server.known else 404
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_POST = do_DELETE = _answer

    def log_message(self, *_):
        pass


def test_registers_renews_returns_and_leaves(procs, start_service):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeRegistry)
    server.calls, server.known = [], set()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        service = start_service(procs, "user", "user-1", "--registry", url, "--lease-s", "1")
        path = "/v1/apps/user/instances/user-1"

        def calls(method, call_path):
            return [body for m, p, body in server.calls if (m, p) == (method, call_path)]

        wait_until(lambda: len(calls("POST", path + "/renew")) >= 2, "two renewals")
        document = calls("PUT", path)[0]
        assert (document["address"], document["port"]) == ("127.0.0.1", service.port)
        assert (document["lease_s"], document["status"]) == (1, "UP")
        server.known.clear()
        wait_until(lambda: len(calls("PUT", path)) == 2, "a second registration after a 404")
        service.proc.signal(signal.SIGTERM)
        wait_until(lambda: calls("DELETE", path), "deregistration")
        assert service.proc.stop() == 0
    finally:
        server.shutdown()
        server.server_close()

# SPDX-License-Identifier: Apache-2.0
"""WebSocket for the tests: a client over HTTP/1.1 (RFC 6455) and HTTP/2 (RFC 8441), and services.

To the gateway it is two streams of bytes, so the tests send bytes; only `frame` makes real ones.
Standard library only.
"""

import base64
import hashlib
import os
import struct

import client
import h2

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ENABLE_CONNECT_PROTOCOL = 8


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


def frame(payload, opcode=1, mask=True):
    key = os.urandom(4) if mask else b""
    size = len(payload)
    head = bytes([0x80 | opcode]) + bytes([(0x80 if mask else 0) | size])
    assert size < 126
    return head + key + (bytes(b ^ key[i % 4] for i, b in enumerate(payload)) if mask else payload)


class Refused(Exception):
    def __init__(self, status):
        super().__init__(f"answered with {status}")
        self.status = status


class Http1:
    """A WebSocket from a client's point of view over HTTP/1.1."""

    def __init__(self, rig, path, headers=(), listener="plain"):
        self.connection = rig.connect(listener)
        self.key = base64.b64encode(os.urandom(16)).decode()
        fields = [
            ("Upgrade", "websocket"),
            ("Connection", "keep-alive, Upgrade"),
            ("Sec-WebSocket-Key", self.key),
            ("Sec-WebSocket-Version", "13"),
            *headers,
        ]
        self.connection.send(client.head_of("GET", path, self.connection.host, fields))

    def open(self):
        response = self.connection.read_response()
        if response.status != 101:
            raise Refused(response.status)
        assert response.first("Upgrade").lower() == "websocket"
        assert response.first("Connection").lower() == "upgrade"
        assert response.first("Sec-WebSocket-Accept") == accept_of(self.key)
        assert not response.all("Content-Length") and not response.all("Transfer-Encoding")
        self.headers = response
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def send(self, data):
        self.connection.sock.sendall(data)

    def read(self, count):
        return self.connection._take(count)

    def end(self):
        """No more from here; still reads. On TLS this side cannot do that without the other."""
        self.connection.sock.shutdown(1)

    def rest(self):
        """All until the service's side ends."""
        while self.connection._fill():
            pass
        data, self.connection.buffer = self.connection.buffer, b""
        return data

    def abort(self):
        self.connection.sock.close()


class Http2:
    """The same over a stream of HTTP/2."""

    def __init__(self, rig, path, headers=(), listener="plain"):
        tls = None
        if listener == "tls":
            tls = client.tls_context(rig.authority.certificate, ["h2"])
        name = "api.test.example.com"
        self.session = h2.Session(rig.ports[listener], tls=tls, server_name=name)
        self.session.send(connect_request(1, path, headers=headers))
        self.buffer = b""
        self.ended = False

    def open(self):
        session = self.session
        got = session.until(lambda f: f.stream == 1)[-1]
        if got.kind == h2.HEADERS and got.status() != 200:
            raise Refused(got.status())
        assert got.kind == h2.HEADERS and not got.flags & h2.END_STREAM, got
        session.send(h2.frame(h2.SETTINGS, h2.ACK, 0))
        self.headers = got
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.session.sock.close()

    def send(self, data):
        """Without regard for the window: little only."""
        self.session.send(h2.frame(h2.DATA, 0, 1, data))

    def _more(self):
        got = self.session.read()
        assert got is not None, "the connection ended"
        assert got.kind != h2.RST_STREAM, got
        assert got.kind != h2.GOAWAY or got.error() == h2.NO_ERROR, got  # it drains
        if got.kind == h2.DATA:
            self.buffer += got.payload
            self.ended = bool(got.flags & h2.END_STREAM)
            if got.payload:
                size = len(got.payload)
                self.session.send(h2.window_update(0, size) + h2.window_update(1, size))

    def read(self, count):
        while len(self.buffer) < count and not self.ended:
            self._more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        assert len(data) == count, "cut short"
        return data

    def end(self):
        self.session.send(h2.frame(h2.DATA, h2.END_STREAM, 1))

    def rest(self):
        while not self.ended:
            self._more()
        data, self.buffer = self.buffer, b""
        return data

    def abort(self):
        self.session.send(h2.frame(h2.RST_STREAM, 0, 1, struct.pack("!I", 8)))


def connect_request(stream, path, protocol="websocket", headers=()):
    """An extended CONNECT."""
    pairs = [
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "http"),
        (":path", path),
        (":authority", "api.test.example.com"),
        ("sec-websocket-version", "13"),
        *[(name.lower(), value) for name, value in headers],
    ]
    block = b"".join(h2.field(name, value) for name, value in pairs)
    return h2.frame(h2.HEADERS, h2.END_HEADERS, stream, block)


CLIENTS = {"h1": (Http1, "plain"), "h1-tls": (Http1, "tls"), "h2": (Http2, "plain"),
           "h2-tls": (Http2, "tls")}


# --- services, for scripted.Scripted ----------------------------------------------------------


def field_of(head, name):
    for line in head.decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return None


def accept(peer, more=b"", extra=""):
    """Reads a handshake and agrees; `more` follows in the same packet."""
    head = peer.read_head()
    key = field_of(head, "Sec-WebSocket-Key")
    peer.send(
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_of(key)}\r\n{extra}\r\n"
        ).encode()
        + more
    )
    return head


def echo(peer):
    accept(peer)
    while data := peer.buffer or peer.sock.recv(65536):
        peer.buffer = b""
        peer.send(data)
    raise OSError("over")

# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 frame by frame (RFC 9113, RFC 7541 without its compression), for what no client does.

Response heads are not decoded but for the status. Standard library only.
"""

import socket
import ssl
import struct
import time

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0, 1, 7, 8, 11
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# RFC 7541 appendix A, the entries that are statuses
INDEXED_STATUS = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}


def frame(kind, flags, stream, payload=b""):
    head = struct.pack("!I", len(payload))[1:] + bytes([kind, flags])
    return head + struct.pack("!I", stream) + payload


def integer(value, bits, first=0):
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = [first | limit], value - limit
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes(out + [value])


def field(name, value, indexed=False):
    """A literal; with `indexed` it becomes entry 62 of the table."""
    name, value = name.encode("latin-1"), value.encode("latin-1")
    literal = integer(len(name), 7) + name + integer(len(value), 7) + value
    return (b"\x40" if indexed else b"\x00") + literal


LAST_INDEXED = bytes([0x80 | 62])


def head(path, method="GET", authority="api.test.example.com", fields=()):
    pseudo = [(":method", method), (":scheme", "http"), (":path", path)]
    pairs = pseudo + [(":authority", authority)] + list(fields)
    return b"".join(field(name, value) for name, value in pairs)


def request(stream, path, method="GET", fields=(), ends=True):
    flags = END_HEADERS | (END_STREAM if ends else 0)
    return frame(HEADERS, flags, stream, head(path, method, fields=fields))


def window_update(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", increment))


class Frame:
    def __init__(self, kind, flags, stream, payload):
        self.kind, self.flags, self.stream, self.payload = kind, flags, stream, payload

    def __repr__(self):
        return f"<{self.kind} flags={self.flags} stream={self.stream} {self.payload[:60]!r}>"

    def error(self):
        """Of RST_STREAM and GOAWAY."""
        at = 4 if self.kind == GOAWAY else 0
        return struct.unpack("!I", self.payload[at : at + 4])[0]

    def status(self):
        """None when it is an entry of the sender's own table, which is not kept here."""
        block = self.payload
        while block[0] & 0xE0 == 0x20:  # a change of the table's size
            more = block[0] & 0x1F == 0x1F
            block = block[1:]
            while more:
                more = block[0] & 0x80
                block = block[1:]
        if block[0] & 0x80:
            return INDEXED_STATUS.get(block[0] & 0x7F)
        text = block[2 : 2 + (block[1] & 0x7F)]
        return int(text) if not block[1] & 0x80 else int(huffman_digits(text))


def huffman_digits(data):
    """RFC 7541 appendix B, digits alone."""
    bits = "".join(f"{byte:08b}" for byte in data)
    codes = {"00000": "0", "00001": "1", "00010": "2"}
    codes.update({f"{0x19 + i:06b}": str(3 + i) for i in range(7)})
    out, word = "", ""
    for bit in bits:
        word += bit
        if word in codes:
            out, word = out + codes[word], ""
    return out


class Session:
    """One connection, with prior knowledge or `tls`; nothing is sent that the test does not ask for."""

    def __init__(self, port, settings=(), timeout_s=10.0, tls=None, server_name=None,
                 first=None):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:  # a context whose ALPN is h2
            self.sock = tls.wrap_socket(self.sock, server_hostname=server_name)
        self.timeout_s = timeout_s
        self.buffer = b""
        self.is_closed = False
        payload = b"".join(struct.pack("!HI", *setting) for setting in settings)
        self.send(first or PREFACE + frame(SETTINGS, 0, 0, payload))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def try_send(self, data):
        """False when the gateway has closed."""
        try:
            self.sock.sendall(data)
            return True
        except OSError:
            return False

    def read(self):
        """The next frame; None at the end of the connection. TimeoutError if nothing comes."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + self._length():
            try:
                data = self.sock.recv(65536)
            except (ConnectionError, ssl.SSLEOFError):
                data = b""
            if not data:
                self.is_closed = True
                return None
            self.buffer += data
        length = self._length()
        kind, flags, stream = struct.unpack("!BBI", self.buffer[3:9])
        payload = self.buffer[9 : 9 + length]
        self.buffer = self.buffer[9 + length :]
        return Frame(kind, flags, stream & 0x7FFFFFFF, payload)

    def _length(self):
        return int.from_bytes(self.buffer[:3], "big")

    def settle(self):
        """Takes the gateway's SETTINGS and acknowledges them."""
        while True:
            got = self.read()
            if got.kind == SETTINGS and not got.flags & ACK:
                self.send(frame(SETTINGS, ACK, 0))
                return self

    def until(self, wanted):
        """All frames up to the first that `wanted` likes, or to the end of the connection."""
        frames = []
        while (got := self.read()) is not None:
            frames.append(got)
            if wanted(got):
                break
        return frames

    def answer(self, stream):
        """(status, body) of a request; (None, error code) when it was reset."""
        status, body = None, b""
        while (got := self.read()) is not None:
            if got.stream != stream:
                assert got.kind != GOAWAY, got
                continue
            if got.kind == RST_STREAM:
                return None, got.error()
            if got.kind == HEADERS and (status is None or status < 200):
                status = got.status()
            elif got.kind == DATA:
                body += got.payload
            if got.kind in (HEADERS, DATA) and got.flags & END_STREAM:
                return status, body
        return None, None

    def drain(self, seconds):
        """All frames that come within that time or until the end."""
        frames, deadline = [], time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                got = self.read()
            except TimeoutError:
                break
            if got is None:
                break
            frames.append(got)
        self.sock.settimeout(self.timeout_s)
        return frames


class Service(Session):
    """The service's end of a connection from the gateway, after `accept`."""

    def __init__(self, sock, settings=(), timeout_s=10.0):
        self.sock = sock
        self.sock.settimeout(timeout_s)
        self.timeout_s = timeout_s
        self.buffer = b""
        self.is_closed = False
        self.settings = settings

    def accept(self):
        """Takes the preface and both sides' SETTINGS."""
        while len(self.buffer) < len(PREFACE):
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("the gateway closed")
            self.buffer += data
        assert self.buffer.startswith(PREFACE), self.buffer[:80]
        self.buffer = self.buffer[len(PREFACE) :]
        payload = b"".join(struct.pack("!HI", *setting) for setting in self.settings)
        self.send(frame(SETTINGS, 0, 0, payload))
        return self.settle()

    def wait(self, kind, stream=None):
        """The next frame of that kind; ConnectionError at the end."""
        frames = self.until(
            lambda got: got.kind == kind
            and (stream is None or got.stream == stream)
            and not (kind in (SETTINGS, PING) and got.flags & ACK)
        )
        if self.is_closed:
            raise ConnectionError("the gateway closed")
        return frames[-1]

    def request(self):
        """The stream of the next request."""
        return self.wait(HEADERS).stream

    def head(self, stream, status=200, fields=(), ends=False):
        block = field(":status", str(status)) + b"".join(field(*pair) for pair in fields)
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, block))

    def data(self, stream, data=b"", ends=False):
        self.send(frame(DATA, END_STREAM if ends else 0, stream, data))

    def respond(self, stream, body=b"ok", status=200, fields=()):
        self.head(stream, status, fields)
        self.data(stream, body, ends=True)

    def reset(self, stream, code):
        self.send(frame(RST_STREAM, 0, stream, struct.pack("!I", code)))

    def goaway(self, last, code=NO_ERROR):
        self.send(frame(GOAWAY, 0, 0, struct.pack("!II", last, code)))

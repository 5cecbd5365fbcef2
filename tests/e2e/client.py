# SPDX-License-Identifier: Apache-2.0
"""HTTP clients for the tests: one that sends exact bytes, and curl with its answer parsed.

The first reads responses strictly, because what a gateway sends is under test: anything odd in
the framing raises BadResponse. Standard library only.
"""

import json
import os
import re
import secrets
import socket
import ssl
import subprocess
import tempfile


class BadResponse(Exception):
    """The answer is not well-formed HTTP/1.1."""


class Response:
    def __init__(self, status, headers, body, interim=(), trailers=(), version="HTTP/1.1"):
        self.status = status
        self.headers = headers  # pairs, in order
        self.body = body
        self.interim = list(interim)  # the statuses of 1xx answers before it
        self.trailers = list(trailers)
        self.version = version

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def first(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"


class Connection:
    """One connection over which a test sends what it likes. `tls` is an ssl.SSLContext or None."""

    def __init__(self, sock, tls=None, server_name=None, timeout_s=10.0):
        sock.settimeout(timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = tls.wrap_socket(sock, server_hostname=server_name) if tls else sock
        self.buffer = b""
        self.host = server_name or "localhost"
        self.received_since_send = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        self.received_since_send = False
        self.sock.sendall(data)

    def _fill(self):
        """Reads some more; False at the end of the stream."""
        try:
            data = self.sock.recv(65536)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            data = b""
        self.buffer += data
        self.received_since_send |= bool(data)
        return bool(data)

    def _line(self):
        while b"\r\n" not in self.buffer:
            if len(self.buffer) > 256 * 1024 or not self._fill():
                raise BadResponse(f"cut line {self.buffer[:200]!r}")
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        if b"\n" in line or b"\r" in line:
            raise BadResponse(f"bare CR or LF in {line!r}")
        return line

    def _take(self, count):
        while len(self.buffer) < count:
            if not self._fill():
                raise BadResponse(f"body cut short by {count - len(self.buffer)} bytes")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def _headers(self):
        headers = []
        while line := self._line():
            match = re.match(rb"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$", line)
            if not match:
                raise BadResponse(f"header line {line!r}")
            headers.append((match[1].decode(), match[2].decode("latin-1")))
        return headers

    def read_head(self):
        """(status, headers) of the next response, interim ones included."""
        line = self._line()
        match = re.match(rb"^HTTP/1\.1 ([1-5][0-9][0-9]) [^\x00-\x08\x0a-\x1f\x7f]*$", line)
        if not match:
            raise BadResponse(f"status line {line!r}")
        return int(match[1]), self._headers()

    def read_response(self, method="GET"):
        interim = []
        while True:
            status, headers = self.read_head()
            if status >= 200 or status == 101:
                break
            interim.append(status)
        response = Response(status, headers, b"", interim)
        lengths, codings = response.all("Content-Length"), response.all("Transfer-Encoding")
        if len(lengths) > 1 or len(codings) > 1 or (lengths and codings):
            raise BadResponse(f"ambiguous framing {headers}")
        if method == "HEAD" or status in (204, 304) or status < 200:
            return response
        if codings:
            if codings[0].lower() != "chunked":
                raise BadResponse(f"transfer-encoding {codings[0]!r}")
            pieces = []
            while True:
                line = self._line()
                if not re.match(rb"^[0-9A-Fa-f]+$", line):
                    raise BadResponse(f"chunk size {line!r}")
                size = int(line, 16)
                if size == 0:
                    break
                pieces.append(self._take(size))
                if self._take(2) != b"\r\n":
                    raise BadResponse("no CRLF after a chunk")
            response.trailers = self._headers()
            response.body = b"".join(pieces)
        elif lengths:
            response.body = self._take(int(lengths[0]))
        else:
            while self._fill():
                pass
            response.body, self.buffer = self.buffer, b""
        return response

    def request(self, method, target, headers=(), body=None):
        self.send(head_of(method, target, self.host, headers, body) + (body or b""))
        return self.read_response(method)

    def is_closed(self, timeout_s=5.0):
        """True when the peer ends the connection in time without sending another byte."""
        if self.buffer:
            return False
        self.sock.settimeout(timeout_s)
        try:
            return not self._fill()
        except (socket.timeout, TimeoutError):
            return False
        except OSError:
            return True


def head_of(method, target, host, headers=(), body=None):
    lines = [f"{method} {target} HTTP/1.1"]
    names = {name.lower() for name, _ in headers}
    if "host" not in names:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def http(address, port, method, target, headers=(), body=None, connect=None, timeout_s=10.0,
         tls=None):
    """One request on a connection of its own. `connect` may be a Host's connect, `tls` a context
    that knows the address as a name."""
    sock = (connect or _connect)(address, port, timeout_s)
    with Connection(sock, tls, address if tls else None, timeout_s) as connection:
        headers = list(headers) + [("Connection", "close")]
        return connection.request(method, target, headers, body)


def _connect(address, port, timeout_s):
    return socket.create_connection((address, port), timeout_s)


class Curl:
    """Runs curl against one virtual host; `run` is what starts it (a Host's run)."""

    def __init__(self, run, server_name, address, port=443, ca=None):
        self.run = run
        self.base = ["curl", "--disable", "--silent", "--show-error", "--noproxy", "*"]
        self.base += ["--http1.1", "--tlsv1.3", "--connect-timeout", "2", "--max-time", "15"]
        self.base += ["--resolve", f"{server_name}:{port}:{address}"]
        if ca:
            self.base += ["--cacert", ca]
        self.origin = f"https://{server_name}" + ("" if port == 443 else f":{port}")

    def command(self, path, headers=(), options=()):
        """The words of the command line, as one may type them."""
        words = ["curl", *self.base[2:], *options]
        for name, value in headers:
            words += ["-H", f"{name}: {value}"]
        return words + [self.origin + path]

    def get(self, path, headers=(), options=()):
        return self.get_all([path], headers, options)[0]

    def get_all(self, paths, headers=(), options=()):
        """Several requests by one curl, which reuses its connection where it is let.

        The answers in order; one that failed has status 0 and curl's reason as its body.
        """
        with tempfile.TemporaryDirectory(prefix="gatehouse-curl-") as directory:
            marker = secrets.token_hex(8)
            words = [*self.base, "--write-out", f"{marker}%{{json}}{marker}%{{header_json}}\n"]
            words += list(options)
            for name, value in headers:
                words += ["-H", f"{name}: {value}"]
            for i, path in enumerate(paths):
                words += ["--output", os.path.join(directory, str(i)), self.origin + path]
            output = self.run(*words, check=False)
            parts = output.split(marker)[1:]
            answers = []
            for i in range(len(paths)):
                about = json.loads(parts[2 * i]) if 2 * i < len(parts) else {}
                if not about.get("http_code"):
                    reason = about.get("errormsg") or f"curl said nothing: {output[-300:]!r}"
                    answers.append(Response(0, [], reason.encode()))
                    continue
                headers_seen = [
                    (name, value)
                    for name, values in json.loads(parts[2 * i + 1]).items()
                    for value in values
                ]
                body = b""
                if os.path.exists(os.path.join(directory, str(i))):
                    with open(os.path.join(directory, str(i)), "rb") as file:
                        body = file.read()
                answer = Response(about["http_code"], headers_seen, body)
                answer.curl = about
                answers.append(answer)
            return answers


def tls_context(ca, alpn=("http/1.1",)):
    context = ssl.create_default_context(cafile=ca)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def run_here(*argv, check=True, input_text=None):
    """Like a Host's run, on this machine itself."""
    done = subprocess.run(
        [str(word) for word in argv], input=input_text, capture_output=True, text=True
    )
    if check and done.returncode != 0:
        raise RuntimeError(f"{argv[0]}: {done.stderr.strip()}")
    return done.stdout

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A small HTTP/1.1 service that tells what it received, for the demo and the end-to-end tests.

It registers itself with registryd, renews its lease, and deregisters on SIGTERM. Every request
is answered with a JSON document of what arrived; the last ones can be asked for on a second,
private port (GET /_seen, DELETE /_seen). It is strict: what is not HTTP gets 400 and is counted
under "malformed", so that a test sees what a gateway let through.

Faults on request, as `X-Test-Fault: …` or `?fault=…`, comma-separated:
  status=503        answer with this status             header=Name:value  add a response header
  delay_ms=200      wait before the response head       slow_ms=20         wait between pieces
  bytes=100000      a body of that size                 chunked            send it chunked
  close_delimited   no length, the close ends the body  close              close after answering
  cut=10            close after so many body bytes      reset              RST instead of an answer
  silent            close without an answer             interim=2          so many 103s first
  early             answer before reading the body      no_read            never read the body
  raw=BASE64        these bytes as the whole answer     only=ID            faults on this instance only
Standard library only.
"""

import argparse
import asyncio
import base64
import collections
import hashlib
import http.client
import json
import random
import signal
import socket
import struct
import sys
import threading
import time
import urllib.parse

HEAD_MAX = 256 * 1024
PIECE = 16 * 1024
SEEN_MAX = 2000
TOKEN = frozenset(
    b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
NO_BODY = {204, 304}


class Malformed(Exception):
    """The bytes were not an HTTP/1.1 request."""


class Hangup(Exception):
    """The peer closed, or we were told to."""


class Request:
    def __init__(self, method, target, version, headers):
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        path, _, query = target.partition("?")
        self.path = path
        self.query = urllib.parse.parse_qsl(query, keep_blank_values=True)
        self.body_bytes = 0
        self.digest = hashlib.sha256()
        self.trailers = []
        self.framing = "none"

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def first(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def faults(self, instance):
        text = self.first("X-Test-Fault") or dict(self.query).get("fault", "")
        faults = collections.defaultdict(list)
        for word in filter(None, (w.strip() for w in text.split(","))):
            key, _, value = word.partition("=")
            faults[key].append(value)
        if faults["only"] and instance not in faults["only"]:
            return collections.defaultdict(list)
        return faults


def parse_head(head):
    lines = head.split(b"\r\n")
    parts = lines[0].split(b" ")
    if len(parts) != 3 or not parts[0] or not set(parts[0]) <= TOKEN:
        raise Malformed(f"request line {lines[0]!r}")
    method, target, version = parts
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Malformed(f"version {version!r}")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name or not set(name) <= TOKEN:
            raise Malformed(f"header line {line!r}")
        value = value.strip(b" \t")
        if any(byte < 0x20 and byte != 0x09 or byte == 0x7F for byte in value):
            raise Malformed(f"control byte in {line!r}")
        headers.append([name.decode("latin-1"), value.decode("latin-1")])
    return Request(method.decode(), target.decode("latin-1"), version.decode(), headers)


def body_framing(request):
    """("none", 0), ("length", n) or ("chunked", 0); Malformed where two readers could differ."""
    lengths = request.all("Content-Length")
    codings = request.all("Transfer-Encoding")
    if codings:
        if lengths or len(codings) > 1 or codings[0].lower() != "chunked":
            raise Malformed("ambiguous framing")
        return "chunked", 0
    if lengths:
        if len(lengths) > 1 or not lengths[0].isascii() or not lengths[0].isdigit():
            raise Malformed("content-length")
        return "length", int(lengths[0])
    return "none", 0


class Service:
    def __init__(self, options):
        self.options = options
        self.seen = collections.deque(maxlen=SEEN_MAX)
        self.count = 0
        self.health_count = 0
        self.malformed = []
        self.connections = 0
        self.open_connections = 0
        self.bytes_received = 0
        self.healthy = True
        self.draining = False

    # --- one connection -----------------------------------------------------------------------

    async def on_connection(self, reader, writer):
        self.connections += 1
        self.open_connections += 1
        number, nth = self.connections, 0
        try:
            while True:
                request = await self.read_head(reader)
                if request is None:
                    break
                nth += 1
                if not await self.answer(request, reader, writer, number, nth):
                    break
        except Malformed as error:
            self.malformed.append(str(error))
            await self.send_simple(writer, 400, {"error": str(error)})
        except (Hangup, ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self.open_connections -= 1
            writer.close()

    async def read_head(self, reader):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise Malformed(f"cut head {error.partial[:200]!r}") from None
            return None
        except asyncio.LimitOverrunError:
            raise Malformed("head too large") from None
        return parse_head(head[:-4])

    async def read_body(self, request, reader):
        framing, length = body_framing(request)
        request.framing = framing

        async def take(count):
            while count > 0:
                piece = await reader.read(min(count, 65536))
                if not piece:
                    raise Malformed("body cut short")
                request.digest.update(piece)
                request.body_bytes += len(piece)
                self.bytes_received += len(piece)
                count -= len(piece)

        if framing == "length":
            await take(length)
        while framing == "chunked":
            line = (await reader.readuntil(b"\r\n"))[:-2]
            size = line.split(b";")[0]
            if not size or any(c not in b"0123456789abcdefABCDEF" for c in size):
                raise Malformed(f"chunk size {line!r}")
            count = int(size, 16)
            if count == 0:
                while line := (await reader.readuntil(b"\r\n"))[:-2]:
                    request.trailers.append(line.decode("latin-1"))
                break
            await take(count)
            if await reader.readexactly(2) != b"\r\n":
                raise Malformed("no CRLF after a chunk")

    async def answer(self, request, reader, writer, connection, nth):
        """Returns True if the connection can carry another request."""
        if request.path == "/health":
            await self.read_body(request, reader)
            self.health_count += 1
            status = 200 if self.healthy else 503
            await self.send_simple(writer, status, {"status": "UP" if self.healthy else "DOWN"})
            return True

        faults = request.faults(self.options.id)
        record = {
            "app": self.options.app,
            "instance": self.options.id,
            "method": request.method,
            "target": request.target,
            "path": request.path,
            "query": request.query,
            "version": request.version,
            "headers": request.headers,
            "connection": connection,
            "request_on_connection": nth,
            "complete": False,
        }
        self.count += 1
        self.seen.append(record)
        if request.first("Expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        late = "early" in faults or "no_read" in faults
        if not late:
            await self.read_body(request, reader)
        record.update(
            body_bytes=request.body_bytes,
            body_sha256=request.digest.hexdigest(),
            framing=request.framing,
            trailers=request.trailers,
            complete=not late,
        )
        if faults["delay_ms"]:
            await asyncio.sleep(int(faults["delay_ms"][0]) / 1000)
        if "reset" in faults:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            raise Hangup
        if "silent" in faults:
            raise Hangup
        if "no_read" in faults:
            await asyncio.sleep(3600)
        if faults["raw"]:
            writer.write(base64.b64decode(faults["raw"][0] + "=="))
            await writer.drain()
            raise Hangup
        for _ in range(int((faults["interim"] or ["0"])[0])):
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
        keep = await self.send_answer(request, record, faults, writer)
        if "early" in faults:
            await self.read_body(request, reader)
            record["complete"] = True
        return keep

    async def send_answer(self, request, record, faults, writer):
        status = int((faults["status"] or ["200"])[0])
        if faults["bytes"]:
            size, kind = int(faults["bytes"][0]), "application/octet-stream"
            pieces = pattern(size)
        else:
            body = (json.dumps(record) + "\n").encode()
            size, kind, pieces = len(body), "application/json", iter([body])
        closes = (
            "close" in faults
            or "close_delimited" in faults
            or self.draining
            or request.version == "HTTP/1.0"
            or "close" in request.first("Connection", "").lower()
        )
        head = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Status')}"]
        head += [f"Content-Type: {kind}", "Server: test-service/1"]
        head += ["X-Internal-Server: db-prod-3.internal", f"X-Instance: {self.options.id}"]
        head += [value.replace(":", ": ", 1) for value in faults["header"]]
        chunked = "chunked" in faults
        if status not in NO_BODY:
            if chunked:
                head.append("Transfer-Encoding: chunked")
            elif "close_delimited" not in faults:
                head.append(f"Content-Length: {size}")
        if closes:
            head.append("Connection: close")
        unsent = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")
        if request.method == "HEAD" or status in NO_BODY:
            writer.write(unsent)
            await writer.drain()
            return not closes

        cut = int(faults["cut"][0]) if faults["cut"] else None
        slow_s = int((faults["slow_ms"] or ["0"])[0]) / 1000
        for piece in pieces:
            if cut is not None:
                piece, cut = piece[:cut], max(0, cut - len(piece))
            # With the head in one write: killed at any moment, the service has sent a small answer
            # whole or not at all. What is cut within its body nobody could send again.
            writer.write(unsent + (b"%x\r\n%s\r\n" % (len(piece), piece) if chunked and piece else piece))
            unsent = b""
            await writer.drain()
            if cut == 0:
                raise Hangup
            if slow_s:
                await asyncio.sleep(slow_s)
        writer.write(unsent + (b"0\r\n\r\n" if chunked else b""))
        await writer.drain()
        return not closes

    @staticmethod
    async def send_simple(writer, status, document):
        body = (json.dumps(document) + "\n").encode()
        reason = http.client.responses.get(status, "Status")
        writer.write(
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        )
        try:
            await writer.drain()
        except ConnectionError:
            pass

    # --- the private port ---------------------------------------------------------------------

    async def on_control(self, reader, writer):
        try:
            while (request := await self.read_head(reader)) is not None:
                await self.read_body(request, reader)
                status, document = self.control(request)
                await self.send_simple(writer, status, document)
        except (Malformed, Hangup, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def control(self, request):
        if request.path == "/_health" and request.method == "PUT":
            self.healthy = dict(request.query).get("up", "1") == "1"
            return 200, {"healthy": self.healthy}
        if request.path != "/_seen":
            return 404, {"error": "there are only /_seen and /_health"}
        if request.method == "DELETE":
            self.seen.clear()
            self.malformed.clear()
            self.count = self.health_count = self.bytes_received = 0
        return 200, {
            "instance": self.options.id,
            "count": self.count,
            "health_count": self.health_count,
            "connections": self.connections,
            "open_connections": self.open_connections,
            "bytes_received": self.bytes_received,
            "malformed": self.malformed,
            "requests": list(self.seen),
        }


def pattern(size):
    """Bytes that differ from place to place, so that a lost or doubled piece shows."""
    at = 0
    while at < size:
        piece = bytearray()
        while len(piece) < min(PIECE, size - at):
            piece += b"%015d\n" % (at + len(piece))
        yield bytes(piece[: size - at])
        at += len(piece)


class Registration:
    """Keeps one instance registered: renews each third of the lease, registers again on 404."""

    def __init__(self, options, address, port):
        self.urls = options.registry
        self.path = f"/v1/apps/{options.app}/instances/{options.id}"
        self.lease_s = options.lease_s
        self.document = {
            "address": address,
            "port": port,
            "lease_s": options.lease_s,
            "weight": options.weight,
            "status": "UP",
        }
        if options.zone:
            self.document["zone"] = options.zone
        if options.version:
            self.document["version"] = options.version
        self.registered = False
        self.has_left = False
        # A renewal in its thread must not meet the end: it would register again after a 404.
        self.turn = threading.Lock()

    def call(self, method, path, document=None):
        """The answer's status from the first registry that answers at all."""
        error = None
        for url in random.sample(self.urls, len(self.urls)):
            parts = urllib.parse.urlsplit(url)
            connection = http.client.HTTPConnection(parts.hostname, parts.port or 8761, timeout=2)
            try:
                body = json.dumps(document) if document is not None else None
                headers = {"Content-Type": "application/json"} if body else {}
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                text = response.read()
                if response.status < 500:
                    if response.status >= 400 and response.status != 404:
                        log("registry_refused", status=response.status, body=text.decode())
                    return response.status
                error = f"{url}: {response.status}"
            except (OSError, http.client.HTTPException) as failure:
                error = f"{url}: {failure}"
            finally:
                connection.close()
        raise ConnectionError(error)

    def keep_once(self):
        with self.turn:
            if self.has_left or (
                self.registered and self.call("POST", self.path + "/renew") == 204
            ):
                return
            self.registered = self.call("PUT", self.path, self.document) in (200, 201)
            log("registered" if self.registered else "not_registered", path=self.path)

    async def keep(self):
        while True:
            pause_s = self.lease_s / 3
            try:
                await asyncio.to_thread(self.keep_once)
            except ConnectionError as error:
                log("registry_away", error=str(error))
            if not self.registered:
                pause_s = min(pause_s, 0.2)
            await asyncio.sleep(pause_s)

    def leave(self):
        try:
            with self.turn:
                self.has_left = True
                if self.registered:
                    self.call("DELETE", self.path)
                    log("deregistered", path=self.path)
        except ConnectionError as error:
            log("registry_away", error=str(error))


def log(event, **fields):
    print(json.dumps({"event": event, "time": time.time(), **fields}), flush=True)


def host_port(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


async def serve(options):
    service = Service(options)
    host, port = host_port(options.bind)
    main = await asyncio.start_server(
        service.on_connection, host, port, limit=HEAD_MAX, backlog=1024
    )
    address, port = main.sockets[0].getsockname()[:2]
    control_port = None
    if options.control:
        control = await asyncio.start_server(service.on_control, *host_port(options.control))
        control_port = control.sockets[0].getsockname()[1]
    log("listening", instance=options.id, address=address, port=port, control_port=control_port)

    registration, keeper = None, None
    if options.registry:
        registration = Registration(options, options.address or address, port)
        keeper = asyncio.create_task(registration.keep())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()

    # Leave the registry first, go on answering until those who have not heard yet have, then end.
    service.draining = True
    if registration:
        keeper.cancel()
        await asyncio.to_thread(registration.leave)
        await asyncio.sleep(options.linger_ms / 1000)
    main.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--app", required=True, help="the name it registers under")
    parser.add_argument("--id", required=True, help="the instance's id")
    parser.add_argument("--bind", default="127.0.0.1:0", metavar="ADDRESS:PORT")
    parser.add_argument("--control", metavar="ADDRESS:PORT", help="private port for /_seen")
    parser.add_argument("--registry", action="append", default=[], metavar="URL")
    parser.add_argument("--address", help="the address to register (default: that of --bind)")
    parser.add_argument("--lease-s", type=int, default=30)
    parser.add_argument("--linger-ms", type=int, default=500)
    parser.add_argument("--weight", type=int, default=100)
    parser.add_argument("--zone")
    parser.add_argument("--version")
    options = parser.parse_args()
    try:
        asyncio.run(serve(options))
    except OSError as error:
        print(f"service: {options.bind}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

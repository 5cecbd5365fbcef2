# SPDX-License-Identifier: Apache-2.0
"""HTTP/JSON clients of a gRPC service: translation by a descriptor set, both ways.

The service is Debian's grpcio with message classes made of the same set; what it received is looked
at as protobuf, what the client received as JSON.
"""

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from concurrent import futures

import pytest

import h2
from procs import wait_until
from rig import bearer
from scripted import Scripted

grpc = pytest.importorskip("grpc", reason="python3-grpcio is not installed (make deps)")
protobuf = pytest.importorskip("google.protobuf", reason="python3-protobuf is not installed (make deps)")
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROTO = os.path.join(ROOT, "tests", "data", "proto")
if not shutil.which("protoc"):
    pytest.skip("protoc is not installed (make deps)", allow_module_level=True)


def compile_set(path, folder=PROTO, name="payments.proto", more=("--include_imports",)):
    subprocess.run(["protoc", f"-I{folder}", *more, f"--descriptor_set_out={path}", name], check=True)
    return str(path)


@pytest.fixture(scope="module", name="descriptors")
def _descriptors(tmp_path_factory):
    return compile_set(tmp_path_factory.mktemp("proto") / "payments.pb")


class Service:
    """pay.v1.Payments; `calls` are (method, message, metadata)."""

    def __init__(self, descriptors):
        files = descriptor_pb2.FileDescriptorSet()
        with open(descriptors, "rb") as file:
            files.ParseFromString(file.read())
        self.symbols = descriptor_pool.DescriptorPool()
        for one in files.file:
            self.symbols.Add(one)
        self.factory = message_factory.MessageFactory(self.symbols)
        self.calls = []
        self.yielded = 0  # messages of a stream
        self.gone = threading.Event()
        self.finish = threading.Event()
        self.threads = futures.ThreadPoolExecutor(8)
        self.server = grpc.server(self.threads, options=[("grpc.max_receive_message_length", 32 << 20),
                                                         ("grpc.max_send_message_length", 32 << 20)])
        methods = self.symbols.FindServiceByName("pay.v1.Payments").methods
        handlers = {}
        for method in methods:
            if method.name == "Upload":
                continue
            make = (grpc.unary_stream_rpc_method_handler if method.name == "Watch"
                    else grpc.unary_unary_rpc_method_handler)
            answer = self.watch if method.name == "Watch" else self.answer
            handlers[method.name] = make(
                lambda request, context, name=method.name, run=answer: run(name, request, context),
                request_deserializer=self.type(method.input_type.full_name).FromString,
                response_serializer=lambda message: message.SerializeToString())
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("pay.v1.Payments", handlers),))
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def type(self, name):
        return self.factory.GetPrototype(self.symbols.FindMessageTypeByName(name))

    def begin(self, name, request, context):
        self.calls.append((name, request, dict(context.invocation_metadata())))

    def fail(self, context, words):
        """"fail NAME text": that status, with details that the set knows."""
        status = self.type("google.rpc.Status")(code=3, message="why")
        status.details.add().Pack(self.type("pay.v1.Trouble")(field="amount"))
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),
                                       ("x-trailing", "last")))
        context.abort(grpc.StatusCode[words[1]], " ".join(words[2:]))

    def answer(self, name, request, context):
        self.begin(name, request, context)
        words = getattr(request, "name", "").split()
        if words and words[0] == "fail":
            self.fail(context, words)
        if words and words[0] == "wait":
            # A client that was quick to leave: the callback is not taken any more.
            if not context.add_callback(self.gone.set):
                self.gone.set()
            while context.is_active():
                time.sleep(0.01)
        context.send_initial_metadata((("x-initial", "first"), ("x-internal-db", "db-3")))
        context.set_trailing_metadata((("x-trailing", "last"),))
        if name == "List":
            payments = [self.type("pay.v1.Payment")(name=f"p{n}", serial=2**64 - 1)
                        for n in range(request.page_size)]
            return self.type("pay.v1.ListResponse")(payments=payments)
        if name in ("Update", "SetTags", "Create", "Plain"):
            return request
        if words and words[0] == "large":
            return self.type("pay.v1.Payment")(name="x" * int(words[1]))
        return self.type("pay.v1.Payment")(name=request.name)

    def watch(self, name, request, context):
        self.begin(name, request, context)
        words = request.name.split("-")
        if words[0] == "fail":
            self.fail(context, words)
        # Before the first message: of a client that left, a generator is not asked for more.
        if words[1:] == ["hang"]:
            context.add_callback(self.gone.set)
        for number in range(int(words[0])):
            self.yielded = number
            yield self.type("pay.v1.Payment")(name=f"w{number}" + "x" * 8192 * (words[1:] == ["large"]))
        if words[1:] == ["late"]:
            self.finish.wait(10)
            context.abort(grpc.StatusCode.INTERNAL, "in the middle")
        if words[1:] == ["hang"]:
            while context.is_active():
                time.sleep(0.01)

    def stop(self):
        self.server.stop(None).wait(10)
        self.threads.shutdown()


@pytest.fixture(name="service")
def _service(descriptors):
    service = Service(descriptors)
    yield service
    service.stop()


def configure(rig, address, descriptors):
    rig.config["workers"] = 1
    rig.config["services"] = {
        "pay": {"endpoints": [{"address": address}], "protocol": "grpc",
                "descriptor_set": descriptors, "request_timeout_ms": 20000,
                "connect_timeout_ms": 5000},
        "gone": {"endpoints": [{"address": "127.0.0.1:1"}], "protocol": "grpc",
                 "descriptor_set": descriptors},
    }
    rig.config["routes"] = [
        {"name": "pay", "match": {"path": "/pay/v1/*"}, "service": "pay", "grpc": True},
        {"name": "behind", "match": {"path": "/api/payment/*"}, "service": "pay", "grpc": True,
         "rewrite_prefix": "/pay/v1/", "auth": "hs"},
        {"name": "small", "match": {"path": "/pay/v1/payments", "headers": {"X-Small": "*"}},
         "service": "pay", "grpc": True, "max_body_bytes": 100},
        {"name": "native", "match": {"path": "/pay.v1.Payments/*"}, "service": "pay", "grpc": True},
        {"name": "gone", "match": {"path": "/pay/v1/users/gone/*"}, "service": "gone", "grpc": True},
    ]


@pytest.fixture(name="rig")
def _rig(tmp_path, make_rig, procs, service, descriptors):
    rig = make_rig(tmp_path, procs)
    configure(rig, service.address, descriptors)
    rig.service = service
    return rig.start()


JSON = [("Content-Type", "application/json")]


def send(rig, method, target, document=None, headers=()):
    body = None if document is None else json.dumps(document).encode()
    return rig.ask(method, target, [*headers, *(JSON if body is not None else [])], body)


def reset(connection):
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# --- requests ------------------------------------------------------------------------------------


def test_every_kind_of_field_both_ways(rig):
    payment = {
        "name": "ä\u0000\"\\", "amount": {"currency": "EUR", "units": "9223372036854775807"},
        "state": "DONE", "tags": ["a", "b"], "serial": "18446744073709551615", "rate": 1.5,
        "urgent": True, "receipt": "AAH+", "due": "2026-04-02T14:23:01.500Z",
        "labels": {"k": "v"}, "stars": 5, "parent": {"name": "above"},
    }
    answer = send(rig, "POST", "/pay/v1/payments", payment)
    assert answer.status == 200 and answer.first("Content-Type") == "application/json"
    assert answer.json() == payment
    name, got, metadata = rig.service.calls[0]
    assert name == "Create" and got.serial == 2**64 - 1 and got.receipt == b"\x00\x01\xfe"
    assert got.due.seconds == 1775139781 and got.stars.value == 5 and got.labels["k"] == "v"
    assert metadata["x-forwarded-for"] == "127.0.0.1" and "x-request-id" in metadata
    record = rig.wait_record(endpoint="POST /pay/v1/payments")
    assert record["status"] == 200 and record["grpc_status"] == 0


def test_names_as_in_the_file_and_numbers_as_strings(rig):
    send(rig, "PATCH", "/pay/v1/users/u1/payment",
         {"amount": {"units": 3}, "serial": 7, "state": 2, "rate": "Infinity"})
    name, got, _ = rig.service.calls[0]
    assert name == "Update" and got.user == "u1" and got.payment.amount.units == 3
    assert got.payment.serial == 7 and got.payment.state == 2 and got.payment.rate == float("inf")


def test_body_of_one_field_that_is_a_list(rig):
    answer = send(rig, "PUT", "/pay/v1/users/u1/fields", ["x", "y"])
    assert answer.json() == {"user": "u1", "fields": ["x", "y"]}


def test_path_and_query(rig):
    answer = send(rig, "GET", "/pay/v1/users/a%20b/payments?page_size=2&states=DONE&states=1"
                  "&filter.text=x%26+y&filter.atMost=-3&since=2026-01-01T00:00:00Z&stars=4&")
    assert answer.status == 200, answer
    # response_body: the list itself, and 64 bits as a string.
    assert answer.json() == [{"name": f"p{n}", "serial": "18446744073709551615"} for n in range(2)]
    _, got, _ = rig.service.calls[0]
    assert (got.user, got.page_size, list(got.states)) == ("a b", 2, [2, 1])
    assert (got.filter.text, got.filter.at_most) == ("x& y", -3)
    assert got.since.seconds == 1767225600 and got.stars.value == 4


def test_variables_of_several_segments(rig):
    assert send(rig, "GET", "/pay/v1/users/7/payments/8").json() == {"name": "users/7/payments/8"}
    assert send(rig, "GET", "/pay/v1/archive/a/b/c?with_parent=true").json() == {"name": "a/b/c"}
    assert rig.service.calls[1][1].with_parent is True
    answer = send(rig, "POST", "/pay/v1/users/7/payments/8:cancel")
    assert answer.json() == {"name": "users/7/payments/8"} and rig.service.calls[2][0] == "Cancel"


def test_empty_list_is_a_list(rig):
    assert send(rig, "GET", "/pay/v1/users/u/payments").json() == []


def test_methods_of_their_own_and_head(rig):
    assert send(rig, "SEARCH", "/pay/v1/search?name=x").json() == {"name": "x"}
    answer = rig.ask("HEAD", "/pay/v1/users/1/payments/2")
    assert answer.status == 200 and answer.body == b"" and int(answer.first("Content-Length")) > 2


def test_method_without_annotation(rig):
    answer = send(rig, "POST", "/pay.v1.Payments/Plain", {"name": "x"})
    assert answer.status == 200 and answer.json() == {"name": "x"}
    assert send(rig, "POST", "/pay.v1.Payments/Create", {"name": "x"}).status == 404


def test_behind_prefix_and_token(rig):
    assert send(rig, "GET", "/api/payment/users/1/payments/2").status == 401
    token = bearer(rig.signers["hs"].token("98765"))
    answer = send(rig, "GET", "/api/payment/users/1/payments/2",
                  headers=[*token, ("X-User-Id", "1"), ("X-Mine", "yes")])
    assert answer.json() == {"name": "users/1/payments/2"}
    metadata = rig.service.calls[0][2]
    assert metadata["x-user-id"] == "98765" and metadata["x-mine"] == "yes"
    assert not {"authorization", "accept", "content-length", "grpc-encoding"} & set(metadata)


def test_metadata_of_the_answer(rig):
    answer = send(rig, "POST", "/pay/v1/payments", {})
    assert answer.first("X-Initial") == "first" and answer.first("X-Trailing") == "last"
    assert answer.first("X-Internal-Db") is None
    assert not [name for name, _ in answer.headers if name.lower().startswith("grpc-")]
    assert answer.first("Content-Length") == "2" and answer.json() == {}


def test_http2_client_and_native_client(rig):
    out = subprocess.run(
        ["curl", "-sS", "--http2-prior-knowledge", "-d", '{"name":"h2"}', "-H",
         "Content-Type: application/json", f"http://127.0.0.1:{rig.ports['plain']}/pay/v1/payments"],
        capture_output=True, check=True, timeout=20).stdout
    assert json.loads(out) == {"name": "h2"}
    payment = rig.service.type("pay.v1.Payment")
    with grpc.insecure_channel(f"127.0.0.1:{rig.ports['plain']}") as channel:
        call = channel.unary_unary("/pay.v1.Payments/Plain", payment.SerializeToString, payment.FromString)
        assert call(payment(name="native"), timeout=10).name == "native"
        with pytest.raises(grpc.RpcError) as error:
            call(payment(name="fail NOT_FOUND gone"), timeout=10)
        assert error.value.code() == grpc.StatusCode.NOT_FOUND


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("method,target,body,status,words", [
    ("POST", "/pay/v1/payments", b'{"name":', 400, "does not fit"),
    ("POST", "/pay/v1/payments", b"[1]", 400, "does not fit"),
    ("POST", "/pay/v1/payments", b'{"nam":"x"}', 400, "nam"),
    ("POST", "/pay/v1/payments", b'{"serial":-1}', 400, "serial"),
    ("POST", "/pay/v1/payments", b'{"serial":"18446744073709551616"}', 400, "serial"),
    ("POST", "/pay/v1/payments", b'{"state":"NO"}', 400, "state"),
    ("POST", "/pay/v1/payments", b'{"receipt":"*"}', 400, "receipt"),
    ("POST", "/pay/v1/payments", b'{"due":"yesterday"}', 400, "due"),
    ("POST", "/pay/v1/payments", b'{"name":"\xff"}', 400, "does not fit"),
    ("POST", "/pay/v1/payments", b'{"parent":' * 5000, 400, "does not fit"),
    ("POST", "/pay/v1/payments", b'{"parent":' * 200 + b"{}" + b"}" * 200, 400, "does not fit"),
    ("POST", "/pay/v1/payments?name=x", b"{}", 400, "takes no query"),
    ("PATCH", "/pay/v1/users/u/payment", b'{},"user":"admin"', 400, "does not fit"),
    ("PATCH", "/pay/v1/users/u/payment", b'{"name":"a"},"fields":["b"]', 400, "does not fit"),
    ("PATCH", "/pay/v1/users/u/payment?user=admin", b"{}", 400, "repeats"),
    ("GET", "/pay/v1/users/u/payments?nothing=1", None, 400, "nothing"),
    ("GET", "/pay/v1/users/u/payments?page_size=x", None, 400, "page_size"),
    ("GET", "/pay/v1/users/u/payments?filter=x", None, 400, "filter"),
    ("GET", "/pay/v1/users/u/payments?user=admin", None, 400, "repeats"),
    ("GET", "/pay/v1/users/u/payments?filter.text=%ff", None, 400, "encoded"),
    ("GET", "/pay/v1/users/u/payments?filter.text=%0", None, 400, "encoded"),
    ("GET", "/pay/v1/users/u/payments?" + "states=1&" * 300, None, 400, "too many"),
    ("GET", "/pay/v1/users/%ff/payments", None, 400, "encoded"),
    ("GET", "/pay/v1/nothing", None, 404, "nothing here"),
    ("DELETE", "/pay/v1/users/1/payments/2", None, 405, "not allowed"),
    ("POST", "/pay/v1/upload", b"{}", 501, "gRPC client"),
])
def test_bad_requests_reach_no_service(rig, method, target, body, status, words):
    answer = rig.ask(method, target, JSON if body is not None else (), body)
    assert answer.status == status, answer
    assert answer.first("Content-Type") == "application/problem+json"
    assert words in answer.json()["detail"], answer.json()
    assert not rig.service.calls
    if status == 405:
        assert answer.first("Allow") == "GET"


def test_content_types(rig):
    def ask(*headers):
        return rig.ask("POST", "/pay/v1/payments", headers, b"{}").status

    assert ask() == ask(("Content-Type", "Application/JSON; charset=utf-8")) == 200
    assert ask(("Content-Type", "application/merge-patch+json")) == 200
    assert ask(("Content-Type", "text/plain")) == ask(("Content-Type", "application/x-protobuf")) == 415
    assert ask(*JSON, ("Content-Encoding", "gzip")) == 415
    # gRPC is HTTP/2: a client that says so over HTTP/1.1 does not speak it.
    assert ask(("Content-Type", "application/grpc")) == 415


def test_bodies_have_a_bound(rig):
    assert send(rig, "POST", "/pay/v1/payments", {"name": "x" * 200}, [("X-Small", "1")]).status == 413
    answer = send(rig, "POST", "/pay/v1/payments", {"name": "x" * (16 << 20)})
    assert answer.status == 413 and not rig.service.calls
    answer = send(rig, "POST", "/pay/v1/payments", {"name": "x" * (8 << 20)})
    assert answer.status == 200 and len(answer.json()["name"]) == 8 << 20


def test_many_large_bodies_at_once_have_a_bound_too(rig):
    """None of them is complete, and no limit for one alone is reached."""
    body = b'{"name":"' + b"x" * (8 << 20)
    head = f"POST /pay/v1/payments HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + 2}\r\n"
    small = {"name": "small"}
    connections = []
    while (answer := send(rig, "POST", "/pay/v1/payments", small)).status == 200 and len(connections) < 64:
        connections.append(rig.connect())
        with contextlib.suppress(OSError):  # refused while it is being sent
            connections[-1].send(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
    assert answer.status == 503 and answer.first("Retry-After") == "1", answer
    assert rig.wait_record(status=503)["reason"] == "overloaded"
    for one in connections:
        reset(one)
    wait_until(lambda: send(rig, "POST", "/pay/v1/payments", small).status == 200, "room again", 20)


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code,status", [
    ("CANCELLED", 499), ("UNKNOWN", 500), ("INVALID_ARGUMENT", 400), ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404), ("ALREADY_EXISTS", 409), ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429), ("FAILED_PRECONDITION", 400), ("ABORTED", 409),
    ("OUT_OF_RANGE", 400), ("UNIMPLEMENTED", 501), ("INTERNAL", 500), ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500), ("UNAUTHENTICATED", 401)])
def test_status_of_the_service(rig, code, status):
    answer = send(rig, "POST", "/pay/v1/payments", {"name": f"fail {code} 100% \"ü\""})
    assert answer.status == status
    assert answer.first("Content-Type") == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code and problem["status"] == status
    assert problem["detail"] == '100% "ü"' and problem["request_id"]
    assert problem["details"] == [{"@type": "type.googleapis.com/pay.v1.Trouble", "field": "amount"}]
    assert answer.first("X-Trailing") == "last" and answer.first("grpc-message") is None


def test_no_service(rig):
    answer = send(rig, "GET", "/pay/v1/users/gone/payments")
    assert answer.status == 502 and answer.json()["title"] == "Bad Gateway"


def test_streams_in_three_forms(rig):
    def watch(*headers):
        answer = rig.ask("GET", "/pay/v1/watch/3", headers)
        return answer.first("Content-Type"), answer.body.decode()

    messages = ['{"name":"w0"}', '{"name":"w1"}', '{"name":"w2"}']
    assert watch() == ("application/json", f"[{','.join(messages)}]")
    assert watch(("Accept", "text/html, application/x-ndjson;q=0.9")) == (
        "application/x-ndjson", "".join(m + "\n" for m in messages))
    assert watch(("Accept", "text/event-stream")) == (
        "text/event-stream", "".join(f"data: {m}\n\n" for m in messages))
    assert rig.ask("GET", "/pay/v1/watch/0").json() == []


def test_stream_goes_on_as_it_comes_and_is_cancelled(rig):
    connection = rig.connect()
    connection.send(b"GET /pay/v1/watch/2-hang HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\n\r\n")
    got = b""
    while b"w1" not in got:
        got += connection.sock.recv(4096)
    assert not rig.service.gone.is_set()
    reset(connection)
    assert rig.service.gone.wait(10)


def test_stream_that_fails(rig):
    answer = rig.ask("GET", "/pay/v1/watch/fail-NOT_FOUND-gone")
    assert answer.status == 404 and answer.json()["code"] == "NOT_FOUND"
    # Too late for a status: the client sees that something is missing.
    connection = rig.connect()
    connection.send(b"GET /pay/v1/watch/2-late HTTP/1.1\r\nHost: x\r\n\r\n")
    got = b""
    while b"w1" not in got:
        got += connection.sock.recv(4096)
    rig.service.finish.set()
    while chunk := connection.sock.recv(4096):
        got += chunk
    assert not got.endswith(b"0\r\n\r\n")


def test_deadlines(rig):
    answer = send(rig, "POST", "/pay/v1/payments", {"name": "wait"}, [("grpc-timeout", "300m")])
    assert answer.status == 504
    assert rig.service.gone.wait(10)
    send(rig, "POST", "/pay/v1/payments", {"name": "x"})
    # grpcio takes the deadline out of the metadata; h2 below sees the field.
    assert len(rig.service.calls) == 2


def test_client_that_leaves(rig):
    connection = rig.connect()
    connection.send(b"POST /pay/v1/payments HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n"
                    b'{"name":"wait"}')
    wait_until(lambda: rig.service.calls, "the call", 10)
    reset(connection)
    assert rig.service.gone.wait(10)


# --- services that are not what they should be ---------------------------------------------------


def frame(message, flag=0):
    return struct.pack(">BI", flag, len(message)) + message


GRPC = (("content-type", "application/grpc"),)
OK = (("grpc-status", "0"),)
NAME = b"\x0a\x01x"


def trailers(service, stream, fields=OK):
    block = b"".join(h2.field(name, value) for name, value in fields)
    service.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, block))


def answer_with(*pieces, head=GRPC, status=200, end=OK):
    def run(service, stream):
        service.head(stream, status, head)
        for piece in pieces:
            service.data(stream, piece)
        trailers(service, stream, end)

    return run


def never_ending(service, stream):
    """Garbage first, and then no end: nobody waits for it."""
    service.head(stream, 200, GRPC)
    service.data(stream, frame(b"\xff\xff"))
    service.wait(h2.RST_STREAM)


def reset_in_the_message(service, stream):
    service.head(stream, 200, GRPC)
    service.data(stream, frame(NAME)[:6])
    service.reset(stream, 2)


BAD_ANSWERS = {
    "no-grpc": answer_with(b"<html>", head=(("content-type", "text/html"),)),
    "no-type": answer_with(frame(NAME), head=()),
    "wrong-status": answer_with(frame(NAME), status=500),
    "compressed": answer_with(frame(NAME, 1)),
    "cut-message": answer_with(frame(NAME)[:-1]),
    "cut-head": answer_with(frame(NAME)[:3]),
    "no-message": answer_with(),
    "two-messages": answer_with(frame(NAME), frame(NAME)),
    "not-that-type": answer_with(frame(b"\xff\xff\xff")),
    "too-large": answer_with(struct.pack(">BI", 0, (16 << 20) + 1)),
    "no-status": answer_with(frame(NAME), end=(("x-end", "1"),)),
    "bad-status": answer_with(frame(NAME), end=(("grpc-status", "zero"),)),
    "never-ending": never_ending,
    "reset": reset_in_the_message,
}


@pytest.fixture(name="scripted")
def _scripted(tmp_path, make_rig, procs, descriptors):
    """A gateway before a service whose answers are run(service, stream), one after another."""
    started = []

    def start(*answers):
        def serve(peer):
            service = h2.Service(peer.sock)
            service.accept()
            for run in answers:
                stream = service.request()
                run(service, stream)
            service.wait(h2.GOAWAY)

        started.append(Scripted(serve))
        rig = make_rig(tmp_path, procs)
        configure(rig, started[0].address, descriptors)
        return rig.start()

    yield start
    for one in started:
        one.stop()


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_answers_that_are_none(scripted, name):
    rig = scripted(BAD_ANSWERS[name], answer_with(frame(NAME)))
    answer = send(rig, "POST", "/pay/v1/payments", {"name": "x"})
    assert answer.status == 502 and answer.first("Content-Type") == "application/problem+json", answer
    assert rig.wait_record(status=502)["reason"] in ("service_garbage", "service_reset")
    assert send(rig, "POST", "/pay/v1/payments", {"name": "x"}).json() == {"name": "x"}


def test_message_in_pieces_and_status_alone(scripted):
    whole = frame(NAME)
    pieces = [whole[n:n + 1] for n in range(len(whole))]

    def alone(service, stream):
        service.head(stream, 200, (*GRPC, ("grpc-status", "5"), ("grpc-message", "no%20such")), ends=True)

    rig = scripted(answer_with(*pieces), alone)
    assert send(rig, "POST", "/pay/v1/payments", {"name": "x"}).json() == {"name": "x"}
    answer = send(rig, "POST", "/pay/v1/payments", {"name": "x"})
    assert answer.status == 404 and answer.json()["detail"] == "no such"


def test_types_without_status_leave_the_details_out(scripted):
    details = ("grpc-status-details-bin", "AAAA")
    rig = scripted(answer_with(end=(("grpc-status", "3"), details)),
                   answer_with(end=(("grpc-status", "99"), ("grpc-message", "%zz%e4"))))
    problem = send(rig, "POST", "/pay/v1/payments", {}).json()
    assert problem["code"] == "INVALID_ARGUMENT" and "details" not in problem
    problem = send(rig, "POST", "/pay/v1/payments", {}).json()
    assert problem["code"] == "UNKNOWN" and problem["detail"].startswith("%zz")


def test_slow_reader_of_a_stream_holds_the_service_back(rig):
    connection = rig.connect()
    connection.send(b"GET /pay/v1/watch/100000-large HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.sock.recv(100)
    yielded = -1
    while yielded != rig.service.yielded:
        yielded = rig.service.yielded
        time.sleep(0.5)
    assert 0 < yielded < 10000
    connection.close()


def test_configuration_says_what_is_wrong(tmp_path, make_rig, procs, descriptors):
    rig = make_rig(tmp_path, procs)
    configure(rig, "127.0.0.1:1", descriptors)
    broken = tmp_path / "broken.proto"
    with open(os.path.join(PROTO, "payments.proto"), encoding="utf-8") as file:
        text = file.read()
    text = text.replace("/pay/v1/users/{user}/payment\" body: \"payment\"",
                        "/pay/v1/{user}/{payment}\" body: \"nothing\"")
    text = text.replace("/pay/v1/watch/{name}", "/pay/v1/watch/{name")
    broken.write_text(text)
    subprocess.run(["protoc", f"-I{tmp_path}", f"-I{PROTO}", "--include_imports",
                    f"--descriptor_set_out={tmp_path}/broken.pb", "broken.proto"], check=True)
    alone = compile_set(tmp_path / "alone.pb", more=())
    (tmp_path / "text.pb").write_text("no descriptor set")

    def check(**services):
        rig.config["services"] = services
        rig.config["routes"] = [{"name": "x", "match": {"path": "/x"}, "service": next(iter(services)),
                                 "grpc": True}]
        out = subprocess.run([rig.program, "--check", "-c", rig.write()], capture_output=True, check=False,
                             text=True, timeout=20)
        assert out.returncode == 1
        return out.stdout + out.stderr

    grpc_service = {"endpoints": [{"address": "127.0.0.1:1"}], "protocol": "grpc"}
    out = check(a={**grpc_service, "descriptor_set": str(tmp_path / "broken.pb")})
    assert "services.a.descriptor_set: /pay.v1.Payments/Update: body \"nothing\" is no field" in out
    assert 'no "}" for "{"' in out
    out = check(a={**grpc_service, "descriptor_set": alone},
                b={**grpc_service, "descriptor_set": str(tmp_path / "text.pb")},
                c={**grpc_service, "descriptor_set": str(tmp_path / "none.pb")})
    assert "--include_imports?" in out and "text.pb: is no descriptor set" in out
    assert "none.pb: No such file" in out
    assert 'routes[0].grpc: needs services of "protocol": "grpc"' in check(a=grpc_service)
    out = check(a={"endpoints": [{"address": "127.0.0.1:1"}], "descriptor_set": descriptors})
    assert "services.a.descriptor_set: needs \"protocol\": \"grpc\"" in out

# SPDX-License-Identifier: Apache-2.0
"""gRPC through the gateway, by Debian's grpcio at both ends: bytes as messages, no generated code."""

import threading
import time
from concurrent import futures

import pytest

from conftest import is_sanitized
from procs import wait_until
from rig import bearer

grpc = pytest.importorskip("grpc", reason="python3-grpcio is not installed (make deps)")

MIB = 1 << 20


class Service:
    """What a method does is up to the request's first byte; `calls` are those begun."""

    def __init__(self):
        self.lock = threading.Lock()
        self.calls = []
        self.cancelled = threading.Event()
        self.pool = futures.ThreadPoolExecutor(16)
        options = [("grpc.max_receive_message_length", 32 * MIB),
                   ("grpc.max_send_message_length", 32 * MIB)]
        self.server = grpc.server(self.pool, options=options)
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "ServerStream": grpc.unary_stream_rpc_method_handler(self.server_stream),
            "ClientStream": grpc.stream_unary_rpc_method_handler(self.client_stream),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
        }
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test.Echo", handlers),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"
        self.server.start()

    def begin(self, context):
        with self.lock:
            self.calls.append(dict(context.invocation_metadata()))
        context.add_callback(lambda: self.cancelled.set() if not context.is_active() else None)

    def unary(self, request, context):
        self.begin(context)
        if request.startswith(b"fail "):
            context.set_trailing_metadata((("x-why", "asked for"), ("x-raw-bin", b"\x00\xff")))
            context.abort(grpc.StatusCode[request.decode().split()[1]], "as asked: 100% ü")
        if request.startswith(b"wait"):
            while context.is_active():
                time.sleep(0.01)
        if request.startswith(b"left"):
            return b"%.3f" % context.time_remaining()
        context.send_initial_metadata((("x-initial", "first"),))
        context.set_trailing_metadata((("x-trailing", "last"), ("x-bytes-bin", b"\x01\x02")))
        return request

    def server_stream(self, request, context):
        self.begin(context)
        for number in range(int(request)):
            yield b"message %d" % number

    def client_stream(self, requests, context):
        self.begin(context)
        return b"%d" % sum(len(request) for request in requests)

    def both(self, requests, context):
        self.begin(context)
        for request in requests:
            yield request.upper()

    def stop(self):
        self.server.stop(None).wait(10)
        self.pool.shutdown()


@pytest.fixture(name="service")
def _service():
    service = Service()
    yield service
    service.stop()


@pytest.fixture
def start(tmp_path, make_rig, procs, service):
    """A gateway before that service; the rig."""

    def run(**members):
        rig = make_rig(tmp_path, procs)
        rig.config["workers"] = 1
        rig.config["services"]["grpc"] = {
            "endpoints": [{"address": service.address}], "protocol": "grpc", **members}
        rig.config["services"]["gone"] = {
            "endpoints": [{"address": "127.0.0.1:1"}], "protocol": "grpc"}
        rig.config["routes"] = [
            {"name": "echo", "match": {"path": "/test.Echo/*"}, "service": "grpc"},
            {"name": "private", "match": {"path": "/test.Private/*"}, "service": "grpc",
             "auth": "hs", "require": {"scope": "grpc"}},
            {"name": "gone", "match": {"path": "/test.Gone/*"}, "service": "gone"},
            {"name": "limited", "match": {"path": "/test.Limited/*"}, "service": "grpc",
             "limits": ["endpoint-5"]},
            {"name": "get", "match": {"path": "/test.Get/*", "methods": ["GET"]},
             "service": "grpc"},
        ]
        return rig.start()

    return run


@pytest.fixture
def channel(start):
    rig = start()
    with connect(rig) as channel:
        channel.rig = rig
        yield channel


def connect(rig):
    return grpc.insecure_channel(
        f"127.0.0.1:{rig.ports['plain']}",
        options=[("grpc.max_receive_message_length", 32 * MIB),
                 ("grpc.max_send_message_length", 32 * MIB),
                 ("grpc.enable_retries", 0),
                 ("grpc.default_authority", "api.test.example.com")])


def failure(call, *args, **named):
    """The RpcError of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, timeout=named.pop("timeout", 10), **named)
    return caught.value


def test_unary_with_metadata_both_ways(channel, service):
    unary = channel.unary_unary("/test.Echo/Unary")
    answer, call = unary.with_call(
        b"hello", timeout=10, metadata=(("x-mine", "yes"), ("x-mine-bin", b"\x00\x01\xfe")))
    assert answer == b"hello"
    assert dict(call.initial_metadata())["x-initial"] == "first"
    trailing = dict(call.trailing_metadata())
    assert trailing["x-trailing"] == "last" and trailing["x-bytes-bin"] == b"\x01\x02"
    got = service.calls[0]
    assert got["x-mine"] == "yes" and got["x-mine-bin"] == b"\x00\x01\xfe"
    assert got["x-forwarded-for"] == "127.0.0.1" and "x-request-id" in got
    record = channel.rig.wait_record(endpoint="POST /test.Echo/Unary")
    assert record["grpc_status"] == 0 and record["status"] == 200
    assert record["protocol"] == "HTTP/2" and "reason" not in record


def test_streams(channel):
    stream = channel.unary_stream("/test.Echo/ServerStream")
    assert list(stream(b"1000", timeout=20)) == [b"message %d" % n for n in range(1000)]
    collect = channel.stream_unary("/test.Echo/ClientStream")
    assert collect(iter([b"x" * 1000] * 500), timeout=20) == b"500000"


def test_both_directions_answer_by_answer(channel):
    """Each message waits for the answer to the one before: nothing may be held back."""
    answers = threading.Semaphore(1)

    def messages():
        for number in range(50):
            assert answers.acquire(timeout=10)
            yield b"message %d" % number

    both = channel.stream_stream("/test.Echo/Both")
    got = []
    for answer in both(messages(), timeout=30):
        got.append(answer)
        answers.release()
    assert got == [b"MESSAGE %d" % n for n in range(50)]


def test_large_messages_with_flat_memory(channel):
    unary = channel.unary_unary("/test.Echo/Unary")
    message = bytes(range(256)) * (16 * MIB // 256)
    assert unary(b"warm up", timeout=10)
    before = channel.rig.memory_kib()[0]
    channel.rig.reset_peak()
    for _ in range(3):
        assert unary(message, timeout=60) == message
    if not is_sanitized():
        assert channel.rig.memory_kib()[1] - before < 8 * 1024


def test_large_messages_at_once(channel):
    unary = channel.unary_unary("/test.Echo/Unary")
    calls = [unary.future(bytes([n]) * (4 * MIB), timeout=60) for n in range(8)]
    for number, call in enumerate(calls):
        assert call.result() == bytes([number]) * (4 * MIB)


@pytest.mark.parametrize("name", ["NOT_FOUND", "INTERNAL", "UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_status_of_the_service(channel, name):
    error = failure(channel.unary_unary("/test.Echo/Unary"), b"fail " + name.encode())
    assert error.code().name == name and error.details() == "as asked: 100% ü"
    trailing = dict(error.trailing_metadata())
    assert trailing["x-why"] == "asked for" and trailing["x-raw-bin"] == b"\x00\xff"
    record = channel.rig.wait_record(grpc_status=error.code().value[0])
    assert record["status"] == 200


def test_unknown_method_of_the_service(channel):
    error = failure(channel.unary_unary("/test.Echo/None"), b"x")
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED and error.details() == "Method not found!"


def test_deadline_reaches_the_service(channel):
    left = float(channel.unary_unary("/test.Echo/Unary")(b"left", timeout=7))
    assert 4 < left <= 7.1  # clients round up


def test_cancellation_reaches_the_service_at_once(channel, service):
    call = channel.unary_unary("/test.Echo/Unary").future(b"wait", timeout=60)
    wait_until(lambda: service.calls, "the call at the service", 10)
    call.cancel()
    assert service.cancelled.wait(5)
    assert channel.rig.wait_record(reason="client_gone")


@pytest.mark.parametrize("path, code", [
    ("/test.Nowhere/Unary", "UNIMPLEMENTED"),
    ("/test.Get/Unary", "UNIMPLEMENTED"),
    ("/test.Private/Unary", "UNAUTHENTICATED"),
    ("/test.Gone/Unary", "UNAVAILABLE"),
])
def test_errors_of_the_gateway(channel, path, code):
    error = failure(channel.unary_unary(path), b"x")
    assert error.code().name == code
    assert error.details()
    record = channel.rig.wait_record(endpoint=f"POST {path}")
    assert record["status"] == 200 and record["grpc_status"] == error.code().value[0]
    assert record["reason"] != "ok"


def test_token_without_what_the_route_requires(channel):
    token = channel.rig.signers["hs"].token("user-1", claims={"scope": "other"})
    error = failure(channel.unary_unary("/test.Private/Unary"), b"x",
                    metadata=(("authorization", bearer(token)[0][1]),))
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED


def test_rate_limit(channel):
    unary = channel.unary_unary("/test.Limited/Unary")
    codes = [failure(unary, b"x").code().name for _ in range(6)]
    assert codes == ["UNIMPLEMENTED"] * 5 + ["RESOURCE_EXHAUSTED"]


def test_service_gone_in_a_stream(channel, service):
    stream = channel.stream_stream("/test.Echo/Both")
    done = threading.Event()

    def messages():
        yield b"one"
        done.wait(20)

    answers = stream(messages(), timeout=20)
    assert next(answers) == b"ONE"
    service.server.stop(0).wait(10)
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    done.set()
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

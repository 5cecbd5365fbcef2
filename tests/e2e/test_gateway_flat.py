# SPDX-License-Identifier: Apache-2.0
"""Memory of the gateway does not grow with what passes through: bodies, requests."""

import socket

import pytest

import client
import h2
from conftest import is_sanitized
from scripted import Scripted

MIB = 1 << 20
# One more than 31 bits can count. Sanitizers make it slow.
SIZE = 256 * MIB if is_sanitized() else 2048 * MIB
GROWTH_KIB = (32 if is_sanitized() else 4) * 1024  # what was freed stays a while with them
REQUESTS, BATCH = 10000, 100


def send_zeroes(sock, size):
    piece = bytes(MIB)
    for _ in range(size // MIB):
        sock.sendall(piece)


def count_received(sock, have, size):
    """Reads until there were `size` bytes, of which `have` came already; returns the number."""
    piece = bytearray(MIB)
    while have < size and (n := sock.recv_into(piece)):
        have += n
    return have


@pytest.fixture
def rig(tmp_path, make_rig, procs):
    """A gateway with one worker before a service that takes and gives a body of SIZE."""
    taken = []

    def serve(peer):
        peer.read_head()
        taken.append(count_received(peer.sock, len(peer.buffer), SIZE))
        peer.buffer = b""
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        send_zeroes(peer.sock, SIZE)

    def quick(peer):
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")  # one segment: no Nagle

    rig = make_rig(tmp_path, procs)
    rig.config["workers"] = 1
    rig.config["client"] = {"max_requests": 0}
    services = {"big": Scripted(serve), "quick": Scripted(quick)}
    for name, service in services.items():
        rig.config["services"][name] = {"endpoints": [{"address": service.address}]}
        rig.config["routes"].append(
            {"name": name, "match": {"path": f"/{name}"}, "service": name,
             "max_body_bytes": 1 << 40}
        )
    rig.taken = taken
    rig.start()
    yield rig
    for service in services.values():
        service.stop()


def assert_flat(rig, before):
    _, peak = rig.memory_kib()
    assert peak - before < GROWTH_KIB, f"{before} KiB before, {peak} KiB at most"


@pytest.mark.limit(120)
def test_bodies_of_two_gib_in_flat_memory(rig):
    rig.ask("GET", "/quick")
    before, _ = rig.memory_kib()
    rig.reset_peak()
    with rig.connect(timeout_s=30) as connection:
        connection.send(client.head_of("POST", "/big", "h", [("Content-Length", str(SIZE))]))
        send_zeroes(connection.sock, SIZE)
        status, headers = connection.read_head()[:2]
        assert status == 200, headers
        assert count_received(connection.sock, len(connection.buffer), SIZE) == SIZE
        connection.buffer = b""
        # Nothing too much and nothing too little: the next answer begins right behind.
        assert connection.request("GET", "/quick").body == b"ok"
    assert rig.taken == [SIZE]
    assert_flat(rig, before)


def ask_by_http1(sock, count):
    """Pipelined, so that most of the time is the gateway's."""
    text = client.head_of("GET", "/quick", "h")
    for _ in range(count // BATCH):
        sock.sendall(text * BATCH)
        got = b""
        while got.count(b"\r\n\r\nok") < BATCH:
            data = sock.recv(65536)
            assert data, f"closed after {got[-300:]}"
            got += data
        assert got.count(b"HTTP/1.1 200 OK\r\n") == BATCH and got.endswith(b"ok")


def ask_by_http2(session, count, first):
    """Batches of parallel streams; returns the next stream's number."""
    for _ in range(count // BATCH):
        streams = range(first, first + 2 * BATCH, 2)
        session.send(b"".join(h2.request(stream, "/quick") for stream in streams))
        ended = set()
        while len(ended) < BATCH:
            got = session.read()
            assert got is not None and got.kind in (h2.HEADERS, h2.DATA, h2.WINDOW_UPDATE, h2.SETTINGS), got
            if got.kind == h2.DATA and got.flags & h2.END_STREAM:
                ended.add(got.stream)
        assert ended == set(streams)
        session.send(h2.window_update(0, 2 * BATCH))
        first += 2 * BATCH
    return first


@pytest.mark.limit(90)
def test_ten_thousand_requests_of_one_connection_in_flat_memory(rig):
    with socket.create_connection(("127.0.0.1", rig.ports["plain"]), 30) as sock:
        ask_by_http1(sock, REQUESTS // 10)
        before, _ = rig.memory_kib()
        rig.reset_peak()
        ask_by_http1(sock, REQUESTS)
        assert_flat(rig, before)


@pytest.mark.limit(90)
def test_ten_thousand_streams_of_one_connection_in_flat_memory(rig):
    with h2.Session(rig.ports["plain"], timeout_s=30) as session:
        session.settle()
        first = ask_by_http2(session, REQUESTS // 10, 1)
        before, _ = rig.memory_kib()
        rig.reset_peak()
        ask_by_http2(session, REQUESTS, first)
        assert_flat(rig, before)

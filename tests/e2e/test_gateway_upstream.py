# SPDX-License-Identifier: Apache-2.0
"""The gateway and services that misbehave: what must never reach another request or client."""

import os
import resource
import socket
import threading
import time

import pytest

from conftest import assert_problem, headers_of
from procs import wait_until
from scripted import Scripted


@pytest.fixture
def scripted():
    """Starts scripted services; they end with the test."""
    started = []

    def start(serve):
        started.append(Scripted(serve))
        return started[-1]

    yield start
    for service in started:
        service.stop()


@pytest.fixture
def start_rig(tmp_path, make_rig, procs):
    """A gateway of this test with one worker, so that its pool is one."""

    def start(services, routes=None, **members):
        rig = make_rig(tmp_path, procs)
        rig.config["workers"] = 1
        rig.config["services"] = services
        rig.config["auth"] = {}
        rig.config["routes"] = routes or [
            {"name": name, "match": {"path": f"/{name}/*"}, "service": name} for name in services
        ]
        rig.config.update(members)
        return rig.start()

    return start


def service_of(*addresses, **members):
    return {"endpoints": [{"address": address} for address in addresses], **members}


# --- the end of a response ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 40_000])
def test_bytes_behind_a_response_reach_nobody(scripted, start_rig, size):
    """A second answer in the same write as the first must not become another client's."""

    def serve(peer):
        peer.read_head()
        first = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"A" * size
        peer.send(first + b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nPOISONED")

    service = scripted(serve)
    rig = start_rig({"s": service_of(service.address)})
    for _ in range(5):
        answer = rig.ask("GET", "/s/x")
        assert answer.status == 200 and answer.body == b"A" * size
    assert service.connections == 5, "no connection was used again"


@pytest.mark.parametrize("size", [2, 40_000])
def test_connection_closed_behind_a_response_is_not_used_again(scripted, start_rig, size):
    def serve(peer):
        peer.read_head()
        peer.answer(b"A" * size)
        raise OSError("closes without having said so")

    service = scripted(serve)
    rig = start_rig({"s": service_of(service.address, retries=0)})
    for _ in range(10):
        answer = rig.ask("POST", "/s/x", body=b"once")
        assert answer.status == 200 and answer.body == b"A" * size
        wait_until(lambda: not service.open, "the service's end of the connection", 10)
    assert len(service.heads) == 10, "none was sent twice"


# --- retries ------------------------------------------------------------------------------------


def fill_pools(rig, services, path="/s/x", count=8):
    """At least one kept connection to each of the services."""
    threads = [threading.Thread(target=rig.ask, args=("GET", path)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(service.connections for service in services)


def hangs_when(event):
    def serve(peer):
        peer.read_head()
        if event.is_set():
            peer.wait_closed()
        time.sleep(0.02)
        peer.answer()

    return serve


def test_hanging_service_gets_one_copy(scripted, start_rig):
    """A kept connection is not stale because the service is slow."""
    hang = threading.Event()
    services = [scripted(hangs_when(hang)) for _ in range(3)]
    rig = start_rig({
        "s": service_of(*(s.address for s in services), retries=0, response_timeout_ms=300,
                        balance="round_robin")
    })
    fill_pools(rig, services)
    hang.set()
    before = sum(len(s.heads) for s in services)
    assert_problem(rig.ask("GET", "/s/x"), 504)
    assert sum(len(s.heads) for s in services) == before + 1


def test_stale_connections_cost_one_retry_at_most(scripted, start_rig):
    """... which takes a new connection: a service that resets everything gets two copies."""
    reset = threading.Event()

    def serve(peer):
        peer.read_head()
        if reset.is_set():
            peer.reset()
        time.sleep(0.02)
        peer.answer()

    services = [scripted(serve) for _ in range(3)]
    rig = start_rig({
        "s": service_of(*(s.address for s in services), retries=0, balance="round_robin")
    })
    fill_pools(rig, services)
    reset.set()
    before = sum(len(s.heads) for s in services)
    assert_problem(rig.ask("GET", "/s/x"), 502)
    assert sum(len(s.heads) for s in services) == before + 2


def test_restarted_service_loses_no_request(scripted, start_rig):
    """What a stale connection is: the service closed it while it was kept."""
    def serve(peer):
        peer.read_head()
        peer.answer()

    service = scripted(serve)
    rig = start_rig({"s": service_of(service.address, retries=0)})
    for _ in range(5):
        assert rig.ask("GET", "/s/x").status == 200
        for sock in list(service.open):
            try:
                sock.shutdown(2)
            except OSError:
                pass  # the gateway closed it meanwhile
        assert rig.ask("GET", "/s/x").status == 200


# --- our own shortage ---------------------------------------------------------------------------


def descriptors(proc):
    return {int(name) for name in os.listdir(f"/proc/{proc.pid}/fd")}


def leave_no_descriptor(proc, hard):
    """The limit becomes the lowest number that is free, so that not one more can be had."""
    used = descriptors(proc)
    free = next(n for n in range(len(used) + 1) if n not in used)
    resource.prlimit(proc.pid, resource.RLIMIT_NOFILE, (free, hard))


def test_lack_of_descriptors_is_not_held_against_a_service(scripted, start_rig):
    def serve(peer):
        peer.read_head()
        peer.answer()

    service = scripted(serve)
    rig = start_rig({"s": service_of(service.address)})
    with rig.connect() as connection:
        assert connection.request("GET", "/s/x", [("Connection", "keep-alive")]).status == 200
        used = descriptors(rig.proc)
        for sock in list(service.open):  # the kept connection goes, a new one is needed
            sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: used - descriptors(rig.proc), "it is closed")
        soft, hard = resource.prlimit(rig.proc.pid, resource.RLIMIT_NOFILE)
        for _ in range(10):
            leave_no_descriptor(rig.proc, hard)  # each time: others may have been given back
            assert_problem(connection.request("GET", "/s/x"), 503)
        resource.prlimit(rig.proc.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert connection.request("GET", "/s/x").status == 200
    text = rig.admin("GET", "/metrics").body.decode()
    assert 'reason="internal"} 10' in text, text


# --- what the service learns of the client -----------------------------------------------------


def test_all_lines_of_forwarded_for_count(make_rig, tmp_path, procs):
    """A trusted proxy may add its line below the one that the client made up."""
    rig = make_rig(tmp_path, procs)
    rig.config["trusted_proxies"] = ["127.0.0.0/8"]
    rig.start()
    lines = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "1.2.3.4, 127.0.0.9")]
    got = headers_of(rig.ask("GET", "/echo/x", lines))
    assert got["x-forwarded-for"] == ["6.6.6.6, 1.2.3.4, 127.0.0.9, 127.0.0.1"]
    assert rig.wait_record(route="echo")["client_ip"] == "1.2.3.4"

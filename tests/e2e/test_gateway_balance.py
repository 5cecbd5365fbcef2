# SPDX-License-Identifier: Apache-2.0
"""Which instance a request goes to, how many at once, and how long anybody waits."""

import collections
import re
import socket
import struct
import subprocess
import threading
import time

import client
import h2
import pytest

from conftest import assert_problem
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
    def start(service, addresses, workers=1, routes=None, **members):
        rig = make_rig(tmp_path, procs)
        rig.config["workers"] = workers
        rig.config["auth"] = {}
        endpoints = [a if isinstance(a, dict) else {"address": a} for a in addresses]
        rig.config["services"] = {"s": {"endpoints": endpoints, **service}}
        rig.config["routes"] = routes or [
            {"name": "s", "match": {"path": "/s/*"}, "service": "s"}
        ]
        rig.config.update(members)
        return rig.start()

    return start


def named(name, status="200 OK"):
    """A service that says who it is."""

    def serve(peer):
        peer.read_head()
        peer.answer(name.encode(), status)

    return serve


def who(rig, count, headers=lambda i: ()):
    """Who answered so many requests."""
    return collections.Counter(
        rig.ask("GET", f"/s/{i}", headers(i)).body.decode() for i in range(count)
    )


def metric(rig, name, **labels):
    text = rig.admin("GET", "/metrics").body.decode()
    inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
    found = re.search(rf"^{name}{{{re.escape(inner)}}} (\S+)$", text, re.MULTILINE)
    assert found, f"{name} {inner} in {text}"
    return float(found[1])


# --- choosing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", ["round_robin", "RoundRobinRule", "AvailabilityFilteringRule"])
def test_everyone_has_a_turn(scripted, start_rig, balance):
    services = {n: scripted(named(n)) for n in "abc"}
    rig = start_rig({"balance": balance}, [s.address for s in services.values()])
    assert who(rig, 9) == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize("hash_on", ["header:X-Shard", "cookie:shard", "endpoint", "ip"])
def test_ring_hash_keeps_a_key_where_it_is(scripted, start_rig, hash_on):
    services = {n: scripted(named(n)) for n in "abc"}
    rig = start_rig({"balance": "ring_hash", "hash_on": hash_on},
                    [s.address for s in services.values()], workers=2)

    def ask(key):
        headers = [("X-Shard", key), ("Cookie", f"a=1; shard={key}; shards=2")]
        return rig.ask("GET", f"/s/{key}", headers).body

    owners = {}
    for key in (f"k{i}" for i in range(24)):
        owners[key] = ask(key)
        assert ask(key) == owners[key]
    # One client: by address there is one owner only.
    assert len(set(owners.values())) == (1 if hash_on == "ip" else 3)


def test_own_zone_goes_first_and_others_help(scripted, start_rig):
    healthy = threading.Event()
    healthy.set()

    def near(peer):
        head = peer.read_head()
        good = healthy.is_set() or b"/health" not in head
        peer.answer(b"near", "200 OK" if good else "500 Not")

    services = [
        {"address": scripted(near).address, "zone": "a"},
        {"address": scripted(named("far")).address, "zone": "b"},
    ]
    health = {"path": "/health", "interval_ms": 100, "fall": 1, "rise": 1}
    rig = start_rig({"prefer_zone": True, "health": health}, services, zone="a")
    assert who(rig, 20) == {"near": 20}
    healthy.clear()
    wait_until(lambda: who(rig, 3) == {"far": 3}, "the other zone takes over", 10)
    status = rig.admin("GET", "/status").json()
    assert [i.get("own_zone") for i in status["services"][0]["instances"]] == [True, None]


def test_new_instance_begins_with_little(scripted, start_rig):
    services = {n: scripted(named(n)) for n in "ab"}
    config = {"balance": "random", "slow_start_ms": 3_600_000}
    rig = start_rig(config, [services["a"].address])
    rig.config["services"]["s"]["endpoints"].append({"address": services["b"].address})
    rig.reload()
    got = who(rig, 100)
    assert 0 <= got["b"] < 30, got
    rig.config["services"]["s"]["slow_start_ms"] = 0
    rig.reload()
    wait_until(lambda: who(rig, 40)["b"] >= 8, "an even share", 10)


# --- how much at once ---------------------------------------------------------------------------


class Gate:
    """A service that answers when it is opened."""

    def __init__(self):
        self.opened = threading.Event()

    def __call__(self, peer):
        peer.read_head()
        assert self.opened.wait(30)
        peer.answer(b"late")


def in_threads(count, ask):
    """Runs `ask` so often at once; the list fills with the answers."""
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers


def test_max_concurrent_holds_across_workers(scripted, start_rig):
    gate = Gate()
    service = scripted(gate)
    rig = start_rig({"max_concurrent": 3}, [service.address], workers=3)
    threads, answers = in_threads(12, lambda: rig.ask("GET", "/s/x"))
    wait_until(lambda: len(answers) == 9, "all but three are refused", 20)
    assert metric(rig, "gatehouse_gateway_service_in_flight", service="s") == 3
    gate.opened.set()
    for thread in threads:
        thread.join()
    for answer in answers[:9]:
        assert_problem(answer, 503)
        assert answer.first("Retry-After") == "1"
    assert [a.status for a in answers[9:]] == [200] * 3
    assert len(service.heads) == 3
    assert metric(rig, "gatehouse_gateway_service_busy_total", service="s") == 9
    assert rig.wait_record(status=503)["reason"] == "service_busy"
    assert rig.ask("GET", "/s/x").status == 200, "the places were given back"
    assert metric(rig, "gatehouse_gateway_service_in_flight", service="s") == 0


def test_some_may_wait_for_a_place(scripted, start_rig, program):
    """Also for one that a request of another worker had."""
    gate = Gate()
    service = scripted(gate)
    rig = start_rig({"max_concurrent": 1, "max_pending": 4, "pending_timeout_ms": 30_000},
                    [service.address], workers=3)
    threads, answers = in_threads(9, lambda: rig.ask("POST", "/s/x", body=b"some"))
    wait_until(lambda: len(answers) == 4, "one is served, four wait, four are refused", 20)
    circuit = rig.admin("GET", "/status").json()["services"][0]["circuit"]
    assert (circuit["in_flight"], circuit["waiting"], circuit["refused_busy"]) == (1, 4, 4)
    shown = subprocess.run(
        [program("gatewayctl"), "--socket", rig.config["admin"]["socket"], "status"],
        stdout=subprocess.PIPE, text=True, check=True, timeout=20).stdout
    line = next(line for line in shown.splitlines() if "closed" in line)
    assert line.split() == ["s", "1", "4", "0", "closed", "0", "4", "0"]
    assert len(service.heads) == 1
    gate.opened.set()
    for thread in threads:
        thread.join()
    assert sorted(a.status for a in answers) == [200] * 5 + [503] * 4
    circuit = rig.admin("GET", "/status").json()["services"][0]["circuit"]
    assert (circuit["in_flight"], circuit["waiting"]) == (0, 0)


def test_wait_for_a_place_has_an_end(scripted, start_rig):
    gate = Gate()
    service = scripted(gate)
    rig = start_rig({"max_concurrent": 1, "max_pending": 4, "pending_timeout_ms": 300},
                    [service.address])
    threads, answers = in_threads(2, lambda: rig.ask("GET", "/s/x"))
    wait_until(lambda: answers, "one waited long enough", 20)
    assert_problem(answers[0], 503)
    with rig.connect() as connection:  # one that leaves while it waits
        connection.send(b"GET /s/x HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gate.opened.set()
    for thread in threads:
        thread.join()
    assert rig.ask("GET", "/s/x").status == 200
    circuit = rig.admin("GET", "/status").json()["services"][0]["circuit"]
    assert (circuit["in_flight"], circuit["waiting"]) == (0, 0)


def test_place_is_given_back_by_clients_that_leave(scripted, start_rig):
    gate = Gate()
    rig = start_rig({"max_concurrent": 1}, [scripted(gate).address])
    for _ in range(3):
        with rig.connect() as connection:
            connection.send(b"GET /s/x HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_until(
                lambda: metric(rig, "gatehouse_gateway_service_in_flight", service="s") == 1,
                "it is in flight", 10)
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                       struct.pack("ii", 1, 0))
        wait_until(lambda: metric(rig, "gatehouse_gateway_service_in_flight", service="s") == 0,
                   "its place is free", 10)
    gate.opened.set()
    assert rig.ask("GET", "/s/x").status == 200


def test_full_instances_are_left_out(scripted, start_rig):
    gates = [Gate(), Gate()]
    services = [scripted(gate) for gate in gates]
    rig = start_rig({"max_concurrent_per_instance": 2, "balance": "round_robin"},
                    [s.address for s in services], workers=2)
    threads, answers = in_threads(6, lambda: rig.ask("GET", "/s/x"))
    wait_until(lambda: len(answers) == 2, "two find no place", 20)
    assert_problem(answers[0], 503)
    wait_until(lambda: [len(s.heads) for s in services] == [2, 2], "two each", 10)
    for gate in gates:
        gate.opened.set()
    for thread in threads:
        thread.join()
    assert sorted(a.status for a in answers) == [200] * 4 + [503] * 2


def test_max_connections(scripted, start_rig):
    gate = Gate()
    service = scripted(gate)
    rig = start_rig({"max_connections": 2}, [service.address])
    threads, answers = in_threads(3, lambda: rig.ask("GET", "/s/x"))
    wait_until(lambda: len(answers) == 1, "there is no third connection", 20)
    assert_problem(answers[0], 503)
    gate.opened.set()
    for thread in threads:
        thread.join()
    for _ in range(4):
        assert rig.ask("GET", "/s/x").status == 200
    assert service.connections == 2, "kept ones were used"


def test_kept_connection_makes_room_for_a_needed_one(scripted, start_rig):
    services = {n: scripted(named(n)) for n in "ab"}
    rig = start_rig({"max_connections": 1, "balance": "round_robin"},
                    [s.address for s in services.values()])
    assert who(rig, 6) == {"a": 3, "b": 3}


def test_circuit_opens_and_closes(scripted, start_rig):
    broken = threading.Event()
    broken.set()

    def serve(peer):
        peer.read_head()
        peer.answer(b"x", "500 Broken" if broken.is_set() else "200 OK")

    service = scripted(serve)
    rig = start_rig({"circuit_breaker": {"min_requests": 5, "open_ms": 60_000, "window_ms": 60_000}},
                    [service.address], workers=2)
    assert [rig.ask("GET", "/s/x").status for _ in range(5)] == [500] * 5
    for _ in range(5):
        answer = rig.ask("GET", "/s/x")
        assert_problem(answer, 503)
        assert 1 <= int(answer.first("Retry-After")) <= 60
    assert len(service.heads) == 5, "the service was left alone"
    assert metric(rig, "gatehouse_gateway_circuit_state", service="s") == 1
    assert metric(rig, "gatehouse_gateway_circuit_refused_total", service="s") == 5
    assert rig.wait_record(status=503)["reason"] == "circuit_open"
    circuit = rig.admin("GET", "/status").json()["services"][0]["circuit"]
    assert circuit["state"] == "open" and circuit["opened"] == 1
    rig.proc.wait_log("service=s: too much of it fails: left alone for 60000 ms")


def test_one_request_tries_whether_things_are_well(scripted, start_rig):
    broken = threading.Event()
    broken.set()

    def serve(peer):
        peer.read_head()
        peer.answer(b"x", "500 Broken" if broken.is_set() else "200 OK")

    service = scripted(serve)
    rig = start_rig({"circuit_breaker": {"min_requests": 3, "open_ms": 300}}, [service.address])
    assert [rig.ask("GET", "/s/x").status for _ in range(3)] == [500] * 3
    wait_until(lambda: rig.ask("GET", "/s/x").status == 500, "one goes through", 10)
    assert_problem(rig.ask("GET", "/s/x"), 503)
    broken.clear()
    wait_until(lambda: rig.ask("GET", "/s/x").status == 200, "one succeeds", 10)
    assert [rig.ask("GET", "/s/x").status for _ in range(5)] == [200] * 5


# --- statuses that are tried elsewhere ----------------------------------------------------------


def test_retry_on_asks_another(scripted, start_rig):
    services = {"bad": scripted(named("bad", "503 Busy")), "good": scripted(named("good"))}
    rig = start_rig({"retry_on": [503], "balance": "round_robin", "ejection": {"failures": 0}},
                    [s.address for s in services.values()])
    assert who(rig, 6) == {"good": 6}
    assert len(services["bad"].heads) >= 5
    assert rig.wait_record(attempts=2)["status"] == 200
    # What may have been done is not done again.
    posts = [rig.ask("POST", "/s/x", body=b"1").status for _ in range(4)]
    assert sorted(posts) == [200, 200, 503, 503]
    assert rig.ask("GET", "/s/x").status == 200


def test_retry_on_ends_with_the_answer_there_is(scripted, start_rig):
    services = [scripted(named(n, "503 Busy")) for n in "ab"]
    rig = start_rig({"retry_on": [503], "retries": 5}, [s.address for s in services])
    answer = rig.ask("GET", "/s/x")
    assert answer.status == 503 and answer.body in (b"a", b"b")
    assert sum(len(s.heads) for s in services) == 2


def test_retries_have_a_budget(scripted, start_rig):
    services = [scripted(named(n, "503 Busy")) for n in "ab"]
    rig = start_rig({"retry_on": [503], "retries": 5, "ejection": {"failures": 0}},
                    [s.address for s in services])
    who(rig, 100)
    # Ten to begin with, and a fifth of what comes.
    assert 120 <= sum(len(s.heads) for s in services) <= 131


# --- time limits --------------------------------------------------------------------------------


def test_events_may_pause_longer_than_an_answer_takes(scripted, start_rig):
    def serve(peer):
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            peer.send(b"9\r\ndata: x\n\n\r\n")
            time.sleep(0.5)
        peer.send(b"0\r\n\r\n")

    rig = start_rig({"response_timeout_ms": 200}, [scripted(serve).address])
    answer = rig.ask("GET", "/s/x")
    assert answer.status == 200 and answer.body == b"data: x\n\n" * 3


def test_stream_that_stops_is_cut(scripted, start_rig):
    def serve(peer):
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        peer.wait_closed()

    rig = start_rig({"stream_idle_timeout_ms": 200}, [scripted(serve).address])
    with rig.connect() as connection, pytest.raises(client.BadResponse):
        connection.request("GET", "/s/x")
    assert rig.wait_record(reason="response_timeout")["status"] == 200


def test_whole_request_has_a_limit(scripted, start_rig):
    def serve(peer):
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            peer.send(b"x")
            time.sleep(0.05)

    rig = start_rig({"request_timeout_ms": 400}, [scripted(serve).address])
    with rig.connect() as connection, pytest.raises(client.BadResponse):
        connection.request("GET", "/s/x")
    assert rig.wait_record(reason="request_timeout")


def test_events_over_http2_may_pause_too(scripted, start_rig):
    def serve(peer):
        session = h2.Service(peer.sock).accept()
        stream = session.request()
        session.head(stream, fields=[("content-type", "text/event-stream")])
        for _ in range(2):
            session.data(stream, b"data: x\n\n")
            time.sleep(0.5)
        session.data(stream, b"", ends=True)
        peer.wait_closed()
        raise OSError("over")

    rig = start_rig({"protocol": "h2", "response_timeout_ms": 200}, [scripted(serve).address])
    assert rig.ask("GET", "/s/x").body == b"data: x\n\n" * 2


def test_handshake_is_part_of_connecting(scripted, start_rig, authority):
    """A service that accepts and then says nothing, where TLS is wanted."""
    service = scripted(lambda peer: peer.wait_closed())
    rig = start_rig({"tls": {"ca": authority.certificate}, "connect_timeout_ms": 200, "retries": 0},
                    [service.address])
    assert_problem(rig.ask("GET", "/s/x"), 504)
    assert rig.wait_record(reason="connect_timeout")["status"] == 504


# --- kept connections ---------------------------------------------------------------------------


def test_connections_to_an_instance_that_left_are_closed(scripted, start_rig):
    services = [scripted(named(n)) for n in "ab"]
    rig = start_rig({"balance": "round_robin", "idle_timeout_ms": 600_000},
                    [s.address for s in services])
    assert who(rig, 4) == {"a": 2, "b": 2}
    assert [len(s.open) for s in services] == [1, 1]
    del rig.config["services"]["s"]["endpoints"][0]
    rig.reload()
    wait_until(lambda: not services[0].open, "the one that left has no connection", 10)
    assert who(rig, 2) == {"b": 2}
    assert services[1].connections == 1, "the other one's was kept"


def test_idle_time_and_number_are_bounded(scripted, start_rig):
    gate = Gate()
    service = scripted(gate)
    rig = start_rig({"idle_timeout_ms": 1500, "max_idle_connections": 1}, [service.address])
    threads, answers = in_threads(3, lambda: rig.ask("GET", "/s/x"))
    wait_until(lambda: len(service.heads) == 3, "three at once", 10)
    gate.opened.set()
    for thread in threads:
        thread.join()
    assert [a.status for a in answers] == [200] * 3
    wait_until(lambda: len(service.open) == 1, "one is kept", 10)
    wait_until(lambda: not service.open, "its time is over", 10)


def test_other_tls_policy_takes_other_connections(scripted, start_rig):
    """What was made without TLS must not carry what shall go by TLS."""
    service = scripted(named("plain"))
    rig = start_rig({"retries": 0}, [service.address])
    assert who(rig, 1) == {"plain": 1}
    rig.config["services"]["s"]["tls"] = {"verify": False}
    rig.reload()
    wait_until(lambda: not service.open, "the plain one is closed", 10)
    assert_problem(rig.ask("GET", "/s/x"), 504)  # it waits for the end of a head
    assert len(service.heads) == 1, "nothing more came in clear"

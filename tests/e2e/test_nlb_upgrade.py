# SPDX-License-Identifier: Apache-2.0
"""nlbd stops, dies, is restarted and upgraded under traffic: no packet is lost, no connection breaks."""

import contextlib
import json
import signal
import socket
import threading
import time

import pytest

from nlb_rig import CLIENTS, VIP
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")

UDP_PORT = 5000
PINS = "/sys/fs/bpf/gatehouse/eth0"


class Counter(threading.Thread):
    """Takes numbered datagrams on a gateway."""

    def __init__(self, host):
        super().__init__(daemon=True)
        with host.inside():
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.sock.bind((VIP, UDP_PORT))
        self.sock.settimeout(0.2)
        self.stopped = False
        self.seen = set()

    def run(self):
        while not self.stopped:
            with contextlib.suppress(TimeoutError):
                while True:
                    self.seen.add(int(self.sock.recv(100)))


class Sender(threading.Thread):
    """Sends numbered datagrams to the VIP, from several ports, one a millisecond or so."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.socks = []
        for i in range(16):
            with client.inside():
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((CLIENTS[i % len(CLIENTS)], 0))
            self.socks.append(sock)
        self.stopped = False
        self.sent = 0

    def run(self):
        while not self.stopped:
            self.socks[self.sent % 16].sendto(str(self.sent).encode(), (VIP, UDP_PORT))
            self.sent += 1
            time.sleep(0.001)


class Echoes(threading.Thread):
    """Connections that all keep exchanging data."""

    def __init__(self, chain, count):
        super().__init__(daemon=True)
        self.talks = [chain.connect(CLIENTS[i % len(CLIENTS)]) for i in range(count)]
        self.stopped = False
        self.rounds = 0
        self.broken = []

    def run(self):
        while not self.stopped and not self.broken:
            for i, talk in enumerate(self.talks):
                try:
                    if not talk.echoes(f"{i} {self.rounds}".encode()):
                        self.broken.append(f"connection {i} ended")
                except OSError as error:
                    self.broken.append(f"connection {i}: {error}")
            self.rounds += 1


class Traffic:
    """All of it at once; afterwards, what became of it."""

    def __init__(self, chain):
        self.counters = [Counter(host) for host in chain.gateways.values()]
        self.sender = Sender(chain.client)
        self.echoes = Echoes(chain, 24)

    def __enter__(self):
        for thread in (*self.counters, self.sender, self.echoes):
            thread.start()
        self.some()
        return self

    def some(self):
        """Waits until some more has been exchanged."""
        sent, rounds = self.sender.sent, self.echoes.rounds
        wait_until(
            lambda: self.echoes.broken or (self.sender.sent > sent + 200 and self.echoes.rounds > rounds + 3),
            "traffic", 20.0,
        )

    def lost(self):
        return self.sender.sent - len(set().union(*(c.seen for c in self.counters)))

    def __exit__(self, *_):
        self.sender.stopped = self.echoes.stopped = True
        self.sender.join()
        self.echoes.join()
        with contextlib.suppress(Exception):
            wait_until(lambda: self.lost() == 0, "the last datagrams", 3.0)
        for counter in self.counters:
            counter.stopped = True
            counter.join()
        for talk in self.echoes.talks:
            talk.close()


def mixed_config(chain, **changes):
    document = chain.config()
    document.update(changes)
    document["vips"].append(
        {**document["vips"][0], "name": "game", "port": UDP_PORT, "protocol": "udp"}
    )
    chain.config_path = chain.lab.write_json(document, "nlb.json")


@pytest.fixture
def chain(make_chain):
    chain = make_chain(gateways=3)
    mixed_config(chain)
    chain.start_nlbd()
    wait_settled(chain)
    return chain


def wait_settled(chain):
    def all_up():
        gateways = json.loads(chain.nlbctl("gateways"))
        return len(gateways) == 6 and all(g["state"] == "up" for g in gateways)

    wait_until(all_up, "all gateways up", 10.0, chain.nlbd)


def attached(chain):
    """The attached program: its number, and the fingerprint of its instructions."""
    number = json.loads(chain.nlb.run("bpftool", "-j", "net"))[0]["xdp"][0]["id"]
    return number, json.loads(chain.nlb.run("bpftool", "-j", "prog", "show", "id", number))["tag"]


def map_id(chain, name):
    return json.loads(chain.nlb.run("bpftool", "-j", "map", "show", "pinned", f"{PINS}/{name}"))["id"]


def verdict(traffic):
    assert traffic.echoes.broken == []
    assert traffic.echoes.rounds > 10 and traffic.sender.sent > 500
    assert traffic.lost() == 0, f"of {traffic.sender.sent}"


def test_restarts_and_kills_lose_nothing(chain):
    numbers = [attached(chain)[0]]
    with Traffic(chain) as traffic:
        for end in ("stop", "kill", "stop", "kill"):
            getattr(chain.nlbd, end)()
            traffic.some()
            chain.start_nlbd()
            traffic.some()
            wait_settled(chain)
            numbers.append(attached(chain)[0])
        chain.nlbctl("reload")
        traffic.some()
    assert len(set(numbers)) == 5, "each put a program of its own in place"
    verdict(traffic)


def test_another_version_of_the_program_takes_over_in_place(chain):
    versions = [attached(chain)]
    counted = sum(g["packets"] for g in chain.states().values())
    with Traffic(chain) as traffic:
        rings, flows = map_id(chain, "rings"), map_id(chain, "flows")
        for program in ("tests/next/nlbd", "nlbd"):
            chain.nlbd.signal(signal.SIGUSR2)
            chain.nlbd.stopped_on_purpose = True
            chain.nlbd.popen.wait(10)
            chain.start_nlbd(program)
            traffic.some()
            versions.append(attached(chain))
        assert (map_id(chain, "rings"), map_id(chain, "flows")) == (rings, flows)
        wait_settled(chain)
    verdict(traffic)
    (_, first), (_, other), (_, again) = versions
    assert first == again and other != first, "other instructions, and back"
    assert "made anew" not in chain.nlbd.log()
    assert sum(g["packets"] for g in chain.states().values()) > counted, "counters live on"


def remake(chain, name, **shape):
    """As if that map had been made by another version: another shape, in the place of the pin."""
    chain.nlb.run("rm", f"{PINS}/{name}")
    shape = {"type": "array", "key": 4, "value": 8, "entries": 1, **shape}
    chain.nlb.run(
        *("bpftool", "map", "create", f"{PINS}/{name}", "type", shape["type"], "key", shape["key"]),
        *("value", shape["value"], "entries", shape["entries"], "name", name),
    )


CHANGES = {
    "another_shape": lambda chain: remake(chain, "gateways", value=128, entries=16),
    "no_layout": lambda chain: chain.nlb.run("rm", f"{PINS}/layout"),
    "layout_of_another_version": lambda chain: remake(chain, "layout"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_maps_of_another_layout_are_filled_before_they_count(chain, change):
    """The former program goes on with the former maps until the first checks are in."""
    chain.nlb.run(chain.program("nlbctl"), "-s", chain.lab.path("run", "nlb.sock"), "block", "192.0.2.0/24")
    with Traffic(chain) as traffic:
        chain.nlbd.stop()
        before = attached(chain)[0]
        CHANGES[change](chain)
        chain.start_nlbd()
        chain.nlbd.wait_log("the new program has taken over")
        traffic.some()
        assert attached(chain)[0] != before
        wait_settled(chain)
    verdict(traffic)
    log = chain.nlbd.log()
    assert "map gateways has another size or layout now and starts empty" in log
    assert "map rings has another size or layout now and starts empty" in log
    assert "map blocked has" not in log, "it means the same whatever the others say"
    assert [b["cidr"] for b in json.loads(chain.nlbctl("blocked"))] == ["192.0.2.0/24"]

    # The next one finds everything as it should be.
    chain.nlbd.stop()
    chain.start_nlbd()
    wait_settled(chain)
    assert "another size or layout" not in chain.nlbd.log()
    assert not [name for name in chain.nlb.run("ls", PINS).split() if name.endswith("-former")]


def test_former_program_goes_on_while_nobody_answers(chain):
    """New maps without a first check must not replace old ones that work."""
    with Traffic(chain) as traffic:
        chain.nlbd.stop()
        before = attached(chain)[0]
        remake(chain, "gateways")
        document = json.load(open(chain.config_path, encoding="utf-8"))
        for vip in document["vips"]:
            del vip["gateways"]
            vip["discover"] = "nobody-knows"
        document["registry"] = {"urls": ["http://10.0.0.99:8761"]}
        chain.lab.write_json(document, "nlb.json")
        chain.start_nlbd()
        traffic.some()
        traffic.some()
        assert attached(chain)[0] == before
        # Killed in the middle of it, the next one sees that the attached program has other maps.
        chain.nlbd.kill()
        mixed_config(chain)
        chain.start_nlbd()
        chain.nlbd.wait_log("the new program has taken over")
        wait_settled(chain)
        assert attached(chain)[0] != before
        traffic.some()
    verdict(traffic)


def test_counters_of_another_size_are_taken_over(chain):
    """A version with more reasons to drop goes on counting where the former one stopped."""
    for _ in range(3):  # nothing listens there
        with pytest.raises(OSError):
            chain.client.connect(VIP, 81, 0.2)
    dropped = json.loads(chain.nlbctl("status"))["dropped"]["no_service"]
    assert dropped >= 3
    chain.nlbd.stop()
    entries = json.loads(
        chain.nlb.run("bpftool", "-j", "map", "show", "pinned", f"{PINS}/reasons")
    )["max_entries"]
    dump = json.loads(chain.nlb.run("bpftool", "-j", "map", "dump", "pinned", f"{PINS}/reasons"))
    remake(chain, "reasons", type="percpu_array", entries=entries - 2)
    for entry in dump[: entries - 2]:
        for_each_cpu = [byte for cpu in entry["values"] for byte in cpu["value"]]
        chain.nlb.run(
            *("bpftool", "map", "update", "pinned", f"{PINS}/reasons", "key", *entry["key"]),
            *("value", *for_each_cpu[:8]),
        )
    chain.start_nlbd()
    assert "map reasons has another size or layout now and takes over what was in it" in chain.nlbd.log()
    assert json.loads(chain.nlbctl("status"))["dropped"]["no_service"] >= 1


def test_flow_table_of_another_size(chain):
    with Traffic(chain) as traffic:
        chain.nlbd.stop()
        mixed_config(chain, flows_per_cpu=32768)
        chain.start_nlbd()
        traffic.some()
        wait_settled(chain)
        assert "map flows has another size" in chain.nlbd.log()
        assert "map rings has" not in chain.nlbd.log()
    verdict(traffic)


def test_another_hash_seed_is_warned_of(make_chain):
    chain = make_chain(gateways=1)
    chain.start()
    chain.nlbd.stop()
    chain.start_nlbd()
    assert "hash_seed is another" not in chain.nlbd.log()
    chain.nlbd.stop()
    chain.lab.write_json({**chain.config(), "hash_seed": "another"}, "nlb.json")
    chain.start_nlbd()
    chain.nlbd.wait_log("hash_seed is another than before")

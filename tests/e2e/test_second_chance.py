# SPDX-License-Identifier: Apache-2.0
"""Connections whose packets come to a gateway that does not know them: sent on, not broken."""

import json
import signal
import socket
import struct

import pytest

import lab as lab_module
from nlb_rig import CLIENTS, NLB, NLBS, POOL, VIP, Chain
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")

CONNECTIONS = 60


class SecondNlb:
    """Another NLB with the same seed, which has seen none of the connections."""

    def __init__(self, chain, names):
        self.chain = chain
        self.host = chain.lab.add_host("nlb2", NLBS[1], transmits_from_xdp=True)
        self.socket = chain.lab.path("run", "nlb2.sock")
        path = self._write(names)
        self.nlbd = self.host.start("nlbd-2", [chain.program("nlbd"), "-c", path])
        self.wait_up(names)

    def _write(self, names):
        config = self.chain.config(names)
        config["admin"]["socket"] = self.socket
        return self.chain.lab.write_json(config, "nlb2.json")

    def change(self, names):
        """Another pool, as the configuration of both NLBs would say at the same time."""
        self._write(names)
        self.nlbd.signal(signal.SIGHUP)
        self.wait_up(names)

    def wait_up(self, names):
        wait_until(lambda: self.up() == sorted(names), f"{names} up", 10.0, self.nlbd)

    def up(self):
        nlbctl = self.chain.program("nlbctl")
        try:
            text = self.host.run(nlbctl, "-s", self.socket, "--json", "gateways")
        except lab_module.LabError:
            return []
        return sorted(g["name"] for g in json.loads(text) if g["state"] == "up")


@pytest.fixture
def make_chain(build):
    with lab_module.Lab(build) as lab:
        yield lambda **options: Chain(lab, **options)


def start_with(chain, names):
    """The first NLB, which knows these gateways only."""
    chain.config_path = chain.write_config(names)
    chain.start_nlbd()
    chain.wait_up(len(names))


def open_connections(chain):
    talks = [chain.connect(CLIENTS[i % len(CLIENTS)]) for i in range(CONNECTIONS)]
    assert all(talk.echoes() for talk in talks)
    return talks


def survivors(talks):
    """Which connections still echo."""
    alive = []
    for talk in talks:
        try:
            if talk.echoes(b"still here" * 100):
                alive.append(talk)
        except OSError:
            pass
    return alive


def total(chain, reason):
    return sum(chain.decap_packets(name)[reason] for name in chain.gateways)


@pytest.mark.parametrize("before,added", [(2, 1), (2, 2), (3, 1)])
def test_connections_outlive_a_change_on_an_nlb_that_never_saw_them(make_chain, before, added):
    """It knows who owned the slots, and names those: with that, none is lost."""
    chain = make_chain(gateways=before + added)
    names = list(chain.gateways)
    start_with(chain, names[:before])
    second = SecondNlb(chain, names[:before])
    talks = open_connections(chain)
    assert total(chain, "second_chance") == 0

    second.change(names)
    chain.lab.route_vip(VIP, NLBS[1])
    assert len(survivors(talks)) == CONNECTIONS
    assert_sent_on_by(chain, names[before:])
    # They end like others do, and new ones are answered where the ring says.
    for talk in talks:
        talk.close()
    assert set(names[before:]) <= set(chain.spread(80))


def test_connections_outlive_an_nlb_without_history(make_chain):
    """It guesses who owned the slots; of three gateways it names all."""
    chain = make_chain(gateways=3)
    names = list(chain.gateways)
    start_with(chain, names[:2])
    talks = open_connections(chain)
    SecondNlb(chain, names)
    chain.lab.route_vip(VIP, NLBS[1])
    assert len(survivors(talks)) == CONNECTIONS
    assert_sent_on_by(chain, names[2:])


def assert_sent_on_by(chain, new):
    """New gateways got their part of the slots; what they were sent was not theirs."""
    for name in chain.gateways:
        packets = chain.decap_packets(name)
        for bad in ("last_chance", "stranger", "malformed", "no_next_hop", "reflected"):
            assert packets[bad] == 0, (name, bad)
        if name in new:
            assert packets["second_chance"] > 0, name


def test_without_second_chance_they_break(make_chain):
    """The same with a tunnel that names nobody: shows that the test above can fail."""
    chain = make_chain(gateways=3, encapsulation="ipip")
    names = list(chain.gateways)
    start_with(chain, names[:2])
    talks = open_connections(chain)
    SecondNlb(chain, names)
    chain.lab.route_vip(VIP, NLBS[1])
    alive = survivors(talks)
    assert CONNECTIONS / 3 < len(alive) < CONNECTIONS
    assert total(chain, "second_chance") == 0


def test_unknown_connection_is_refused_in_the_end(make_chain):
    """Nobody knows it: it is reset by the last gateway asked, as without any of this."""
    chain = make_chain(gateways=2)
    start_with(chain, list(chain.gateways))
    with chain.client.inside():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with raw:
        raw.bind((CLIENTS[0], 0))
        raw.settimeout(5.0)
        raw.sendto(tcp_ack(CLIENTS[0], VIP, 40000, 443), (VIP, 0))
        answer = raw.recv(2048)[20:]
    assert struct.unpack("!HH", answer[:4]) == (443, 40000) and answer[13] & 4, "RST"
    assert total(chain, "second_chance") == 1 and total(chain, "last_chance") == 1


def tcp_ack(source, destination, source_port, port):
    """A segment of a connection that does not exist."""
    segment = struct.pack("!HHIIBBHHH", source_port, port, 1, 1, 0x50, 0x10, 64240, 0, 0)
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    words = struct.unpack("!16H", ends + struct.pack("!HH", 6, 20) + segment)
    total_sum = sum(words)
    total_sum = (total_sum & 0xFFFF) + (total_sum >> 16)
    return segment[:16] + struct.pack("!H", ~total_sum & 0xFFFF) + segment[18:]


def put_in_container(chain, name):
    """Moves what serves the VIP into a network namespace behind the gateway's host."""
    host = chain.gateways[name]
    host.ip("address", "del", f"{VIP}/32", "dev", "lo")
    inner = chain.lab.add_container(f"{name}c", host, vips=[VIP])
    chain.gateways[inner.name] = inner
    chain.set_health(inner.name, 200)
    chain.start_echo(inner.name)
    del chain.gateways[inner.name]
    return inner


def test_sockets_in_another_namespace(make_chain):
    """A gateway in a container: its connections are its own only if decap looks there."""
    chain = make_chain(gateways=2)
    inner = put_in_container(chain, "gw1")
    host, nlbctl = chain.gateways["gw1"], chain.program("nlbctl")
    words = ["decap", "attach", "eth0", "--vip", VIP]
    words += [word for address in (*NLBS, *POOL) for word in ("--source", address)]
    host.run(nlbctl, *words, "--netns", inner.netns)
    start_with(chain, list(chain.gateways))
    talks = open_connections(chain)
    assert {talk.gateway for talk in talks} == {"gw1c", "gw2"}
    SecondNlb(chain, list(chain.gateways))  # without flows it names the others for all of them
    chain.lab.route_vip(VIP, NLBS[1])
    assert len(survivors(talks)) == CONNECTIONS
    assert total(chain, "second_chance") == 0 and total(chain, "last_chance") == 0
    status = host.run(nlbctl, "decap", "status", "eth0")
    assert "sockets" in status and "second chance" not in status

    host.run(nlbctl, *words)  # in the wrong place now
    assert len(survivors(talks)) == sum(talk.gateway == "gw2" for talk in talks)
    assert total(chain, "second_chance") > 0


def test_namespace_that_is_not_there(make_chain):
    chain = make_chain(gateways=1)
    words = [chain.program("nlbctl"), "decap", "attach", "eth0", "--source", NLB]
    with pytest.raises(lab_module.LabError, match="network namespace nosuch.*ip netns list"):
        chain.gateways["gw1"].run(*words, "--netns", "nosuch")


def managed(chain, name):
    lines = chain.gateways[name].ip("neigh").splitlines()
    return sorted(line.split()[0] for line in lines if " managed " in f"{line} ")


def test_neighbours_are_kept_while_attached(make_chain):
    chain = make_chain(gateways=2)
    host = chain.gateways["gw1"]
    nlbctl = chain.program("nlbctl")
    assert "10.0.0.12" in managed(chain, "gw1") and NLB in managed(chain, "gw1")
    wait_until(
        lambda: "lladdr" in host.ip("neigh", "show", "10.0.0.12"), "10.0.0.12 resolved", 5.0
    )
    host.run(nlbctl, "decap", "attach", "eth0", "--source", NLB, "--source", "10.0.0.0/24")
    assert managed(chain, "gw1") == [NLB]
    host.run(nlbctl, "decap", "detach", "eth0")
    assert managed(chain, "gw1") == []


def test_status_says_when_routes_are_not_answered(make_chain):
    chain = make_chain(gateways=1)
    host = chain.gateways["gw1"]
    nlbctl = chain.program("nlbctl")
    status = json.loads(host.run(nlbctl, "--json", "decap", "status", "eth0"))
    assert status["routes"] == {"ipv4": True, "ipv6": True}
    assert "warning" not in host.run(nlbctl, "decap", "status", "eth0")
    host.sysctl("net.ipv4.conf.lo.forwarding", 0)
    assert "net.ipv4.conf.lo.forwarding=1" in host.run(nlbctl, "decap", "status", "eth0")
    chain.attach_decap("gw1")
    assert "warning" not in host.run(nlbctl, "decap", "status", "eth0")


def test_virtual_ips_of_both_families_are_found(make_chain):
    chain = make_chain(gateways=1)
    host = chain.gateways["gw1"]
    nlbctl = chain.program("nlbctl")
    host.ip("address", "add", "2001:db8:1::10/128", "dev", "lo")
    words = ["--source", "2001:db8::2", "--source", "2001:db8:5::/48"]
    host.run(nlbctl, "decap", "attach", "eth0", *words)
    status = json.loads(host.run(nlbctl, "--json", "decap", "status", "eth0"))
    assert sorted(status["vips"]) == ["2001:db8:1::10", VIP]
    assert sorted(status["sources"]) == ["2001:db8:5::/48", "2001:db8::2"]

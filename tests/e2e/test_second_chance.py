# SPDX-License-Identifier: Apache-2.0
"""Connections whose packets come to a gateway that does not know them: sent on, not broken."""

import json
import socket
import struct

import pytest

import lab as lab_module
from nlb_rig import CLIENTS, NLB, NLBS, VIP, Chain
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")

CONNECTIONS = 60


class SecondNlb:
    """Another NLB with the same seed, which has seen none of the connections."""

    def __init__(self, chain, names):
        lab = chain.lab
        self.host = lab.add_host("nlb2", NLBS[1], transmits_from_xdp=True)
        self.socket = lab.path("run", "nlb2.sock")
        self.nlbctl = chain.program("nlbctl")
        config = chain.config(names)
        config["admin"]["socket"] = self.socket
        path = lab.write_json(config, "nlb2.json")
        self.nlbd = self.host.start("nlbd-2", [chain.program("nlbd"), "-c", path])
        wait_until(lambda: self.up() == sorted(names), f"{names} up", 10.0, self.nlbd)

    def up(self):
        try:
            text = self.host.run(self.nlbctl, "-s", self.socket, "--json", "gateways")
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
    chain = make_chain(gateways=before + added)
    names = list(chain.gateways)
    start_with(chain, names[:before])
    talks = open_connections(chain)
    assert total(chain, "second_chance") == 0

    SecondNlb(chain, names)
    chain.lab.route_vip(VIP, NLBS[1])
    assert len(survivors(talks)) == CONNECTIONS
    asked = {name: chain.decap_packets(name) for name in names}
    new = names[before:]
    # The ring gave the new ones their part of the slots; what they were sent was not theirs.
    for name in new:
        assert asked[name]["second_chance"] > 0 and asked[name]["last_chance"] == 0
    for name in names:
        for bad in ("stranger", "malformed", "no_next_hop", "reflected"):
            assert asked[name][bad] == 0, (name, bad)
    # They end like others do, and new ones are answered where the ring says.
    for talk in talks:
        talk.close()
    assert set(new) <= set(chain.spread(80))


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

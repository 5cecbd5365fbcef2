# SPDX-License-Identifier: Apache-2.0
"""Floods at full speed while 500 connections go on: none of them breaks, and counters tell of it."""

import os

import pytest

from nlb_rig import HEALTH, VIP, Clients
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")

CONNECTIONS = 500
SOURCES = "198.18.0.0/15"
PORT = "443"


class Attacker:
    """A host beside the clients, whose packets are handled by the CPU that handles theirs."""

    def __init__(self, chain):
        self.host = chain.lab.add_client("attacker", ["198.51.100.200"])
        self.flood = os.path.join(chain.lab.build, "tests", "flood")
        switch = chain.lab.switch
        # The sources are nobody: what is answered to them ends at the router.
        switch.ip("route", "add", "blackhole", SOURCES)
        link = switch.ip("-o", "link", "show", self.host.port)
        self.next_hop = link.partition("link/ether ")[2].split()[0]

    def send(self, kind, count):
        words = [self.flood, "eth0", self.next_hop, VIP, PORT, kind, str(count), "0"]
        sent, took_s = self.host.run(*words).split()
        print(f"{kind}: {sent} packets, {int(sent) / float(took_s) / 1000:.0f} k/s")
        return int(sent)


def start(chain, **more):
    config = chain.config()
    config.update(more)
    udp = {**config["vips"][0], "name": "udp", "protocol": "udp", "encapsulation": "ipip"}
    config["vips"].append(udp)
    chain.lab.write_json(config, "nlb.json")
    if chain.nlbd:
        chain.nlbctl("reload")
    else:
        chain.start_nlbd()
    chain.wait_up(2 * len(chain.gateways))


def sums(chain, key):
    return {
        vip: sum(g[key] for g in chain.gateway_rows() if g["vip"] == vip) for vip in ("rider", "udp")
    }


@pytest.mark.limit(240)
def test_no_connection_breaks_in_a_flood(make_chain):
    # IPIP has no second chance: a connection whose slot has moved lives by the flow table alone.
    # Checks are patient: sender, balancer and gateways share two processors here.
    patient = {**HEALTH, "interval_ms": 1000, "timeout_ms": 1000, "rise": 1, "fall": 10}
    chain = make_chain(gateways=3, encapsulation="ipip", health=patient)
    start(chain)
    attacker = Attacker(chain)
    with Clients(chain, CONNECTIONS, 0.5) as clients:
        assert clients.wait_open()["open"] == CONNECTIONS
        chain.add_gateway(4)
        start(chain, new_flows_per_cpu_s=1000, icmp_per_cpu_s=1000)
        hits = sums(chain, "flow_hits")["rider"]
        assert clients.keep_talking()["broken"] == 0
        moved = sums(chain, "flow_hits")["rider"] - hits
        assert moved > CONNECTIONS / 10, "some connections need the flow table"

        def flood(kind, count):
            sent = attacker.send(kind, count)
            assert sent > count / 10, "a flood that is worth the name"
            report = clients.keep_talking()
            assert report["broken"] == 0 and report["open"] == CONNECTIONS, (kind, report)
            return sent

        def wait_counted(what, count, sent):
            """Of what was sent a part is lost in queues on the way when the machine is busy."""
            wait_until(lambda: count() >= sent * 0.4, f"{what}: most of {sent} counted", 10.0)
            print(f"{what}: {count()} of {sent} counted")

        sent = flood("syn", 400000)
        wait_counted("syn", lambda: sums(chain, "connections")["rider"], sent)
        unrecorded = sums(chain, "unrecorded")["rider"]
        assert unrecorded > sent * 0.4, "the guard kept them out of the table"

        sent = flood("udp", 200000)
        wait_counted("udp", lambda: sums(chain, "connections")["udp"], sent)
        assert sums(chain, "unrecorded")["udp"] > sent * 0.4

        before = chain.dropped("fragment")
        sent = flood("fragment", 100000)
        wait_counted("fragment", lambda: chain.dropped("fragment") - before, sent)
        # First ones push out nothing but other fragments.
        flood("first", 100000)

        before = chain.dropped("icmp_rate")
        sent = flood("echo", 100000)
        wait_counted("echo", lambda: chain.dropped("icmp_rate") - before, sent)

        # And whoever is no flood is served, new ones too.
        assert sum(chain.spread(20).values()) == 20
        assert clients.now()["broken"] == 0

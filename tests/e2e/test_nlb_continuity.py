# SPDX-License-Identifier: Apache-2.0
"""No connection breaks while gateways, balancers and their programs change; counted by the clients.

Two thousand connections keep exchanging data through two load balancers and up to four gateways
while everything that an operator does is done, one thing after the other.
"""

import contextlib
import json
import os

import pytest

import lab as lab_module
from nlb_rig import NLBS, TALK_LIMIT_S, VIP, Chain, Clients
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")

CONNECTIONS = 2000


class Balancer:
    """One of the two NLBs: its host, nlbd, and what they are told."""

    def __init__(self, chain, number):
        self.chain = chain
        self.name = f"nlb{number + 1}"
        self.address = NLBS[number]
        self.socket = chain.lab.path("run", f"{self.name}.sock")
        if number == 0:
            self.host = chain.nlb
        else:
            self.host = chain.lab.add_host(self.name, self.address, transmits_from_xdp=True)
        self.starts = 0
        self.nlbd = None

    def configure(self, names, weights):
        config = self.chain.config(names)
        config["admin"]["socket"] = self.socket
        for gateway in config["vips"][0]["gateways"]:
            gateway["weight"] = weights.get(gateway["name"], 1)
        self.path = self.chain.lab.write_json(config, f"{self.name}.json")

    def start(self):
        self.starts += 1
        argv = [self.chain.program("nlbd"), "-c", self.path, "--log-level", "debug"]
        self.nlbd = self.host.start(f"{self.name}-{self.starts}", argv)
        self.nlbd.wait_log(r"forwarding \d+ VIPs")

    def stop(self, by):
        getattr(self.nlbd, by)()

    def nlbctl(self, *words):
        text = self.host.run(
            self.chain.program("nlbctl"), "-s", self.socket, "--json", *words
        )
        return json.loads(text)

    def gateways(self):
        with contextlib.suppress(lab_module.LabError):
            return {g["name"]: g for g in self.nlbctl("gateways")}
        return {}

    def wait_gateways(self, states):
        """Until it has exactly these gateways in these states."""
        wait_until(
            lambda: {n: g["state"] for n, g in self.gateways().items()} == states,
            f"{self.name}: {states}",
            10.0,
            self.nlbd,
        )

    def program_id(self):
        return json.loads(self.host.run("bpftool", "-j", "net"))[0]["xdp"][0]["id"]


def wipe_flows(balancer):
    """Throws the flow table away: nlbd makes a new one when it finds none."""
    balancer.stop("stop")
    flows = os.path.join(balancer.host.bpffs, "gatehouse", "eth0", "flows")
    assert os.path.exists(flows)
    os.unlink(flows)
    balancer.start()
    assert os.path.exists(flows)


@pytest.mark.limit(400)
def test_no_connection_breaks_whatever_is_changed(make_chain):
    chain: Chain = make_chain(gateways=3)
    both = one, two = Balancer(chain, 0), Balancer(chain, 1)
    up = {f"gw{n}": "up" for n in (1, 2, 3)}
    for balancer in both:
        balancer.configure(list(up), {})
        balancer.start()
    for balancer in both:
        balancer.wait_gateways(up)

    with Clients(chain, CONNECTIONS) as clients:

        def all_is_well(what):
            report = clients.keep_talking()
            assert report["broken"] == 0, (what, report)

        def change(weights=None):
            """What is told to one balancer is told to the other, as by automation or registry."""
            for balancer in both:
                balancer.configure(list(up), weights or {})
                balancer.nlbctl("reload")
            for balancer in both:
                balancer.wait_gateways(up)

        report = clients.wait_open()
        assert report["open"] == CONNECTIONS and set(report["gateways"]) == set(up)
        all_is_well("the beginning")

        chain.add_gateway(4)
        up["gw4"] = "up"
        change()
        all_is_well("a gateway added")

        for balancer in both:
            balancer.nlbctl("drain", "rider", "gw1")
            balancer.wait_gateways({**up, "gw1": "draining"})
        all_is_well("a gateway draining")
        # Whoever drains ends its connections when nothing is under way, and then leaves.
        clients.tell("close gw1")
        wait_until(lambda: "gw1" not in clients.now()["gateways"], "gw1 has no connections")
        del up["gw1"]
        change()
        all_is_well("the drained gateway removed")

        change({"gw2": 3, "gw4": 2})
        assert one.gateways()["gw2"]["slots"] > one.gateways()["gw3"]["slots"] * 2.9
        all_is_well("weights changed")

        before = one.program_id()
        one.stop("stop")
        all_is_well("nlbd stopped")
        one.start()
        one.wait_gateways(up)
        assert one.program_id() != before
        all_is_well("nlbd back, its program replaced in place")

        one.stop("kill")
        all_is_well("nlbd killed")
        one.start()
        one.wait_gateways(up)
        all_is_well("nlbd back after SIGKILL")

        wipe_flows(one)
        one.wait_gateways(up)
        all_is_well("the flow table wiped")

        # The other balancer has seen none of these connections, and the pool changes while all of
        # their packets go there from one moment to the next.
        assert sum(g["packets"] for g in two.gateways().values()) == 0
        up["gw1"] = "up"
        for balancer in both:
            balancer.configure(list(up), {"gw2": 1, "gw4": 2})
        two.nlbctl("reload")
        chain.lab.route_vip(VIP, two.address)
        one.nlbctl("reload")
        two.wait_gateways(up)
        all_is_well("all traffic at an NLB that never saw it, while the pool changes")
        assert sum(g["packets"] for g in two.gateways().values()) > CONNECTIONS

        chain.lab.route_vip(VIP, *NLBS)
        all_is_well("both share the traffic")
        two.configure(list(up), {})
        two.nlbctl("reload")
        all_is_well("they share it, of different minds about the weights")
        chain.lab.route_vip(VIP, one.address)
        all_is_well("back again")

        report = clients.now()
        its_own = report["gateways"]["gw3"]
        assert its_own > CONNECTIONS / 10
        chain.echoes.pop("gw3").kill()
        wait_until(
            lambda: clients.now()["broken_by"] == {"gw3": its_own}, "those of the dead one break"
        )
        one.wait_gateways({**up, "gw3": "down"})
        goal = clients.now()["least"] + 3
        wait_until(lambda: clients.now()["least"] >= goal, "the others go on", TALK_LIMIT_S)
        report = clients.now()
        assert report["broken_by"] == {"gw3": its_own}, report
        assert report["open"] == CONNECTIONS - report["closed"] - its_own

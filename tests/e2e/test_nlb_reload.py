# SPDX-License-Identifier: Apache-2.0
"""Reload while packets come: no packet is lost, and a bad file changes nothing."""

import json
import signal
import threading

import pytest

import lab as lab_module
from nlb_rig import CLIENTS, HEALTH, Pinned
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")


def retransmitted(chain):
    """TCP segments that the client's kernel had to send again."""
    lines = chain.client.run("cat", "/proc/net/snmp").splitlines()
    names, values = [line.split() for line in lines if line.startswith("Tcp:")]
    return int(dict(zip(names, values))["RetransSegs"])


class Traffic:
    """Connections that exchange lines all the time, in a thread of their own."""

    def __init__(self, chain, count):
        self.talks = [chain.connect(CLIENTS[i % len(CLIENTS)]) for i in range(count)]
        self.rounds = 0
        self.failures = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stopping.is_set():
            for talk in self.talks:
                try:
                    if not talk.echoes():
                        self.failures.append(f"{talk.gateway}: closed")
                except OSError as error:
                    self.failures.append(f"{talk.gateway}: {error}")
            self.rounds += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        for talk in self.talks:
            talk.close()


def changes(chain):
    """Everything that may change while nlbd runs, one after the other."""
    vip = chain.config()["vips"][0]
    weighted = [{**gateway, "weight": n + 1} for n, gateway in enumerate(vip["gateways"])]
    other = {**vip, "name": "other", "address": "203.0.113.99", "protocol": "udp", "port": 0}
    other["health"] = None
    yield "weights", {"gateways": weighted}, {}
    yield "order", {"gateways": weighted[::-1]}, {}
    yield "allow", {"allow": ["198.51.100.0/24"]}, {}
    yield "rate", {"new_connections_per_source": {"per_s": 1000, "burst": 5000}}, {}
    yield "slow start", {"slow_start_s": 5}, {}
    yield "encapsulation", {"encapsulation": "ipip"}, {}
    yield "health", {"health": {**vip["health"], "interval_ms": 200, "rise": 3}}, {}
    yield "no health", {"health": None}, {}
    yield "name", {"name": "driver"}, {}
    yield "another VIP", {}, {"more": [other]}
    yield "limits", {}, {"udp_timeout_s": 5, "icmp_per_cpu_s": 1, "new_flows_per_cpu_s": 100000}
    yield "settle time", {}, {"settle_s": 600}
    yield "source", {}, {"source_address": {"ipv4": chain.nlb.address}}
    yield "as it was", {}, {}


def test_reload_loses_no_packet(make_chain):
    chain = make_chain(gateways=3)
    chain.start()
    with Traffic(chain, 20) as traffic:
        before = retransmitted(chain)
        for what, of_vip, of_root in changes(chain):
            config = {**chain.config(**of_vip), **of_root}
            config["vips"] += config.pop("more", [])
            chain.lab.write_json(config, "nlb.json")
            rounds = traffic.rounds
            assert json.loads(chain.nlbctl("reload")) == {"reloaded": True}, what
            while traffic.rounds < rounds + 2 and not traffic.failures:
                pass
            assert not traffic.failures, (what, traffic.failures)
            assert retransmitted(chain) == before, what
    assert sum(json.loads(chain.nlbctl("status"))["dropped"].values()) == 0


def test_bad_file_changes_nothing_at_all(make_chain):
    chain = make_chain(gateways=2)
    chain.start()
    pinned = Pinned(chain)
    maps = ("config", "vips4", "vips6", "allowed", "gateways")
    before = {name: pinned.dump(name) for name in maps}
    good = chain.config()
    vip = good["vips"][0]
    mistakes = {
        "vips[0].gateways[1].weight": {"vips": [{**vip, "gateways": [
            vip["gateways"][0], {**vip["gateways"][1], "weight": -1}]}]},
        "vips[0].allow[0]": {"vips": [{**vip, "allow": ["everybody"]}]},
        "interface": {"interface": "eth1"},
        "interfaces": {"interfaces": ["eth1"]},
        "hash_seed": {"hash_seed": "another"},
        "flows_per_cpu": {"flows_per_cpu": 4096},
        "vips[1]": {"vips": [vip, {**vip, "name": "twin"}]},
    }
    for path, change in mistakes.items():
        # With a change that is good in itself, and must not come through.
        config = {"udp_timeout_s": 7, **good, **change}
        chain.lab.write_json(config, "nlb.json")
        with pytest.raises(lab_module.LabError) as caught:
            chain.nlbctl("reload")
        assert f"nlb.json: {path}" in str(caught.value), path
        assert {name: pinned.dump(name) for name in maps} == before, path
    chain.nlbd.signal(signal.SIGHUP)
    chain.nlbd.wait_log("was not reloaded; the former one stays in force")
    assert set(chain.spread(20)) == {"gw1", "gw2"}


def test_reload_that_cannot_be_done_changes_nothing(make_chain):
    """The file is good, but what it wants is not to be had: found out before the first change."""
    chain = make_chain(gateways=1, health={**HEALTH, "tunnel": False, "rise": 1, "fall": 1})
    config = chain.config()
    rider = config["vips"][0]
    config["vips"] += [{**rider, "name": name, "port": port} for name, port in (("b", 444), ("c", 445))]
    path = chain.lab.write_json(config, "nlb.json")
    rights = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]
    chain.nlbd = chain.nlb.start("nlbd", [*rights, chain.program("nlbd"), "-c", path])
    chain.nlbd.wait_log(r"forwarding 3 VIPs")
    wait_until(lambda: {g["state"] for g in chain.gateway_rows()} == {"up"}, "all up")

    def vips():
        return [(v["name"], v["port"]) for v in json.loads(chain.nlbctl("vips"))]

    before = vips()
    assert len(before) == 3
    checked = {**rider, "name": "new", "health": {**rider["health"], "tunnel": True}}
    chain.lab.write_json({**config, "vips": [checked, {**config["vips"][2], "name": "d"}]}, "nlb.json")
    for _ in range(3):
        with pytest.raises(lab_module.LabError, match="need CAP_NET_RAW"):
            chain.nlbctl("reload")
        assert vips() == before
    with chain.connect() as talk:
        assert talk.echoes()

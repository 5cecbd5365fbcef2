# SPDX-License-Identifier: Apache-2.0
"""Pools from the registry: both address families, weights, and starts while no registry answers."""

import json
import os

import pytest

from nlb_rig import VIP
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")

REGISTRY = "10.0.0.9"


class Registry:
    """A registryd on a host of its own."""

    def __init__(self, chain, curl=(), **more):
        self.chain = chain
        self.curl = curl
        self.url = f"{'https' if 'tls' in more else 'http'}://{REGISTRY}:8761"
        self.host = chain.lab.add_host("registry", REGISTRY)
        snapshot = chain.lab.path("registry", "snapshot")
        config = {"bind": f"{REGISTRY}:8761", "store": {"type": "memory", "snapshot": snapshot},
                  **more}
        path = chain.lab.write_json(config, "registry.json")
        self.proc = self.host.start("registryd", [chain.program("registryd"), "-c", path])
        self.host.wait_port(8761, self.proc)

    def register(self, name, address, weight=100):
        instance = {"address": address, "port": 443, "weight": weight, "lease_s": 60}
        self.host.run(
            *("curl", "-sSf", "-X", "PUT", "-H", "Content-Type: application/json"),
            *("-d", json.dumps(instance), *self.curl),
            f"{self.url}/v1/apps/rider-gateway/instances/{name}",
        )


def write(chain, cache=None, **more):
    document = chain.config(discover="rider-gateway", health=None)
    del document["vips"][0]["gateways"]
    document["registry"] = {"urls": [f"http://{REGISTRY}:8761"]}
    if cache:
        document["registry"]["cache"] = cache
    document["registry"].update(more)
    chain.lab.write_json(document, "nlb.json")


def test_registry_that_wants_a_token_over_tls(make_chain, authority):
    chain = make_chain(gateways=1)
    folder = os.path.dirname(chain.lab.path("tls", "x"))
    certificate, key = authority.issue("registry", ["registry"], directory=folder,
                                       names=[f"IP:{REGISTRY}"])
    secret = "0123456789abcdef-secret"
    registry = Registry(
        chain, curl=("--cacert", authority.certificate, "-H", f"Authorization: Bearer {secret}"),
        tls={"certificates": [{"certificate": certificate, "key": key}]},
        tokens=[{"name": "nlb", "token": secret}])
    registry.register("gw1", chain.gateways["gw1"].address)
    token = chain.lab.path("tls", "token")
    with open(token, "w", encoding="ascii") as file:
        file.write("not-the-right-one-0123")
    write(chain, urls=[registry.url], token=f"$file:{token}", tls={"ca": authority.certificate})
    chain.start_nlbd()
    chain.nlbd.wait_log("registry: lost.*401")
    with open(token, "w", encoding="ascii") as file:
        file.write(secret)
    chain.nlbd.signal(1)
    chain.wait_up(1)
    assert secret not in chain.nlbd.log()
    assert set(chain.spread(5)) == {"gw1"}


def test_starts_from_the_cache_file_without_a_registry(make_chain):
    chain = make_chain(gateways=2)
    registry = Registry(chain)
    for name, host in chain.gateways.items():
        registry.register(name, host.address, weight=1000 if name == "gw1" else 250)
    cache = chain.lab.path("cache", "registry.json")
    write(chain, cache)
    chain.start_nlbd()
    chain.wait_up(2)
    slots = {name: row["slots"] for name, row in chain.states().items()}
    assert slots["gw1"] == pytest.approx(4 * slots["gw2"], rel=0.01)
    wait_until(lambda: os.path.exists(cache), "the cache file", 15.0, chain.nlbd)

    # As after a reboot: no pins, and nobody to ask.
    registry.proc.stop()
    chain.nlbd.stop()
    chain.nlb.run(chain.program("nlbctl"), "detach", "eth0")
    chain.start_nlbd()
    chain.wait_up(2)
    assert {name: row["slots"] for name, row in chain.states().items()} == slots
    assert set(chain.spread(40)) == {"gw1", "gw2"}

    # Without the file there is nothing to start from, and that is said.
    chain.nlbd.stop()
    chain.nlb.run(chain.program("nlbctl"), "detach", "eth0")
    write(chain)
    chain.start_nlbd()
    assert json.loads(chain.nlbctl("vips"))[0]["state"] == "waiting"
    assert chain.refuses()


def test_minority_of_the_other_family_is_left_out(make_chain):
    chain = make_chain(gateways=3)
    registry = Registry(chain)
    chain.nlb.ip("address", "add", "fd00::2/64", "dev", "eth0", "nodad")
    for n, host in enumerate(chain.gateways.values(), 1):
        host.ip("address", "add", f"fd00::1{n}/64", "dev", "eth0", "nodad")
        registry.register(f"gw{n}", host.address if n == 2 else f"fd00::1{n}")
    write(chain)
    chain.start_nlbd()
    chain.wait_up(2)
    assert {row["address"] for row in chain.states().values()} == {"fd00::11", "fd00::13"}
    assert "gateway=gw2: its address is IPv4, most others' is not: left out" in chain.nlbd.log()


def test_what_cannot_be_a_gateway_is_left_out(make_chain):
    chain = make_chain(gateways=2)
    registry = Registry(chain)
    # Of those that a registry takes: it refuses others by itself.
    bad = ["127.0.0.1", VIP, "::ffff:10.0.0.11", "fe80::1"]
    for n, address in enumerate(bad):
        registry.register(f"bad{n}", address)
    # The registry's word, without checks that would find them out.
    write(chain)
    chain.start_nlbd()
    chain.nlbd.wait_log("gateway=bad3: its address is no host's: left out")
    assert chain.states() == {} and chain.refuses()
    for name, host in chain.gateways.items():
        registry.register(name, host.address)
    chain.wait_up(2)
    assert set(chain.spread(20)) == {"gw1", "gw2"}
    said = chain.nlbd.log()
    assert said.count("its address is the virtual IP itself") == 1, "not with every change"
    assert said.count("its address is no host's") == len(bad) - 1

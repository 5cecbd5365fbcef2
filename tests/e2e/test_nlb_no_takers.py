# SPDX-License-Identifier: Apache-2.0
"""A VIP whose gateways take no new connections: it says so, and serves those that there are."""

import json

import pytest

from nlb_rig import CLIENTS
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")


def ready(chain):
    return chain.nlb.run(
        "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:9440/readyz"
    )


def vip(chain):
    return json.loads(chain.nlbctl("vips"))[0]


def weigh(chain, **weights):
    gateways = [
        {"name": name, "address": host.address, "weight": weights.get(name, 0)}
        for name, host in chain.gateways.items()
    ]
    chain.write_config(gateways=gateways, announce=True)


def test_weight_of_nobody(make_chain):
    chain = make_chain(gateways=2)
    weigh(chain)
    chain.start()
    assert "all have weight 0" in chain.nlbd.log()
    assert (vip(chain)["state"], vip(chain)["announced"], ready(chain)) == (
        "no_gateway",
        "withdrawn",
        "503",
    )
    assert chain.refuses()
    weigh(chain, gw2=1)
    chain.nlbctl("reload")
    assert (vip(chain)["state"], vip(chain)["announced"], ready(chain)) == ("ok", "announced", "200")
    assert set(chain.spread(4)) == {"gw2"}

    # The only one that has a weight fails: it is tried all the same, the other one is not for this.
    chain.set_health("gw2", 500)
    chain.wait_state("gw2", "down")
    assert (vip(chain)["state"], vip(chain)["announced"]) == ("panic", "withdrawn")
    assert set(chain.spread(4)) == {"gw2"}


def test_all_drain_on_a_balancer_that_did_not_see_the_connections_begin(make_chain):
    chain = make_chain(gateways=2)
    chain.start()
    talks = [chain.connect(CLIENTS[i % 4]) for i in range(24)]
    assert {talk.gateway for talk in talks} == {"gw1", "gw2"}
    chain.nlbd.stop()
    chain.nlb.run(chain.program("nlbctl"), "detach", "eth0")
    chain.start()
    for name in chain.gateways:
        chain.nlbctl("drain", "rider", name)
        chain.wait_state(name, "draining")
    assert vip(chain)["state"] == "no_gateway"
    wait_until(lambda: all(talk.echoes() for talk in talks), "all go on", 10)
    source, port = talks[0].sock.getsockname()
    told = json.loads(chain.nlbctl("trace", f"{source}:{port}", "203.0.113.10:443"))
    assert told["new"]["reason"] == "no_gateway" and told["slot"]["owner"] is None
    assert told["established"]["because"] == "earlier"
    named = [told["established"]["gateway"], *told["established"]["earlier_owners_named"]]
    assert {gateway["name"] for gateway in named} == {"gw1", "gw2"}
    assert chain.refuses()
    for talk in talks:
        talk.close()

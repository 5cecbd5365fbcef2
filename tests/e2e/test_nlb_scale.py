# SPDX-License-Identifier: Apache-2.0
"""As many VIPs and gateways as there may be. How fast that is, `make bench` and nlbd's log say."""

import json
import re

import pytest

from procs import wait_until

pytestmark = [pytest.mark.usefixtures("lab_possible"), pytest.mark.limit(180)]

VIPS, GATEWAYS = 512, 4095


def address(n):
    return f"10.64.{n >> 8}.{n & 255}"


def vip(name, number, first, count):
    return {
        "name": name,
        "address": f"203.0.113.{1 + number % 250}",
        "port": 1000 + number,
        "gateways": [{"address": address(first + i)} for i in range(count)],
    }


def prepare(chain):
    """All those gateways behind one router, so that their next hop answers."""
    chain.nlb.ip("route", "add", "10.64.0.0/16", "via", "10.0.0.11")
    chain.nlb.connect("10.0.0.11", 9443).close()


def write(chain, vips):
    chain.lab.write_json({**chain.config(), "vips": vips}, "nlb.json")


def test_pool_of_a_thousand_gateways(make_chain):
    chain = make_chain(gateways=1)
    prepare(chain)
    write(chain, [vip("big", 0, 1, 1000)])
    chain.start_nlbd()
    chain.wait_up(1000)
    slots = [row["slots"] for row in json.loads(chain.nlbctl("gateways"))]
    assert (min(slots), max(slots)) == (65, 66) and sum(slots) == 65537
    assert json.loads(chain.nlbctl("drain", "big", address(500))) == {"changed": True}
    moved = re.findall(r"1000 gateways in force after .* ms, (\d+) of", chain.nlbd.log())[-1]
    assert int(moved) in (65, 66), "its own slots and no others"


def test_as_many_vips_and_gateways_as_there_may_be(make_chain):
    chain = make_chain(gateways=1)
    prepare(chain)
    last = GATEWAYS - 8 * (VIPS - 1)
    vips = [vip(f"v{i}", i, 1 + 8 * i, 8 if i + 1 < VIPS else last) for i in range(VIPS)]
    write(chain, vips)
    chain.start_nlbd(timeout_s=120)
    chain.wait_up(GATEWAYS, timeout_s=20)
    states = {row["state"] for row in json.loads(chain.nlbctl("vips"))}
    assert states == {"ok"}
    assert re.search(r"memory: \d+ MiB in all; .* rings of 512 VIPs 256\.0 MiB", chain.nlbd.log())

    # One more does not fit, is named, and takes nothing from the others.
    vips[-1] = vip(vips[-1]["name"], VIPS - 1, 1 + 8 * (VIPS - 1), last + 1)
    write(chain, vips)
    chain.nlbctl("reload")
    wait_until(lambda: "more than 4095 gateways in all" in chain.nlbd.log(), "the refusal", 5)
    rows = json.loads(chain.nlbctl("gateways"))
    assert len(rows) == GATEWAYS and {row["state"] for row in rows} == {"up"}

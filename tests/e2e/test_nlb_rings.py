# SPDX-License-Identifier: Apache-2.0
"""Rings in the life of nlbd: equal on all NLBs, kept over restarts, changed in steps."""

import ipaddress
import json
import signal
import struct

import pytest

from nlb_rig import CLIENTS, Pinned
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")

MOVED = 0x8000


class Ring:
    """The ring of the only VIP: for each slot the addresses of owner and earlier owners, and flags."""

    def __init__(self, chain):
        pinned = Pinned(chain)
        names = {}
        for key, value in pinned.dump("gateways"):
            names[int.from_bytes(key, "little")] = str(ipaddress.ip_address(value[:4]))
        names[0] = None
        dump = json.loads(chain.nlb.run("bpftool", "-j", "map", "dump", "pinned",
                                        "/sys/fs/bpf/gatehouse/eth0/rings"))
        inner = int.from_bytes(bytes(int(b, 16) for b in dump[0]["value"]), "little")
        rows = json.loads(chain.nlb.run("bpftool", "-j", "map", "dump", "id", inner))
        self.slots = []
        for row in rows:
            value = bytes(int(b, 16) for b in row["value"])
            gateway, first, second, flags = struct.unpack("<HHHH", value)
            self.slots.append((names[gateway], names[first], names[second], flags))

    def owners(self):
        return [slot[0] for slot in self.slots]


def test_order_of_listing_makes_no_difference(make_chain, make_another):
    chain, other = make_chain(gateways=4), make_another(gateways=4)
    chain.start()
    other.write_config(["gw3", "gw1", "gw4", "gw2"])
    other.start()
    here, there = Ring(chain), Ring(other)
    # Whichever gateway was found healthy first, owners and those named next are the same.
    assert [slot[:3] for slot in here.slots] == [slot[:3] for slot in there.slots]
    assert len(set(here.owners())) == 4 and all(slot[1] and slot[2] for slot in here.slots)


def test_history_outlives_nlbd(make_chain):
    chain = make_chain(gateways=3)
    chain.start()
    first = Ring(chain)
    chain.write_config(["gw1", "gw2"])
    chain.nlbctl("reload")
    second = Ring(chain)
    for before, after in zip(first.slots, second.slots):
        if before[0] == "10.0.0.13":
            assert after[3] & MOVED and "10.0.0.13" not in after[:3], "it is gone altogether"
    chain.nlbctl("drain", "rider", "gw1")
    third = Ring(chain)
    moved = [s for s, slot in enumerate(second.slots) if slot[0] == "10.0.0.11"]
    assert len(moved) > 20000
    for s in moved:
        assert third.slots[s][:2] == ("10.0.0.12", "10.0.0.11") and third.slots[s][3] & MOVED

    # Killed, not stopped; the next one has the same ring, and builds on what it finds.
    chain.nlbd.kill()
    chain.start_nlbd()
    chain.wait_state("gw1", "draining")
    chain.wait_state("gw2", "up")
    assert Ring(chain).slots == third.slots
    chain.nlbd.kill()
    chain.write_config(["gw2", "gw3", "gw1"])
    chain.start_nlbd()
    chain.wait_state("gw3", "up")
    fourth = Ring(chain)
    for s in moved:
        owner, earlier = fourth.slots[s][0], fourth.slots[s][1:3]
        assert fourth.slots[s][3] & MOVED
        # Who had it while nlbd was away, and who had it before that.
        assert {owner, *earlier} >= {"10.0.0.11", "10.0.0.12"}


def test_new_gateway_comes_in_steps(make_chain):
    chain = make_chain(gateways=2)
    chain.write_config(slow_start_s=4)
    chain.start()
    rows = chain.states().values()
    assert all(row["share_percent"] == pytest.approx(row["slots"] * 100 / 65537) for row in rows)
    assert sum(row["share_percent"] for row in rows) == pytest.approx(100)
    # Those of the first list start at once: nobody would carry the share of the others.
    assert {row["ramp_percent"] for row in chain.states().values()} == {100}

    talks = [chain.connect(CLIENTS[i % 4]) for i in range(30)]
    chain.add_gateway(3)
    chain.write_config(slow_start_s=4)
    chain.nlbctl("reload")
    chain.wait_state("gw3", "up")
    seen = []

    def is_complete():
        row = chain.states()["gw3"]
        if not seen or seen[-1] != (row["ramp_percent"], row["slots"]):
            seen.append((row["ramp_percent"], row["slots"]))
        return row["ramp_percent"] == 100

    wait_until(is_complete, "the full share", 10)
    shares = [share for share, _ in seen]
    assert shares == sorted(shares) and shares[0] <= 20 and len(seen) >= 5, seen
    for share, slots in seen:
        part = share / (200 + share)
        assert abs(slots / 65537 - part) < 0.02 * part + 0.001, seen
    assert all(talk.echoes() for talk in talks)

    # A start of nlbd is no beginning of its gateways; to have failed is one.
    chain.nlbd.kill()
    chain.start_nlbd()
    chain.wait_up(3)
    assert {row["ramp_percent"] for row in chain.states().values()} == {100}
    chain.set_health("gw2", 503)
    chain.wait_state("gw2", "down")
    chain.set_health("gw2", 200)
    chain.wait_state("gw2", "up")
    assert chain.states()["gw2"]["ramp_percent"] < 100
    chain.write_config()  # switched off while it goes on
    chain.nlbd.signal(signal.SIGHUP)
    wait_until(lambda: chain.states()["gw2"]["ramp_percent"] == 100, "the end of the ramp", 2)
    for talk in talks:
        talk.close()

# SPDX-License-Identifier: Apache-2.0
"""Several interfaces: packets arrive on one and leave by another."""

import json
import os

import pytest

import lab as lab_module
from nlb_rig import VIP

pytestmark = pytest.mark.usefixtures("lab_possible")


def add_interface(chain):
    """eth1 on the NLB, straight to the switch's routing half: clients' packets come in there."""
    lab, nlb = chain.lab, chain.nlb
    lab.switch.ip("link", "add", "to-nlb1", "type", "veth", "peer", "name", "eth1", "netns", nlb.netns)
    lab._offloads_off(nlb, "eth1")
    lab._offloads_off(lab.switch, "to-nlb1")
    lab.switch.ip("address", "add", "10.2.0.1/24", "dev", "to-nlb1")
    nlb.ip("address", "add", "10.2.0.2/24", "dev", "eth1")
    lab.switch.ip("link", "set", "to-nlb1", "up")
    nlb.ip("link", "set", "eth1", "up")
    for host, name in ((nlb, "eth1"), (lab.switch, "to-nlb1")):
        host.sysctl(f"net.ipv4.conf.{name}.rp_filter", 0)
    lab.route_vip(VIP, "10.2.0.2")


def write(chain, **more):
    chain.lab.write_json({**chain.config(), **more}, "nlb.json")


def attached(chain):
    rows = json.loads(chain.nlb.run("bpftool", "-j", "net"))[0]["xdp"]
    return {row["devname"] for row in rows}


def pins(chain):
    return set(chain.nlb.run("ls", "/sys/fs/bpf/gatehouse/eth0").split())


def test_packets_come_in_on_one_and_leave_by_another(make_chain):
    chain = make_chain(gateways=2)
    add_interface(chain)
    write(chain, interfaces=["eth1"])
    chain.start()
    assert attached(chain) == {"eth0", "eth1"} and "link-eth1" in pins(chain)
    status = json.loads(chain.nlbctl("status"))
    assert status["interfaces"] == [{"name": "eth1", "xdp_mode": "native"}]
    assert set(chain.spread(30)) == {"gw1", "gw2"}
    talk = chain.connect()

    # Both are taken over by the next nlbd, while packets go on.
    chain.nlbd.kill()
    assert talk.echoes()
    chain.start_nlbd()
    assert talk.echoes() and attached(chain) == {"eth0", "eth1"}
    assert {row["interface"] for row in chain.states().values()} == {"eth0"}

    # The interface of the first half carries on when the second is given up.
    chain.lab.route_vip(VIP, chain.nlb.address)
    assert talk.echoes()
    chain.nlbd.stop()
    write(chain)
    chain.start_nlbd()
    assert attached(chain) == {"eth0"} and "link-eth1" not in pins(chain)
    assert talk.echoes()
    talk.close()


def test_interfaces_that_cannot_be_had(make_chain):
    chain = make_chain(gateways=1)
    add_interface(chain)
    nlbd = os.path.join(chain.lab.build, "nlbd")
    write(chain, interfaces=["eth1", "eth7"])
    with pytest.raises(lab_module.LabError, match="interface eth7 does not exist"):
        chain.nlb.run(nlbd, "-c", chain.config_path)
    assert attached(chain) == set()

    theirs = "/sys/fs/bpf/p"
    chain.nlb.run("bpftool", "prog", "load", f"{chain.lab.build}/tests/bpf/pass.bpf.o", theirs)
    chain.nlb.run("bpftool", "net", "attach", "xdpdrv", "pinned", theirs, "dev", "eth1")
    write(chain, interfaces=["eth1"])
    with pytest.raises(lab_module.LabError, match="interface eth1 has an XDP program of somebody"):
        chain.nlb.run(nlbd, "-c", chain.config_path)
    assert attached(chain) == {"eth1"} and chain.nlb.run("ls", "/sys/fs/bpf/gatehouse") == ""
    chain.nlb.run("bpftool", "net", "detach", "xdpdrv", "dev", "eth1")

    chain.start()
    chain.nlbd.stop()
    chain.nlb.run(chain.program("nlbctl"), "detach", "eth0")
    assert attached(chain) == set()

# SPDX-License-Identifier: Apache-2.0
"""Announcing: a VIP is on a local interface exactly while it can be served; routing daemons follow."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

import lab as lab_module
from nlb_rig import CLIENTS, NLB, VIP, Talk
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")

CONFIG = Path(__file__).resolve().parents[2] / "config"
OTHER = "203.0.113.77"
NLB2 = "10.0.0.3"


def on_lo(host):
    """The single addresses on lo, by address."""
    links = json.loads(host.run("ip", "-j", "address", "show", "dev", "lo"))
    return {
        address["local"]: address
        for link in links
        for address in link["addr_info"]
        if address["prefixlen"] in (32, 128) and address["local"] not in ("127.0.0.1", "::1")
    }


def wait_lo(chain, *addresses):
    wait_until(lambda: set(on_lo(chain.nlb)) == set(addresses), f"lo has {addresses}", 5.0, chain.nlbd)


def announced(chain):
    return {vip["name"]: vip["announced"] for vip in json.loads(chain.nlbctl("vips"))}


@pytest.fixture
def announcing(make_chain):
    """A chain whose VIP is announced."""
    chain = make_chain(gateways=2)
    chain.write_config(announce=True)
    return chain


def test_vip_is_there_while_a_gateway_is(announcing):
    chain = announcing
    for name in chain.gateways:
        chain.set_health(name, 500)
    chain.start_nlbd()
    for name in chain.gateways:
        chain.wait_state(name, "down")
    assert on_lo(chain.nlb) == {} and announced(chain) == {"rider": "withdrawn"}

    chain.set_health("gw1", 200)
    wait_lo(chain, VIP)
    assert announced(chain) == {"rider": "announced"}
    assert set(chain.spread(10)) == {"gw1"}, "with the VIP on its own lo the NLB forwards as before"
    chain.set_health("gw2", 200)
    chain.wait_up(2)
    assert set(chain.spread(30)) == {"gw1", "gw2"}

    for name in chain.gateways:
        chain.set_health(name, 500)
    wait_lo(chain)
    assert json.loads(chain.nlbctl("vips"))[0]["state"] == "panic"
    assert "no gateway can be used" in chain.nlbd.log()
    metrics = chain.nlb.run("curl", "-sS", "http://127.0.0.1:9440/metrics")
    assert 'gatehouse_nlb_vip_announced{vip="rider"} 0' in metrics
    chain.set_health("gw2", 200)
    wait_lo(chain, VIP)
    metrics = chain.nlb.run("curl", "-sS", "http://127.0.0.1:9440/metrics")
    assert 'gatehouse_nlb_vip_announced{vip="rider"} 1' in metrics

    # Draining gateways still have connections, which would end with the announcement.
    chain.set_health("gw1", 200)
    chain.wait_up(2)
    for name in chain.gateways:
        chain.nlbctl("drain", "rider", name)
        chain.wait_state(name, "draining")
    assert set(on_lo(chain.nlb)) == {VIP}
    assert chain.nlbd.stop() == 0
    assert on_lo(chain.nlb) == {}


def test_addresses_of_others_stay(announcing):
    chain = announcing
    chain.nlb.run("ip", "address", "add", f"{VIP}/32", "dev", "lo")
    chain.nlb.run("ip", "address", "add", f"{OTHER}/32", "dev", "lo")
    chain.start()
    wait_until(lambda: announced(chain) == {"rider": "foreign"}, "it is seen", 3.0)
    assert "not ours: it is left alone" in chain.nlbd.log()
    for name in chain.gateways:
        chain.set_health(name, 500)
        chain.wait_state(name, "down")
    assert chain.nlbd.stop() == 0
    assert set(on_lo(chain.nlb)) == {VIP, OTHER}

    # Once the other owner has taken it off, it is ours.
    chain.set_health("gw1", 200)
    chain.start_nlbd()
    chain.wait_state("gw1", "up")
    chain.nlb.run("ip", "address", "del", f"{VIP}/32", "dev", "lo")
    wait_lo(chain, VIP, OTHER)
    assert chain.nlbd.stop() == 0
    assert set(on_lo(chain.nlb)) == {OTHER}


def test_next_nlbd_takes_over_what_the_killed_one_left(announcing):
    chain = announcing
    chain.start()
    wait_lo(chain, VIP)
    changes = chain.nlb.start("monitor", ["ip", "monitor", "address"])
    chain.nlbd.kill()
    assert set(on_lo(chain.nlb)) == {VIP}
    chain.start()
    assert announced(chain) == {"rider": "announced"}
    chain.nlbd.signal(signal.SIGUSR2)
    chain.nlbd.stopped_on_purpose = True
    assert chain.nlbd.popen.wait(10) == 0
    assert set(on_lo(chain.nlb)) == {VIP}, "SIGUSR2 is for upgrades"
    chain.start()
    assert VIP not in changes.log(), "never touched, so no router has heard of all this"
    changes.kill()

    # Whatever it was that left it, it is ours, and goes when nobody wants it.
    chain.nlbd.kill()
    chain.write_config(announce=False)
    chain.start()
    wait_lo(chain)


def tell(chain, *words):
    """What people see: words and the exit status."""
    words = [chain.program("nlbctl"), "-s", chain.lab.path("run", "nlb.sock"), *words]
    return chain.nlb.run("sh", "-c", '"$@" 2>&1; echo "exit $?"', "sh", *words)


def test_people_see_what_is_announced(announcing):
    chain = announcing
    chain.start()
    wait_lo(chain, VIP)
    header, row = tell(chain, "vips").splitlines()[:2]
    assert header.split()[3:5] == ["STATE", "ANNOUNCED"] and row.split()[3:5] == ["ok", "announced"]
    assert "withdrawn" not in tell(chain, "status")
    chain.nlbctl("withdraw")
    assert tell(chain, "vips").splitlines()[1].split()[4] == "withdrawn"
    assert "withdrawn by hand (nlbctl announce ends it)" in tell(chain, "status")
    chain.nlbctl("announce")

    # Where nothing is to be announced, to say "withdrawn" would be a lie.
    chain.write_config(announce=False)
    chain.nlbctl("reload")
    for command in ("withdraw", "announce"):
        said = tell(chain, command)
        assert 'no VIP has "announce": true' in said and said.endswith("exit 1\n"), said
    assert "ANNOUNCED" not in tell(chain, "vips")


def test_withdraw_by_hand_and_repair(announcing):
    chain = announcing
    chain.start()
    wait_lo(chain, VIP)
    assert json.loads(chain.nlbctl("withdraw")) == {"changed": True}
    assert on_lo(chain.nlb) == {} and announced(chain) == {"rider": "withdrawn"}
    assert json.loads(chain.nlbctl("withdraw")) == {"changed": False}
    assert set(chain.spread(20)) == {"gw1", "gw2"}, "what still arrives is forwarded"
    chain.set_health("gw1", 500)
    chain.wait_state("gw1", "down")
    chain.nlbctl("reload")
    assert on_lo(chain.nlb) == {}
    assert json.loads(chain.nlbctl("announce")) == {"changed": True}
    assert set(on_lo(chain.nlb)) == {VIP}

    # Somebody's slip is mended.
    chain.nlb.run("ip", "address", "del", f"{VIP}/32", "dev", "lo")
    wait_lo(chain, VIP)


def test_address_goes_with_the_last_of_its_vips(make_chain):
    chain = make_chain(gateways=2)
    document = chain.config(names=["gw1"], announce=True)
    second = {**chain.config(names=["gw2"])["vips"][0], "name": "second", "port": 444}
    # Asked directly on its own health port only: nothing listens on 444 in the tunnel.
    second["health"] = {**second["health"], "tunnel": False}
    document["vips"].append({**second, "announce": True})
    chain.config_path = chain.lab.write_json(document, "nlb.json")
    chain.start()
    wait_lo(chain, VIP)
    chain.set_health("gw1", 500)
    chain.wait_state("gw1", "down")
    assert set(on_lo(chain.nlb)) == {VIP}
    chain.set_health("gw2", 500)
    wait_lo(chain)
    chain.set_health("gw1", 200)
    wait_lo(chain, VIP)


def test_unknown_announce_interface(make_chain):
    chain = make_chain(gateways=1)
    path = chain.lab.write_json({**chain.config(), "announce_interface": "nosuch0"}, "wrong.json")
    with pytest.raises(lab_module.LabError, match="announce_interface: nosuch0 does not exist"):
        chain.nlb.run(chain.program("nlbd"), "-c", path)


# --- routing daemons --------------------------------------------------------------------------


def needs(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


ROUTER = """
router id 10.0.0.1;
log stderr all;
protocol device { }
protocol kernel { ipv4 { export all; }; merge paths on; }
template bgp nlb { local as 64500; hold time 9; ipv4 { import all; export none; }; }
protocol bgp nlb1 from nlb { neighbor 10.0.0.2 as 64512; }
protocol bgp nlb2 from nlb { neighbor 10.0.0.3 as 64512; }
"""


def start_bird(lab, host, text):
    name = f"bird-{host.name}"
    path = lab.path(name, "bird.conf")
    Path(path).write_text(text.replace("log syslog all", "log stderr all"))
    return host.start(name, ["bird", "-f", "-c", path, "-s", lab.path(name, "control")])


def next_hops(chain):
    routes = json.loads(chain.lab.switch.run("ip", "-j", "route", "show", f"{VIP}/32"))
    return {
        hop["gateway"]
        for route in routes
        for hop in ([route] if "gateway" in route else route.get("nexthops", []))
    }


class Flow(threading.Thread):
    """New connections one after another, and one that stays, until stopped."""

    def __init__(self, chain):
        super().__init__()
        self.chain = chain
        self.stopped = threading.Event()
        self.done = 0
        self.failed = []

    def run(self):
        with Talk(self.chain.client.connect(VIP, 443, 3.0, CLIENTS[0])) as stays:
            while not self.stopped.is_set():
                try:
                    with self.chain.connect(CLIENTS[self.done % 4]) as talk:
                        assert talk.echoes()
                    assert stays.echoes()
                except (OSError, AssertionError, ValueError) as error:
                    self.failed.append(repr(error))
                self.done += 1
                time.sleep(0.01)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()


@pytest.mark.limit(90)
def test_bird_announces_and_withdraws(announcing):
    """The example file on two load balancers, a router with BIRD as well, and clients all the time."""
    needs("bird")
    chain = announcing
    lab = chain.lab
    second = lab.add_host("nlb2", NLB2, transmits_from_xdp=True)
    for host in chain.gateways.values():
        host.run(chain.program("nlbctl"), "decap", "attach", "eth0", "--source", NLB, "--source", NLB2)
    document = chain.config(announce=True)
    document["admin"]["socket"] = lab.path("run", "nlb2.sock")
    second_config = lab.write_json(document, "nlb2.json")

    lab.switch.ip("route", "del", f"{VIP}/32")
    example = (CONFIG / "bird/bird.conf").read_text()
    start_bird(lab, lab.switch, ROUTER)
    start_bird(lab, chain.nlb, example)
    start_bird(lab, second, example.replace("10.0.0.2", NLB2))

    chain.start()
    wait_until(lambda: next_hops(chain) == {NLB}, "the route to the first", 30.0)
    starts = 0

    def start_second():
        nonlocal starts
        starts += 1
        argv = [chain.program("nlbd"), "-c", second_config]
        proc = second.start(f"nlbd-second{starts}", argv)
        wait_until(lambda: next_hops(chain) == {NLB, NLB2}, "both routes", 30.0, proc)
        return proc

    nlbd2 = start_second()
    with Flow(chain) as flow:
        wait_until(lambda: flow.done > 50, "some connections", 10.0)
        # The first ends in order: its route goes, and no connection with it.
        chain.nlbd.stop()
        wait_until(lambda: next_hops(chain) == {NLB2}, "the first withdrawn", 5.0)
        at = flow.done
        wait_until(lambda: flow.done > at + 50, "more connections", 10.0)
        chain.start_nlbd()
        wait_until(lambda: next_hops(chain) == {NLB, NLB2}, "the first again", 10.0)
        at = flow.done
        wait_until(lambda: flow.done > at + 50, "more connections", 10.0)
        socket = lab.path("run", "nlb2.sock")
        second.run(chain.program("nlbctl"), "-s", socket, "withdraw")
        wait_until(lambda: next_hops(chain) == {NLB}, "the second withdrawn", 5.0)
        at = flow.done
        wait_until(lambda: flow.done > at + 50, "more connections", 10.0)
    assert flow.failed == []

    # Nobody can serve any more: nobody asks for traffic.
    for name in chain.gateways:
        chain.set_health(name, 500)
    wait_until(lambda: next_hops(chain) == set(), "no route", 5.0)
    chain.set_health("gw1", 200)
    wait_until(lambda: next_hops(chain) == {NLB}, "the route again", 5.0)
    nlbd2.stop()


def test_bird_example_is_good():
    needs("bird")
    done = subprocess.run(
        ["bird", "-p", "-c", str(CONFIG / "bird/bird.conf")], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr


def test_frr_example_is_good():
    needs("vtysh")
    path = str(CONFIG / "frr/frr.conf")
    done = subprocess.run(["vtysh", "--dryrun", "-f", path], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and "nknown command" not in done.stdout, done.stdout + done.stderr


def test_keepalived_example_is_good(tmp_path):
    needs("keepalived")
    if os.geteuid() != 0:
        pytest.skip("keepalived checks files only as root")
    text = (CONFIG / "keepalived/keepalived.conf").read_text()
    assert "script_user nobody" in text
    # keepalived 2.2.7 ends itself by a signal when it tests a file with another script user.
    path = tmp_path / "keepalived.conf"
    path.write_text(text.replace("script_user nobody", "script_user root"))
    with lab_module.Lab() as lab:
        host = lab.add_host("nlb", NLB)
        said = host.run("keepalived", "-t", "-f", path, check=False)
        host.run("keepalived", "-t", "-f", path)
        assert not re.search("(?i)unknown|error|invalid", said), said
        path.write_text(path.read_text().replace("virtual_router_id 51", "virtual_router_id 999"))
        with pytest.raises(lab_module.LabError):
            host.run("keepalived", "-t", "-f", path)

# SPDX-License-Identifier: Apache-2.0
"""What the load balancer's health checks find out, and what it says about it."""

import json
import os
import re
import sys

import pytest

import identity
from nlb_rig import NLB, VIP
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")

HERE = os.path.dirname(os.path.abspath(__file__))
QUICK = {"interval_ms": 100, "timeout_ms": 100, "rise": 1, "fall": 1}
SLOWER = {"interval_ms": 200, "timeout_ms": 200, "rise": 2, "fall": 2}
VIP6 = "2001:db8:0:10::10"
NO_ANSWER = "tunnel: no answer from the VIP (decapsulation attached? VIP on lo?)"


def wait_why(chain, name, state, why, timeout_s=6.0):
    """Waits until the gateway is in that state for a reason that matches, and returns it."""

    def reached():
        gateway = chain.states()[name]
        return gateway["state"] == state and re.search(why, gateway["why"]) and gateway

    return wait_until(reached, f"{name} is {state}: {why}", timeout_s, chain.nlbd)


class Endpoint:
    """A health endpoint on a gateway host."""

    def __init__(self, chain, name, port, *certificate):
        self.chain = chain
        self.path = chain.lab.path("told", f"{name}-{port}")
        self.tell()
        argv = [sys.executable, "-B", os.path.join(HERE, "health.py"), port, self.path]
        self.proc = chain.gateways[name].start(f"health-{name}-{port}", [*argv, *certificate])
        self.proc.wait_log("listening")

    def tell(self, **told):
        text = json.dumps(told)
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(self.path + ".new", self.path)


def test_http_answers_are_judged_by_status_and_body(make_chain):
    health = {**QUICK, "type": "http", "port": 8000, "path": "/x", "host": "gw.example",
              "status": [204, "301-302", 200], "body": "in service"}
    chain = make_chain(gateways=1, health=health)
    endpoint = Endpoint(chain, "gw1", 8000)
    endpoint.tell(body="all in service here")
    chain.start()

    cases = [
        ({"status": 500, "body": "in service"}, "^answered 500$"),
        ({"status": 201, "body": "in service"}, "^answered 201$"),
        ({"status": 200, "body": "out of order"}, '^answered 200 without "in service"$'),
        ({"status": 200, "pad": 70000, "body": "in service"}, "too large"),
        ({"delay_s": 0.5, "body": "in service"}, "^(timed out|took longer than allowed)"),
    ]
    for told, why in cases:
        endpoint.tell(**told)
        wait_why(chain, "gw1", "down", why)
        endpoint.tell(status=302, body="in service", want_host="gw.example")
        wait_why(chain, "gw1", "up", "^$")
    endpoint.proc.kill()
    wait_why(chain, "gw1", "down", "^connection refused$")


def test_large_answers_matter_only_if_the_body_does(make_chain):
    chain = make_chain(gateways=1, health={**QUICK, "type": "http", "port": 8000})
    endpoint = Endpoint(chain, "gw1", 8000)
    endpoint.tell(pad=200000)
    chain.start()
    assert chain.states()["gw1"]["why"] == ""


def test_https_with_and_without_verification(make_chain, tmp_path):
    authority = identity.Authority(str(tmp_path / "ca"))
    other = identity.Authority(str(tmp_path / "other"))
    certificate = authority.issue("gw", ["gw.example"])
    health = {**SLOWER, "fall": 1, "type": "https", "port": 8443}
    chain = make_chain(gateways=1, health=health)
    endpoint = Endpoint(chain, "gw1", 8443, *certificate)
    Endpoint(chain, "gw1", 8000)
    chain.start()

    def reload(**changes):
        chain.health = {**health, **changes}
        chain.write_config()
        chain.nlbctl("reload")

    verified = {"verify": True, "ca_file": authority.certificate, "host": "gw.example"}
    reload(**verified, body="fine")
    wait_why(chain, "gw1", "down", "^answered 200 without")
    endpoint.tell(body="fine", want_host="gw.example")
    wait_why(chain, "gw1", "up", "^$")
    reload(**{**verified, "host": "other.example"})
    wait_why(chain, "gw1", "down", "(?i)hostname mismatch")
    reload(**{**verified, "ca_file": other.certificate})
    wait_why(chain, "gw1", "down", "(?i)unable to get local issuer certificate")
    reload(verify=True, ca_file=authority.certificate)
    wait_why(chain, "gw1", "down", "(?i)IP address mismatch")
    endpoint.tell(status=503)
    reload()
    wait_why(chain, "gw1", "down", "^answered 503$")
    reload(port=8000)
    wait_why(chain, "gw1", "down", "(?i)wrong version number|packet length")
    endpoint.tell()
    reload()
    wait_why(chain, "gw1", "up", "^$")


@pytest.mark.parametrize("encapsulation", ["gue", "ipip", "l2"])
def test_gateway_that_clients_cannot_use_gets_no_traffic(make_chain, encapsulation):
    """Its own address answers all the time; only what is asked through the tunnel differs."""
    health = {**SLOWER, "type": "http", "port": 9443, "path": "/readyz"}
    chain = make_chain(gateways=2, encapsulation=encapsulation, health=health)
    host = chain.gateways["gw1"]
    chain.start()

    def broken_by(what, mend, why=NO_ANSWER):
        what()
        gateway = wait_why(chain, "gw1", "down", "^" + re.escape(why) + "$")
        assert gateway["health"] == "down"
        assert set(chain.spread(20)) == {"gw2"}
        mend()
        wait_why(chain, "gw1", "up", "^$")

    nlbctl = chain.program("nlbctl")
    broken_by(
        lambda: host.run("ip", "address", "del", f"{VIP}/32", "dev", "lo"),
        lambda: host.run("ip", "address", "add", f"{VIP}/32", "dev", "lo"),
    )
    if encapsulation != "l2":
        broken_by(
            lambda: host.run(nlbctl, "decap", "detach", "eth0"),
            lambda: host.run(nlbctl, "decap", "attach", "eth0", "--source", NLB),
        )
        broken_by(
            lambda: host.run(nlbctl, "decap", "attach", "eth0", "--source", "10.0.0.77"),
            lambda: host.run(nlbctl, "decap", "attach", "eth0", "--source", NLB),
        )
    assert set(chain.spread(40)) == {"gw1", "gw2"}


@pytest.mark.parametrize("encapsulation", ["gue", "ipip", "l2"])
def test_tunnel_is_tried_in_every_mix_of_families(make_chain, encapsulation):
    chain = make_chain(gateways=1, encapsulation=encapsulation)
    host = chain.gateways["gw1"]
    nlbctl = chain.program("nlbctl")
    chain.nlb.ip("address", "add", "fd00::2/64", "dev", "eth0", "nodad")
    host.ip("address", "add", "fd00::11/64", "dev", "eth0", "nodad")
    host.ip("address", "add", f"{VIP6}/128", "dev", "lo")
    decap = [nlbctl, "decap", "attach", "eth0", "--source", NLB, "--source", "fd00::2"]
    host.run(*decap)
    document = chain.config()
    template = {**document["vips"][0], "health": {**SLOWER, "fall": 1, "type": "http"}}
    document["vips"] = []
    for port, gateway in ((8000, "10.0.0.11"), (8001, "fd00::11")):
        Endpoint(chain, "gw1", port)
        for address in (VIP, VIP6):
            name = f"{4 if address == VIP else 6}in{6 if ':' in gateway else 4}"
            where = {"name": name, "address": address, "port": port}
            document["vips"].append({**template, **where, "gateways": [{"address": gateway}]})
    chain.config_path = chain.lab.write_json(document, "nlb.json")
    chain.start_nlbd()

    def wait_all(state, *vips, why=""):
        def reached():
            rows = [g for g in json.loads(chain.nlbctl("gateways")) if g["vip"] in vips]
            return len(rows) == len(vips) and all((g["state"], g["why"]) == (state, why) for g in rows)

        wait_until(reached, f"{vips} are {state}", 10.0, chain.nlbd)

    every = ("4in4", "6in4", "4in6", "6in6")
    wait_all("up", *every)
    host.run("ip", "address", "del", f"{VIP6}/128", "dev", "lo")
    wait_all("down", "6in4", "6in6", why=NO_ANSWER)
    wait_all("up", "4in4", "4in6")
    host.run("ip", "address", "add", f"{VIP6}/128", "dev", "lo")
    wait_all("up", *every)
    if encapsulation != "l2":
        host.run(nlbctl, "decap", "detach", "eth0")
        wait_all("down", *every, why=NO_ANSWER)
        host.run(*decap)
        wait_all("up", *every)


def test_refusal_through_the_tunnel_is_told_from_silence(make_chain):
    health = {**SLOWER, "type": "http", "port": 8000}
    chain = make_chain(gateways=2, health=health)
    for name in chain.gateways:
        Endpoint(chain, name, 8000)
    chain.start()
    chain.echoes["gw1"].kill()
    wait_why(chain, "gw1", "down", "^tunnel: nothing listens on the VIP's port$")
    chain.start_echo("gw1")
    wait_why(chain, "gw1", "up", "^$")


def test_without_the_tunnel_nobody_notices(make_chain):
    """The counterpart of the above: what makes the difference is the check through the tunnel."""
    health = {**QUICK, "type": "http", "port": 9443, "path": "/readyz", "tunnel": False}
    chain = make_chain(gateways=1, health=health)
    chain.gateways["gw1"].run(chain.program("nlbctl"), "decap", "detach", "eth0")
    chain.start()
    seen = chain.states()["gw1"]
    assert (seen["state"], seen["why"]) == ("up", "")


def tcp_counter(host, name):
    lines = [line.split() for line in host.run("cat", "/proc/net/snmp").splitlines()]
    names, values = [words for words in lines if words[0] == "Tcp:"]
    return int(values[names.index(name)])


def probes_of(chain):
    return {g["name"]: g["checks_passed"] for g in json.loads(chain.nlbctl("gateways"))}


@pytest.mark.parametrize("vip_on_nlb", [False, True], ids=["", "vip_on_the_nlb"])
def test_probes_leave_nothing_behind(make_chain, vip_on_nlb):
    """No half-open connections on gateways, no accepted ones, no resets of the NLB's own kernel."""
    chain = make_chain(gateways=2, health={**QUICK, "type": "http", "port": 9443})
    if vip_on_nlb:  # as announcing it has it: answers from there are martians to the kernel
        chain.nlb.run("ip", "address", "add", f"{VIP}/32", "dev", "lo")
    chain.start()
    wait_until(lambda: min(probes_of(chain).values()) > 15, "fifteen checks", 10.0, chain.nlbd)
    for host in chain.gateways.values():
        waiting = host.run("ss", "-Htn", "state", "syn-recv").splitlines()
        assert len(waiting) <= 1, "at most the one under way"
        assert tcp_counter(host, "EstabResets") == 0
    assert tcp_counter(chain.nlb, "OutRsts") == 0
    states = chain.states()
    assert all(g["packets"] == 0 and g["state"] == "up" for g in states.values()), states


def test_checks_spread_over_time(make_chain):
    """A tenth of jitter: checks of many gateways do not come in step."""
    chain = make_chain(gateways=1, health={**QUICK, "type": "http", "port": 8000, "tunnel": False})
    endpoint = Endpoint(chain, "gw1", 8000)
    chain.start()
    asked = re.compile(r"asked (\S+)")
    times = wait_until(
        lambda: len(found := asked.findall(endpoint.proc.log())) > 40 and found, "40 checks"
    )
    gaps = sorted(float(b) - float(a) for a, b in zip(times, times[1:]))
    assert gaps[5] > 0.08 and gaps[20] < 0.15, gaps
    assert gaps[30] - gaps[10] > 0.003, "not all the same"


def test_every_check_is_counted(make_chain):
    chain = make_chain(gateways=2, health={**QUICK, "type": "http", "port": 9443, "path": "/"})
    chain.start()

    def metrics():
        text = chain.nlb.run("curl", "-sS", "http://127.0.0.1:9440/metrics")
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")

    def of(name, gateway="gw1", more=""):
        return int(metrics()[f'gatehouse_nlb_{name}{{vip="rider",gateway="{gateway}"{more}}}'])

    assert of("gateway_healthy") == 1
    changes = of("health_changes_total")
    failed = of("health_checks_total", more=',result="failed"')
    chain.set_health("gw1", 500)
    chain.wait_state("gw1", "down")
    assert of("gateway_healthy") == 0 and of("gateway_healthy", "gw2") == 1
    assert of("health_changes_total") == changes + 1
    assert of("health_checks_total", more=',result="failed"') > failed
    passed = of("health_checks_total", "gw2", ',result="passed"')
    wait_until(
        lambda: of("health_checks_total", "gw2", ',result="passed"') > passed, "more checks", 3.0
    )
    assert metrics()['gatehouse_nlb_vip_panic{vip="rider"}'] == "0"
    chain.set_health("gw2", 500)
    chain.wait_state("gw2", "down")
    assert metrics()['gatehouse_nlb_vip_panic{vip="rider"}'] == "1"
    assert set(chain.spread(30)) == {"gw1", "gw2"}, "all of them are used"
    chain.set_health("gw2", 200)
    chain.wait_state("gw2", "up")
    assert metrics()['gatehouse_nlb_vip_panic{vip="rider"}'] == "0"
    assert set(chain.spread(10)) == {"gw2"}


def test_answers_that_were_lost_do_not_haunt_the_tunnel(make_chain):
    """The gateway has half a connection of each port that asked; it is up as soon as it is heard."""
    chain = make_chain(gateways=1)
    chain.start()
    gateway = chain.gateways["gw1"]
    # What the VIP answers to the NLB goes to nobody.
    gateway.ip(*"link add nowhere up type veth peer name nobody".split())
    gateway.ip(*"link set nobody up".split())
    gateway.ip(*f"neigh add {NLB} lladdr 02:00:00:00:00:66 dev nowhere nud permanent".split())
    gateway.ip(*f"route add {NLB} dev nowhere table 100".split())
    gateway.ip(*f"rule add from {VIP} lookup 100".split())
    chain.wait_state("gw1", "down")
    failed = chain.states()["gw1"]["checks_failed"]
    wait_until(lambda: chain.states()["gw1"]["checks_failed"] > failed + 8, "all ports asked", 10.0)
    gateway.ip(*f"rule del from {VIP} lookup 100".split())
    chain.wait_state("gw1", "up")
    passed = chain.states()["gw1"]
    wait_until(lambda: chain.states()["gw1"]["checks_passed"] > passed["checks_passed"] + 12, "more")
    assert chain.states()["gw1"]["checks_failed"] <= passed["checks_failed"] + 1

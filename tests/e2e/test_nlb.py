# SPDX-License-Identifier: Apache-2.0
"""nlbd, nlbctl and the decapsulation with real TCP through real namespaces."""

import json
import os
import signal
import sys
import time

import pytest

import lab as lab_module
from nlb_rig import CLIENTS, HEALTH, NLB, VIP
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")


@pytest.mark.parametrize("encapsulation", ["gue", "ipip"])
def test_connections_are_spread_and_answered_directly(make_chain, encapsulation):
    # No probes in the tunnel: what gateways take off it are clients' packets only.
    chain = make_chain(encapsulation=encapsulation, health={**HEALTH, "tunnel": False})
    chain.start()
    taken = chain.spread(90)
    assert set(taken) == {"gw1", "gw2", "gw3"} and min(taken.values()) >= 10, taken

    with chain.connect() as talk:
        assert talk.echoes(b"y" * 50000), "full-size segments fit the tunnel"
        taken[talk.gateway] += 1
    states = chain.states()
    assert {name: g["connections"] for name, g in states.items()} == dict(taken)
    for name, gateway in states.items():
        slots = gateway["slots"] * 3 / 65537
        assert 0.99 < slots < 1.01, (name, gateway["slots"])
        words = (chain.program("nlbctl"), "--json", "decap", "status", "eth0")

        def packets_of(host=chain.gateways[name], words=words):
            return json.loads(host.run(*words))["packets"]

        # The last packets of the connections may still be under way.
        wait_until(
            lambda name=name, count=packets_of: count()[encapsulation]
            == chain.states()[name]["packets"],
            f"{name}: as many packets as were sent",
            2.0,
        )
        packets = packets_of()
        assert packets["stranger"] == packets["malformed"] == packets["not_local"] == 0

    # The answers never pass the load balancer: its dropped and forwarded packets are all inbound.
    status = json.loads(chain.nlbctl("status"))
    assert sum(status["dropped"].values()) == 0
    flows = json.loads(chain.nlbctl("flows"))
    # A flow that has come to another CPU is remembered there too.
    assert sum(taken.values()) <= flows["used"] <= 2 * sum(taken.values())
    assert sum(f["flows"] for f in flows["flows"]) == flows["used"]
    assert sum(f["last_minute"] for f in flows["flows"]) == flows["used"]


def test_failing_gateway_takes_no_new_connections(make_chain):
    chain = make_chain()
    chain.start()
    chain.set_health("gw2", 503)
    chain.wait_state("gw2", "down")
    assert chain.states()["gw2"]["why"] == "answered 503"
    assert "gw2" not in chain.spread(40)

    chain.echoes["gw1"].kill()
    killed_at = time.monotonic()
    chain.wait_state("gw1", "down")
    assert time.monotonic() - killed_at < 2
    assert set(chain.spread(20)) == {"gw3"}

    chain.set_health("gw2", 200)
    chain.wait_state("gw2", "up")
    assert set(chain.spread(40)) == {"gw2", "gw3"}
    chain.echoes.pop("gw1")


def test_host_that_vanishes_is_out_within_two_seconds(make_chain):
    health = {"type": "tcp", "interval_ms": 500, "timeout_ms": 500, "rise": 2, "fall": 2}
    chain = make_chain(gateways=2, health=health)
    chain.start()
    chain.gateways["gw1"].link_down()
    cut_at = time.monotonic()
    chain.wait_state("gw1", "down")
    assert time.monotonic() - cut_at < 2
    assert set(chain.spread(20)) == {"gw2"}
    chain.gateways["gw1"].link_up()
    chain.wait_state("gw1", "up")
    assert set(chain.spread(30)) == {"gw1", "gw2"}


def test_all_gateways_unhealthy_means_all_are_used(make_chain):
    chain = make_chain(gateways=2)
    chain.start()
    for name in chain.gateways:
        chain.set_health(name, 500)
    for name in chain.gateways:
        chain.wait_state(name, "down")
    assert json.loads(chain.nlbctl("vips"))[0]["state"] == "panic"
    assert "forwarding to all" in chain.nlbd.log()
    assert set(chain.spread(30)) == {"gw1", "gw2"}


def test_drained_gateway_keeps_its_connections(make_chain):
    chain = make_chain(gateways=2)
    chain.start()
    talks = [chain.connect(CLIENTS[i % 4]) for i in range(30)]
    assert {talk.gateway for talk in talks} == {"gw1", "gw2"}
    assert json.loads(chain.nlbctl("drain", "rider", "gw1")) == {"changed": True}
    assert json.loads(chain.nlbctl("drain", "rider", "gw1")) == {"changed": False}
    assert chain.states()["gw1"]["state"] == "draining"
    assert set(chain.spread(20)) == {"gw2"}
    assert all(talk.echoes() for talk in talks)

    # Whoever drains says 503 to checks; only silence takes what it has away.
    chain.set_health("gw1", 503)
    wait_until(lambda: chain.states()["gw1"]["health"] == "down", "gw1 fails its checks", 5.0)
    assert chain.states()["gw1"]["state"] == "draining"
    assert all(talk.echoes() for talk in talks)
    os.kill(chain.echoes["gw1"].pid, signal.SIGSTOP)
    chain.wait_state("gw1", "down")
    os.kill(chain.echoes["gw1"].pid, signal.SIGCONT)
    chain.wait_state("gw1", "draining")
    chain.set_health("gw1", 200)

    # It is remembered when nlbd is not.
    chain.nlbd.stop()
    chain.start_nlbd()
    chain.wait_state("gw1", "draining")
    chain.wait_state("gw2", "up")
    assert all(talk.echoes() for talk in talks)
    chain.nlbctl("undrain", "rider", "gw1")
    assert set(chain.spread(30)) == {"gw1", "gw2"}
    for talk in talks:
        talk.close()
    with pytest.raises(lab_module.LabError, match="no gateway .gw9."):
        chain.nlbctl("drain", "rider", "gw9")


def test_new_gateway_takes_its_share_and_no_connection_of_others(make_chain):
    chain = make_chain(gateways=2)
    chain.start()
    talks = [chain.connect(CLIENTS[i % 4]) for i in range(40)]
    chain.add_gateway(3)
    chain.write_config()
    chain.nlbd.signal(signal.SIGHUP)
    chain.nlbd.wait_log("reloaded")
    chain.wait_up(3)
    assert all(talk.echoes() for talk in talks)
    assert "gw3" in chain.spread(40)
    hits = sum(g["flow_hits"] for g in chain.states().values())
    assert hits > 0, "some of those slots have moved, and the flow table knew"
    for talk in talks:
        talk.close()


def test_forwarding_goes_on_without_nlbd_and_is_taken_over(make_chain):
    chain = make_chain()
    chain.start()
    before = json.loads(chain.nlb.run("bpftool", "-j", "net"))[0]["xdp"][0]["id"]
    talks = [chain.connect(CLIENTS[i % 4]) for i in range(20)]
    chain.nlbd.kill()
    assert all(talk.echoes() for talk in talks)
    assert len(chain.spread(20)) == 3
    pins = set(chain.nlb.run("ls", "/sys/fs/bpf/gatehouse/eth0").split())
    assert {"prog", "link", "config", "vips4", "gateways", "rings", "flows"} <= pins

    counted = sum(json.loads(chain.nlb.run("bpftool", "-j", "map", "dump", "pinned",
                  "/sys/fs/bpf/gatehouse/eth0/flow_guard"))[0]["values"] != [] for _ in "1")
    assert counted
    # The client keeps sending while the next one starts: nothing may be lost or reset.
    chain.start_nlbd()
    for _ in range(20):
        assert all(talk.echoes() for talk in talks)
    chain.wait_up(3)
    after = json.loads(chain.nlb.run("bpftool", "-j", "net"))[0]["xdp"][0]["id"]
    assert after != before, "the program was replaced"
    assert sum(g["connections"] for g in chain.states().values()) == 40, "counters live on"
    assert json.loads(chain.nlbctl("flows"))["used"] >= 40
    for talk in talks:
        talk.close()

    chain.nlbd.stop()
    chain.nlb.run(chain.program("nlbctl"), "detach", "eth0")
    assert json.loads(chain.nlb.run("bpftool", "-j", "net"))[0]["xdp"] == []
    assert chain.nlb.run("ls", "/sys/fs/bpf/gatehouse") == ""


def test_one_nlbd_at_a_time_has_an_interface(make_chain):
    chain = make_chain(gateways=1)
    chain.start()
    with chain.connect() as talk:
        admin = {"bind": "127.0.0.1:9441", "socket": chain.lab.path("run", "second.sock")}
        second = chain.lab.write_json({**chain.config(), "admin": admin}, "second.json")
        with pytest.raises(lab_module.LabError, match=f"another nlbd .process {chain.nlbd.pid}. has"):
            chain.nlb.run(chain.program("nlbd"), "-c", second)
        with pytest.raises(lab_module.LabError, match=f"nlbd .process {chain.nlbd.pid}. is at work"):
            chain.nlb.run(chain.program("nlbctl"), "detach", "eth0")
        assert talk.echoes()

        # One that crashed is in nobody's way.
        chain.nlbd.kill()
        chain.start_nlbd()
        assert talk.echoes()
    chain.nlbd.kill()
    chain.nlb.run(chain.program("nlbctl"), "detach", "eth0")

    # What a gateway host has there is another matter.
    nlbctl = chain.program("nlbctl")
    with pytest.raises(lab_module.LabError, match="nothing of ours is attached"):
        chain.gateways["gw1"].run(nlbctl, "detach", "eth0")
    chain.gateways["gw1"].run(nlbctl, "decap", "status", "eth0")


def test_bad_reload_changes_nothing(make_chain):
    chain = make_chain(gateways=2)
    chain.start()
    chain.lab.write_json({**chain.config(), "vipz": []}, "nlb.json")
    chain.nlbd.signal(signal.SIGHUP)
    chain.nlbd.wait_log("was not reloaded")
    assert 'vipz: unknown member; did you mean "vips"?' in chain.nlbd.log()
    with pytest.raises(lab_module.LabError, match="vipz"):
        chain.nlbctl("reload")

    # Who asked over the socket gets all of it, by program too, and the log has it as well.
    many = {f"{n}-of-a-name-of-some-length": n for n in range(20)}
    chain.lab.write_json({**chain.config(), **many}, "nlb.json")
    detail = json.loads(chain.nlbctl("reload", check=False))["detail"]
    assert detail.count("unknown member") == 20 and not detail.endswith("\n")
    assert all(f": {name}: unknown" in chain.nlbd.log() for name in many)
    chain.lab.write_json({**chain.config(), "interface": "eth1"}, "nlb.json")
    with pytest.raises(lab_module.LabError, match="interface: cannot change while running"):
        chain.nlbctl("reload")
    assert set(chain.spread(20)) == {"gw1", "gw2"}
    chain.write_config(["gw2"])
    assert json.loads(chain.nlbctl("reload")) == {"reloaded": True}
    assert set(chain.spread(20)) == {"gw2"}


def test_change_of_a_mac_address_is_followed(make_chain):
    chain = make_chain(gateways=1)
    chain.start()
    assert chain.spread(3) == {"gw1": 3}
    host = chain.gateways["gw1"]
    host.ip("link", "set", "eth0", "address", "02:00:00:00:99:01")
    # As an operating system does that changes it: it says so to everybody.
    host.run("ip", "neigh", "flush", "dev", "eth0")
    chain.nlb.run("ip", "neigh", "replace", host.address, "lladdr", "02:00:00:00:99:01",
                  "dev", "eth0", "nud", "reachable")
    wait_until(
        lambda: chain.states()["gw1"].get("next_hop_mac") == "02:00:00:00:99:01",
        "the new MAC address",
        1.0,
    )
    assert chain.spread(3) == {"gw1": 3}


def test_wrong_starts_say_what_and_leave_nothing(make_chain):
    chain = make_chain(gateways=1)
    nlbd = chain.program("nlbd")

    def refused(config, *words):
        path = chain.lab.write_json(config, "wrong.json") if isinstance(config, dict) else config
        with pytest.raises(lab_module.LabError) as caught:
            chain.nlb.run(*words, nlbd, "-c", path)
        assert "\n" not in str(caught.value), "one line"
        # An interface that does not exist has no pins; the others must have none left.
        assert chain.nlb.run("ls", "/sys/fs/bpf/gatehouse", check=False) == ""
        return str(caught.value)

    good = chain.config()
    assert "/gone.json: cannot read it: No such file" in refused("/gone.json")
    assert "nosuch0 does not exist" in refused({**good, "interface": "nosuch0"})
    assert "CAP_BPF" in refused(good, "setpriv", "--bounding-set", "-all", "--inh-caps", "-all")

    elsewhere = {**good, "pin_directory": chain.lab.path("pins")}
    assert "choose a pin directory below /sys/fs/bpf" in refused(elsewhere)
    nobody = ("setpriv", "--reuid", "65534", "--clear-groups", "--inh-caps", "-all")
    assert "/sys/fs/bpf/gatehouse/eth0: no permission; CAP_BPF" in refused(good, *nobody)
    nowhere = {"bind": "127.0.0.1:9440", "socket": f"/tmp/nlb-{chain.lab.id}/nlb.sock"}
    assert "No such file or directory; make its folder first" in refused({**good, "admin": nowhere})

    chain.nlb.ip("link", "set", "eth0", "mtu", "600")
    assert "MTU of 600, too small" in refused(good)
    chain.nlb.ip("link", "set", "eth0", "mtu", "1600")

    chain.nlb.run("bpftool", "prog", "load", f"{chain.lab.build}/tests/bpf/pass.bpf.o", "/sys/fs/bpf/p")
    chain.nlb.run("bpftool", "net", "attach", "xdpdrv", "pinned", "/sys/fs/bpf/p", "dev", "eth0")
    assert "somebody else" in refused(good)
    assert "xdp" in chain.nlb.ip("link", "show", "eth0"), "and theirs is still there"
    chain.nlb.run("bpftool", "net", "detach", "xdpdrv", "dev", "eth0")

    taken = chain.nlb.start("taken", [sys.executable, "-m", "http.server", "9440"])
    chain.nlb.wait_port(9440, taken, "127.0.0.1")
    assert "9440" in refused(good) and "in use" in refused(good)
    taken.kill()
    assert json.loads(chain.nlb.run("bpftool", "-j", "net"))[0]["xdp"] == []


def test_check_and_start_tell_in_the_form_asked_for(make_chain):
    chain = make_chain(gateways=1)

    def said(config, *words):
        path = chain.lab.write_json(config, "wrong.json")
        script = '"$@" 2>&1; echo "exit $?"'
        lines = chain.nlb.run("sh", "-c", script, "sh", chain.program("nlbd"), "-c", path, *words)
        *lines, status = lines.splitlines()
        return int(status.removeprefix("exit ")), lines

    empty = chain.config()
    empty["vips"][0]["gateways"] = []
    status, lines = said(empty, "--check")
    assert status == 0 and "vips[0].gateways: warning: is empty" in "".join(lines)
    for wrong in ({**chain.config(), "vipz": 1}, {**chain.config(), "interface": "nosuch0"}):
        status, lines = said(wrong, "--log-format", "json")
        assert status == 1 and [json.loads(line)["level"] for line in lines] == ["error"]


def test_pool_follows_the_registry(make_chain):
    chain = make_chain(health={"type": "tcp", "interval_ms": 100, "timeout_ms": 100, "fall": 2})
    registry = chain.lab.add_host("registry", "10.0.0.9")
    config = {
        "bind": "10.0.0.9:8761",
        "store": {"type": "memory", "snapshot": chain.lab.path("registry", "snapshot")},
    }
    path = chain.lab.write_json(config, "registry.json")

    def start_registry():
        proc = registry.start("registryd", [chain.program("registryd"), "-c", path])
        registry.wait_port(8761, proc)
        return proc

    def call(method, target, document=None):
        body = ["-d", json.dumps(document)] if document is not None else []
        words = ["curl", "-sSf", "-X", method, "-H", "Content-Type: application/json", *body]
        registry.run(*words, f"http://10.0.0.9:8761/v1/apps/Rider-Gateway/instances/{target}")

    def register(name, weight=100):
        address = chain.gateways[name].address
        instance = {"address": address, "port": 443, "weight": weight, "lease_s": 60}
        call("PUT", name, instance)

    registryd = start_registry()
    register("gw1")
    register("gw2", weight=300)
    document = chain.config(discover="rider-gateway")
    del document["vips"][0]["gateways"]
    document["registry"] = {"urls": ["http://10.0.0.9:8761"]}
    chain.config_path = chain.lab.write_json(document, "nlb.json")
    chain.start_nlbd()
    wait_until(lambda: len(chain.states()) == 2, "both instances", 5.0, chain.nlbd)
    chain.wait_up(2)
    states = chain.states()
    assert states["gw1"]["slots"] * 3 == pytest.approx(states["gw2"]["slots"], rel=0.01)
    assert set(chain.spread(30)) == {"gw1", "gw2"}

    register("gw3")
    wait_until(lambda: "gw3" in chain.states(), "the new instance", 2.0)
    chain.wait_up(3)
    talks = [chain.connect(CLIENTS[i % 4]) for i in range(30)]
    call("PUT", "gw2/status", {"status": "OUT_OF_SERVICE"})
    chain.wait_state("gw2", "draining", 2.0)
    assert set(chain.spread(30)) == {"gw1", "gw3"}
    assert all(talk.echoes() for talk in talks), "its connections go on"
    for talk in talks:
        talk.close()

    # Without a registry the pool stays as it was, also for an nlbd that has never reached one.
    registryd.stop()
    chain.nlbd.wait_log("registry: lost")
    assert set(chain.spread(30)) == {"gw1", "gw3"}
    chain.nlbd.stop()
    chain.start_nlbd()
    assert json.loads(chain.nlbctl("vips"))[0]["state"] == "waiting"
    assert set(chain.spread(30)) == {"gw1", "gw3"}

    start_registry()
    chain.nlbd.wait_log("registry: connected", 15.0)
    wait_until(lambda: len(chain.states()) == 3, "the pool again", 5.0)
    chain.wait_state("gw1", "up")
    call("DELETE", "gw1")
    wait_until(lambda: "gw1" not in chain.states(), "the instance gone", 2.0)
    assert set(chain.spread(20)) == {"gw3"}


def test_admin_port_tells_and_changes_nothing(make_chain):
    chain = make_chain(gateways=2)
    chain.start()
    chain.spread(10)

    def get(path, *words):
        return chain.nlb.run("curl", "-sS", "-i", *words, f"http://127.0.0.1:9440{path}")

    assert get("/healthz").startswith("HTTP/1.1 200")
    assert get("/readyz").startswith("HTTP/1.1 200")
    metrics = get("/metrics")
    lines = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("gatehouse"))
    connections = [lines[f'gatehouse_nlb_gateway_connections_total{{vip="rider",gateway="{name}"}}']
                   for name in chain.gateways]
    assert sum(map(int, connections)) == 10
    assert lines['gatehouse_nlb_gateways{vip="rider",state="up"}'] == "2"
    assert int(lines['gatehouse_nlb_unforwarded_packets_total{verdict="pass",reason="no_vip"}']) > 0
    status = json.loads(get("/status").split("\n\n", 1)[1])
    assert status["interface"] == "eth0" and status["vips"][0]["connections"] == 10

    assert get("/drain?vip=rider&gateway=gw1", "-X", "POST").startswith("HTTP/1.1 403")
    assert chain.states()["gw1"]["state"] == "up"
    for name in chain.gateways:
        chain.set_health(name, 500)
        chain.wait_state(name, "down")
    ready = get("/readyz")
    assert ready.startswith("HTTP/1.1 503") and "vip=rider" in ready


def test_runs_with_two_capabilities_and_can_still_work(make_chain):
    chain = make_chain(gateways=2)
    chain.start()
    status = chain.nlb.run("cat", f"/proc/{chain.nlbd.pid}/status")
    wanted = (1 << 39) | (1 << 12)  # CAP_BPF, CAP_NET_ADMIN
    for line in status.splitlines():
        if line.startswith(("CapPrm", "CapEff", "CapBnd")):
            assert int(line.split()[1], 16) == wanted, line
    # A change of the pool makes new maps, next hops are still asked for, packets still counted.
    chain.set_health("gw1", 500)
    chain.wait_state("gw1", "down")
    assert set(chain.spread(20)) == {"gw2"}
    assert json.loads(chain.nlbctl("flows"))["used"] >= 20


def test_commands_teach_their_use(make_chain):
    chain = make_chain(gateways=1)
    nlbctl = chain.program("nlbctl")
    host = chain.gateways["gw1"]

    def refused(*words, on=chain.nlb):
        with pytest.raises(lab_module.LabError) as caught:
            on.run(nlbctl, *words)
        return str(caught.value).partition(": nlbctl: ")[2]

    assert "decap attach INTERFACE" in chain.nlb.run(nlbctl, "--help")
    assert refused() == "a command is needed (nlbctl --help)"
    assert 'no command "stats"' in refused("stats")
    assert "wrong number of arguments" in refused("drain", "rider")
    assert "is it running? packets are forwarded without it" in refused("status")
    assert "nothing of ours is attached" in refused("detach", "eth0")
    assert "nosuch0 does not exist" in refused("decap", "attach", "nosuch0")
    assert "at least one --source" in refused("decap", "attach", "eth0")
    assert "is not an IP address" in refused("decap", "attach", "eth0", "--source", "nlb")
    assert "lo has no virtual IP" in refused("decap", "attach", "eth0", "--source", NLB)
    assert "no decapsulation on eth0" in refused("decap", "status", "eth0")

    # Settings are replaced, what was counted stays; and it can be taken off again.
    before = json.loads(host.run(nlbctl, "--json", "decap", "status", "eth0"))
    assert before["vips"] == [VIP] and NLB in before["sources"]
    host.run(nlbctl, "decap", "attach", "eth0", "--source", "10.0.0.3", "--source", "10.1.0.0/16",
             "--vip", "203.0.113.77")
    after = json.loads(host.run(nlbctl, "--json", "decap", "status", "eth0"))
    assert sorted(after["sources"]) == ["10.0.0.3", "10.1.0.0/16"]
    assert after["vips"] == ["203.0.113.77"]
    assert after["packets"]["not_tunnel"] >= before["packets"]["not_tunnel"]
    host.run(nlbctl, "decap", "detach", "eth0")
    assert "no decapsulation" in refused("decap", "status", "eth0", on=host)
    assert json.loads(host.run("bpftool", "-j", "net"))[0]["xdp"] == []

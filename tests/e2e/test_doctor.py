# SPDX-License-Identifier: Apache-2.0
"""nlbctl doctor: silent on healthy hosts; each thing broken is named, alone, with its remedy."""

import contextlib
import json
import os
import struct
import subprocess

import pytest

import lab as lab_module
from procs import wait_until
from nlb_rig import NLB, VIP, Chain

pytestmark = pytest.mark.usefixtures("lab_possible")


class Doctor:
    """The chain and what its doctor says."""

    def __init__(self, chain):
        self.chain = chain
        self.nlb = chain.nlb
        self.gateway = chain.gateways["gw1"]
        self.nlbctl = chain.program("nlbctl")
        self.asked = set()

    def ask(self, host, *words, prefix=(), socket=None):
        """Returns the exit status and what was said, as {check: [findings]}."""
        self.asked.add(host)
        socket = socket or self.chain.lab.path("run", "nlb.sock")
        options = ["-s", socket] if host is self.nlb else []
        script = '"$@"; echo "exit $?"'
        said = host.run(
            *("sh", "-c", script, "sh", *prefix, self.nlbctl, *options),
            *("--json", "doctor", *words),
        )
        document, _, status = said.rpartition("exit ")
        findings = {}
        for finding in json.loads(document):
            assert (finding["result"] in ("bad", "warning")) == ("remedy" in finding), finding
            findings.setdefault(finding["check"], []).append(finding)
        return int(status), findings

    def finds(self, host, expected, *words, perhaps=(), **options):
        """The checks that found something must be exactly these, or those beside them that may come
        later; returns what they said."""
        status, findings = self.ask(host, *words, **options)
        found = {
            check: said[0]
            for check, said in findings.items()
            if any(f["result"] in ("bad", "warning") for f in said)
            for said in [[f for f in said if "remedy" in f]]
        }
        assert set(found) - set(perhaps) == set(expected), json.dumps(findings, indent=1)
        assert status == (1 if expected else 0)
        return found

    def is_silent(self, host, *words):
        status, findings = self.ask(host, *words)
        wrong = [f for said in findings.values() for f in said if f["result"] != "good"]
        assert not wrong and status == 0, wrong
        return findings

    def restart(self, **changes):
        """nlbd and its program anew, as configured now."""
        if self.chain.nlbd.exit_code() is None:
            self.chain.nlbd.stop()
        self.nlb.run(self.nlbctl, "detach", "eth0", check=False)
        document = {**self.chain.config(), **changes}
        self.chain.config_path = self.chain.lab.write_json(document, "nlb.json")
        self.chain.start_nlbd()
        self.wait_all_up()

    def wait_all_up(self):
        def are_up():
            rows = json.loads(self.chain.nlbctl("gateways"))
            return rows and all(g["state"] == "up" and not g["why"] for g in rows)

        wait_until(are_up, "every gateway up", 10.0, self.chain.nlbd)

    def attach_decap(self, *words):
        self.gateway.run(self.nlbctl, "decap", "attach", "eth0", *(words or ("--source", NLB)))


@pytest.fixture(scope="module")
def doctor(build):
    with lab_module.Lab(build) as lab:
        chain = Chain(lab, gateways=2)
        chain.start()
        yield Doctor(chain)


@pytest.fixture(autouse=True)
def healthy_before_and_after(doctor):
    """So that a finding is due to the one thing that its test breaks, and goes with it."""
    doctor.asked = set()
    yield
    doctor.wait_all_up()
    for host in doctor.asked & {doctor.nlb, doctor.gateway}:
        doctor.is_silent(host)


@contextlib.contextmanager
def ethtool(host, *words):
    host.run("ethtool", "-K", "eth0", *words, "on")
    try:
        yield
    finally:
        host.run("ethtool", "-K", "eth0", *words, "off")


@contextlib.contextmanager
def somebody_elses_program(host, pins):
    """Instead of ours, whose link is cut."""
    host.run("bpftool", "link", "detach", "pinned", f"/sys/fs/bpf/gatehouse/{pins}/link")
    host.run(
        *("bpftool", "prog", "load", f"{host.lab.build}/tests/bpf/pass.bpf.o", "/sys/fs/bpf/other")
    )
    host.run("bpftool", "net", "attach", "xdpdrv", "pinned", "/sys/fs/bpf/other", "dev", "eth0")
    try:
        yield
    finally:
        host.run("bpftool", "net", "detach", "xdpdrv", "dev", "eth0")
        host.run("rm", "/sys/fs/bpf/other")


def covered(path, content):
    """A command prefix that runs a program with another file in place of this one."""
    script = 'printf %s "$1" >"$2" && mount --bind "$2" "$3" && shift 3 && exec "$@"'
    return ["sh", "-c", script, "sh", content, f"/tmp/covered-{os.getpid()}", path]


def test_healthy_hosts_hear_nothing(doctor):
    said = doctor.is_silent(doctor.nlb)
    assert {"program", "gateways", "mtu", "path", "egress", "flow-table", "clock"} <= set(said)
    assert said["gateways"][0]["text"].startswith("2 of 2")
    said = doctor.is_silent(doctor.gateway, "--source", NLB, "--vip", VIP)
    assert {"program", "vip", "sources", "rp_filter", "arp_ignore", "arp_announce"} <= set(said)


# --- any host ---------------------------------------------------------------------------------


def test_interpreter(doctor):
    if not os.path.exists("/proc/sys/net/core/bpf_jit_enable"):
        pytest.skip("this kernel has no net.core.bpf_jit_enable to cover")
    words = covered("/proc/sys/net/core/bpf_jit_enable", "0\n")
    done = subprocess.run(
        ["unshare", "--mount", *words, doctor.nlbctl, "--json", "doctor", "--vip", "192.0.2.1"],
        capture_output=True,
        text=True,
    )
    found = {f["check"]: f for f in json.loads(done.stdout)}
    assert found["jit"]["result"] == "bad"
    assert found["jit"]["remedy"] == "sysctl -w net.core.bpf_jit_enable=1"


def test_kernel_without_btf(doctor):
    words = ["sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"', "sh"]
    found = doctor.finds(doctor.gateway, ["kernel"], prefix=words)
    assert "has no BTF" in found["kernel"]["text"]
    assert "CONFIG_DEBUG_INFO_BTF" in found["kernel"]["remedy"]


def test_no_bpf_file_system(doctor):
    words = ["sh", "-c", 'mount -t tmpfs none /sys/fs/bpf && exec "$@"', "sh"]
    found = doctor.finds(doctor.gateway, ["bpffs", "decap"], prefix=words)
    assert found["bpffs"]["remedy"] == "mount -t bpf bpf /sys/fs/bpf"


def test_without_rights_it_says_what_it_cannot_tell(doctor):
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all"
    for host, *words in ((doctor.nlb, "--config", doctor.chain.config_path), (doctor.gateway,)):
        status, findings = doctor.ask(host, *words, prefix=nobody.split())
        said = [f for checks in findings.values() for f in checks]
        assert status == 0 and not [f for f in said if "remedy" in f], said
        unknown = [f for f in said if f["result"] == "unknown"]
        assert len(unknown) >= 2 and all("root" in f["text"] for f in unknown), unknown
        assert findings["kernel"][0]["result"] == "good", "what can be told is told"


def test_host_that_is_neither(doctor):
    status, findings = doctor.ask(doctor.chain.lab.switch)
    assert status == 1 and "neither" in findings["role"][0]["text"]
    assert "--config" in findings["role"][0]["remedy"]
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all".split()
    status, findings = doctor.ask(doctor.chain.lab.switch, prefix=nobody)
    assert status == 0 and "needs root" in findings["role"][0]["text"]


# --- load balancers -----------------------------------------------------------------------------


def test_configuration_with_a_mistake(doctor):
    wrong = doctor.chain.lab.write_json({**doctor.chain.config(), "vipz": []}, "wrong.json")
    found = doctor.finds(doctor.nlb, ["config"], "--config", wrong)
    assert 'vipz: unknown member; did you mean "vips"?' in found["config"]["text"]
    assert found["config"]["remedy"] == f"nlbd -c {wrong} --check"


def test_hash_seed_missing(doctor):
    document = doctor.chain.config()
    del document["hash_seed"]
    open_hash = doctor.chain.lab.write_json(document, "open.json")
    found = doctor.finds(doctor.nlb, ["hash-seed"], "--config", open_hash)
    assert "openssl rand -hex 32" in found["hash-seed"]["remedy"]


def test_nlbd_away(doctor):
    found = doctor.finds(doctor.nlb, ["nlbd"], "--config", doctor.chain.config_path,
                         socket="/run/nobody.sock")
    assert "goes on" in found["nlbd"]["text"]
    assert "systemctl start gatehouse-nlb" in found["nlbd"]["remedy"]


def test_program_gone(doctor):
    link = "/sys/fs/bpf/gatehouse/eth0/link"
    doctor.nlb.run("bpftool", "link", "detach", "pinned", link)
    found = doctor.finds(doctor.nlb, ["program"])
    assert "no XDP program" in found["program"]["text"]
    assert "systemctl restart gatehouse-nlb" in found["program"]["remedy"]
    doctor.restart()


def test_program_of_somebody_else(doctor):
    with somebody_elses_program(doctor.nlb, "eth0"):
        found = doctor.finds(doctor.nlb, ["program"])
    assert '"pass"' in found["program"]["text"]
    assert found["program"]["remedy"].startswith("ip link set dev eth0 xdp off")
    doctor.restart()


def test_generic_mode(doctor):
    doctor.restart(xdp_mode="generic")
    found = doctor.finds(doctor.nlb, ["xdp-mode"])
    assert "generic" in found["xdp-mode"]["text"] and "veth" in found["xdp-mode"]["text"]
    with ethtool(doctor.nlb, "gro"):
        found = doctor.finds(doctor.nlb, ["xdp-mode", "offloads"])
        assert found["offloads"]["remedy"] == "ethtool -K eth0 gro off"
    doctor.restart()


def test_gro_does_no_harm_to_a_native_program(doctor):
    with ethtool(doctor.nlb, "gro"):
        doctor.is_silent(doctor.nlb)


def test_checksums_left_out(doctor):
    for host in (doctor.nlb, doctor.gateway):
        with ethtool(host, "tx"):
            found = doctor.finds(host, ["offloads"])
        assert "checksums" in found["offloads"]["text"]
        assert found["offloads"]["remedy"].startswith("ethtool -K eth0 tx off")


def test_no_route_to_a_gateway(doctor):
    doctor.nlb.ip("route", "add", "unreachable", "10.0.0.12/32")
    try:
        doctor.chain.wait_state("gw2", "unresolved")
        found = doctor.finds(doctor.nlb, ["route"], perhaps=["health"])
        assert found["route"]["text"] == "gw2: no route to 10.0.0.12"
        assert found["route"]["remedy"].startswith("ip route add 10.0.0.12/32 via")
    finally:
        doctor.nlb.ip("route", "del", "unreachable", "10.0.0.12/32")
    doctor.chain.wait_up(2)


def test_gateway_that_is_this_host(doctor):
    doctor.nlb.ip("address", "add", "10.0.0.12/32", "dev", "lo")
    try:
        status, findings = doctor.ask(doctor.nlb)
        assert status == 1 and "no other host" in findings["route"][0]["text"]
        assert "ip address show to 10.0.0.12" in findings["route"][0]["remedy"]
    finally:
        doctor.nlb.ip("address", "del", "10.0.0.12/32", "dev", "lo")
    doctor.chain.wait_up(2)


def test_next_hop_that_does_not_answer(doctor):
    host = doctor.chain.gateways["gw2"]
    host.link_down()
    doctor.nlb.ip("neigh", "flush", "dev", "eth0")
    try:
        doctor.chain.wait_state("gw2", "unresolved", 10.0)
        doctor.chain.wait_state("gw1", "up", 10.0)  # it was flushed too, for a moment
        found = doctor.finds(doctor.nlb, ["next-hop"])
        assert "gw2 (10.0.0.12): the MAC address of 10.0.0.12 is not known on eth0" in (
            found["next-hop"]["text"]
        )
        assert found["next-hop"]["remedy"].startswith("ping -c1 -I eth0 10.0.0.12")
    finally:
        host.link_up()
    doctor.chain.wait_up(2)


def test_next_hop_that_changed_while_nlbd_was_away(doctor):
    mac = doctor.chain.states()["gw2"]["next_hop_mac"]
    doctor.chain.nlbd.stop()
    doctor.nlb.ip("neigh", "replace", "10.0.0.12", "lladdr", "02:00:00:00:99:02", "dev", "eth0",
                  "nud", "reachable")
    try:
        status, findings = doctor.ask(doctor.nlb, "--config", doctor.chain.config_path)
        (said,) = findings["next-hop"]
        assert f"packets go to {mac}, but 10.0.0.12 has 02:00:00:00:99:02 now" in said["text"]
        assert status == 1 and said["remedy"].startswith("systemctl restart gatehouse-nlb")
    finally:
        doctor.nlb.ip("neigh", "del", "10.0.0.12", "dev", "eth0")
        doctor.chain.start()


def test_gateway_down(doctor):
    doctor.chain.set_health("gw2", 503)
    doctor.chain.wait_state("gw2", "down")
    found = doctor.finds(doctor.nlb, ["health"])
    assert found["health"]["text"] == "gw2 of rider is down: answered 503"
    assert found["health"]["remedy"] == "on 10.0.0.12: nlbctl doctor"
    doctor.chain.set_health("gw2", 200)
    doctor.chain.wait_up(2)


def test_vips_without_takers(doctor):
    chain = doctor.chain
    for name in chain.gateways:
        chain.nlbctl("drain", "rider", name)
    try:
        found = doctor.finds(doctor.nlb, ["vips"])
        assert "drained by hand" in found["vips"]["text"]
        assert found["vips"]["remedy"] == "nlbctl undrain rider GATEWAY"
    finally:
        for name in chain.gateways:
            chain.nlbctl("undrain", "rider", name)
    for name in chain.gateways:
        chain.set_health(name, 503)
        chain.wait_state(name, "down")
    found = doctor.finds(doctor.nlb, ["vips", "health"])
    assert "given to all" in found["vips"]["text"]
    for name in chain.gateways:
        chain.set_health(name, 200)
    chain.wait_up(2)
    weightless = [
        {"name": name, "address": host.address, "weight": 0}
        for name, host in chain.gateways.items()
    ]
    doctor.restart(vips=chain.config(gateways=weightless)["vips"])
    found = doctor.finds(doctor.nlb, ["vips"])
    assert "no gateway takes new connections" in found["vips"]["text"]
    doctor.restart(vips=chain.config(announce=True)["vips"])
    doctor.is_silent(doctor.nlb)
    chain.nlbctl("withdraw")
    found = doctor.finds(doctor.nlb, ["vips"])
    assert found["vips"]["remedy"] == "nlbctl announce"
    doctor.restart()


def test_vip_of_every_port_is_asked_on_the_port_of_its_checks(doctor):
    chain = doctor.chain
    checks = {**chain.health, "tunnel": True}
    doctor.restart(vips=chain.config(port=0, health=checks)["vips"])
    said = doctor.is_silent(doctor.nlb)
    assert said["tunnel"][0]["text"].startswith("2 of 2")
    chain.gateways["gw1"].run(doctor.nlbctl, "decap", "attach", "eth0", "--source", "10.0.0.99")
    chain.wait_state("gw1", "down")
    found = doctor.finds(doctor.nlb, ["tunnel", "health"])
    assert f"10.0.0.11 does not answer for {VIP}:9443" in found["tunnel"]["text"]
    doctor.attach_decap()
    chain.wait_up(2)
    doctor.restart(vips=chain.config(port=0, health=None)["vips"])
    _, findings = doctor.ask(doctor.nlb)
    assert [f["text"] for f in findings["tunnel"]] == [
        f"{VIP}: not asked, as it takes every port and no check names one"
    ]
    doctor.restart()


def test_interface_with_a_small_mtu(doctor):
    for host in (doctor.nlb, doctor.gateway):
        host.ip("link", "set", "eth0", "mtu", "1500")
        try:
            wait_until(
                lambda: all(g["mtu"] == (1500 if host is doctor.nlb else 1600)
                            for g in doctor.chain.states().values()),
                "nlbd knows the MTU",
            )
            found = doctor.finds(host, ["mtu"])
            assert "ip link set dev eth0 mtu 1544" in found["mtu"]["remedy"]
            assert "advmss 1416" in found["mtu"]["remedy"]
        finally:
            host.ip("link", "set", "eth0", "mtu", "1600")
    # In an outer header of IPv6 there is less room, and clients of IPv6 have longer headers.
    doctor.gateway.ip("link", "set", "eth0", "mtu", "1544")
    doctor.is_silent(doctor.gateway)
    doctor.gateway.ip("link", "set", "eth0", "mtu", "1500")
    for vip, source, wanted, told in (
        ("2001:db8::10", NLB, 1544, "ip -6 route change default via ROUTER dev eth0 advmss 1396"),
        ("2001:db8::10", "fd00:9::2", 1588, "ip -6 route change default via ROUTER dev eth0 advmss 1352"),
        (VIP, "fd00:9::2", 1588, "ip route change default via ROUTER dev eth0 advmss 1372"),
    ):
        doctor.attach_decap("--source", source, "--vip", vip, "--vip", VIP)
        _, findings = doctor.ask(doctor.gateway)
        remedy = findings["mtu"][0]["remedy"]
        assert f"mtu {wanted} " in remedy and told in remedy, remedy
    doctor.attach_decap()
    # The other remedy is one too.
    doctor.gateway.ip("link", "set", "eth0", "mtu", "1500")
    doctor.gateway.ip("route", "change", "default", "via", "10.0.0.1", "dev", "eth0",
                      "advmss", "1416")
    doctor.is_silent(doctor.gateway)
    doctor.gateway.ip("link", "set", "eth0", "mtu", "1600")
    doctor.gateway.ip("route", "change", "default", "via", "10.0.0.1", "dev", "eth0")


def test_path_with_a_small_mtu(doctor):
    doctor.chain.lab.switch.ip("link", "set", "to-gw2", "mtu", "1500")
    try:
        found = doctor.finds(doctor.nlb, ["path"])
    finally:
        doctor.chain.lab.switch.ip("link", "set", "to-gw2", "mtu", "1600")
    assert "packets of 1544 bytes do not reach gw2" in found["path"]["text"]
    assert "mtu 1544 on gw2" in found["path"]["remedy"]


def test_interface_that_loses_what_xdp_sends(doctor):
    switch = doctor.chain.lab.switch
    switch.run("bpftool", "net", "detach", "xdpdrv", "dev", "to-nlb")
    try:
        found = doctor.finds(doctor.nlb, ["egress"])
    finally:
        switch.run("bpftool", "net", "attach", "xdpdrv", "pinned", "/sys/fs/bpf/pass", "dev", "to-nlb")
    assert found["egress"]["text"].startswith("eth0,")
    assert "the other end of eth0" in found["egress"]["remedy"]


@pytest.mark.parametrize("broken", ["decap", "vip"])
def test_gateway_that_drops_what_the_tunnel_brings(doctor, broken):
    host = doctor.chain.gateways["gw2"]
    if broken == "decap":
        host.run(doctor.nlbctl, "decap", "detach", "eth0")
    else:
        host.ip("address", "del", f"{VIP}/32", "dev", "lo")
    try:
        doctor.chain.wait_state("gw2", "down")
        found = doctor.finds(doctor.nlb, ["tunnel", "health"])
    finally:
        if broken == "decap":
            host.run(doctor.nlbctl, "decap", "attach", "eth0", "--source", NLB)
        else:
            host.ip("address", "add", f"{VIP}/32", "dev", "lo")
    assert found["tunnel"]["text"].startswith(f"10.0.0.12 does not answer for {VIP}:443")
    assert found["tunnel"]["remedy"] == f"on 10.0.0.12: nlbctl doctor --source {NLB} --vip {VIP}"


def test_gateway_where_nobody_listens(doctor):
    (vip,) = doctor.chain.config()["vips"]
    idle = {**vip, "name": "idle", "port": 444, "health": None}
    doctor.restart(vips=[vip, idle])
    status, findings = doctor.ask(doctor.nlb)
    said = [f for f in findings["tunnel"] if "remedy" in f]
    assert status == 1 and len(said) == 2, findings["tunnel"]
    assert f"refuses connections to {VIP}:444" in said[0]["text"]
    assert "ss -ltn" in said[0]["remedy"]
    doctor.restart()


def test_more_interfaces(doctor):
    lab, nlb = doctor.chain.lab, doctor.nlb
    lab.switch.ip(*"link add to-nlb1 type veth peer name eth1 netns".split(), nlb.netns)
    for host, device in ((nlb, "eth1"), (lab.switch, "to-nlb1")):
        host.run("ethtool", "-K", device, *"tx off rx off gro off".split())
        host.ip("link", "set", device, "up")
    doctor.restart(interfaces=["eth1"])
    said = doctor.is_silent(nlb)
    assert [f["text"] for f in said["program"]] == ["ours is on eth0", "ours is on eth1"]
    nlb.run("bpftool", "link", "detach", "pinned", "/sys/fs/bpf/gatehouse/eth0/link-eth1")
    found = doctor.finds(nlb, ["program"])
    assert found["program"]["text"].startswith("eth1 has no XDP program")
    doctor.restart()
    nlb.ip("link", "del", "eth1")


def test_flow_table_too_large_for_the_host(doctor):
    words = covered("/proc/meminfo", "MemTotal:        4096 kB\n")
    found = doctor.finds(doctor.nlb, ["flow-table"], prefix=words)
    assert found["flow-table"]["text"] == "takes 2 MiB of 4 MiB memory"
    assert 'lower "flows_per_cpu"' in found["flow-table"]["remedy"]


def words_of(data):
    return [f"0x{byte:02x}" for byte in data]


def test_flow_table_that_is_full(doctor):
    doctor.restart(flows_per_cpu=1024)
    pins = "/sys/fs/bpf/gatehouse/eth0"
    gateway = json.loads(doctor.nlb.run("bpftool", "-j", "map", "lookup", "pinned",
                                        f"{pins}/gateways", "key", "1", "0", "0", "0"))
    generation = gateway["formatted"]["value"]["generation"]
    buckets = json.loads(doctor.nlb.run("bpftool", "-j", "map", "show", "pinned",
                                        f"{pins}/flows"))["max_entries"]
    now = 0
    flow = struct.pack("<QHHI", 0x1234567890ABCDEF, 1, generation, now)
    lines = [
        " ".join(["map", "update", "pinned", f"{pins}/flows", "key"]
                 + words_of(struct.pack("<I", bucket)) + ["value"] + words_of(flow * 4))
        for bucket in range(buckets)
    ]
    path = doctor.chain.lab.path("batch")
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
    doctor.nlb.run("bpftool", "batch", "file", path)
    found = doctor.finds(doctor.nlb, ["flow-table"])
    assert "entries in use" in found["flow-table"]["text"]
    assert 'raise "flows_per_cpu"' in found["flow-table"]["remedy"]
    doctor.restart()


def test_clock_that_is_years_behind(doctor):
    preload = os.path.join(doctor.chain.lab.build, "tests", "wrong_clock.so")
    words = ["env", f"LD_PRELOAD={preload}", "ASAN_OPTIONS=verify_asan_link_order=0"]
    found = doctor.finds(doctor.nlb, ["clock"], prefix=words)
    assert "years behind" in found["clock"]["text"]
    assert found["clock"]["remedy"] == "timedatectl set-ntp true"


# --- gateways -----------------------------------------------------------------------------------


def test_decap_not_attached(doctor):
    doctor.gateway.run(doctor.nlbctl, "decap", "detach", "eth0")
    try:
        found = doctor.finds(doctor.gateway, ["decap"])
    finally:
        doctor.attach_decap()
    assert found["decap"]["remedy"] == "nlbctl decap attach eth0 --source ADDRESS-OF-EACH-NLB"


def test_decap_not_attached_and_somebody_else_in_its_place(doctor):
    with somebody_elses_program(doctor.gateway, "eth0/decap"):
        doctor.gateway.run(doctor.nlbctl, "decap", "detach", "eth0", check=False)
        found = doctor.finds(doctor.gateway, ["decap", "program"])
        assert '"pass"' in found["program"]["text"]
        assert "ip link set dev eth0 xdp off; then nlbctl decap attach" in found["program"]["remedy"]
    doctor.attach_decap()


def test_no_routes_for_second_chances(doctor):
    doctor.gateway.sysctl("net.ipv4.conf.lo.forwarding", 0)
    try:
        found = doctor.finds(doctor.gateway, ["second-chance"])
    finally:
        doctor.gateway.sysctl("net.ipv4.conf.lo.forwarding", 1)
    assert found["second-chance"]["remedy"] == "sysctl -w net.ipv4.conf.lo.forwarding=1"


def test_mistyped_options_are_wrong_usage(doctor):
    for option, word, sentence in (
        ("--interface", "eth9", "eth9 does not exist"),
        ("--source", "foo", '"foo" is not an IP address'),
        ("--vip", "203.0.113.0/24", '"203.0.113.0/24" is not an IP address'),
    ):
        for host in (doctor.nlb, doctor.gateway):
            script = '"$@" 2>&1; echo "exit $?"'
            said = host.run("sh", "-c", script, "sh", doctor.nlbctl, "doctor", option, word)
            assert f"{option}: {sentence}" in said and said.endswith("exit 2\n"), said
            assert said.count("\n") == 2, "and no check is tried"


def test_decap_cut_or_pushed_aside(doctor):
    with somebody_elses_program(doctor.gateway, "eth0/decap"):
        found = doctor.finds(doctor.gateway, ["program"])
        assert '"pass"' in found["program"]["text"]
        assert "ip link set dev eth0 xdp off; then nlbctl decap attach" in found["program"]["remedy"]
    found = doctor.finds(doctor.gateway, ["program"])
    assert "no XDP program" in found["program"]["text"]
    assert found["program"]["remedy"].startswith("nlbctl decap attach eth0")
    doctor.attach_decap()


def test_decap_in_generic_mode(doctor):
    doctor.attach_decap("--source", NLB, "--mode", "generic")
    found = doctor.finds(doctor.gateway, ["xdp-mode"])
    assert "generic" in found["xdp-mode"]["text"]
    with ethtool(doctor.gateway, "gro"):
        found = doctor.finds(doctor.gateway, ["xdp-mode", "offloads"])
        assert found["offloads"]["remedy"] == "ethtool -K eth0 gro off"
    doctor.attach_decap("--source", NLB, "--mode", "native")


def test_vip_missing_on_lo(doctor):
    doctor.gateway.ip("address", "del", f"{VIP}/32", "dev", "lo")
    try:
        found = doctor.finds(doctor.gateway, ["vip"])
    finally:
        doctor.gateway.ip("address", "add", f"{VIP}/32", "dev", "lo")
    assert f"{VIP} is not on lo" in found["vip"]["text"]
    assert found["vip"]["remedy"] == f"ip address add {VIP}/32 dev lo"
    found = doctor.finds(doctor.gateway, ["vip"], "--vip", "203.0.113.77")
    assert found["vip"]["remedy"] == "ip address add 203.0.113.77/32 dev lo"


def test_vip_that_came_after_decap(doctor):
    doctor.gateway.ip("address", "add", "203.0.113.99/32", "dev", "lo")
    try:
        found = doctor.finds(doctor.gateway, ["vip"])
    finally:
        doctor.gateway.ip("address", "del", "203.0.113.99/32", "dev", "lo")
    assert "203.0.113.99 is on lo, but tunnelled packets to it are refused" in found["vip"]["text"]
    assert found["vip"]["remedy"].startswith("nlbctl decap attach eth0")


def test_load_balancer_that_is_not_accepted(doctor):
    doctor.attach_decap("--source", "10.0.0.99")
    try:
        found = doctor.finds(doctor.gateway, ["sources"], "--source", NLB)
        assert f"tunnelled packets of {NLB} are refused" in found["sources"]["text"]
        assert f"--source {NLB}" in found["sources"]["remedy"]

        # Without being told: by the packets that come meanwhile.
        script = """
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(100):
    s.sendto(bytes([0, 4, 0, 0]) + b"E" * 40, ("10.0.0.11", 6080))
    time.sleep(0.05)
"""
        sender = doctor.nlb.start("stranger", ["python3", "-c", script])
        found = doctor.finds(doctor.gateway, ["sources"])
        sender.kill()
        assert "from somebody who is not accepted" in found["sources"]["text"]
        assert "tcpdump -ni eth0" in found["sources"]["remedy"]
    finally:
        doctor.attach_decap()


@pytest.mark.parametrize("scope", ["all", "eth0"])
@pytest.mark.parametrize("name, good", [("rp_filter", 0), ("arp_ignore", 1), ("arp_announce", 2)])
def test_kernel_setting(doctor, name, good, scope):
    scopes = [scope] if name == "rp_filter" else ["all", "eth0"]  # the larger one counts
    for each in scopes:
        doctor.gateway.sysctl(f"net.ipv4.conf.{each}.{name}", 0 if good else 1)
    try:
        found = doctor.finds(doctor.gateway, [name])
    finally:
        for each in scopes:
            doctor.gateway.sysctl(f"net.ipv4.conf.{each}.{name}", good)
    assert f"net.ipv4.conf.all.{name}={good}" in found[name]["remedy"]


def test_lines_for_people(doctor):
    said = doctor.gateway.run("env", "LC_ALL=C.UTF-8", doctor.nlbctl, "doctor")
    lines = said.strip().splitlines()
    assert all(line.startswith("\u2713 ") for line in lines[:-2]), said
    assert lines[-1].endswith("good, 0 to look at")
    assert "\x1b" not in said
    doctor.gateway.ip("address", "del", f"{VIP}/32", "dev", "lo")
    try:
        said = doctor.gateway.run("env", "LC_ALL=C", doctor.nlbctl, "doctor", check=False)
    finally:
        doctor.gateway.ip("address", "add", f"{VIP}/32", "dev", "lo")
    (bad,) = [line for line in said.splitlines() if line.startswith("BAD")]
    assert bad.endswith(f"-> ip address add {VIP}/32 dev lo")

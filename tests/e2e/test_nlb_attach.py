# SPDX-License-Identifier: Apache-2.0
"""nlbd and its interface: what it takes, what it refuses and says, and its life under systemd."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

import lab as lab_module
from nlb_rig import HERE, NLB

pytestmark = pytest.mark.usefixtures("lab_possible")


def attached(host, interface="eth0"):
    """{mode: program number} of the interface."""
    links = json.loads(host.run("bpftool", "-j", "net"))[0]["xdp"]
    return {link["mode"]: link["id"] for link in links if link["devname"] == interface}


def refused(chain, config=None, *words, env=()):
    """Starts nlbd, which must not start; returns its one line. It must leave nothing behind."""
    path = chain.lab.write_json(config or chain.config(), "refused.json")
    before = attached(chain.nlb)
    pins = chain.nlb.run("find", "/sys/fs/bpf", "-mindepth", "2")
    with pytest.raises(lab_module.LabError) as caught:
        chain.nlb.run("env", *env, *words, chain.program("nlbd"), "-c", path)
    assert attached(chain.nlb) == before
    assert chain.nlb.run("find", "/sys/fs/bpf", "-mindepth", "2") == pins
    said = str(caught.value)
    assert "\n" not in said, "one line"
    return said[said.index("nlbd: ", said.index("refused.json")) :]


@pytest.fixture
def chain(make_chain):
    return make_chain(gateways=1)


def attach_pass(host, mode):
    host.run("bpftool", "prog", "load", f"{host.lab.build}/tests/bpf/pass.bpf.o", f"/sys/fs/bpf/{mode}")
    host.run("bpftool", "net", "attach", mode, "pinned", f"/sys/fs/bpf/{mode}", "dev", "eth0")


@pytest.mark.parametrize("theirs", ["xdpdrv", "xdpgeneric"])
@pytest.mark.parametrize("ours", ["auto", "native", "generic"])
def test_program_of_somebody_else_stays(chain, theirs, ours):
    attach_pass(chain.nlb, theirs)
    said = refused(chain, {**chain.config(), "xdp_mode": ours})
    assert "has an XDP program of somebody else" in said and "ip link set dev eth0 xdp off" in said
    # The remedy is one.
    chain.nlb.run("ip", "link", "set", "dev", "eth0", "xdpgeneric" if theirs == "xdpgeneric" else "xdp", "off")
    chain.start()
    assert len(attached(chain.nlb)) == 1


def test_decapsulation_on_the_same_interface_stays(chain):
    nlbctl = chain.program("nlbctl")
    chain.nlb.run(nlbctl, "decap", "attach", "eth0", "--source", "10.0.0.77", "--vip", "203.0.113.99")
    said = refused(chain)
    assert "has the decapsulating program of a gateway host" in said
    assert "nlbctl decap detach eth0" in said
    chain.nlb.run(nlbctl, "decap", "detach", "eth0")
    chain.start()
    # And the other way round; ours cannot be pushed off by others either.
    with pytest.raises(lab_module.LabError, match="forwarding program of a load balancer"):
        chain.nlb.run(nlbctl, "decap", "attach", "eth0", "--source", "10.0.0.77", "--vip", "203.0.113.99")
    ours = attached(chain.nlb)
    with pytest.raises(lab_module.LabError):
        attach_pass(chain.nlb, "xdpdrv")
    with pytest.raises(lab_module.LabError):
        chain.nlb.run("ip", "link", "set", "dev", "eth0", "xdp", "off")
    assert attached(chain.nlb) == ours
    assert chain.spread(3) == {"gw1": 3}


@pytest.mark.parametrize("mode", ["native", "generic", "auto"])
def test_mode_is_what_was_asked_for(make_chain, mode):
    chain = make_chain(gateways=2)
    chain.config_path = chain.lab.write_json({**chain.config(), "xdp_mode": mode}, "nlb.json")
    chain.start()
    taken = "generic" if mode == "generic" else "native"
    assert f"XDP mode {taken}" in chain.nlbd.log()
    assert list(attached(chain.nlb)) == [{"native": "driver", "generic": "generic"}[taken]]
    assert json.loads(chain.nlbctl("status"))["xdp_mode"] == taken
    assert set(chain.spread(20)) == {"gw1", "gw2"}


def test_change_of_mode_at_a_restart(make_chain):
    chain = make_chain(gateways=1)
    for mode in ("native", "generic", "auto", "native"):
        chain.config_path = chain.lab.write_json({**chain.config(), "xdp_mode": mode}, "nlb.json")
        chain.start()
        # "auto" leaves what is there: another mode would mean a gap.
        wanted = {"native": "driver", "generic": "generic", "auto": "generic"}[mode]
        assert list(attached(chain.nlb)) == [wanted]
        assert chain.spread(3) == {"gw1": 3}
        chain.nlbd.stop()


def test_driver_that_takes_no_native_program(chain):
    """A veth refuses one while its peer's MTU does not fit a page."""
    chain.lab.switch.run("ip", "link", "set", "dev", chain.nlb.port, "xdp", "off")
    chain.lab.switch.ip("link", "set", chain.nlb.port, "mtu", "9000")
    chain.nlb.ip("link", "set", "eth0", "mtu", "9000")
    said = refused(chain, {**chain.config(), "xdp_mode": "native"})
    assert "eth0 does not take an XDP program in native mode" in said
    assert '(use "generic")' in said and "MTU of 9000" in said
    chain.start_nlbd()
    log = chain.nlbd.log()
    assert "XDP mode generic" in log
    assert re.search(r"does not take a program in native mode \([^)]+\): generic mode is used", log)


@pytest.fixture
def lro(tmp_path, build):
    """Variables for a program that shall see large receive offload."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    if os.path.basename(build) in ("asan", "tsan"):
        pytest.skip("sanitizers want to be preloaded first")
    library = tmp_path / "lro.so"
    subprocess.run(
        [compiler, "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", library, os.path.join(HERE, "lro.c"), "-ldl"],
        check=True,
    )
    return {"LD_PRELOAD": str(library)}


def test_large_receive_offload(chain, lro):
    said = refused(
        chain, {**chain.config(), "xdp_mode": "native"},
        env=[f"LD_PRELOAD={lro['LD_PRELOAD']}", "LRO_REFUSES_NATIVE=1"],
    )
    assert "while large receive offload is on: ethtool -K eth0 lro off" in said
    argv = [chain.program("nlbd"), "-c", chain.config_path]
    chain.nlbd = chain.nlb.start("nlbd", argv, env=lro)
    chain.nlbd.wait_log("forwarding 1 VIPs")
    assert "rx-lro is on, which merges packets" in chain.nlbd.log()
    chain.nlbd.stop()
    chain.start_nlbd()
    assert "rx-lro" not in chain.nlbd.log(), "and only then"


def test_hosts_that_are_not_fit(chain):
    good = chain.config()
    assert "nosuch0 does not exist" in refused(chain, {**good, "interface": "nosuch0"})
    # ... also where there is no folder for the socket, as before an installation.
    nowhere = {**good["admin"], "socket": "/nosuch/nlb.sock"}
    assert "nosuch0 does not exist" in refused(chain, {**good, "interface": "nosuch0", "admin": nowhere})

    if shutil.which("setarch"):  # says "Linux 2.6.x"
        said = refused(chain, good, "setarch", "--uname-2.6")
        assert re.search(r"kernel 2\.6\.\S+ is too old: 5\.15 or newer", said)
    hide = 'mount -t tmpfs none /sys/kernel/btf && exec "$0" "$@"'
    said = refused(chain, good, "sh", "-c", hide)
    assert "no BTF (/sys/kernel/btf/vmlinux is missing)" in said

    chain.nlb.ip("link", "set", "eth0", "mtu", "600")
    assert "MTU of 600, too small" in refused(chain, good)
    chain.nlb.ip("link", "set", "eth0", "mtu", "1600")

    chain.nlb.ip("address", "flush", "dev", "eth0")
    said = refused(chain, good)
    assert "no IPv4 address" in said and "source_address.ipv4" in said
    chain.nlb.ip("address", "add", f"{NLB}/24", "dev", "eth0")
    chain.start()


MISSING = {
    "bpf": ("cap_bpf,cap_sys_admin", "CAP_BPF"),
    "net_admin": ("cap_net_admin,cap_sys_admin", "CAP_NET_ADMIN"),
    "net_raw": ("cap_net_raw", "CAP_NET_RAW"),
    "all": ("cap_bpf,cap_net_admin,cap_sys_admin,cap_net_raw", "CAP_BPF"),
}


@pytest.mark.parametrize("what", MISSING)
def test_missing_capability_is_named(chain, what):
    without, named = MISSING[what]
    drop = ",".join("-" + name.removeprefix("cap_") for name in without.split(","))
    said = refused(chain, chain.config(), "setpriv", "--bounding-set", drop, "--inh-caps", drop)
    assert named in said, said
    assert "root" in said, "and a remedy"


def test_net_raw_is_not_needed_without_tunnel_checks(make_chain):
    chain = make_chain(gateways=1, health={"type": "tcp", "port": 9443, "tunnel": False, "interval_ms": 100})
    words = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]
    chain.nlbd = chain.nlb.start("nlbd", [*words, chain.program("nlbd"), "-c", chain.config_path])
    chain.nlbd.wait_log("forwarding 1 VIPs")
    chain.wait_state("gw1", "up")
    document = chain.config()
    document["vips"][0]["health"]["tunnel"] = True
    chain.lab.write_json(document, "nlb.json")
    with pytest.raises(lab_module.LabError, match="CAP_NET_RAW when nlbd starts"):
        chain.nlbctl("reload")
    assert chain.spread(3) == {"gw1": 3}


# --- systemd ----------------------------------------------------------------------------------


def test_nlbd_speaks_to_systemd(chain):
    """What Type=notify and WatchdogSec in the unit want, in order, and rights given up by then."""
    path = chain.lab.path("run", "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(10)
        env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}
        argv = [chain.program("nlbd"), "-c", chain.config_path]
        chain.nlbd = chain.nlb.start("nlbd", argv, env=env)
        assert notify.recv(100).decode() == "READY=1"
        assert attached(chain.nlb), "ready means forwarding"
        status = chain.nlb.run("cat", f"/proc/{chain.nlbd.pid}/status")
        rights = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
        both = (1 << 39) | (1 << 12)  # CAP_BPF, CAP_NET_ADMIN
        assert [int(rights[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Bnd")] == [both] * 3
        assert int(rights["CapInh"], 16) == int(rights["CapAmb"], 16) == 0
        assert rights["NoNewPrivs"] == "1"

        said = [notify.recv(100).decode() for _ in range(4)]
        assert set(said) == {"WATCHDOG=1"}

        def until(word):
            seen = []
            while word not in seen:
                seen.append(notify.recv(100).decode())
            return [one for one in seen if one != "WATCHDOG=1"]

        chain.nlbd.signal(signal.SIGHUP)
        assert until("READY=1") == ["RELOADING=1", "READY=1"]
        assert until("WATCHDOG=1") == [], "it goes on"
        chain.nlbd.signal(signal.SIGTERM)
        chain.nlbd.stopped_on_purpose = True
        assert until("STOPPING=1") == ["STOPPING=1"]
    assert chain.nlbd.popen.wait(10) == 0
    assert attached(chain.nlb), "the kernel forwards on"

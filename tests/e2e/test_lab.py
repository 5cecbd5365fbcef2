# SPDX-License-Identifier: Apache-2.0
"""The lab itself: hosts reach each other as a real network would let them, and nothing is left."""

import os
import signal
import subprocess
import sys

import pytest

import lab as lab_module
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")


@pytest.fixture
def lab(build):
    with lab_module.Lab(build) as made:
        yield made


def test_client_reaches_a_vip_through_the_router(lab):
    client = lab.add_client("client", ["198.51.100.10", "198.51.100.11"])
    gateway = lab.add_host("gw", "10.0.0.11", vips=["203.0.113.10"], transmits_from_xdp=True)
    lab.route_vip("203.0.113.10", "10.0.0.11")
    web = gateway.start("web", [sys.executable, "-m", "http.server", "80"])
    gateway.wait_port(80, web, "203.0.113.10")
    page = client.run("curl", "-sS", "--interface", "198.51.100.11", "http://203.0.113.10/")
    assert "Directory listing" in page
    assert "198.51.100.11" in web.log()

    shown = lab.switch.run("bpftool", "net")
    assert "to-gw(" in shown and "driver" in shown, "the program that makes XDP_TX arrive"
    features = gateway.run("ethtool", "-k", "eth0")
    for feature in ("tx-checksumming", "tcp-segmentation-offload", "generic-receive-offload"):
        assert f"{feature}: off" in features
    assert "mtu 1600" in gateway.ip("link", "show", "eth0")
    assert "mtu 1500" in client.ip("link", "show", "eth0")


def test_each_host_has_its_own_bpf_file_system(lab):
    one, two = lab.add_host("one", "10.0.0.11"), lab.add_host("two", "10.0.0.12")
    load = ("bpftool", "prog", "load", f"{lab.build}/tests/bpf/pass.bpf.o", "/sys/fs/bpf/mine")
    one.run(*load)
    assert "mine" in one.run("ls", "/sys/fs/bpf"), "what is pinned outlives who pinned it"
    assert "mine" not in two.run("ls", "/sys/fs/bpf")


def test_a_killed_run_is_swept_by_the_next(lab, build):
    script = (
        f"import sys, time; sys.path.insert(0, {os.path.dirname(__file__)!r}); import lab\n"
        f"made = lab.Lab({build!r}); host = made.add_host('h', '10.0.0.5')\n"
        "child = host.start('sleeper', ['sleep', '300'])\n"
        "lab.wait_until(lambda: open(f'/proc/{child.pid}/comm').read() == 'sleep\\n', 'sleep')\n"
        "print(made.id, child.pid, flush=True); time.sleep(300)"
    )
    other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    lab_id, pid = other.stdout.readline().split()
    assert os.path.exists(f"/run/netns/{lab_id}-h")
    lab_module.sweep()
    assert os.path.exists(f"/run/netns/{lab_id}-h"), "a lab in use is left alone"
    other.send_signal(signal.SIGKILL)
    other.wait()
    other.stdout.close()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}/exe"), "its programs die with it")
    lab_module.sweep()
    assert not os.path.exists(f"/run/netns/{lab_id}-h")
    assert not os.path.exists(f"/run/gatehouse-lab/{lab_id}")
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        assert lab_id not in mounts.read()
    assert os.path.exists(f"/run/netns/{lab.id}-switch"), "and ours is still there"

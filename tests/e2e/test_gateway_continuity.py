# SPDX-License-Identifier: Apache-2.0
"""No request is lost while gateways, services and the registry change; counted by the clients.

Steady load of every kind (kept and new connections, HTTP/1.1 and HTTP/2, plain and TLS) goes on while
everything that an operator does is done, one thing after the other.
"""

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

import rig as rig_module
from chain import HOST_NAMES, VIPS, Chain
from procs import wait_until
from upgrades import Upgrades, is_running

RELOADS, UPGRADES = 20, 5


class Steady:
    """One run of the load program; the counts are of what it told last."""

    def __init__(self, program, log_path, words, prefix=()):
        self.words, self.log_path = [str(word) for word in words], log_path
        with open(log_path, "wb") as log:
            self.popen = subprocess.Popen(
                [*prefix, "setpriv", "--pdeathsig", "KILL", program, *self.words],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
            )

    def lines(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return [line for line in log if line.endswith("\n")]

    def counts(self):
        told = [line for line in self.lines() if line.startswith("{")]
        return json.loads(told[-1]) if told else {"answered": 0, "failed": 0, "connections": 0}

    def failures(self):
        return [line.strip() for line in self.lines() if not line.startswith("{")]

    def stop(self):
        self.popen.stdin.close()
        assert self.popen.wait(30) == 0, self.lines()[-5:]

    def kill(self):
        self.popen.kill()
        self.popen.wait()


class Loads:
    """Several of them at once."""

    def __init__(self, program, directory, prefix=()):
        self.program, self.directory, self.prefix = program, str(directory), prefix
        self.loads = []

    def add(self, *words):
        log_path = os.path.join(self.directory, f"steady-{len(self.loads)}.log")
        self.loads.append(Steady(self.program, log_path, words, self.prefix))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for load in self.loads:
            load.kill()

    def check(self, what):
        for load in self.loads:
            assert load.counts()["failed"] == 0, (what, load.words, load.failures()[:5])

    def go_on(self, what, more=20):
        """Until each has so many more answers, and none has lost a request."""
        before = [load.counts()["answered"] for load in self.loads]
        wait_until(
            lambda: all(l.counts()["answered"] >= b + more for l, b in zip(self.loads, before))
            or any(l.counts()["failed"] for l in self.loads),
            f"{what}: {more} more requests of each kind: {[l.counts() for l in self.loads]}",
            30,
        )
        self.check(what)

    def stop(self):
        for load in self.loads:
            load.stop()
        self.check("at the end")
        return {key: sum(l.counts()[key] for l in self.loads) for key in ("answered", "connections")}


@pytest.fixture
def steady(build):
    path = os.path.join(build, "tests", "steady")
    assert os.access(path, os.X_OK), f"{path} is not built: run make tests"
    return path


@pytest.fixture
def discovering(tmp_path, make_rig, procs, registry):
    rig = make_rig(tmp_path, procs)
    rig.config["registry"] = {
        "urls": [registry.url],
        "cache": str(tmp_path / "cache.json"),
        "register": {"app": "gate", "address": "127.0.0.1", "port": rig.ports["tls"], "lease_s": 3},
    }
    rig.config["services"]["echo"] = {"discover": "found", "retries": 2}
    rig.config["drain_timeout_ms"] = 20000
    return rig


@pytest.mark.limit(180)
def test_nothing_is_lost_whatever_is_changed(
    discovering, registry, program, steady, procs, start_service, tmp_path, authority
):
    options = ("--registry", registry.url, "--lease-s", "3", "--linger-ms", "1000")
    found = [start_service(procs, "found", f"found-{i}", *options) for i in (1, 2)]
    wait_until(lambda: len(registry.instances("found")) == 2, "both are registered")
    rig = discovering.start()
    plain = ("127.0.0.1", rig.ports["plain"])
    over_tls = ("127.0.0.1", rig.ports["tls"])
    secure = (rig_module.HOST, authority.certificate)
    began = time.monotonic()
    with Upgrades(rig, program("gatewayctl")) as upgrades, Loads(steady, tmp_path) as loads:
        loads.add(*plain, "keep", 8, "/ping")
        loads.add(*plain, "new", 2, "/ping")
        loads.add(*plain, "h2", 4, "/ping")
        loads.add(*plain, "keep", 4, "/echo/x")
        loads.add(*over_tls, "keep", 8, "/ping", *secure)
        loads.add(*over_tls, "new", 1, "/ping", *secure)
        loads.add(*over_tls, "h2", 8, "/ping", *secure)
        loads.go_on("at the beginning")

        for i in range(RELOADS):
            rig.config["routes"][-1]["response"] = {"set": {"X-Round": str(i)}}
            rig.reload()
            loads.go_on(f"reload {i}", 5)
        for i in range(UPGRADES):
            # Another number of workers each time: they share sockets, or have several.
            rig.config["workers"] = 1 + i % 3
            old = upgrades.pid
            upgrades.upgrade()
            loads.go_on(f"upgrade {i}")
            upgrades.wait_for_end(old)
            assert [i["status"] for i in registry.instances("gate")] == ["UP"]
        assert rig.proc.exit_code() == 0

        found.append(start_service(procs, "found", "found-3", *options))
        wait_until(lambda: found[2].requests(), "the added instance is used")
        assert registry.status("found", "found-1", "OUT_OF_SERVICE") == 200
        loads.go_on("an instance is out of service")
        assert found[0].proc.stop() == 0
        loads.go_on("an instance is drained")
        found[1].proc.kill()
        loads.go_on("an instance is killed", 100)

        registry.proc.kill()
        loads.go_on("the registry is killed", 50)
        upgrades.upgrade()  # the new one knows the instances by the cache file
        loads.go_on("an upgrade without a registry", 50)
        registry.start()
        wait_until(
            lambda: [i["status"] for i in registry.instances("gate")] == ["UP"], "it registers again", 15
        )
        loads.go_on("the registry is back", 50)
        total = loads.stop()
        upgrades.stop()
    print(f"{total['answered']} requests, {total['connections']} connections, 0 lost in "
          f"{time.monotonic() - began:.0f} s")


def lift_limits(config):
    """The examples' limits are not under test; a burst so large that no pause of a worker matters."""
    for limit in config["rate_limits"].values():
        limit.update(limit=1_000_000, burst=100_000_000)


@pytest.mark.usefixtures("lab_possible")
@pytest.mark.limit(120)
def test_drain_of_one_of_two_gateways_loses_nothing(build, steady, program, tmp_path, shown_groups):
    """Behind the load balancer: what is new goes to the other one, kept connections are told to go."""
    with contextlib.ExitStack() as stack:
        chain = stack.enter_context(Chain(build, lease_s=3, change_gateway=lift_limits))
        shown_groups.append(chain.lab.procs)
        stack.callback(shown_groups.remove, chain.lab.procs)
        to = (VIPS["rider"], 443)
        secure = (HOST_NAMES["rider"], chain.authority.certificate)
        loads = stack.enter_context(Loads(steady, tmp_path, chain.client.enter_words()))
        loads.add(*to, "keep", 8, "/ping", *secure)
        loads.add(*to, "h2", 8, "/ping", *secure)
        loads.add(*to, "new", 2, "/ping", *secure)
        loads.go_on("at the beginning")
        for name in ("gw-r1", "gw-r2"):
            socket = chain.gateway_config(name)["admin"]["socket"]
            proc = chain.procs[name]
            proc.stopped_on_purpose = True
            chain.gateways[name].run(program("gatewayctl"), "--socket", socket, "drain", "--wait")
            assert proc.popen.wait(10) == 0
            loads.go_on(f"{name} is drained")
            assert name not in chain.in_use()
            chain.start_gateway(name)
            chain.wait_gateway_ready(name)
            chain.wait_balanced()
            loads.go_on(f"{name} is back")

        # And an upgrade behind it, of which the load balancer sees nothing.
        before = chain.new_connections()
        socket = chain.gateway_config("gw-r1")["admin"]["socket"]
        old = chain.procs["gw-r1"]
        old.stopped_on_purpose = True
        told = chain.gateways["gw-r1"].run(
            program("gatewayctl"), "--socket", socket, "--json", "upgrade"
        )
        pid = json.loads(told)["pid"]
        try:
            assert old.popen.wait(40) == 0
            loads.go_on("gw-r1 is upgraded")
            assert "gw-r1" in chain.in_use()
            loads.go_on("it takes connections", 100)
            assert chain.new_connections()["gw-r1"] > before["gw-r1"]
            loads.stop()
        finally:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not is_running(pid), "the new process ends", 40)

# SPDX-License-Identifier: Apache-2.0
"""A new gatewayd takes the listening sockets over from the one that runs."""

import os
import re
import signal
import socket
import subprocess
import time

import pytest

import client
import rig as rig_module
from procs import wait_until
from upgrades import Upgrades


@pytest.fixture
def own_rig(tmp_path, make_rig, procs):
    return make_rig(tmp_path, procs)


@pytest.fixture
def running(own_rig, program):
    """Starts the rig; its upgrades."""
    own_rig.start()
    with Upgrades(own_rig, program("gatewayctl")) as upgrades:
        yield upgrades


def serving_pids(port):
    """Who listens on the port, by ss."""
    done = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True)
    return {int(pid) for pid in re.findall(r"pid=(\d+)", done.stdout)}


def listening_sockets(port):
    done = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True)
    return len(done.stdout.splitlines())


def test_new_process_serves_and_the_old_one_ends(own_rig, running):
    old = own_rig.proc
    assert own_rig.ask("GET", "/ping").status == 200
    pid = running.upgrade()
    assert pid != old.pid
    assert old.popen.wait(10) == 0
    assert serving_pids(own_rig.ports["plain"]) == {pid}
    assert serving_pids(own_rig.ports["admin"]) == {pid}
    for listener in ("plain", "tls"):
        assert own_rig.ask("GET", "/ping", listener=listener).body == b"pong"
    assert own_rig.admin("GET", "/readyz").status == 200
    assert running.run("status").returncode == 0, "the admin socket is the new one's"
    running.stop()
    assert not os.path.exists(own_rig.config["admin"]["socket"]), "the last one removes it"


def test_the_new_one_reads_the_file_as_it_is_now(own_rig, running):
    own_rig.config["routes"].append(
        {"name": "new", "match": {"path": "/new"}, "respond": {"status": 200, "body": "new"}}
    )
    port = rig_module.free_port()
    own_rig.config["listeners"].append({"bind": f"127.0.0.1:{port}"})  # a reload cannot do that
    running.upgrade()
    assert own_rig.ask("GET", "/new").body == b"new"
    assert client.http("127.0.0.1", port, "GET", "/new").body == b"new"


def test_address_that_is_given_up_is_closed(own_rig, running):
    plain, tls = own_rig.config["listeners"]
    own_rig.config["listeners"] = [plain]
    socket_path = own_rig.config["admin"]["socket"]
    running.upgrade()
    assert own_rig.proc.popen.wait(10) == 0
    with pytest.raises(ConnectionRefusedError):
        own_rig.connect("tls")
    assert own_rig.ask("GET", "/ping").status == 200
    own_rig.config["listeners"] = [plain, tls]
    running.upgrade()
    assert own_rig.ask("GET", "/ping", listener="tls").status == 200
    assert os.path.exists(socket_path)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_other_number_of_workers(own_rig, running, workers):
    """The very sockets go on, however many workers share them: a connection may wait in each."""
    own_rig.config["workers"] = workers
    running.upgrade()
    assert own_rig.proc.popen.wait(10) == 0
    assert listening_sockets(own_rig.ports["plain"]) == 2
    for _ in range(40):
        assert own_rig.ask("GET", "/ping").status == 200
    own_rig.config["workers"] = 3
    running.upgrade()
    for _ in range(40):
        assert own_rig.ask("GET", "/ping").status == 200


def test_connections_that_wait_in_the_queues_are_served(own_rig, running):
    """Made all the while: some are in the sockets' queues when the processes change."""
    own_rig.config["drain_idle_ms"] = 30000  # their requests come when all is over
    own_rig.reload()
    done = subprocess.Popen(
        [*running.prefix, running.ctl, "--socket", own_rig.config["admin"]["socket"], "upgrade"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    waiting = []
    while done.poll() is None:
        waiting.append(own_rig.connect())
    assert done.returncode == 0, done.stdout.read()
    running.pids.append(int(re.search(r"process (\d+)", done.stdout.read())[1]))
    own_rig.proc.stopped_on_purpose = True
    assert waiting
    for connection in waiting:
        with connection:
            assert connection.request("GET", "/ping").status == 200


def test_requests_under_way_end_in_the_old_one(own_rig, running):
    with own_rig.connect() as busy, own_rig.connect("tls") as idle:
        assert idle.request("GET", "/ping").status == 200
        busy.send(client.head_of("GET", "/echo/x?fault=delay_ms=1500", "h"))
        running.upgrade()
        answer = idle.request("GET", "/ping")  # on its way when the old one leaves
        assert answer.status == 200 and answer.first("Connection") == "close"
        answer = busy.read_response()
        assert answer.status == 200 and answer.first("Connection") == "close"
    assert own_rig.proc.popen.wait(10) == 0


def test_idle_connections_do_not_hold_the_old_one(own_rig, running):
    own_rig.config["drain_idle_ms"] = 200
    own_rig.reload()
    with own_rig.connect() as idle:
        assert idle.request("GET", "/ping").status == 200
        began = time.monotonic()
        running.upgrade()
        assert own_rig.proc.popen.wait(10) == 0
        assert time.monotonic() - began < 4, "not drain_timeout_ms"
        assert idle.is_closed()


def assert_refused(own_rig, running, *said):
    done = running.run("upgrade")
    assert done.returncode == 1 and "nothing has changed" in done.stderr, done
    for word in said:
        assert word in own_rig.proc.log(), own_rig.proc.log_tail()
    assert own_rig.proc.exit_code() is None
    assert serving_pids(own_rig.ports["plain"]) == {own_rig.proc.pid}
    for listener in ("plain", "tls"):
        assert own_rig.ask("GET", "/ping", listener=listener).status == 200
    assert own_rig.admin("GET", "/readyz").status == 200
    assert os.path.exists(own_rig.config["admin"]["socket"])


def test_bad_configuration_changes_nothing(own_rig, running):
    own_rig.write({**own_rig.config, "routes": "none"})
    assert_refused(own_rig, running, "routes")
    own_rig.write({**own_rig.config, "access_log": {"path": "/nowhere/access.log"}})
    assert_refused(own_rig, running, "/nowhere/access.log")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        own_rig.write({**own_rig.config, "listeners": [*own_rig.config["listeners"], {"bind": bind}]})
        assert_refused(own_rig, running, bind, "in use")
    running.upgrade()  # and then a good one


def test_other_domain_is_refused(own_rig, running):
    own_rig.write({**own_rig.config, "domain": "another"})
    assert_refused(own_rig, running, "serves the domain test, not another")


def test_take_over_without_anybody(own_rig):
    own_rig.write()
    done = subprocess.run(
        [own_rig.program, "-c", own_rig.config_path, "--take-over"], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1
    assert own_rig.config["admin"]["socket"] in done.stderr and "--take-over" in done.stderr


def test_take_over_by_hand(own_rig, running, procs):
    new = procs.start("gatewayd-2", [own_rig.program, "-c", own_rig.config_path, "--take-over"])
    own_rig.proc.stopped_on_purpose = True
    assert own_rig.proc.popen.wait(10) == 0
    assert serving_pids(own_rig.ports["plain"]) == {new.pid}
    assert own_rig.ask("GET", "/ping").status == 200


def test_drain_ends_an_upgrade_in_progress(own_rig, running, registry):
    """The new one waits for a list that does not come; the old one is told to end: both do."""
    own_rig.config["registry"] = {"urls": [f"http://127.0.0.1:{rig_module.free_port()}"]}
    own_rig.config["services"]["found"] = {"discover": "found"}
    own_rig.write()
    new = subprocess.Popen(
        [own_rig.program, "-c", own_rig.config_path, "--take-over"], stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: new.pid in serving_pids(own_rig.ports["plain"]), "it has the sockets")
        assert own_rig.ask("GET", "/ping").status == 200, "served by the old one"
        assert own_rig.proc.stop() == 0
        status, said = new.wait(10), new.stderr.read()
        assert status == 1 and "has ended" in said, said
    finally:
        new.kill()
        new.wait()
        new.stderr.close()


def test_no_list_of_instances_no_change(own_rig, running):
    """Better the old one with what it knows than a new one that knows no instance."""
    own_rig.config["registry"] = {"urls": [f"http://127.0.0.1:{rig_module.free_port()}"]}
    own_rig.config["services"]["found"] = {"discover": "found"}
    own_rig.write()
    assert_refused(own_rig, running, "no list of some service's instances")


def test_registration_stays(own_rig, registry, tmp_path, program):
    """Nobody who watches sees the gateway leave, and it stays registered after the old one's end."""
    own_rig.config["registry"] = {
        "urls": [registry.url],
        "cache": str(tmp_path / "cache.json"),
        "register": {"app": "gate", "address": "127.0.0.1", "port": own_rig.ports["tls"], "lease_s": 2},
    }
    own_rig.start()
    with Upgrades(own_rig, program("gatewayctl")) as upgrades:
        wait_until(lambda: registry.instances("gate"), "registered")
        for _ in range(2):
            old = upgrades.pid
            upgrades.upgrade()
            until = time.monotonic() + 3  # longer than the lease
            while time.monotonic() < until:
                assert [i["status"] for i in registry.instances("gate")] == ["UP"]
            upgrades.wait_for_end(old)
        upgrades.stop()
        assert registry.instances("gate") == []


def test_sockets_of_systemd(own_rig, procs):
    """LISTEN_FDS as systemd passes it, without SO_REUSEPORT: workers share."""
    own_rig.config["workers"] = 3
    own_rig.write()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", own_rig.ports["plain"]))
        listening.listen(100)
        argv = [own_rig.program, "-c", own_rig.config_path]
        launcher = 'fd=$0; eval "exec 3<&$fd"; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'

        def start():
            with open(os.path.join(own_rig.directory, "gatewayd.err"), "ab") as errors:
                return subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "bash", "-c", launcher,
                     str(listening.fileno()), *argv],
                    pass_fds=[listening.fileno()], stderr=errors,
                )

        for _ in range(2):
            popen = start()
            try:
                wait_until(lambda: own_rig.admin("GET", "/readyz").status == 200, "ready", 10)
                for _ in range(20):
                    assert own_rig.ask("GET", "/ping").status == 200
                assert own_rig.ask("GET", "/ping", listener="tls").status == 200, "opened itself"
                popen.send_signal(signal.SIGTERM)
                assert popen.wait(10) == 0
                # Nobody runs, and nobody is refused: it waits for the next one.
                waiting = own_rig.connect()
            finally:
                popen.kill()
                popen.wait()
        waiting.close()

# SPDX-License-Identifier: Apache-2.0
"""What registryd survives: full disks, damaged files, kills at any moment, bad peers."""

import json
import re
import os
import random
import resource
import select
import signal
import socket
import subprocess
import time

import pytest

from conftest import is_sanitized
from procs import wait_until

PATH = "/v1/apps/user/instances/u1"


def instance(**more):
    return {"address": "10.1.0.5", "port": 8080, "lease_s": 60, **more}


def restart(registry, number=signal.SIGTERM):
    registry.proc.stopped_on_purpose = True
    registry.proc.signal(number)
    registry.proc.popen.wait(10)
    registry.start()


def run_to_end(registry, **more):
    return subprocess.run(
        [registry.program, "-c", registry.config_path], capture_output=True, text=True, timeout=10,
        **more,
    )


def metric(registry, name):
    for line in registry.call("GET", "/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise AssertionError(f"no metric {name}")


def is_saved(registry):
    """All that is known is in the snapshot."""
    status = registry.call("GET", "/status").json()
    return status["snapshot"]["saved_index"] == status["index"]


def resident_kib(proc):
    with open(f"/proc/{proc.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


@pytest.mark.skipif(is_sanitized(), reason="measures memory")
def test_readers_that_do_not_read_share_the_list(registry):
    """Sixty of them before a list of several megabytes: it is in memory once or twice."""
    for number in range(1200):
        document = instance(metadata={f"k{i}": "v" * 1000 for i in range(7)})
        path = f"/v1/apps/user/instances/u{number}"
        assert registry.call("PUT", path, document).status == 201
    size = len(registry.call("GET", "/v1/apps").body)
    assert size > 8_000_000, "more than the kernel buffers for one connection"
    before = resident_kib(registry.proc)
    readers = []
    for number in range(60):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", registry.port))
        target = ("/v1/apps", "/v1/watch", "/v1/apps/user", "/v1/watch?apps=user")[number % 4]
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert sock.recv(15) == b"HTTP/1.1 200 OK"
        readers.append(sock)
    after = resident_kib(registry.proc)
    # One copy each for the four that differ.
    assert after - before < 8 * size // 1024, f"{before} KiB before, {after} KiB after"
    assert registry.call("GET", "/v1/apps").status == 200
    for sock in readers:
        sock.close()


def test_full_disk_while_running(registry):
    """A limit on the size of files stands for a disk that is full."""
    limits = (4096, resource.RLIM_INFINITY)  # enough for the log, which is a file here too
    resource.prlimit(registry.proc.pid, resource.RLIMIT_FSIZE, limits)
    for number in range(5):
        path = f"/v1/apps/user/instances/u{number}"
        document = instance(metadata={"a": "x" * 1000})
        assert registry.call("PUT", path, document).status == 201, "it serves on"
    wait_until(lambda: metric(registry, "gatehouse_registry_snapshot_failing") == 1, "noticed")
    assert registry.call("GET", "/readyz").status == 200
    problem = registry.call("GET", "/status").json()["snapshot"]["problem"]
    assert registry.snapshot in problem
    assert not os.path.exists(registry.snapshot + ".new")
    wait_until(lambda: metric(registry, "gatehouse_registry_snapshot_failures_total") >= 2,
               "tried again", 15)
    assert registry.proc.log().count("cannot write") == 1, "said once"
    resource.prlimit(registry.proc.pid, resource.RLIMIT_FSIZE,
                     (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_until(lambda: metric(registry, "gatehouse_registry_snapshot_failing") == 0,
               "works again", 15)
    assert "can be written again" in registry.proc.log()
    restart(registry, signal.SIGKILL)
    assert len(registry.instances("user")) == 5


def test_disk_that_is_full(make_registry, tmp_path):
    """A small file system of its own, really full; then there is room again."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        snapshot = str(folder / "snapshot")
        registry = make_registry(store={"snapshot": snapshot})
        registry.start()
        for number in range(5):
            path = f"/v1/apps/user/instances/u{number}"
            assert registry.call("PUT", path, instance()).status == 201
        wait_until(lambda: is_saved(registry), "written")
        for number in range(60):
            path = f"/v1/apps/big/instances/b{number}"
            document = instance(metadata={"a": "x" * 1000})
            assert registry.call("PUT", path, document).status == 201, "it serves on"
        wait_until(lambda: metric(registry, "gatehouse_registry_snapshot_failing") == 1, "noticed")
        assert "No space left" in registry.call("GET", "/status").json()["snapshot"]["problem"]
        restart(registry, signal.SIGKILL)
        assert len(registry.instances("user")) == 5, "the last good one is whole"
        for number in range(60):
            registry.call("PUT", f"/v1/apps/big/instances/b{number}",
                          instance(metadata={"a": "x" * 1000}))
        subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
        wait_until(lambda: is_saved(registry), "room", 20)
        restart(registry, signal.SIGKILL)
        assert len(registry.instances("big")) == 60 and len(registry.instances("user")) == 5
        assert registry.proc.stop() == 0
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def test_clock_that_jumps(make_registry, tmp_path):
    """Leases do not know the time of day, and indexes go on when it runs backwards."""
    preload = os.path.join(os.environ.get("GATEHOUSE_BUILD", "build"), "tests", "wrong_clock.so")
    registry = make_registry()
    jumped = tmp_path / "jumped"
    registry.program = ["env", f"LD_PRELOAD={os.path.abspath(preload)}", f"WRONG_CLOCK_IF={jumped}",
                        "ASAN_OPTIONS=verify_asan_link_order=0", registry.program]
    registry.start()
    first = registry.call("PUT", PATH, instance(lease_s=3600)).json()["index"]
    assert first > 1 << 40, "as new as the clock"
    jumped.write_text("")
    second = registry.call("PUT", PATH, instance(lease_s=3600, port=2)).json()["index"]
    assert second > first
    registry.call("PUT", "/v1/apps/user/instances/short", instance(lease_s=1))
    wait_until(lambda: [i["id"] for i in registry.instances("user")] == ["u1"], "expiry", 10)
    restart(registry)
    assert [i["id"] for i in registry.instances("user")] == ["u1"]
    third = registry.call("PUT", PATH, instance(lease_s=3600, port=3)).json()["index"]
    assert third > second, "although the clock is in 1970"
    jumped.unlink()
    assert registry.call("PUT", PATH, instance(lease_s=3600, port=4)).json()["index"] > third
    assert [i["id"] for i in registry.instances("user")] == ["u1"]


class Crowd:
    """Very many watchers, all of one process."""

    def __init__(self, port, count):
        self.port, self.count = port, count
        self.socks, self.text = {}, {}
        self.poll = select.epoll()

    def connect(self):
        self.close()
        for _ in range(self.count):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self.port))
            self.socks[sock.fileno()] = sock
            self.text[sock.fileno()] = None
            self.poll.register(sock.fileno(), select.EPOLLOUT)

    def until(self, marker, timeout_s):
        """All have read the marker since they last had one."""
        waiting = set(self.socks)
        deadline = time.monotonic() + timeout_s
        while waiting:
            assert time.monotonic() < deadline, f"{len(waiting)} never saw {marker}"
            for fd, events in self.poll.poll(1):
                if self.text[fd] is None:
                    if events & select.EPOLLERR:
                        raise ConnectionError(f"refused: {fd}")
                    self.socks[fd].sendall(b"GET /v1/watch?apps=user HTTP/1.1\r\nHost: r\r\n\r\n")
                    self.text[fd] = b""
                    self.poll.modify(fd, select.EPOLLIN)
                    continue
                data = self.socks[fd].recv(65536)
                assert data, "a watch ended"
                self.text[fd] += data
                if marker in self.text[fd]:
                    self.text[fd] = b""
                    waiting.discard(fd)

    def close(self):
        for fd, sock in self.socks.items():
            self.poll.unregister(fd)
            sock.close()
        self.socks.clear()


@pytest.mark.limit(180)
def test_ten_thousand_reconnect_at_once(make_registry):
    """As after a crash: everybody comes back in one moment and wants the whole list."""
    count = 500 if is_sanitized() else 10000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 200:
        pytest.skip(f"needs {count + 200} open files, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = None
    try:
        registry = make_registry(max_connections=count + 100, limits={"watches": count + 100})
        registry.start()
        for number in range(100):
            registry.call("PUT", f"/v1/apps/user/instances/u{number}", instance())
        wait_until(lambda: is_saved(registry), "written")
        restart(registry, signal.SIGKILL)
        before = resident_kib(registry.proc)
        crowd = Crowd(registry.port, count)
        crowd.connect()
        crowd.until(b'"u99"', 90)
        assert len(registry.instances("user")) == 100
        assert metric(registry, "gatehouse_registry_watches") == count
        registry.status("user", "u0", "DOWN")
        crowd.until(b"event: status", 60)
        grown = resident_kib(registry.proc) - before
        assert grown < 20 * count, f"{grown} KiB for {count} watchers"
        assert metric(registry, "gatehouse_registry_http_slow_readers_total") == 0
        crowd.close()
        wait_until(lambda: metric(registry, "gatehouse_registry_watches") == 0, "all gone", 30)
    finally:
        if crowd:
            crowd.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_snapshot_folder_that_cannot_be_written(registry, tmp_path):
    registry.proc.stop()
    for folder, hint in ((tmp_path / "missing", "make its folder first"),
                         (tmp_path / "file", "Not a directory")):
        if "file" in str(folder):
            folder.write_text("")
        with open(registry.config_path, encoding="utf-8") as file:
            config = json.load(file)
        config["store"]["snapshot"] = str(folder / "snapshot")
        with open(registry.config_path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        done = run_to_end(registry)
        assert done.returncode == 1
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1 and str(folder) in lines[0] and hint in lines[0], done.stderr


def test_cut_snapshot_gives_back_what_is_whole(registry):
    for number in range(10):
        registry.call("PUT", f"/v1/apps/user/instances/u{number}", instance())
    assert registry.proc.stop() == 0
    size = os.path.getsize(registry.snapshot)
    os.truncate(registry.snapshot, size - size // 3)
    registry.start()
    left = [i["id"] for i in registry.instances("user")]
    assert left == [f"u{number}" for number in range(len(left))] and 5 <= len(left) <= 7
    assert f"{len(left)} of 10" in registry.proc.log()


def test_file_that_is_no_snapshot_is_set_aside(registry):
    assert registry.proc.stop() == 0
    with open(registry.snapshot, "wb") as file:
        file.write(b"something else entirely, and long enough to have a header" * 10)
    registry.start()
    assert registry.instances("user") == []
    assert "no registry snapshot" in registry.proc.log()
    with open(registry.snapshot + ".damaged", "rb") as file:
        assert file.read().startswith(b"something else")


@pytest.mark.limit(120)
def test_kill_at_any_moment_loses_nothing_durable(registry):
    """What was acknowledged more than a second before a kill is there afterwards."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    number = 0
    durable = set()
    for _ in range(6):
        written = []
        ends = time.monotonic() + dice.uniform(0.2, 1.8)
        while time.monotonic() < ends:
            name = f"u{number}"
            number += 1
            answer = registry.call("PUT", f"/v1/apps/user/instances/{name}", instance())
            assert answer.status == 201
            written.append((time.monotonic(), name))
            time.sleep(dice.uniform(0, 0.02))
        killed = time.monotonic()
        restart(registry, signal.SIGKILL)
        durable |= {name for at, name in written if killed - at > 1.0}
        there = {i["id"] for i in registry.instances("user")}
        assert durable <= there, durable - there
        assert "damaged" not in registry.proc.log() and "cut off" not in registry.proc.log()
        durable = there


def test_lease_begins_anew_after_a_restart(registry):
    registry.call("PUT", PATH, instance(lease_s=2))
    time.sleep(1)
    restart(registry)
    back = time.monotonic()
    time.sleep(1.5)  # more than was left of the lease
    assert len(registry.instances("user")) == 1
    wait_until(lambda: not registry.instances("user"), "expiry", 5)
    assert time.monotonic() - back < 4


def test_index_of_a_lost_life_gives_the_full_state(registry):
    """A snapshot is up to a second old: indexes given out after it are never given out again."""
    registry.call("PUT", PATH, instance())
    time.sleep(1.2)
    lost = registry.call("PUT", "/v1/apps/user/instances/u2", instance()).json()["index"]
    restart(registry, signal.SIGKILL)
    began = time.monotonic()
    answer = registry.call("GET", f"/v1/apps/user?index={lost}&wait_s=10")
    assert answer.json()["index"] > lost
    sock = socket.create_connection(("127.0.0.1", registry.port), 5)
    with sock:
        sock.sendall(f"GET /v1/watch?index={lost} HTTP/1.1\r\nHost: r\r\n\r\n".encode())
        text = b""
        while b"event:" not in text:
            text += sock.recv(4096)
    assert b"event: reset" in text
    assert time.monotonic() - began < 10


def test_stop_answers_what_waits(registry):
    index = registry.call("PUT", PATH, instance()).json()["index"]
    socks = []
    for target in (f"/v1/apps/user?index={index}&wait_s=60", "/v1/watch?index=0"):
        sock = socket.create_connection(("127.0.0.1", registry.port), 10)
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: r\r\n\r\n".encode())
        socks.append(sock)
    wait_until(lambda: metric(registry, "gatehouse_registry_blocking_queries") == 1
               and metric(registry, "gatehouse_registry_watches") == 1, "both wait")
    began = time.monotonic()
    assert registry.proc.stop() == 0
    assert time.monotonic() - began < 4
    answers = []
    for sock in socks:
        text = b""
        while data := sock.recv(65536):
            text += data
        answers.append(text)
        sock.close()
    assert b'"instances":[{' in answers[0] and answers[0].startswith(b"HTTP/1.1 200 ")
    assert answers[1].endswith(b"0\r\n\r\n"), "the stream ends in order"


def test_slow_watcher_is_cut_off_and_others_are_not(registry):
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", registry.port))
    slow.sendall(b"GET /v1/watch?index=0 HTTP/1.1\r\nHost: r\r\n\r\n")
    slow.recv(10)
    quick = socket.create_connection(("127.0.0.1", registry.port), 20)
    quick.sendall(b"GET /v1/watch?index=0&apps=user HTTP/1.1\r\nHost: r\r\n\r\n")
    big = {f"k{number}": "x" * 1000 for number in range(7)}
    for number in range(700):
        registry.call("PUT", PATH, instance(weight=number + 1, metadata=big))
        quick.setblocking(False)
        try:
            while quick.recv(1 << 20):
                pass
        except BlockingIOError:
            pass
    assert metric(registry, "gatehouse_registry_http_slow_readers_total") == 1
    assert metric(registry, "gatehouse_registry_watches") == 1
    quick.close()
    slow.close()


def test_reload(registry):
    def configure(**lease):
        with open(registry.config_path, encoding="utf-8") as file:
            config = json.load(file)
        config["lease"].update(lease)
        with open(registry.config_path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        registry.proc.signal(signal.SIGHUP)

    configure(default_s=7)
    wait_until(lambda: "reloaded" in registry.proc.log(), "reload")
    registry.call("PUT", PATH, {"address": "10.1.0.5", "port": 80})
    assert registry.instances("user")[0]["lease_s"] == 7
    configure(default_s=0)
    wait_until(lambda: "nothing changed" in registry.proc.log(), "refusal")
    # A line of the log, as every other.
    assert re.search(r"^\S+ error registryd: \S+: lease.default_s: ", registry.proc.log(), re.M)
    registry.call("PUT", "/v1/apps/user/instances/u2", {"address": "10.1.0.5", "port": 80})
    assert registry.instances("user")[1]["lease_s"] == 7


def test_self_preservation_shows(registry):
    names = [f"u{number}" for number in range(12)]
    for name in names:
        registry.call("PUT", f"/v1/apps/user/instances/{name}", instance(lease_s=6))
    # Nobody renews any more: that looks like a network cut.
    wait_until(lambda: registry.call("GET", "/status").json()["self_preservation"]["is_holding"],
               "holding", 15)
    assert len(registry.instances("user")) == 12
    assert "self-preservation" in registry.proc.log()
    # They run out one after the other.
    wait_until(lambda: metric(registry, "gatehouse_registry_held_leases") == 12, "all held", 15)
    for name in names:
        assert registry.call("POST", f"/v1/apps/user/instances/{name}/renew").status == 204
    assert not registry.call("GET", "/status").json()["self_preservation"]["is_holding"]
    assert "ended" in registry.proc.log()


@pytest.mark.parametrize(
    "request_bytes,status",
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/apps HTTP/1.1\r\nHost: r\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"PUT " + PATH.encode() + b" HTTP/1.1\r\nHost: r\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: r\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: r\r\n" + b"X: y\r\n" * 9000 + b"\r\n", 431),
    ],
    ids=["no-host", "two-lengths", "tls", "huge-body", "long-target", "long-head"],
)
def test_malformed_requests_are_refused_and_closed(registry, request_bytes, status):
    with socket.create_connection(("127.0.0.1", registry.port), 5) as sock:
        try:
            sock.sendall(request_bytes + b"GET /healthz HTTP/1.1\r\nHost: r\r\n\r\n")
        except OSError:
            pass  # refused while we still wrote
        text = b""
        try:
            while data := sock.recv(65536):
                text += data
        except ConnectionResetError:
            pass
    assert text.startswith(f"HTTP/1.1 {status} ".encode()), text[:200]
    assert text.count(b"HTTP/1.1 ") == 1, "nothing behind it is looked at"
    assert registry.call("GET", "/healthz").status == 200

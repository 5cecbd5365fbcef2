# SPDX-License-Identifier: Apache-2.0
"""Rate limits that three gateways share over a real Redis, and what becomes of them without it."""

import collections
import contextlib
import re
import socketserver
import threading
import time

import pytest

from client import BadResponse
from procs import wait_until
from redis_rig import Path, RedisServer

GATEWAYS = 3


def metric(rig, name):
    text = rig.admin("GET", "/metrics").body.decode()
    return float(re.search(rf"^gatehouse_gateway_{name} (\S+)$", text, re.MULTILINE)[1])


def is_common(rig):
    return metric(rig, "rate_limit_store_up") == 1


def wait_common(rigs, wanted, what):
    for rig in rigs:
        wait_until(lambda rig=rig: is_common(rig) == wanted, what, 20, rig.proc)


@pytest.fixture
def redis(tmp_path, procs):
    return RedisServer(tmp_path, procs).start()


@pytest.fixture
def path(redis):
    path = Path(redis.port)
    yield path
    path.close()


@pytest.fixture
def make_rigs(tmp_path, make_rig, procs, path):
    """Gateways of one domain that count in one Redis, by the header X-Key."""

    def make(limits, count=GATEWAYS, failures=("local",), **store):
        rigs = []
        for i in range(count):
            rig = make_rig(tmp_path / f"gw{i}", procs)
            rig.config["instance"] = f"gw-{i}"
            rig.config["rate_limit_store"] = {
                "type": "redis", "url": f"redis://127.0.0.1:{path.port}/0", "gateways": count,
                "on_failure": failures[i % len(failures)], "timeout_ms": 2000, **store}
            rig.config["rate_limits"].update(limits)
            rig.config["routes"] += [
                {"name": name, "match": {"path": f"/{name}"}, "limits": [name],
                 "respond": {"status": 200, "body": "yes"}} for name in limits]
            rigs.append(rig)
        for rig in rigs:
            rig.start()
        wait_common(rigs, True, "the gateway counts in common")
        return rigs

    return make


def limit(count, window_s, **more):
    return {"key": "header:X-Key", "limit": count, "window_s": window_s, **more}


def statuses(rig, target, count, key):
    with rig.connect() as connection:
        return [connection.request("GET", target, [("X-Key", key)]).status for _ in range(count)]


class Load:
    """Clients that keep asking all gateways at once; counts what they get."""

    def __init__(self, rigs, target, keys=("k",), clients=2, pause_s=0.005):
        self.admitted, self.counts, self.failures = [], collections.Counter(), []
        self.is_over = threading.Event()
        self.threads = [
            threading.Thread(target=self._run, args=(rig, target, keys, pause_s), daemon=True)
            for rig in rigs for _ in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        for thread in self.threads:
            thread.join()

    def _run(self, rig, target, keys, pause_s):
        try:
            with rig.connect() as connection:
                n = 0
                while not self.is_over.wait(pause_s):
                    n += 1
                    answer = connection.request("GET", target, [("X-Key", keys[n % len(keys)])])
                    self.counts[answer.status] += 1
                    if answer.status == 200:
                        self.admitted.append(time.monotonic())
        except (OSError, BadResponse) as error:
            self.failures.append(error)

    def check(self):
        assert not self.failures, self.failures
        assert set(self.counts) <= {200, 429}, self.counts

    def goes_on(self):
        """Waits until all has moved on: somebody is answered anew, and again."""
        before = sum(self.counts.values())
        wait_until(lambda: self.failures or sum(self.counts.values()) > before + 100,
                   "requests to be answered", 20)


def test_three_gateways_keep_one_limit(make_rigs):
    rigs = make_rigs({"shared": limit(50, 1)})
    with Load(rigs, "/shared") as load:
        time.sleep(4)  # what is under test is a rate
    load.check()
    times = sorted(load.admitted)
    # At the very start none knows of the others; what was too much then was missing afterwards.
    later = [t for t in times if t > times[0] + 1]
    for i, begin in enumerate(later):
        for j in range(i, len(later), 5):
            seconds = later[j] - begin
            # A client's clock, on a machine with much to do, is late by what 50 ms earn.
            assert j - i + 1 <= (50 + 50 * (seconds + 0.05)) * 1.05 + 1, (j - i + 1, seconds)
    # The burst is spent by then: what is left is the rate alone, of all three together.
    seconds = later[-1] - later[0]
    assert len(later) <= 50 * (seconds + 0.1) * 1.05 + 1, (len(later), seconds)
    seconds = times[-1] - times[0]
    assert len(times) <= (50 + 50 * seconds) * 1.05 + 1
    assert len(times) >= (50 + 50 * (seconds - 0.2)), (len(times), seconds)
    assert load.counts[429] > load.counts[200], "the load was above the limit"


def test_a_key_is_spent_at_all_gateways(make_rigs, redis):
    rigs = make_rigs({"shared": limit(30, 600)})
    assert statuses(rigs[0], "/shared", 31, "one") == [200] * 30 + [429], "the whole burst at once"
    # The first request elsewhere may pass before that gateway knows.
    statuses(rigs[1], "/shared", 1, "one")
    wait_until(lambda: statuses(rigs[1], "/shared", 1, "one") == [429], "the other knows", 10)
    assert statuses(rigs[1], "/shared", 1, "two") == [200]
    keys = redis.call("KEYS", "*").split()
    assert len(keys) == 2 and all(k.startswith("gatehouse:limits:test:shared:") for k in keys)
    assert all(0 < int(redis.call("PTTL", key)) <= 700_000 for key in keys)
    record = rigs[1].wait_record(status=429)
    assert record["limited_by"] == "shared"
    answer = rigs[1].ask("GET", "/shared", [("X-Key", "one")])
    assert 1 <= int(answer.first("Retry-After")) <= 700
    assert answer.first("RateLimit-Policy") == '"shared";q=30;w=600'


def test_whatever_happens_to_redis_requests_go_on(make_rigs, redis, path):
    rigs = make_rigs({"shared": limit(20, 1)}, timeout_ms=1000)
    with Load(rigs, "/shared", keys=("a", "b", "c"), pause_s=0.002) as load:
        load.goes_on()

        redis.freeze()
        load.goes_on()  # before anybody has noticed, too
        wait_common(rigs, False, "the frozen Redis is given up")
        load.goes_on()
        redis.thaw()
        wait_common(rigs, True, "Redis is used again")

        path.delay_s = 0.2
        load.goes_on()
        path.delay_s = 0.0

        redis.call("SCRIPT", "FLUSH")
        redis.call("FLUSHALL")
        load.goes_on()
        wait_common(rigs, True, "a flush is no failure")

        redis.kill()
        wait_common(rigs, False, "the dead Redis is noticed")
        load.goes_on()
        redis.start()
        wait_common(rigs, True, "the restarted Redis is used")
        load.goes_on()

        path.lies = True
        path.drop()
        wait_common(rigs, False, "garbage is no Redis")
        load.goes_on()
        path.lies = False
        wait_common(rigs, True, "Redis is used after the garbage")

        redis.call("CONFIG", "SET", "maxmemory", "1")
        wait_common(rigs, False, "a Redis without memory is a failure")
        load.goes_on()
        redis.call("CONFIG", "SET", "maxmemory", "0")
        wait_common(rigs, True, "Redis is used again when it has memory")
        load.goes_on()
    load.check()
    assert load.counts[200] and load.counts[429]


def test_no_request_waits_for_redis(make_rigs, redis):
    """Redis stands still, and will not count as failed for a minute: nobody notices."""
    rigs = make_rigs({"shared": limit(1000, 1)}, timeout_ms=60000)
    redis.freeze()
    for rig in rigs:
        assert statuses(rig, "/shared", 50, "k") == [200] * 50
        assert is_common(rig)
    redis.thaw()
    wait_until(lambda: all(metric(rig, "rate_limit_store_keys") == 0 for rig in rigs),
               "what was admitted meanwhile is told", 20)
    assert sum(metric(rig, "rate_limit_settled_total") for rig in rigs) == 50 * GATEWAYS


def test_on_failure(make_rigs, redis):
    rigs = make_rigs({"shared": limit(30, 600)}, failures=("local", "open", "closed"))
    redis.kill()
    wait_common(rigs, False, "the dead Redis is noticed")
    local, is_open, closed = (statuses(rig, "/shared", 40, "k") for rig in rigs)
    assert local == [200] * 10 + [429] * 30, "a third of the limit"
    assert is_open == [200] * 40
    assert closed == [429] * 40
    assert rigs[2].ask("GET", "/shared", [("X-Key", "k")]).first("Retry-After") == "1"
    redis.start()
    wait_common(rigs, True, "Redis is back")
    assert statuses(rigs[2], "/shared", 1, "new") == [200]


def test_the_registry_tells_how_many_share(make_rigs, registry, redis):
    """Three gateways say they are one, and learn better."""
    rigs = make_rigs({"shared": limit(30, 600)}, gateways=1)
    for i, rig in enumerate(rigs[:2]):
        rig.config["registry"] = {
            "urls": [registry.url],
            "register": {"app": "gate", "id": f"g{i}", "address": "127.0.0.1",
                         "port": rig.ports["plain"]}}
        rig.proc.stop()
        rig.start()
    for rig in rigs[:2]:
        wait_until(lambda rig=rig: metric(rig, "rate_limit_gateways") == 2, "two are known", 20)
    assert metric(rigs[2], "rate_limit_gateways") == 1
    redis.kill()
    wait_common(rigs, False, "the dead Redis is noticed")
    assert statuses(rigs[0], "/shared", 40, "k").count(200) == 15


def test_shadow_counts_and_refuses_nobody(make_rigs):
    rigs = make_rigs({"dark": limit(5, 600, shadow=True)}, count=1)
    assert statuses(rigs[0], "/dark", 8, "k") == [200] * 8
    text = rigs[0].admin("GET", "/metrics").body.decode()
    assert 'gatehouse_gateway_rate_limit_shadowed_total{limit="dark"} 3' in text
    assert rigs[0].wait_record(shadow_limited_by="dark")["status"] == 200
    answer = rigs[0].ask("GET", "/dark", [("X-Key", "k")])
    assert answer.first("RateLimit") is None, "clients hear nothing of it"
    # A reload may turn it into a real one; the key goes on where it was.
    rigs[0].config["rate_limits"]["dark"]["shadow"] = False
    rigs[0].reload()
    assert statuses(rigs[0], "/dark", 1, "k") == [429]
    assert 'shadowed_total{limit="dark"} 4' in rigs[0].admin("GET", "/metrics").body.decode()


class Generous(socketserver.StreamRequestHandler):
    """A Redis that grants what nobody asked for."""

    def handle(self):
        with contextlib.suppress(OSError, ValueError):
            while line := self.rfile.readline():
                words = []
                for _ in range(int(line[1:])):
                    size = int(self.rfile.readline()[1:])
                    words.append(self.rfile.read(size + 2)[:-2].upper())
                if words[0] in (b"EVAL", b"EVALSHA"):
                    self.wfile.write(b"*5\r\n:2147483647\r\n:0\r\n:0\r\n:0\r\n:0\r\n")
                elif words[0] == b"SCRIPT":
                    self.wfile.write(b"$40\r\n" + b"a" * 40 + b"\r\n")
                else:
                    self.wfile.write(b"+PONG\r\n" if words[0] == b"PING" else b"+OK\r\n")


def test_more_than_was_asked_for_is_no_answer(make_rigs, tmp_path):
    address = str(tmp_path / "generous")
    with socketserver.ThreadingUnixStreamServer(address, Generous) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        limits = {"few": {"key": "header:X-Key", "limit": 5, "window_s": 600}}
        (rig,) = make_rigs(limits, count=1, url=f"unix:{address}")
        assert statuses(rig, "/few", 1, "k") == [200]
        wait_until(lambda: "makes no sense" in rig.proc.log(), "the answer is not believed", 20)
        assert statuses(rig, "/few", 20, "k").count(200) <= 4
        server.shutdown()

# SPDX-License-Identifier: Apache-2.0
"""Two registryd on one Redis: they agree, and whatever happens to Redis or to one of them, what was
acknowledged stays."""

import json
import signal
import socket
import subprocess
import threading
import time

import pytest

import client
import rig as rig_module
from procs import wait_until
from redis_rig import RedisServer
from test_registry import Watch

PATH = "/v1/apps/user/instances/"


def instance(**more):
    return {"address": "10.1.0.5", "port": 8080, "lease_s": 60, **more}


class Shared(rig_module.Registry):
    def __init__(self, directory, procs, program, redis, name):
        directory = directory / name
        directory.mkdir()
        super().__init__(directory, procs, program)
        self.name = name
        with open(self.config_path, "w", encoding="utf-8") as file:
            json.dump(
                {
                    "bind": f"127.0.0.1:{self.port}",
                    "store": {"type": "redis", "url": f"redis://127.0.0.1:{redis.port}", "prefix": "test:"},
                    "lease": {"sweep_ms": 50},
                },
                file,
            )

    def launch(self):
        """Without waiting until it is ready."""
        self.proc = self.procs.start(self.name, [self.program, "-c", self.config_path])
        wait_until(lambda: self.call("GET", "/healthz").status == 200, "listening", 10, self.proc)
        return self

    def start(self):
        self.launch()
        wait_until(lambda: self.call("GET", "/readyz").status == 200, "ready", 10, self.proc)
        return self

    def put(self, name, **more):
        return self.call("PUT", PATH + name, instance(**more))

    def renew(self, name):
        return self.call("POST", PATH + name + "/renew").status

    def ids(self):
        return sorted(i["id"] for i in self.instances("user"))

    def list(self):
        answer = self.call("GET", "/v1/apps/user").json()
        for one in answer["instances"]:
            one.pop("index")
        return sorted(answer["instances"], key=lambda one: one["id"])

    def index(self):
        return self.call("GET", "/status").json()["index"]

    def metric(self, name):
        for line in self.call("GET", "/metrics").body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise AssertionError(f"no metric {name}")

    def is_ready(self):
        return self.metric("gatehouse_registry_shared_ready") == 1


@pytest.fixture
def redis(tmp_path, procs):
    return RedisServer(tmp_path, procs).start()


@pytest.fixture
def pair(tmp_path, procs, program, redis):
    return tuple(
        Shared(tmp_path, procs, program("registryd"), redis, name).start() for name in ("a", "b")
    )


def agree(a, b):
    wait_until(lambda: a.index() == b.index() and a.list() == b.list(), "both say the same", 10)


def test_what_is_written_at_one_is_seen_at_the_other(pair):
    a, b = pair
    watch = Watch(b, "apps=user")
    try:
        assert watch.event()[0] == "reset"
        created = a.put("u1", zone="z", metadata={"k": "ä"}, weight=7)
        assert created.status == 201
        name, index, seen = watch.event()
        assert (name, int(index)) == ("put", created.json()["index"])
        assert seen["metadata"] == {"k": "ä"} and seen["weight"] == 7 and seen["zone"] == "z"
        assert a.list() == b.list(), "whoever wrote it reads it there too"
        assert b.put("u1", weight=8).status == 200
        assert watch.event()[2]["weight"] == 8
        assert b.put("u1", weight=8).json()["index"] == b.index(), "the same again is no change"
        assert a.status("user", "u1", "OUT_OF_SERVICE") == 200
        name, _, seen = watch.event()
        assert (name, seen["status"], seen["reported"]) == ("status", "OUT_OF_SERVICE", "UP")
        assert a.put("u1", weight=9).status == 200
        assert watch.event()[2]["status"] == "OUT_OF_SERVICE", "a registration does not lift it"
        assert b.call("DELETE", PATH + "u1/status").status == 200
        assert watch.event()[2]["status"] == "UP"
        assert a.call("DELETE", PATH + "u1").status == 204
        assert watch.event()[0] == "delete"
        assert b.call("DELETE", PATH + "u1").status == a.renew("u1") == b.renew("u1") == 404
        agree(a, b)
    finally:
        watch.close()


def test_eureka_over_both(pair):
    a, b = pair
    body = {"instance": {"hostName": "h", "app": "USER", "ipAddr": "10.1.0.9", "vipAddress": "v",
                         "dataCenterInfo": {"name": "MyOwn"}, "port": {"$": 99}}}
    as_json = [("Accept", "application/json"), ("Content-Type", "application/json")]
    sent = a.call("POST", "/eureka/apps/USER", body, headers=as_json)
    assert sent.status == 204
    found = b.call("GET", "/eureka/vips/v", headers=as_json).json()["applications"]
    assert found["application"][0]["instance"][0]["port"] == {"$": 99, "@enabled": "true"}
    assert b.call("PUT", "/eureka/apps/USER/h/metadata?zone=z").status == 200
    assert b.call("PUT", "/eureka/apps/USER/h/status?value=DOWN").status == 200
    assert a.instances("user")[0]["zone"] == "z" and a.instances("user")[0]["status"] == "DOWN"
    assert b.call("PUT", "/eureka/apps/USER/h").status == 200
    assert a.call("DELETE", "/eureka/apps/USER/h").status == 200
    agree(a, b)


def test_who_hangs_up_before_the_answer_is_counted_all_the_same(tmp_path, procs, program, redis):
    registry = Shared(tmp_path, procs, program("registryd"), redis, "a")
    with open(registry.config_path, encoding="utf-8") as file:
        config = json.load(file)
    config["limits"] = {"instances_per_client": 5}
    with open(registry.config_path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    registry.start()
    body = json.dumps(instance()).encode()
    for number in range(30):
        with socket.create_connection(("127.0.0.1", registry.port), 10) as sock:
            sock.sendall(b"PUT %s%d HTTP/1.1\r\nHost: r\r\nContent-Length: %d\r\n\r\n%s"
                         % (PATH.encode(), number, len(body), body))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: len(registry.ids()) == 5, "as many as one may have", 10)
    assert registry.put("later").status == 429
    assert len(registry.ids()) == 5


@pytest.mark.parametrize("how", [
    (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"], "OOM"),
    (["SET", "test:meta", "nonsense"], ["DEL", "test:meta"], "WRONGTYPE"),
    (["HSET", "test:meta", "index", "nonsense"], ["FLUSHALL"], "Redis cannot be used"),
], ids=["full", "another's key", "an index that is none"])
def test_a_redis_that_answers_with_errors(pair, redis, how):
    spoil, mend, told = how
    a, b = pair
    for number in range(5):
        assert a.put(f"u{number}").status == 201
    agree(a, b)
    redis.call(*spoil)
    wait_until(lambda: a.put("more").status == 503, "writes are refused", 10)
    wait_until(lambda: told in a.proc.log(), "told", 10)
    assert any(" warn " in line and told in line for line in a.proc.log().splitlines())
    assert len(a.ids()) >= 5 and len(b.ids()) >= 5, "reads go on"
    redis.call(*mend)
    wait_until(lambda: b.put("afterwards").status in (200, 201), "writes again", 20)
    agree(a, b)
    assert {f"u{number}" for number in range(5)} | {"afterwards"} <= set(a.ids())


def test_renewals_at_one_count_at_the_other(pair):
    a, b = pair
    a.put("u1", lease_s=2)
    ends = time.monotonic() + 4.5
    renewals = 0
    while time.monotonic() < ends:
        assert a.renew("u1") == 204
        renewals += 1
        assert b.ids() == ["u1"], "alive by what the other heard"
        time.sleep(0.1)
    told = a.metric("gatehouse_registry_shared_renewals_total")
    assert 0 < told < renewals / 2, "one in a third of a lease, not each"
    before = a.index()
    wait_until(lambda: a.ids() == b.ids() == [], "it runs out at both", 10)
    agree(a, b)
    assert a.index() == before + 1, "it left once"
    assert a.renew("u1") == b.renew("u1") == 404


def test_many_writers_at_both(pair):
    a, b = pair
    failed = []

    def write(registry, number):
        for n in range(25):
            name = f"u{number}-{n}"
            if registry.put(name, port=1000 + n).status != 201 or (
                n % 3 == 0 and registry.call("DELETE", PATH + name).status != 204
            ):
                failed.append(name)

    threads = [threading.Thread(target=write, args=(pair[n % 2], n)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    agree(a, b)
    assert len(a.ids()) == 6 * 16


def test_one_of_them_checks(pair, start_service, procs):
    """And the other when that one is gone; both see what it finds out."""
    service = start_service(procs, "user", "s1")
    a, b = pair
    check = {"type": "tcp", "port": service.port, "interval_ms": 100, "rise": 1, "fall": 2}
    put = a.put("u1", address="127.0.0.1", status="STARTING", lease_s=30, check=check)
    assert put.status == 201, put
    for registry in pair:
        wait_until(lambda r=registry: r.instances("user")[0]["status"] == "UP", "checked", 10)

    def results(registry):
        return sum(
            float(line.split()[1])
            for line in registry.call("GET", "/metrics").body.decode().splitlines()
            if line.startswith("gatehouse_registry_check_results_total{")
        )

    checker, other = (a, b) if results(a) else (b, a)
    assert results(checker) > 0 and results(other) == 0
    checker.proc.kill()
    wait_until(lambda: results(other) > 2, "the other goes on", 15)
    service.proc.kill()
    wait_until(lambda: other.instances("user")[0]["status"] == "DOWN", "found out", 10)
    assert other.instances("user")[0].get("override") is None


def away(registry):
    answer = registry.put("new")
    return answer.status == 503 and answer.first("Retry-After") and answer


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_without_redis_reads_go_on_and_nothing_changes(pair, redis, how):
    """Killed and started again it has forgotten everything; stopped it comes back as it was."""
    a, b = pair
    a.put("u1", lease_s=1)
    b.put("u2", lease_s=60, metadata={"k": "v"})
    before = a.index()
    if how == "kill":
        redis.kill()
    else:
        redis.freeze()
    for registry in pair:
        answer = wait_until(lambda r=registry: away(r), "writes are refused", 10)
        assert answer.first("Content-Type") == "application/problem+json"
        assert registry.call("DELETE", PATH + "u2").status == 503
        assert registry.renew("u2") == 503, "the client should try another registry"
        assert registry.call("GET", "/readyz").status == 200
        assert registry.call("GET", "/status").json()["store"] == {"type": "redis", "is_away": True}
    time.sleep(1.5)  # the lease of u1 ends: that nothing happens then is the matter here
    assert a.ids() == b.ids() == ["u1", "u2"], "no lease runs out meanwhile"
    if how == "kill":
        redis.start()
    else:
        redis.thaw()
    wait_until(lambda: a.is_ready() and b.is_ready(), "back", 15)
    for registry in pair:
        kept = {i["id"]: i for i in registry.instances("user")}
        assert kept["u2"]["metadata"] == {"k": "v"}
    # What Redis read before it was stopped it does when it goes on, though 503 was the answer.
    a.call("DELETE", PATH + "new")
    assert a.renew("u2") == b.renew("u2") == 204
    made = b.put("u3")
    assert made.status == 201 and made.json()["index"] > before
    wait_until(lambda: a.ids() == b.ids() == ["u2", "u3"], "what died meanwhile leaves", 10)
    agree(a, b)
    assert redis.call("scard", "test:ids") == "2"


def test_an_emptied_redis_is_filled_again(pair, redis):
    a, b = pair
    for n in range(300):
        assert pair[n % 2].put(f"u{n}").status == 201
    a.status("user", "u7", "DOWN")
    agree(a, b)
    watch = Watch(b, "apps=user")
    try:
        assert watch.event()[0] == "reset"
        redis.call("flushall")
        wait_until(lambda: redis.call("scard", "test:ids") == "300", "put back", 15)
        wait_until(lambda: a.is_ready() and b.is_ready(), "ready", 10)
        marker = a.call("PUT", PATH + "marker", instance())
        assert marker.status == 201
        name, index, seen = watch.event()
        assert (name, seen["id"]) == ("put", "marker"), "readers noticed nothing"
        assert int(index) == marker.json()["index"]
    finally:
        watch.close()
    agree(a, b)
    assert len(a.ids()) == 301
    restorations = [r.metric("gatehouse_registry_shared_restorations_total") for r in pair]
    assert sum(restorations) == 2, "at the start, and now: by one of them"


def test_a_registry_that_starts_takes_over_what_is_there(pair, redis, tmp_path, procs, program):
    a, b = pair
    a.put("u1", metadata={"k": "v"})
    a.status("user", "u1", "OUT_OF_SERVICE")
    b.proc.kill()
    a.put("u2")
    a.call("DELETE", PATH + "u2")
    b.start()
    agree(a, b)
    assert b.instances("user")[0]["override"] == "OUT_OF_SERVICE"
    for registry in pair:
        registry.proc.kill()
    c = Shared(tmp_path, procs, program("registryd"), redis, "c").start()
    assert c.ids() == ["u1"]
    assert c.put("u3").status == 201


def test_without_redis_at_the_start_nothing_looks_empty(tmp_path, procs, program):
    redis = RedisServer(tmp_path, procs)
    a = Shared(tmp_path, procs, program("registryd"), redis, "a").launch()
    for path in ("/readyz", "/v1/apps", "/v1/apps/user", "/v1/watch"):
        assert a.call("GET", path).status == 503, path
    for path in ("/eureka/apps", "/eureka/apps/delta", "/eureka/apps/USER", "/eureka/vips/v"):
        assert a.call("GET", path).status == 403, path
    assert a.put("u1").status == 503
    redis.start()
    wait_until(lambda: a.call("GET", "/readyz").status == 200, "ready", 10)
    assert a.call("GET", "/v1/apps").json()["apps"] == []
    assert a.put("u1").status == 201


def test_whoever_missed_changes_reads_all_anew(pair, redis):
    """One is stopped while the other goes on, and the stream forgets what happened meanwhile."""
    a, b = pair
    for name in ("stays", "leaves", "changes"):
        a.put(name)
    agree(a, b)
    watch = Watch(b, "apps=user")
    try:
        assert watch.event()[0] == "reset"
        b.proc.signal(signal.SIGSTOP)
        a.call("DELETE", PATH + "leaves")
        a.put("changes", port=9999)
        a.put("comes")
        redis.call("xtrim", "test:changes", "maxlen", "0")
        b.proc.signal(signal.SIGCONT)
        a.put("last")
        agree(a, b)
        events = []
        while not events or events[-1][2]["id"] != "last":
            events.append(watch.event())
    finally:
        watch.close()
    assert {(name, data["id"]) for name, _, data in events} == {
        ("delete", "leaves"), ("put", "changes"), ("put", "comes"), ("put", "last"),
    }
    assert int(events[-1][1]) <= a.index(), "its own numbers do not run ahead"
    indexes = [int(index) for _, index, _ in events]
    assert indexes == sorted(indexes)
    assert b.metric("gatehouse_registry_shared_loads_total") == 2


def test_a_redis_that_lost_its_last_seconds(tmp_path, procs, program, pair, redis):
    """It comes back with an older state: what the registries know counts."""
    a, b = pair
    a.put("old")
    a.put("left")
    state = redis.call("--no-raw", "bgsave")
    assert "started" in state
    wait_until(lambda: "rdb_bgsave_in_progress:0" in redis.call("info", "persistence"), "saved", 10)
    b.put("new")
    a.call("DELETE", PATH + "left")
    a.status("user", "old", "DOWN")
    agree(a, b)
    index = a.index()
    redis.kill()
    redis.start()
    wait_until(lambda: a.is_ready() and b.is_ready(), "back", 15)
    agree(a, b)
    assert a.ids() == ["new", "old"] and a.index() > index
    assert [i["status"] for i in a.list()] == ["UP", "DOWN"]
    wait_until(lambda: redis.call("smembers", "test:ids").split() != [] and
               sorted(redis.call("smembers", "test:ids").split()) == ["user/new", "user/old"],
               "in Redis too", 10)


@pytest.mark.limit(90)
def test_nothing_acknowledged_is_lost(pair, redis):
    """Writers at both, while Redis is killed and started again, empty, and one registry killed."""
    a, b = pair
    acknowledged, stop = {}, threading.Event()

    def write(registry, number):
        n = 0
        while not stop.is_set():
            name = f"u{number}-{n}"
            try:
                if registry.put(name).status in (200, 201):
                    acknowledged[name] = registry
                    n += 1
            except (OSError, client.BadResponse):
                pass
            time.sleep(0.01)

    threads = [threading.Thread(target=write, args=(pair[n % 2], n)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        for round_number in range(2):
            count = len(acknowledged)
            wait_until(lambda c=count: len(acknowledged) > c + 20, "writes get through", 20)
            redis.kill()
            redis.start()
            wait_until(lambda: a.is_ready() and b.is_ready(), f"back, {round_number}", 20)
        count = len(acknowledged)
        wait_until(lambda c=count: len(acknowledged) > c + 20, "writes get through", 20)
        b.proc.kill()
        b.start()
        count = len(acknowledged)
        wait_until(lambda c=count: len(acknowledged) > c + 20, "writes get through", 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    agree(a, b)
    missing = set(acknowledged) - set(a.ids())
    assert not missing, f"{len(missing)} of {len(acknowledged)}"


def test_configurations_that_make_no_sense(tmp_path, program):
    for store, told in [
        ({"type": "redis"}, "store.url"),
        ({"type": "redis", "url": "redis://name.example"}, "store.url"),
        ({"type": "redis", "url": "redis://127.0.0.1", "snapshot": "/x"}, "store.snapshot"),
        ({"type": "memory", "url": "redis://127.0.0.1"}, "store.url"),
    ]:
        path = tmp_path / "bad.json"
        path.write_text(json.dumps({"store": store}))
        done = subprocess.run([program("registryd"), "-c", str(path), "--check"],
                              capture_output=True, text=True, timeout=10, check=False)
        assert done.returncode == 1 and told in done.stderr + done.stdout, done

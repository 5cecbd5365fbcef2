# SPDX-License-Identifier: Apache-2.0
"""The access log: what a line holds and in which order, rotation, and the stream in Redis."""

import glob
import json
import os
import re
import signal
import threading

import pytest

import client
from procs import wait_until
from redis_rig import Path, RedisServer
from rig import HOST, bearer

STREAM = "log:test"
LINES = 300
FIRST = ["timestamp", "userId", "endpoint", "latency_ms", "status", "service", "gateway_instance"]
THEN = ["request_id", "trace_id", "route", "client_ip", "method", "host", "bytes_in", "bytes_out"]
SENT = ["upstream", "upstream_ms", "attempts"]


def metric(rig, name):
    text = rig.admin("GET", "/metrics").body.decode()
    return float(re.search(rf"^gatehouse_gateway_access_log_{name} (\S+)$", text, re.MULTILINE)[1])


def wait_up(rig, wanted=1):
    wait_until(lambda: metric(rig, "stream_up") == wanted, f"stream up: {wanted}", 20, rig.proc)


def ask_many(rig, first, count, suffix=""):
    """One after another over one connection, so through one worker."""
    with rig.connect() as connection:
        for i in range(first, first + count):
            assert connection.request("GET", f"/n/{i}{suffix}").status == 200


def numbers(lines, instance="gw-test"):
    return [int(re.match(r"GET /n/(\d+)", line["endpoint"])[1]) for line in map(json.loads, lines)
            if line["gateway_instance"] == instance and line["route"] == "n"]


@pytest.fixture
def redis(tmp_path, procs):
    return RedisServer(tmp_path, procs).start()


@pytest.fixture
def path(redis):
    path = Path(redis.port)
    yield path
    path.close()


def stream_of(redis, key=STREAM):
    """All lines in it; redis-cli shows id, name of the field and value on lines of their own."""
    words = redis.call("XRANGE", key, "-", "+").split("\n")
    return [word for word in words if word.startswith("{")]


def wait_numbers(redis, wanted, instance="gw-test", key=STREAM):
    wait_until(lambda: set(wanted) <= set(numbers(stream_of(redis, key), instance)),
               "all lines in the stream", 20)
    return numbers(stream_of(redis, key), instance)


def in_order(redis):
    """What is in the stream, without what was sent again."""
    last = {n: i for i, n in enumerate(numbers(stream_of(redis)))}
    return sorted(last, key=last.get)


@pytest.fixture
def make_logging(tmp_path, make_rig, procs):
    """A gateway whose lines go to the stream behind that port, and to its file."""

    def make(port, name="gw-test", **more):
        rig = make_rig(tmp_path / name, procs)
        rig.config["instance"] = name
        rig.config["routes"] += [{"name": "n", "match": {"path": "/n/*"},
                                  "respond": {"status": 200, "body": "yes"}}]
        if port:
            rig.config["access_log"]["redis_stream"] = {
                "url": f"redis://127.0.0.1:{port}/0", "stream": STREAM}
        rig.config["access_log"].update(more)
        rig.start()
        return rig

    return make


def file_lines(rig):
    with open(rig.log_path, encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file if line.endswith("\n")]


# --- the stream --------------------------------------------------------------------------------


def test_three_gateways_one_stream(redis, make_logging):
    rigs = [make_logging(redis.port, f"gw-{i}") for i in range(3)]
    for rig in rigs:
        wait_up(rig)
    threads = [threading.Thread(target=ask_many, args=(rig, 0, LINES)) for rig in rigs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, rig in enumerate(rigs):
        assert wait_numbers(redis, range(LINES), f"gw-{i}") == list(range(LINES))
        wait_until(lambda rig=rig: len(numbers(file_lines(rig), rig.config["instance"])) == LINES,
                   "all lines in the file")
        # The very same lines.
        there = [line for line in stream_of(redis) if json.loads(line)["gateway_instance"] == f"gw-{i}"]
        assert set(line for line in file_lines(rig) if '"/n/' in line) <= set(there)
        assert metric(rig, "stream_lines_total") >= LINES
        assert metric(rig, "stream_dropped_total") == metric(rig, "stream_refused_total") == 0


def test_redis_stopped_and_back(redis, make_logging):
    rig = make_logging(redis.port)
    wait_up(rig)
    ask_many(rig, 0, 10)
    wait_numbers(redis, range(10))
    redis.kill()
    wait_up(rig, 0)
    ask_many(rig, 10, LINES)
    redis.start()  # with nothing in it
    wait_up(rig)
    ask_many(rig, 10 + LINES, 10)
    wait_numbers(redis, range(10, LINES + 20))
    assert in_order(redis) == list(range(10, LINES + 20))
    wait_until(lambda: numbers(file_lines(rig)) == list(range(LINES + 20)), "the file")
    assert metric(rig, "stream_dropped_total") == 0
    assert rig.proc.log().count("lines for its stream wait") == 1


def test_what_has_no_answer_is_sent_again(redis, path, make_logging):
    """In order; what Redis had taken before the cut may be there twice."""
    rig = make_logging(path.port)
    wait_up(rig)
    redis.freeze()
    ask_many(rig, 0, LINES)
    path.drop()
    redis.thaw()
    wait_numbers(redis, range(LINES))
    assert in_order(redis) == list(range(LINES))


def test_garbage_delays_and_refusals(redis, path, make_logging):
    rig = make_logging(path.port)
    wait_up(rig)
    path.lies = True
    path.drop()
    wait_up(rig, 0)
    ask_many(rig, 0, LINES)
    path.lies, path.delay_s = False, 0.2
    wait_up(rig)
    ask_many(rig, LINES, LINES)
    wait_numbers(redis, range(2 * LINES))
    assert in_order(redis) == list(range(2 * LINES))
    # Another type under that key.
    redis.call("DEL", STREAM)
    redis.call("SET", STREAM, "x")
    ask_many(rig, 2 * LINES, 10)
    wait_until(lambda: metric(rig, "stream_refused_total") >= 10, "refusals are counted", 20)
    assert rig.proc.log().count("does not take lines") == 1
    redis.call("DEL", STREAM)
    ask_many(rig, 2 * LINES + 10, 10)
    wait_numbers(redis, range(2 * LINES + 10, 2 * LINES + 20))
    wait_until(lambda: numbers(file_lines(rig)) == list(range(2 * LINES + 20)), "the file")


def test_the_queue_has_a_bound(redis, make_logging):
    rig = make_logging(redis.port)
    wait_up(rig)
    redis.freeze()
    before, _ = rig.memory_kib()
    count = 0
    while metric(rig, "stream_dropped_total") == 0:
        ask_many(rig, count, 1000, "/" + "x" * 1000)
        count += 1000
        assert count < 40000
    wait_until(lambda: "lines for its stream are" in rig.proc.log(), "it is said", 10)
    assert rig.memory_kib()[0] - before < 3 * 4096 + 16384
    dropped = metric(rig, "stream_dropped_total")
    redis.thaw()
    wait_until(lambda: metric(rig, "stream_lines_total") + dropped >= count, "the others arrive", 30)
    got = numbers(stream_of(redis))
    assert len(set(got)) >= count - dropped
    # The file has all that its own queue had room for.
    wait_until(lambda: len(numbers(file_lines(rig))) + metric(rig, "dropped_total") >= count,
               "the file has the lines", 20)
    assert rig.proc.log().count("lines for its stream are") == 1


def test_max_length(redis, make_logging):
    rig = make_logging(redis.port, redis_stream={"url": f"redis://127.0.0.1:{redis.port}",
                                                 "stream": STREAM, "max_length": 100})
    wait_up(rig)
    ask_many(rig, 0, 1000)
    wait_until(lambda: metric(rig, "stream_lines_total") >= 1000, "all lines", 20)
    assert 100 <= int(redis.call("XLEN", STREAM)) < 400


def test_reload(redis, make_logging):
    """The stream alone, another key, none, and one again; the file comes and goes."""
    rig = make_logging(redis.port, path=None)
    wait_up(rig)
    ask_many(rig, 0, 10)
    wait_numbers(redis, range(10))
    assert not os.path.exists(rig.log_path)
    log = rig.config["access_log"]
    log["redis_stream"]["stream"] = "log:other"
    log["path"] = rig.log_path
    rig.reload()
    ask_many(rig, 10, 10)
    assert wait_numbers(redis, range(10, 20), key="log:other") == list(range(10, 20))
    assert numbers(stream_of(redis)) == list(range(10))
    wait_until(lambda: numbers(file_lines(rig)) == list(range(10, 20)), "the file")
    stream, log["redis_stream"], log["path"] = log["redis_stream"], None, None
    rig.reload()
    wait_up(rig, 0)
    ask_many(rig, 20, 10)
    log["redis_stream"] = stream
    rig.reload()
    wait_up(rig)
    ask_many(rig, 30, 10)
    wait_numbers(redis, range(30, 40), key="log:other")
    assert not set(numbers(stream_of(redis, "log:other"))) & set(range(20, 30))
    assert numbers(file_lines(rig)) == list(range(10, 20))


def test_stop_sends_what_is_queued(redis, make_logging):
    rig = make_logging(redis.port)
    wait_up(rig)
    ask_many(rig, 0, LINES)
    rig.proc.stop()
    assert numbers(stream_of(redis)) == list(range(LINES))


# --- lines -------------------------------------------------------------------------------------


def members(rig, request_id):
    wait_until(lambda: any(r["request_id"] == request_id for r in rig.records()), "the line")
    return next(r for r in rig.records() if r["request_id"] == request_id)


def test_members_and_their_order(rig):
    token = rig.signers["hs"].token("98765")
    answer = rig.ask("GET", "/hs/a/../b?secret=query", bearer(token))
    got = members(rig, dict(answer.json()["headers"])["X-Request-Id"])
    assert list(got) == FIRST + THEN + SENT + ["protocol"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", got["timestamp"])
    assert got["userId"] == "98765" and got["endpoint"] == "GET /hs/b" and got["status"] == 200
    assert got["service"] == "echo" and got["gateway_instance"] == "gw-test"
    assert isinstance(got["latency_ms"], int) and got["attempts"] == 1
    # Failed ones say why, and where the time went.
    answer = rig.ask("GET", "/dead", listener="tls")
    got = members(rig, answer.json()["request_id"])
    assert list(got) == FIRST + THEN + SENT + ["tls", "protocol", "reason", "timeline"]
    answer = rig.ask("GET", "/nowhere")
    got = members(rig, answer.json()["request_id"])
    assert list(got) == FIRST + [n for n in THEN if n != "trace_id"] + ["protocol", "reason"]
    assert got["userId"] is None and got["service"] == ""


def test_secrets_are_not_written(rig):
    token = rig.signers["hs"].token("1")
    secrets = {"token": token, "cookie": "c00kie-value", "key": "k3y-value", "query": "qu3ry-value"}
    fields = [*bearer(token), ("Cookie", f"session={secrets['cookie']}"), ("X-Api-Key", secrets["key"]),
              ("Referer", f"https://x/?k={secrets['query']}"), ("User-Agent", secrets["key"])]
    for target in ("/hs/x", "/es/x", "/dead", "/nowhere", "/echo/%zz"):
        rig.ask("GET", f"{target}?access_token={token}&k={secrets['query']}", fields)
    rig.wait_record(endpoint="GET /echo/%zz")
    with open(rig.log_path, encoding="utf-8") as file:
        text = file.read()
    for name, secret in secrets.items():
        assert secret not in text, name


@pytest.mark.parametrize("path,host", [
    ('/echo/"}{"status":1', HOST), ("/echo/" + "a" * 5000, HOST), ("/echo/%22%5b%0a", HOST),
    ("/echo/\xe4\xff", HOST), ("/echo/x", "a" * 250 + ".example.com")])
def test_lines_are_escaped_and_capped(rig, path, host):
    before = len(file_lines(rig)) if os.path.exists(rig.log_path) else 0
    with rig.connect() as connection:
        connection.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
                        .encode("latin-1"))
        connection.read_response("GET")
    wait_until(lambda: len(file_lines(rig)) > before, "its line")
    lines = file_lines(rig)[before:]
    assert len(lines) == 1 and len(lines[0]) < 8192
    assert list(json.loads(lines[0]))[:7] == FIRST


def test_rotation_under_load(tmp_path, make_logging):
    """rename and SIGUSR1: no line is lost, doubled or cut."""
    rig = make_logging(None)
    each, clients = 1500, 4
    threads = [threading.Thread(target=ask_many, args=(rig, i * each, each)) for i in range(clients)]
    for thread in threads:
        thread.start()
    rotations = 0
    while any(thread.is_alive() for thread in threads):
        rotations += 1
        os.rename(rig.log_path, f"{rig.log_path}.{rotations}")
        rig.proc.signal(signal.SIGUSR1)
        wait_until(lambda: os.path.exists(rig.log_path), "the new file", 10, rig.proc)
    assert rotations > 1

    def everything():
        found = []
        for name in glob.glob(f"{rig.log_path}*"):
            with open(name, encoding="utf-8") as file:
                found += file.read().splitlines()
        return found

    wait_until(lambda: len(everything()) >= each * clients, "all lines", 20)
    assert sorted(numbers(everything())) == list(range(each * clients))


# --- metrics -----------------------------------------------------------------------------------


def test_clients_cannot_make_labels(make_logging):
    """However many paths, hosts, methods, users and headers there are, /metrics stays as it is."""

    rig = make_logging(None)
    rig.config["routes"].append({"name": "v1", "match": {"path": "/v1/*"}, "auth": "hs",
                                 "service": "echo",
                                 "version": {"name": "v1", "deprecated": "2020-01-01T00:00:00Z"}})
    rig.reload()

    def names():
        text = rig.admin("GET", "/metrics").body.decode()
        return {line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")}

    def ask(i):
        token = rig.signers["hs"].token(f"user-{i}")
        with rig.connect() as connection:
            connection.request("GET", f"/echo/{i}?{i}", [(f"X-N-{i}", "1")])
            connection.request("GET", f"/hs/{i}", bearer(token))
            connection.request("GET", "/v1/x", bearer(token))
            connection.request("GET", f"/nowhere/{i}", [("X-Forwarded-For", f"10.0.0.{i}")])
            connection.request("GET", "/limit/user", bearer(token))
        rig.ask(f"METHOD{i}", f"/methods?{i}")
        client.http("127.0.0.1", rig.ports["plain"], "GET", f"/h{i}")

    ask(0)
    before = names()
    for i in range(1, 40):
        ask(i)
    after, most = names(), "gatehouse_gateway_deprecated_requests_total{"
    assert {n for n in after if not n.startswith(most)} == \
        {n for n in before if not n.startswith(most)}
    # Only of a deprecated version those who ask most are named.
    assert len([n for n in after if n.startswith(most)]) == 20

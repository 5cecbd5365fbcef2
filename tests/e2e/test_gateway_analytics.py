# SPDX-License-Identifier: Apache-2.0
"""What the gateway tells of its traffic: endpoints, users, versions; of one gateway and of several."""

import json
import subprocess

import pytest

from procs import wait_until
from rig import bearer


@pytest.fixture
def start(tmp_path, make_rig, procs):
    def run(name="a"):
        folder = tmp_path / name
        folder.mkdir()
        rig = make_rig(folder, procs)
        rig.config["instance"] = f"gw-{name}"
        rig.config["routes"] += [
            {"name": "user-v1", "match": {"path": "/api/v1/user/*"}, "service": "echo", "auth": "hs",
             "rewrite_prefix": "/user/",
             "version": {"name": "v1", "deprecated": "2026-01-01T00:00:00Z",
                         "sunset": "2099-01-01T00:00:00Z", "successor": "/api/v3/user/"}},
            {"name": "user-v2", "match": {"path": "/api/v3/user/*"}, "service": "echo",
             "rewrite_prefix": "/user/", "version": {"name": "v2"}},
        ]
        return rig.start()

    return run


@pytest.fixture(name="ctl")
def _ctl(program):
    def run(*words):
        done = subprocess.run([program("gatewayctl"), *words], capture_output=True, check=False,
                              text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def socket_of(rig):
    return rig.config["admin"]["socket"]


def analytics(rig, query=""):
    return rig.admin("GET", f"/analytics{query}").json()


def wait_requests(rig, count, query=""):
    """What is told is a few seconds old."""
    return wait_until(lambda: (found := analytics(rig, query))["requests"] >= count and found,
                      f"{count} requests in the report", 20)


def rows(document, key="endpoints", name="endpoint"):
    return {row[name]: row for row in document[key]}


def test_endpoints_users_and_limits(start):
    rig = start()
    token = bearer(rig.signers["hs"].token("rider-7"))
    for _ in range(3):
        assert rig.ask("GET", "/hs/x", token).status == 200
    for number in range(1000, 1004):
        assert rig.ask("GET", f"/echo/orders/{number}").status == 200
    assert rig.ask("GET", "/users/55/orders").status == 200
    assert rig.ask("GET", "/nothing").status == 404
    assert rig.ask("GET", "/dead").status == 502
    for _ in range(7):
        rig.ask("GET", "/limit/user", token)
    found = wait_requests(rig, 17)
    assert found["requests"] == 17 and found["instance"] == "gw-a" and found["window"] == "minute"
    endpoints = rows(found)
    assert endpoints["GET /echo/orders/{id}"]["requests"] == 4
    assert endpoints["GET /users/{id}/orders"]["requests"] == 1
    assert endpoints["(no route)"]["status"]["4xx"] == 1
    assert endpoints["GET /dead"]["status"]["5xx"] == 1
    assert endpoints["GET /limit/user"]["limited"] == 2
    assert endpoints["GET /hs/x"]["route"] == "hs"
    assert sum(endpoints["GET /hs/x"]["latency"]) == 3
    users = rows(found, "users", "name")
    assert users["rider-7"] == {"kind": "user", "name": "rider-7", "requests": 10, "errors": 0,
                                "limited": 2}
    assert users["127.0.0.1"]["kind"] == "address" and users["127.0.0.1"]["errors"] == 1
    assert list(rows(found, "limited", "name")) == ["rider-7"]
    assert [row["requests"] for row in found["users"]] == [10, 7]
    hour = wait_requests(rig, 17, "?window=hour&top=2")
    assert hour["requests"] == 17 and len(hour["endpoints"]) == 2


def test_nothing_is_told_twice_over_time(start):
    rig = start()
    rig.ask("GET", "/ping")
    wait_requests(rig, 1)
    for _ in range(4):
        rig.ask("GET", "/ping")
    wait_requests(rig, 5)
    assert analytics(rig)["requests"] == analytics(rig, "?window=hour")["requests"] == 5


@pytest.mark.parametrize("query,field", [("?window=day", "window"), ("?top=0", "top"),
                                         ("?top=x", "top"), ("?top=1001", "top")])
def test_bad_questions(start, query, field):
    answer = start().admin("GET", f"/analytics{query}")
    assert answer.status == 400 and answer.json()["field"] == field


def test_several_gateways_are_added_up(start, ctl):
    rigs = [start("a"), start("b")]
    for count, rig in zip((3, 5), rigs):
        for _ in range(count):
            rig.ask("GET", "/echo/same", bearer(rig.signers["hs"].token("x")))
        rig.ask("GET", f"/echo/{rig.config['instance']}")
        wait_requests(rig, count + 1)
    where = [word for rig in rigs for word in ("--socket", socket_of(rig))]
    found = json.loads(ctl("analytics", "--json", *where))
    assert found["instances"] == ["gw-a", "gw-b"] and found["requests"] == 10
    same = rows(found)["GET /echo/same"]
    assert same["requests"] == 8 and same["p50_ms"] <= same["p90_ms"] <= same["p99_ms"]
    assert sum(same["latency"]) == 8
    assert rows(found, "users", "name")["127.0.0.1"]["requests"] == 10
    one = json.loads(ctl("analytics", "--json", "--top", "1", "--url",
                         f"http://127.0.0.1:{rigs[0].ports['admin']}"))
    assert one["requests"] == 4 and [row["endpoint"] for row in one["endpoints"]] == ["GET /echo/same"]
    text = ctl("analytics", "--window", "hour", *where)
    assert "gw-a, gw-b: 10 requests in the last hour" in text and "GET /echo/same" in text


def test_who_still_calls_v1(start, ctl):
    rigs = [start("a"), start("b")]
    for rig in rigs:
        for name, count in (("old-app", 3), ("older-app", 1)):
            for _ in range(count):
                answer = rig.ask("GET", "/api/v1/user/profile", bearer(rig.signers["hs"].token(name)))
                assert answer.status == 200 and answer.first("Deprecation")
        rig.ask("GET", "/api/v3/user/profile")
        rig.reload()  # changes nothing of what was counted
    where = [word for rig in rigs for word in ("--socket", socket_of(rig))]
    found = json.loads(ctl("versions", "--json", *where))
    versions = rows(found, "versions", "version")
    assert versions["v1"]["requests"] == 8 and versions["v1"]["state"] == "deprecated"
    assert versions["v1"]["sunset"] == "2099-01-01T00:00:00.000Z"
    assert [(c["kind"], c["name"], c["requests"]) for c in versions["v1"]["consumers"]] == [
        ("user", "old-app", 6), ("user", "older-app", 2)]
    first = versions["v1"]["consumers"][0]
    assert found["since"] <= first["first"] <= first["last"]
    assert versions["v2"]["state"] == "current" and versions["v2"]["requests"] == 2
    assert versions["v2"]["consumers"][0]["kind"] == "address"
    text = ctl("versions", "--socket", socket_of(rigs[0]))
    assert "old-app" in text and "deprecated" in text
    metrics = rigs[0].admin("GET", "/metrics").body.decode()
    assert 'gatehouse_gateway_version_requests_total{route="user-v1",version="v1"} 4' in metrics
    assert ('gatehouse_gateway_deprecated_requests_total{route="user-v1",version="v1",kind="user",'
            'consumer="old-app"} 3') in metrics
    assert 'version="v2",kind' not in metrics

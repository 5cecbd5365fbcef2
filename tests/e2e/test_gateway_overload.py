# SPDX-License-Identifier: Apache-2.0
"""Load shedding: who is refused when a worker's queue is too long."""

import re
import signal

import pytest

import client
from conftest import assert_problem

PRIORITIES = ("low", "normal", "high", "critical")
CONNECTIONS, REQUESTS = 64, 320


@pytest.fixture
def own_rig(tmp_path, make_rig, procs):
    rig = make_rig(tmp_path, procs)
    rig.config["workers"] = 1
    rig.config["routes"] = [
        {"name": name, "match": {"path": f"/{name}"}, "respond": {"status": 200, "body": name}, "priority": name}
        for name in PRIORITIES
    ] + [{"name": "plain", "match": {"path": "/plain"}, "respond": {"status": 200, "body": "x"}}]
    return rig


def burst(rig):
    """
    So many requests at one moment that the last ones must wait for long: sent while the gateway is
    stopped. Returns {priority: [status]}.
    """
    connections = [rig.connect(timeout_s=60.0) for _ in range(CONNECTIONS)]
    each = [PRIORITIES[i % len(PRIORITIES)] for i in range(REQUESTS)]
    data = b"".join(client.head_of("GET", f"/{name}", "h") for name in each)
    statuses = {name: [] for name in PRIORITIES}
    rig.proc.signal(signal.SIGSTOP)
    try:
        for connection in connections:
            connection.send(data)
    finally:
        rig.proc.signal(signal.SIGCONT)
    for connection in connections:
        with connection:
            for name in each:
                answer = connection.read_response()
                statuses[name].append(answer.status)
                if answer.status == 503:
                    assert_problem(answer, 503)
                    assert answer.first("Retry-After") == "7"
                else:
                    assert answer.body == name.encode()
    return statuses


def shed(rig):
    text = rig.admin("GET", "/metrics").body.decode()
    return {k: int(v) for k, v in re.findall(r'gateway_shed_total{priority="(\w+)"} (\d+)', text)}


def test_less_important_requests_are_refused(own_rig):
    own_rig.config["load_shedding"] = {"max_delay_ms": 1, "retry_after_s": 7}
    own_rig.start()
    statuses = burst(own_rig)
    refused = {name: found.count(503) for name, found in statuses.items()}
    assert refused["low"] > 0 and refused["normal"] > 0, refused
    assert refused["critical"] == 0, refused
    assert all(set(found) <= {200, 503} for found in statuses.values())
    assert shed(own_rig) == refused
    record = own_rig.wait_record(route="low", status=503)
    assert record["reason"] == "overloaded"
    # The queue is empty again: so nobody is refused.
    for name in (*PRIORITIES, "plain"):
        assert own_rig.ask("GET", f"/{name}").status == 200


def test_delay_below_the_bound_refuses_nobody(own_rig):
    own_rig.config["load_shedding"] = {"max_delay_ms": 60000, "retry_after_s": 7}
    own_rig.start()
    assert all(set(found) == {200} for found in burst(own_rig).values())
    text = own_rig.admin("GET", "/metrics").body.decode()
    delay = float(re.search(r"^gatehouse_gateway_queue_delay_seconds (\S+)$", text, re.MULTILINE)[1])
    assert 0 < delay < 60, "measured, though below the bound"


def test_no_shedding_unless_configured(own_rig):
    own_rig.start()
    assert all(set(found) == {200} for found in burst(own_rig).values())
    assert set(shed(own_rig).values()) == {0}


def test_reload_changes_the_bound(own_rig):
    own_rig.start()
    own_rig.config["load_shedding"] = {"max_delay_ms": 1, "retry_after_s": 7}
    own_rig.reload()
    assert 503 in burst(own_rig)["low"]
    own_rig.config["load_shedding"] = None
    own_rig.reload()
    assert set(burst(own_rig)["low"]) == {200}

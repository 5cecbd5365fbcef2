# SPDX-License-Identifier: Apache-2.0
"""Rate limits at one gateway: what they count by, what the refused are told, when it ends."""

import threading
import time

import pytest

from conftest import assert_problem, seen
from rig import bearer


@pytest.fixture
def own_rig(tmp_path, make_rig, procs):
    """A gateway whose limits nobody has used yet."""
    return make_rig(tmp_path, procs).start()


@pytest.fixture(autouse=True)
def forget(services):
    for service in services:
        service.forget()


def statuses(rig, target, count, headers=()):
    with rig.connect() as connection:
        return [connection.request("GET", target, headers).status for _ in range(count)]


def test_fifth_is_served_sixth_is_not(own_rig, services):
    with own_rig.connect() as connection:
        for _ in range(5):
            assert connection.request("GET", "/limit/ip").status == 200
        answer = connection.request("GET", "/limit/ip")
        assert_problem(answer, 429)
        # 5 in 60 s: the next token comes after 12.
        assert 1 <= int(answer.first("Retry-After")) <= 13
        assert connection.request("GET", "/echo/x").status == 200, "the connection stays of use"
    assert len([r for r in seen(services) if r["path"] == "/limit/ip"]) == 5
    record = own_rig.wait_record(status=429)
    assert record["limited_by"] == "ip-5" and record["endpoint"] == "GET /limit/ip"


def test_limited_responses_tell_the_state(own_rig):
    answer = own_rig.ask("GET", "/limit/ip")
    assert answer.first("RateLimit") and answer.first("RateLimit-Policy"), answer


def test_by_user(own_rig):
    one, two = (bearer(own_rig.signers["hs"].token(user)) for user in ("1", "2"))
    another_token_of_one = bearer(own_rig.signers["hs"].token("1", lifetime_s=900))
    assert statuses(own_rig, "/limit/user", 6, one) == [200] * 5 + [429]
    assert statuses(own_rig, "/limit/user", 6, two) == [200] * 5 + [429]
    assert statuses(own_rig, "/limit/user", 1, another_token_of_one) == [429]


def test_refused_tokens_do_not_spend_a_users_limit(own_rig):
    token = own_rig.signers["hs"].token("1")
    forged = token[:-6] + ("AAAAAA" if token[-6:] != "AAAAAA" else "BBBBBB")
    assert statuses(own_rig, "/limit/user", 10, bearer(forged)) == [401] * 10
    assert statuses(own_rig, "/limit/user", 5, bearer(token)) == [200] * 5


def test_by_endpoint(own_rig):
    assert statuses(own_rig, "/limit/endpoint", 6) == [200] * 5 + [429]
    assert statuses(own_rig, "/limit/other", 6) == [200] * 5 + [429], "each endpoint has its own"


def test_global(own_rig):
    assert statuses(own_rig, "/limit/global", 6) == [200] * 5 + [429]


def test_spelling_does_not_escape_a_limit(own_rig):
    assert statuses(own_rig, "/limit/endpoint", 5) == [200] * 5
    for spelling in ("/limit/endpoint?x=1", "/limit//endpoint", "/limit/%65ndpoint",
                     "/limit/./endpoint", "/x/../limit/endpoint"):
        assert statuses(own_rig, spelling, 1) == [429], spelling


def test_waiting_as_told_helps(own_rig):
    assert statuses(own_rig, "/limit/quick", 1) == [200]
    with own_rig.connect() as connection:
        answer = connection.request("GET", "/limit/quick")
        assert answer.status == 429
        time.sleep(int(answer.first("Retry-After")))  # the promise under test is about time
        assert connection.request("GET", "/limit/quick").status == 200


def test_limit_holds_across_workers_and_connections(own_rig, services):
    """Many connections at once, on both workers: five are served all the same."""
    results = []

    def ask():
        results.extend(statuses(own_rig, "/limit/ip", 5))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 60
    assert results.count(200) == 5 and results.count(429) == 55

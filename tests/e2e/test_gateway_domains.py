# SPDX-License-Identifier: Apache-2.0
"""Two domains on one host, a process each: riders who flood theirs are no trouble to drivers."""

import collections
import threading
import time

import pytest

from client import BadResponse, head_of
from procs import wait_until
from rig import bearer

DRIVERS, RIDERS = 24, 8
UPDATE_S, UPDATES = 0.25, 10
RIDER_LIMIT = 20  # a second for each
AT_ONCE = 20


@pytest.fixture
def domains(tmp_path, make_rig, procs):
    rigs = {}
    for name, issuer in (("rider", "hs"), ("driver", "es")):
        rig = make_rig(tmp_path / name, procs)
        rig.config.update(domain=name, instance=f"{name}-1", workers=1)
        rig.config["auth"] = {name: rig.config["auth"][issuer]}
        rig.config["rate_limits"] = {
            "per-user": {"key": "user", "limit": RIDER_LIMIT, "window_s": 1}}
        rig.config["routes"] = [
            {"name": "api", "match": {"path": "/api/*"}, "auth": name, "limits": ["per-user"],
             "service": "echo"}]
        rigs[name] = rig.start()
        rig.token = rig.signers[issuer].token
    return rigs


class Driver(threading.Thread):
    """Says where it is every 250 ms; any other answer than 200 is an error."""

    def __init__(self, rig, number):
        super().__init__(daemon=True)
        self.rig, self.user = rig, f"driver-{number}"
        self.updates, self.errors = 0, []

    def run(self):
        headers = bearer(self.rig.token(self.user)) + [("Content-Type", "application/json")]
        body = b'{"lat": 52.52, "lon": 13.405}'
        try:
            with self.rig.connect(timeout_s=30) as connection:
                while self.updates < UPDATES:
                    answer = connection.request("PUT", "/api/location", headers, body)
                    if answer.status != 200:
                        self.errors.append(answer)
                    self.updates += 1
                    time.sleep(UPDATE_S)
        except (OSError, BadResponse) as error:
            self.errors.append(error)


class Rider(threading.Thread):
    """Asks as quickly as it is answered, many at once."""

    def __init__(self, rig, number, is_over):
        super().__init__(daemon=True)
        self.rig, self.user, self.is_over = rig, f"rider-{number}", is_over
        self.statuses = collections.Counter()

    def run(self):
        request = head_of("GET", "/api/feed", "h", bearer(self.rig.token(self.user)))
        with self.rig.connect(timeout_s=30) as connection:
            while not self.is_over.is_set():
                connection.send(request * AT_ONCE)
                for _ in range(AT_ONCE):
                    self.statuses[connection.read_response().status] += 1


def drive(rig):
    drivers = [Driver(rig, i) for i in range(DRIVERS)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    return drivers


def test_drivers_do_not_notice_a_flood_of_riders(domains):
    is_over = threading.Event()
    riders = [Rider(domains["rider"], i, is_over) for i in range(RIDERS)]
    begun = time.monotonic()
    for rider in riders:
        rider.start()
    try:
        drivers = drive(domains["driver"])
        seconds = time.monotonic() - begun
        admitted = RIDER_LIMIT * (1 + seconds)
        # Ten times the limit, also where the machine has other things to do.
        wait_until(lambda: all(sum(r.statuses.values()) > 10 * admitted for r in riders),
                   "riders to ask for ten times their limit", 60)
    finally:
        is_over.set()
        for rider in riders:
            rider.join()
    seconds = time.monotonic() - begun
    assert not [error for driver in drivers for error in driver.errors]
    assert all(driver.updates == UPDATES for driver in drivers)
    for rider in riders:
        assert set(rider.statuses) == {200, 429}, rider.statuses
        assert rider.statuses[200] <= RIDER_LIMIT * (1 + seconds) * 1.05 + 1, rider.statuses
        assert rider.statuses[429] > rider.statuses[200]


def test_a_domain_takes_no_tokens_of_the_other(domains):
    rider = bearer(domains["rider"].token("u"))
    driver = bearer(domains["driver"].token("u"))
    assert domains["rider"].ask("GET", "/api/x", rider).status == 200
    assert domains["driver"].ask("GET", "/api/x", driver).status == 200
    assert domains["driver"].ask("GET", "/api/x", rider).status == 401
    assert domains["rider"].ask("GET", "/api/x", driver).status == 401


def test_equal_names_are_different_users(domains):
    """The limit of the user u in one domain is not that of u in the other."""
    with domains["rider"].connect() as connection:
        headers = bearer(domains["rider"].token("u"))
        wait_until(
            lambda: 429 in [connection.request("GET", "/api/x", headers).status for _ in range(50)],
            "the limit of u", 20)
    assert domains["driver"].ask("GET", "/api/x", bearer(domains["driver"].token("u"))).status == 200

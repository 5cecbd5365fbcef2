# SPDX-License-Identifier: Apache-2.0
"""registryd on loopback: its native API as services and gateways use it, and what it survives."""

import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

import client
from procs import wait_until

PATH = "/v1/apps/user/instances/u1"


def instance(**more):
    return {"address": "10.1.0.5", "port": 8080, "lease_s": 30, **more}


def test_life_of_an_instance(registry):
    created = registry.call("PUT", PATH, instance(zone="a", metadata={"k": "v"}, version="1.2"))
    assert created.status == 201
    replaced = registry.call("PUT", PATH, instance(weight=7))
    assert replaced.status == 200
    assert replaced.json()["index"] > created.json()["index"]
    listed = registry.instances("user")
    assert len(listed) == 1
    assert (listed[0]["id"], listed[0]["address"], listed[0]["port"]) == ("u1", "10.1.0.5", 8080)
    assert (listed[0]["weight"], listed[0]["status"], listed[0]["lease_s"]) == (7, "UP", 30)
    assert registry.call("POST", PATH + "/renew").status == 204
    assert registry.call("DELETE", PATH).status == 204
    assert registry.call("DELETE", PATH).status == 404
    assert registry.call("POST", PATH + "/renew").status == 404
    assert registry.instances("user") == []


def test_defaults_and_all_members_come_back(registry):
    assert registry.call("PUT", PATH, {"address": "10.1.0.5", "port": 80}).status == 201
    assert registry.instances("user")[0] | {"index": 0} == registry.instances("user")[0] | {
        "index": 0, "weight": 100, "status": "UP", "lease_s": 30, "secure": False,
    }
    full = instance(secure=True, zone="b", weight=9, version="2", metadata={"a": "ä", "b": ""},
                    status="STARTING", address="2001:db8::1")
    assert registry.call("PUT", PATH, full).status == 200
    got = registry.instances("user")[0]
    assert {key: got[key] for key in full} == full


def test_app_names_are_case_insensitive(registry):
    registry.call("PUT", "/v1/apps/User-Service/instances/1", instance())
    assert [i["id"] for i in registry.instances("USER-SERVICE")] == ["1"]


def test_lease_that_is_not_renewed_expires(registry):
    registry.call("PUT", PATH, instance(lease_s=1))
    registry.call("PUT", "/v1/apps/user/instances/u2", instance(lease_s=30))
    began = time.monotonic()
    wait_until(lambda: len(registry.instances("user")) == 1, "expiry", 5)
    assert 0.8 < time.monotonic() - began < 3
    assert registry.instances("user")[0]["id"] == "u2"


def test_renewal_of_many_in_one_request(registry):
    for name in ("u1", "u2"):
        registry.call("PUT", f"/v1/apps/user/instances/{name}", instance(lease_s=1))
    ends = time.monotonic() + 2.5
    while time.monotonic() < ends:
        answer = registry.call(
            "POST", "/v1/renew", {"instances": [["user", "u1"], ["user", "gone"], ["no", "x"]]}
        )
        assert answer.status == 200
        assert sorted(map(tuple, answer.json()["unknown"])) == [("no", "x"), ("user", "gone")]
        time.sleep(0.2)  # the pace of renewals is the matter here
    assert [i["id"] for i in registry.instances("user")] == ["u1"]


def test_status_override_goes_first(registry):
    registry.call("PUT", PATH, instance())
    assert registry.status("user", "u1", "OUT_OF_SERVICE") == 200
    assert registry.instances("user")[0]["status"] == "OUT_OF_SERVICE"
    registry.call("PUT", PATH, instance(status="UP"))
    assert registry.instances("user")[0]["status"] == "OUT_OF_SERVICE", "it outlives registration"
    assert registry.call("DELETE", PATH + "/status").status == 200
    assert registry.instances("user")[0]["status"] == "UP"


def test_filters(registry):
    registry.call("PUT", PATH, instance(zone="a"))
    registry.call("PUT", "/v1/apps/user/instances/u2", instance(zone="b", status="DOWN"))

    def ids(query):
        return [i["id"] for i in registry.call("GET", f"/v1/apps/user?{query}").json()["instances"]]

    assert ids("zone=a") == ["u1"] and ids("zone=b") == ["u2"]
    assert ids("status=UP") == ["u1"] and ids("status=DOWN") == ["u2"]


def test_blocking_query_waits_for_news_of_its_app(registry):
    index = registry.call("PUT", PATH, instance()).json()["index"]
    answers = []

    def wait():
        answers.append(registry.call("GET", f"/v1/apps/user?index={index}&wait_s=20", timeout_s=30))

    thread = threading.Thread(target=wait)
    began = time.monotonic()
    thread.start()
    registry.call("PUT", "/v1/apps/other/instances/o1", instance())
    thread.join(0.5)
    assert thread.is_alive(), "news of another app wakes nobody"
    changed = registry.call("PUT", PATH, instance(port=9090)).json()["index"]
    thread.join(5)
    assert not thread.is_alive() and time.monotonic() - began < 5
    assert answers[0].json()["index"] >= changed
    assert answers[0].first("X-Index") == str(answers[0].json()["index"])
    assert answers[0].json()["instances"][0]["port"] == 9090


def test_blocking_query_ends_without_news(registry):
    index = registry.call("PUT", PATH, instance()).json()["index"]
    began = time.monotonic()
    answer = registry.call("GET", f"/v1/apps/user?index={index}&wait_s=1")
    assert answer.status == 200 and 0.7 < time.monotonic() - began < 4
    assert len(answer.json()["instances"]) == 1


class Watch:
    """A stream of server-sent events."""

    def __init__(self, registry, query):
        self.sock = socket.create_connection(("127.0.0.1", registry.port), 15)
        self.sock.sendall(f"GET /v1/watch?{query} HTTP/1.1\r\nHost: r\r\n\r\n".encode())
        self.text = b""
        self.at = 0

    def _line(self):
        while b"\n" not in self.text[self.at :]:
            data = self.sock.recv(65536)
            assert data, "the stream ended"
            self.text += data
        end = self.text.index(b"\n", self.at)
        line, self.at = self.text[self.at : end].rstrip(b"\r").decode(), end + 1
        return line

    def event(self):
        """The next event as (name, id, parsed data); chunk framing and comments are passed over."""
        fields = {}
        while True:
            line = self._line()
            key, colon, value = line.partition(":")
            if key in ("event", "id", "data") and colon:
                fields[key] = value.strip()
            elif line == "" and "event" in fields:
                data = fields.get("data")
                return fields["event"], fields.get("id"), json.loads(data) if data else None

    def close(self):
        self.sock.close()


def test_watch_tells_changes_in_order(registry):
    registry.call("PUT", PATH, instance())
    watch = Watch(registry, "index=0&apps=user")
    try:
        name, index, data = watch.event()
        assert name == "reset" and int(index) == data["index"] > 0
        assert [[i["id"] for i in app["instances"]] for app in data["apps"]] == [["u1"]]
        registry.call("PUT", "/v1/apps/other/instances/o1", instance())
        registry.status("user", "u1", "DOWN")
        registry.call("DELETE", PATH)
        seen = [watch.event()]
        while seen[-1][0] != "delete":
            seen.append(watch.event())
        assert {data["id"] for _, _, data in seen} == {"u1"}, "only the apps asked for"
        assert [name for name, _, _ in seen] == ["status", "delete"]
        indexes = [int(i) for _, i, _ in seen]
        assert indexes == sorted(indexes)
    finally:
        watch.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_restart_keeps_instances_and_index(registry, number):
    registry.call("PUT", PATH, instance(lease_s=60, metadata={"a": "b"}))
    registry.status("user", "u1", "DOWN")
    before = registry.call("GET", "/v1/apps/user").json()
    if number == signal.SIGKILL:
        # The snapshot is written at most a second after a change.
        time.sleep(1.3)
    registry.proc.stopped_on_purpose = True
    registry.proc.signal(number)
    code = registry.proc.popen.wait(10)
    assert number == signal.SIGKILL or code == 0
    registry.start()
    after = registry.call("GET", "/v1/apps/user").json()
    assert after["instances"] == before["instances"]
    later = registry.call("PUT", "/v1/apps/user/instances/u2", instance()).json()["index"]
    assert later > before["index"], "the index goes on, or watchers would miss changes"


def test_broken_snapshot_is_told(registry):
    registry.call("PUT", PATH, instance())
    assert registry.proc.stop() == 0
    with open(registry.snapshot, "r+b") as file:
        file.seek(os.path.getsize(registry.snapshot) // 2)
        file.write(b"\xff\xff\xff\xff")
    done = subprocess.Popen(
        [registry.program, "-c", registry.config_path], stderr=subprocess.PIPE, text=True
    )
    try:
        line = done.stderr.readline()
        assert "snapshot" in line, line
    finally:
        done.kill()
        done.wait()
        done.stderr.close()


@pytest.mark.parametrize(
    "path,document",
    [
        (PATH, []),
        (PATH, {}),
        (PATH, instance(address="nonsense")),
        (PATH, instance(address="host.example.com")),
        (PATH, instance(address="0.0.0.0")),
        (PATH, instance(address="::")),
        (PATH, instance(address="255.255.255.255")),
        (PATH, instance(address="ff02::1")),
        (PATH, instance(app="another")),
        (PATH, instance(port=0)),
        (PATH, instance(port=65536)),
        (PATH, instance(port="8080")),
        (PATH, instance(weight=0)),
        (PATH, instance(weight=1001)),
        (PATH, instance(lease_s=0)),
        (PATH, instance(lease_s=-5)),
        (PATH, instance(status="SLEEPING")),
        (PATH, instance(metadata={"a": 1})),
        (PATH, instance(metadata={str(i): "x" for i in range(1000)})),
        (PATH, instance(metadata={"a": "x" * 100_000})),
        (PATH, instance(zone="a\nb")),
        (PATH, instance(surprise=1)),
        ("/v1/apps/no%20spaces/instances/1", instance()),
        ("/v1/apps/" + "a" * 1000 + "/instances/1", instance()),
    ],
    ids=lambda value: str(value)[:40] if not isinstance(value, str) else None,
)
def test_instances_that_are_none_are_refused(registry, path, document):
    answer = registry.call("PUT", path, document)
    assert 400 <= answer.status < 500
    assert_says_problem(answer)
    assert registry.call("GET", "/v1/apps").json() is not None
    assert registry.instances("user") == []


def assert_says_problem(answer):
    assert answer.first("Content-Type") == "application/problem+json", answer
    document = answer.json()
    assert document["status"] == answer.status and document["detail"]


def test_malformed_json_and_wrong_methods(registry):
    answer = client.http("127.0.0.1", registry.port, "PUT", PATH, body=b'{"address": ')
    assert answer.status == 400
    assert_says_problem(answer)
    assert registry.call("PATCH", PATH, {}).status in (404, 405, 501)
    assert registry.call("GET", "/v1/nothing").status == 404


def test_admin_pages(registry):
    registry.call("PUT", PATH, instance())
    assert registry.call("GET", "/healthz").status == 200
    assert registry.call("GET", "/readyz").status == 200
    assert b"instances" in registry.call("GET", "/metrics").body


def test_port_in_use(registry):
    done = subprocess.run(
        [registry.program, "-c", registry.config_path], capture_output=True, text=True, timeout=10
    )
    assert done.returncode == 1
    assert f"127.0.0.1:{registry.port}" in done.stderr and "in use" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.strip()]) == 1, done.stderr


def test_check_tells_every_mistake(registry, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"bind": "nowhere", "store": {"type": "magic"},
                                "lease": {"default_s": -1}, "surprise": True}))
    done = subprocess.run(
        [registry.program, "-c", str(path), "--check"], capture_output=True, text=True, timeout=10
    )
    assert done.returncode == 1
    for told in ("bind", "store.type", "lease.default_s", "surprise"):
        assert told in done.stdout + done.stderr, (told, done)


def test_many_services_at_once(registry, procs, start_service):
    """The test service against the real registry: registers, renews, leaves."""
    options = ("--registry", registry.url, "--lease-s", "1", "--linger-ms", "0")
    services = [start_service(procs, "many", f"m-{i}", *options) for i in range(4)]
    wait_until(lambda: len(registry.instances("many")) == 4, "all registered")
    ends = time.monotonic() + 2.5
    while time.monotonic() < ends:
        assert len(registry.instances("many")) == 4, "renewed in time, nobody falls out"
        time.sleep(0.1)
    for service in services[:2]:
        assert service.proc.stop() == 0
    assert sorted(i["id"] for i in registry.instances("many")) == ["m-2", "m-3"]
    services[2].proc.kill()
    wait_until(lambda: [i["id"] for i in registry.instances("many")] == ["m-3"], "expiry", 5)


def test_registrations_survive_the_registry(registry, procs, start_service):
    start_service(procs, "user", "u-1", "--registry", registry.url, "--lease-s", "1")
    wait_until(lambda: registry.instances("user"), "registered")
    registry.proc.kill()
    if os.path.exists(registry.snapshot):
        os.unlink(registry.snapshot)
    registry.start()
    wait_until(lambda: registry.instances("user"), "registers again after a 404", 5)

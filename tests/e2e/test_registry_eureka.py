# SPDX-License-Identifier: Apache-2.0
"""Eureka's API at registryd: npm's clients unmodified, and requests as Netflix's and Spring's Java
clients, Python's and Go's send them. What a Eureka client registers, a gateway uses."""

import base64
import gzip
import json
import os
import queue
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import xml.etree.ElementTree as ET
import zlib

import pytest

import client
from conftest import ROOT
from procs import wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
JAVA = [
    ("Accept", "application/json"),
    ("Accept-Encoding", "gzip"),
    ("DiscoveryIdentity-Name", "DefaultClient"),
    ("DiscoveryIdentity-Version", "1.4"),
    ("DiscoveryIdentity-Id", "10.1.0.9"),
    ("User-Agent", "Java-EurekaClient/v1.10.17"),
]
INSTANCE_FIELDS = set(
    "instanceId hostName app ipAddr sid status overriddenStatus port securePort countryId "
    "dataCenterInfo leaseInfo metadata appGroupName homePageUrl statusPageUrl healthCheckUrl "
    "secureHealthCheckUrl vipAddress secureVipAddress isCoordinatingDiscoveryServer "
    "lastUpdatedTimestamp lastDirtyTimestamp actionType asgName".split()
)


class Node:
    """One of npm's clients in a process of its own."""

    def __init__(self, library, directory):
        folders = [os.path.join(ROOT, "build/npm/node_modules"), os.environ.get("NODE_PATH", "")]
        self.log = open(os.path.join(directory, f"{library}.log"), "w+", encoding="utf-8")
        self.popen = subprocess.Popen(
            ["node", os.path.join(HERE, "eureka_clients.mjs"), library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=directory,
            env={**os.environ, "NODE_PATH": ":".join(filter(None, folders))},
        )
        self.answers = queue.Queue()
        self.events = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            wait_until(lambda: "ready" in self.events or self.popen.poll() is not None, "node", 30)
            if self.popen.poll() == 3:
                pytest.skip(
                    f"npm's {library} is not installed (npm is missing, or could not reach its "
                    "registry)"
                )
        except BaseException:
            self.close()
            raise

    def _read(self):
        for line in self.popen.stdout:
            document = json.loads(line)
            if "event" in document:
                self.events.append(document["event"])
            else:
                self.answers.put(document)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.popen.stdin.close()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self.reader.join(10)
        self.popen.stdout.close()
        self.log.close()

    def do(self, *words):
        self.popen.stdin.write(json.dumps(words) + "\n")
        self.popen.stdin.flush()
        document = self.answers.get(timeout=30)
        if "error" in document:
            self.log.seek(0)
            raise AssertionError(f"{words}: {document['error']}\n{self.log.read()}")
        return document["answer"]

    def count(self, event):
        return self.events.count(event)


@pytest.fixture
def node(tmp_path):
    """Starts one of npm's clients; skips when it is not there."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    started = []

    def start(library):
        one = Node(library, str(tmp_path))
        started.append(one)
        return one

    yield start
    for one in started:
        one.close()


def js_config(registry, app, port, **more):
    instance = {
        "app": app,
        "hostName": "localhost",
        "ipAddr": "127.0.0.1",
        "port": {"$": port, "@enabled": "true"},
        "vipAddress": f"{app}.vip,{app}.other",
        "dataCenterInfo": {
            "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
            "name": "MyOwn",
        },
        "leaseInfo": {"renewalIntervalInSecs": 1, "durationInSecs": 2},
        "metadata": {"zone": "east", "weight": "7"},
    }
    config = {
        "instance": {**instance, **more},
        "eureka": {
            "host": "127.0.0.1",
            "port": registry.port,
            "heartbeatInterval": 250,
            "registryFetchInterval": 600000,
        },
    }
    return config


def ask(registry, method, path, headers=(), body=None, **more):
    return client.http("127.0.0.1", registry.port, method, path, headers, body, **more)


def as_json(registry, path):
    answer = ask(registry, "GET", path, [("Accept", "application/json")])
    assert answer.status == 200, answer
    assert answer.first("Content-Type") == "application/json"
    return answer.json()


def document(app, instance_id, **more):
    """A registration as Spring's client writes it."""
    now = str(int(time.time() * 1000))
    instance = {
        "instanceId": instance_id,
        "hostName": "10.1.0.9",
        "app": app.upper(),
        "ipAddr": "10.1.0.9",
        "status": "UP",
        "overriddenStatus": "UNKNOWN",
        "port": {"$": 8080, "@enabled": "true"},
        "securePort": {"$": 443, "@enabled": "false"},
        "countryId": 1,
        "dataCenterInfo": {
            "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
            "name": "MyOwn",
        },
        "leaseInfo": {
            "renewalIntervalInSecs": 30,
            "durationInSecs": 90,
            "registrationTimestamp": 0,
            "lastRenewalTimestamp": 0,
            "evictionTimestamp": 0,
            "serviceUpTimestamp": 0,
        },
        "metadata": {"management.port": "8081", "zone": "a"},
        "homePageUrl": "http://10.1.0.9:8080/",
        "statusPageUrl": "http://10.1.0.9:8080/actuator/info",
        "healthCheckUrl": "http://10.1.0.9:8080/actuator/health",
        "vipAddress": app.lower(),
        "secureVipAddress": app.lower(),
        "isCoordinatingDiscoveryServer": "false",
        "lastUpdatedTimestamp": now,
        "lastDirtyTimestamp": now,
    }
    return {**instance, **more}


def register(registry, app, instance_id, prefix="/eureka", headers=(), **more):
    body = json.dumps({"instance": document(app, instance_id, **more)}).encode()
    headers = [("Content-Type", "application/json"), *headers]
    return ask(registry, "POST", f"{prefix}/apps/{app.upper()}", headers, body)


def instance_of(registry, app, instance_id):
    return as_json(registry, f"/eureka/apps/{app}/{urllib.parse.quote(instance_id)}")["instance"]


# --- npm's clients ------------------------------------------------------------------------------


def test_eureka_js_client_through_its_life(registry, node):
    js = node("eureka-js-client")
    js.do("start", js_config(registry, "jsapp", 8080))
    assert js.count("registered") == 1 and js.count("started") == 1
    native = registry.instances("jsapp")
    assert [(i["id"], i["address"], i["port"]) for i in native] == [("localhost", "127.0.0.1", 8080)]
    assert (native[0]["zone"], native[0]["weight"], native[0]["lease_s"]) == ("east", 7, 2)
    # It outlives its lease by its heartbeats.
    wait_until(lambda: js.count("heartbeat") >= 12, "heartbeats for more than a lease time", 20)
    assert registry.instances("jsapp")[0]["index"] == native[0]["index"], "and was never away"
    # What it fetches: by app in any case, by each of its vips; and what our own API registered.
    registry.call("PUT", "/v1/apps/plain/instances/p1", {"address": "10.1.0.5", "port": 99})
    js.do("fetch")
    assert js.do("app", "jsapp") == js.do("vip", "jsapp.other") == ["localhost:8080"]
    assert js.do("app", "PLAIN") == js.do("vip", "plain") == ["10.1.0.5:99"]
    assert js.do("metadata", "jsapp") == [{"zone": "east", "weight": "7"}]
    # An override takes it out of what others use, and giving it up brings it back.
    path = "/eureka/v2/apps/JSAPP/localhost/status"
    assert ask(registry, "PUT", path + "?value=OUT_OF_SERVICE").status == 200
    js.do("fetch")
    assert js.do("app", "jsapp") == []
    assert registry.instances("jsapp")[0]["status"] == "OUT_OF_SERVICE"
    assert ask(registry, "DELETE", path).status == 200
    js.do("fetch")
    assert js.do("app", "jsapp") == ["localhost:8080"]
    # A registry that does not know it any more is told again.
    assert registry.call("DELETE", "/v1/apps/jsapp/instances/localhost").status == 204
    wait_until(lambda: js.count("registered") == 2, "registered again after a 404", 20)
    assert len(registry.instances("jsapp")) == 1
    js.do("stop")
    assert js.count("deregistered") == 1
    assert registry.instances("jsapp") == []


def test_eureka_js_client_with_deltas(registry, node):
    js = node("eureka-js-client")
    config = js_config(registry, "watcher", 8080)
    config["shouldUseDelta"] = True
    js.do("start", config)
    assert js.do("app", "user") == []
    assert register(registry, "user", "u1").status == 204
    js.do("fetch")
    assert js.do("app", "user") == js.do("vip", "user") == ["10.1.0.9:8080"]
    js.do("fetch")
    assert js.do("app", "user") == ["10.1.0.9:8080"], "the same news twice"
    assert ask(registry, "PUT", "/eureka/apps/USER/u1/status?value=OUT_OF_SERVICE").status == 200
    js.do("fetch")
    assert js.do("status", "user") == ["OUT_OF_SERVICE"]
    assert ask(registry, "DELETE", "/eureka/apps/USER/u1").status == 200
    js.do("fetch")
    assert js.do("app", "user") == []


def test_eureka_nodejs_client_through_its_life(registry, node):
    other = node("eureka-nodejs-client")
    other.do(
        "start",
        {
            "eureka": {
                "serviceUrl": [registry.url],
                "registerWithEureka": True,
                "pollIntervalSeconds": 1,
            },
            "instance": {"app": "nodeapp", "ipAddr": "127.0.0.1", "port": 7070},
        },
    )
    wait_until(lambda: registry.instances("nodeapp"), "registered", 15)
    native = registry.instances("nodeapp")[0]
    assert (native["id"], native["port"], native["lease_s"]) == ("127.0.0.1:7070", 7070, 30)
    assert native["metadata"] == {"management.port": "7070"}, "a number becomes a text"
    assert other.do("instance", "NODEAPP") == "127.0.0.1:7070"
    renewals = registry_metric(registry, "gatehouse_registry_renewals_total")
    wait_until(
        lambda: registry_metric(registry, "gatehouse_registry_renewals_total") > renewals,
        "heartbeat",
        15,
    )
    assert other.do("stop") is True
    assert registry.instances("nodeapp") == []


def registry_metric(registry, name):
    for line in registry.call("GET", "/metrics").body.decode().splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    raise AssertionError(f"no metric {name}")


# --- as Java's clients do it ----------------------------------------------------------------------


def chunked(data, size=100):
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


def test_java_registers_packed_and_in_chunks(registry):
    body = gzip.compress(json.dumps({"instance": document("java", "h:java:8080")}).encode())
    head = "".join(f"{name}: {value}\r\n" for name, value in JAVA)
    sock = socket.create_connection(("127.0.0.1", registry.port), 10)
    with client.Connection(sock) as connection:
        connection.send(
            (
                f"POST /eureka/v2/apps/JAVA HTTP/1.1\r\nHost: registry\r\n{head}"
                "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
                "Transfer-Encoding: chunked\r\n\r\n"
            ).encode()
            + chunked(body)
        )
        assert connection.read_response("POST").status == 204
    got = instance_of(registry, "JAVA", "h:java:8080")
    assert set(got) <= INSTANCE_FIELDS, "plain Jackson fails on a member that it does not know"
    sent = document("java", "h:java:8080")
    for same in ("hostName", "app", "ipAddr", "status", "port", "securePort", "countryId",
                 "dataCenterInfo", "metadata", "homePageUrl", "vipAddress", "overriddenStatus"):
        assert got[same] == sent[same], same
    assert got["lastDirtyTimestamp"].isdigit() and isinstance(got["lastDirtyTimestamp"], str)
    assert got["leaseInfo"]["durationInSecs"] == 90 and got["actionType"] == "ADDED"


@pytest.mark.parametrize("prefix", ["/eureka", "/eureka/v2", "/v2"])
def test_every_prefix_and_a_slash_at_the_end(registry, prefix):
    assert register(registry, "user", "u1", prefix).status == 204
    for path in ("/apps", "/apps/", "/apps/delta", "/apps/user", "/apps/USER/", "/apps/USER/u1",
                 "/vips/user", "/svips/user", "/instances/u1"):
        assert as_json(registry, prefix + path), path
    assert ask(registry, "GET", prefix + "/apps/NOBODY").status == 404
    assert ask(registry, "GET", prefix + "/apps/USER/nobody").status == 404
    assert ask(registry, "GET", prefix + "/instances/nobody").status == 404
    empty = as_json(registry, prefix + "/vips/nobody")["applications"]
    assert empty["application"] == [] and empty["apps__hashcode"] == ""


def test_heartbeats_as_java_sends_them(registry):
    assert ask(registry, "PUT", "/eureka/apps/USER/u1?status=UP").status == 404
    dirty = 1_700_000_000_000
    assert register(registry, "user", "a:b:1", lastDirtyTimestamp=str(dirty)).status == 204
    path = "/eureka/apps/USER/a%3Ab%3A1?status=UP&lastDirtyTimestamp="
    answer = ask(registry, "PUT", path + str(dirty), JAVA)
    assert answer.status == 200 and answer.body == b"" and answer.first("Content-Type") is None
    assert ask(registry, "PUT", path + str(dirty - 1)).status == 200
    assert ask(registry, "PUT", path + str(dirty + 1)).status == 404, "it has newer data: again"
    assert ask(registry, "PUT", "/eureka/apps/user/a:b:1", body=b'{"status":"UP"}').status == 200
    # What is older than what is known changes nothing, and renews.
    older = register(registry, "user", "a:b:1", lastDirtyTimestamp=dirty - 1, hostName="old")
    assert older.status == 204
    assert instance_of(registry, "USER", "a:b:1")["hostName"] == "10.1.0.9"
    newer = register(registry, "user", "a:b:1", lastDirtyTimestamp=dirty + 1, hostName="new")
    assert newer.status == 204
    assert instance_of(registry, "USER", "a:b:1")["hostName"] == "new"
    assert ask(registry, "DELETE", "/eureka/apps/USER/a:b:1").status == 200
    assert ask(registry, "DELETE", "/eureka/apps/USER/a:b:1").status == 404


def hash_of(applications):
    counts = {}
    for app in applications["application"]:
        for instance in app["instance"]:
            counts[instance["status"]] = counts.get(instance["status"], 0) + 1
    return "".join(f"{status}_{counts[status]}_" for status in sorted(counts))


def test_delta_and_hash_are_those_of_one_moment(registry):
    """A client that applies each delta has what a full fetch says, by its own count."""
    known = {}

    def fetch():
        applications = as_json(registry, "/eureka/apps/delta")["applications"]
        for app in applications["application"]:
            for instance in app["instance"]:
                key = (app["name"], instance["instanceId"])
                if instance["actionType"] == "DELETED":
                    known.pop(key, None)
                else:
                    known[key] = instance
        full = as_json(registry, "/eureka/apps")["applications"]
        mine = {"application": [{"instance": [i]} for i in known.values()]}
        assert hash_of(mine) == applications["apps__hashcode"] == full["apps__hashcode"]
        assert hash_of(full) == full["apps__hashcode"]
        assert full["versions__delta"] == "1"
        return int(applications["versions__delta"])

    versions = [fetch()]
    for number in range(4):
        assert register(registry, f"app{number % 2}", f"i{number}").status == 204
    versions.append(fetch())
    assert ask(registry, "PUT", "/eureka/apps/APP0/i0/status?value=OUT_OF_SERVICE").status == 200
    assert ask(registry, "DELETE", "/eureka/apps/APP1/i1").status == 200
    assert register(registry, "app1", "i3", status="DOWN",
                    lastDirtyTimestamp=str(int(time.time() * 1000) + 5)).status == 204
    registry.call("PUT", "/v1/apps/plain/instances/p", {"address": "10.1.0.5", "port": 99})
    versions.append(fetch())
    assert ask(registry, "DELETE", "/eureka/apps/APP1/i3").status == 200
    assert register(registry, "app1", "i1").status == 204
    versions.append(fetch())
    assert versions == sorted(set(versions)), "each delta has a version of its own"
    assert {key[1] for key in known} == {"i0", "i1", "i2", "p"}


def test_overrides_by_eurekas_rules(registry):
    status = "/eureka/apps/USER/u1/status"

    def now():
        instance = instance_of(registry, "USER", "u1")
        return instance["status"], instance["overriddenStatus"]

    assert ask(registry, "PUT", status + "?value=DOWN").status == 404
    assert register(registry, "user", "u1").status == 204
    assert now() == ("UP", "UNKNOWN")
    assert ask(registry, "PUT", status + "?value=OUT_OF_SERVICE&lastDirtyTimestamp=1").status == 200
    assert now() == ("OUT_OF_SERVICE", "OUT_OF_SERVICE")
    register(registry, "user", "u1")
    assert now()[0] == "OUT_OF_SERVICE", "a registration does not lift it"
    overrides = as_json(registry, "/eureka/serverinfo/statusoverrides")
    assert overrides == {"u1": "OUT_OF_SERVICE"}
    register(registry, "user", "u1", status="DOWN")
    assert now()[0] == "DOWN", "what is down is down"
    assert ask(registry, "PUT", status + "?value=UP").status == 200
    assert now() == ("UP", "UP"), "until it says so again"
    register(registry, "user", "u1", status="DOWN")
    assert now()[0] == "DOWN"
    # Taken away without a value, the client has to say again what it is.
    assert ask(registry, "DELETE", status).status == 200
    assert now() == ("DOWN", "UNKNOWN")
    register(registry, "user", "u1", status="UP")
    ask(registry, "PUT", status + "?value=OUT_OF_SERVICE")
    assert ask(registry, "DELETE", status + "?value=UP").status == 200
    assert now() == ("UP", "UNKNOWN")
    assert ask(registry, "DELETE", status + "?value=UP").status == 200, "none was set"
    ask(registry, "PUT", status + "?value=UNKNOWN")
    assert now() == ("UNKNOWN", "UNKNOWN")
    assert ask(registry, "PUT", "/eureka/apps/USER/u1").status == 404, "so that it registers again"
    for bad in ("?value=up", "?value=", ""):
        assert ask(registry, "PUT", status + bad).status == 400
    ask(registry, "DELETE", "/eureka/apps/USER/u1")
    register(registry, "user", "u1", overriddenStatus="OUT_OF_SERVICE")
    assert now() == ("OUT_OF_SERVICE", "OUT_OF_SERVICE"), "a registry that forgot is told"


def test_metadata(registry):
    register(registry, "user", "u1")
    path = "/eureka/apps/USER/u1/metadata"
    assert ask(registry, "PUT", path + "?zone=b&note=a+b%26c&note=second&empty").status == 200
    got = instance_of(registry, "USER", "u1")["metadata"]
    assert got == {"management.port": "8081", "zone": "b", "note": "a b&c", "empty": ""}
    assert registry.instances("user")[0]["zone"] == "b"
    assert ask(registry, "PUT", "/eureka/apps/USER/nobody/metadata?a=b").status == 404
    assert ask(registry, "PUT", path + "?a=" + "x" * 2000).status == 400
    assert ask(registry, "PUT", path + "?" + "&".join(f"k{i}=v" for i in range(99))).status == 400
    # What our own readers would leave out, and with it the instance.
    for odd in ("a%0ab=c", "%01=c", "k=%ff%fe", "%c3=v", "zone=" + "%ff" * 60):
        assert ask(registry, "PUT", path + "?" + odd).status == 400, odd
    assert instance_of(registry, "USER", "u1")["metadata"] == got
    # Java would load the class.
    assert ask(registry, "PUT", path + "?@class=java.lang.Runtime").status == 200
    assert instance_of(registry, "USER", "u1")["metadata"] == got


def test_a_time_that_is_no_long_is_ignored(registry):
    """A Java client that cannot read one instance reads none."""
    register(registry, "user", "u1", lastDirtyTimestamp=str(2**64 - 1))
    assert int(instance_of(registry, "USER", "u1")["lastDirtyTimestamp"]) < 2**63
    register(registry, "user", "u1", port={"$": 8099, "@enabled": "true"}, lastDirtyTimestamp="5")
    assert instance_of(registry, "USER", "u1")["port"]["$"] == 8099


def test_a_lease_lasts_once_not_twice(registry):
    lease = {"renewalIntervalInSecs": 1, "durationInSecs": 1}
    register(registry, "user", "u1", leaseInfo=lease)
    assert ask(registry, "PUT", "/eureka/apps/USER/u1").status == 200
    renewed = time.monotonic()
    wait_until(lambda: not registry.instances("user"), "expiry", 10)
    assert time.monotonic() - renewed > 0.7
    delta = as_json(registry, "/eureka/apps/delta")["applications"]
    gone = delta["application"][0]["instance"][0]
    assert (gone["actionType"], gone["instanceId"]) == ("DELETED", "u1")
    assert gone["hostName"] == "10.1.0.9" and gone["leaseInfo"]["evictionTimestamp"] > 0


# --- XML and negotiation ----------------------------------------------------------------------------

FARGO = """<instance><instanceId>go-1</instanceId><hostName>go.example.com</hostName>
<app>GOAPP</app><ipAddr>10.2.0.7</ipAddr><vipAddress>goapp</vipAddress>
<secureVipAddress>goapp</secureVipAddress><status>UP</status>
<overriddenstatus>UNKNOWN</overriddenstatus><port enabled="true">8080</port>
<securePort enabled="false">8443</securePort><homePageUrl></homePageUrl><statusPageUrl/>
<healthCheckUrl></healthCheckUrl><dataCenterInfo><name>MyOwn</name><metadata><ami-launch-index/>
</metadata></dataCenterInfo><leaseInfo><renewalIntervalInSecs>30</renewalIntervalInSecs>
<durationInSecs>90</durationInSecs></leaseInfo><metadata><git__sha>4711</git__sha>
<note>a &lt; b</note></metadata></instance>"""


def test_xml_in_and_out(registry):
    """As Go's fargo registers, and as Python's client reads: XML without being asked."""
    headers = [("Content-Type", "application/xml")]
    assert ask(registry, "GET", "/eureka/apps/GOAPP/go-1").status == 404
    assert ask(registry, "POST", "/eureka/apps/GOAPP", headers, FARGO.encode()).status == 204
    answer = ask(registry, "GET", "/eureka/apps/")
    assert answer.first("Content-Type") == "application/xml"
    assert answer.first("Content-Encoding") is None
    root = ET.fromstring(answer.body)
    assert root.tag == "applications" and root.findtext("apps__hashcode") == "UP_1_"
    instance = root.find("application/instance")
    assert root.findtext("application/name") == instance.findtext("app") == "GOAPP"
    assert instance.find("port").attrib == {"enabled": "true"} and instance.findtext("port") == "8080"
    assert instance.find("securePort").get("enabled") == "false"
    assert instance.find("dataCenterInfo").get("class").endswith("DefaultDataCenterInfo")
    assert instance.find("dataCenterInfo/metadata") is None
    assert instance.findtext("overriddenstatus") == "UNKNOWN"
    assert instance.findtext("metadata/git__sha") == "4711"
    assert instance.findtext("metadata/note") == "a < b"
    for number in ("countryId", "leaseInfo/durationInSecs", "leaseInfo/evictionTimestamp",
                   "lastUpdatedTimestamp", "lastDirtyTimestamp"):
        assert instance.findtext(number).isdigit(), number
    assert as_json(registry, "/eureka/apps/GOAPP")["application"]["instance"][0]["metadata"] == {
        "git_sha": "4711", "note": "a < b",
    }
    one = ET.fromstring(ask(registry, "GET", "/eureka/apps/GOAPP/go-1").body)
    assert one.tag == "instance" and one.findtext("instanceId") == "go-1"
    # Go's other client says it sends JSON where there is nothing to send.
    assert ask(registry, "PUT", "/eureka/apps/GOAPP/go-1",
               [("Content-Type", "application/json")]).status == 200


def test_packed_answers(registry):
    for number in range(120):
        register(registry, "many", f"i{number}")
    plain = ask(registry, "GET", "/eureka/apps", [("Accept", "application/json")])
    assert plain.first("Content-Encoding") is None, "not asked for, not packed"
    for path in ("/eureka/apps", "/eureka/apps/delta"):
        for _ in range(2):
            packed = ask(registry, "GET", path, JAVA)
            assert packed.status == 200 and packed.first("Content-Encoding") == "gzip"
            whole = json.loads(gzip.decompress(packed.body))["applications"]
            assert len(whole["application"][0]["instance"]) == 120
    assert len(packed.body) < len(plain.body) / 5
    compact = ask(registry, "GET", "/eureka/apps", [("X-Eureka-Accept", "compact"), *JAVA])
    first = json.loads(gzip.decompress(compact.body))["applications"]["application"][0]["instance"][0]
    assert "leaseInfo" not in first and "metadata" not in first and first["port"]["$"] == 8080
    register(registry, "many", "one-more")
    again = json.loads(gzip.decompress(ask(registry, "GET", "/eureka/apps", JAVA).body))
    assert len(again["applications"]["application"][0]["instance"]) == 121, "never old"


def test_server_status(registry):
    register(registry, "user", "u1")
    stats = as_json(registry, "/eureka/status")["applicationStats"]
    assert stats["registered-instances"] == "1"
    assert ET.fromstring(ask(registry, "GET", "/eureka/status").body).findtext("healthy") == "true"
    assert ask(registry, "PUT", "/eureka/asg/NAME/status?value=ENABLED").status == 400


# --- what is refused ---------------------------------------------------------------------------------

LAUGHS = b"""<!DOCTYPE i [<!ENTITY a "ha">%s]><instance><hostName>&l9;</hostName></instance>""" % b"".join(
    b'<!ENTITY l%d "%s">' % (n, b"&%s;" % (b"l%d" % (n - 1) if n else b"a") * 10) for n in range(10)
)


@pytest.mark.parametrize(
    "kind, body, status",
    [
        ("json", b"", 400),
        ("json", b'{"instance": ', 400),
        ("json", b'{"application": {}}', 400),
        ("json", b'{"instance": []}', 400),
        ("json", b'{"instance": {"hostName": "h"}}', 400),
        ("json", b"[" * 5000, 400),
        ("json", b'{"instance": {"hostName": "\xff"}}', 400),
        ("xml", b"", 400),
        ("xml", b"<instance><hostName>", 400),
        ("xml", b"<applications/>", 400),
        ("xml", LAUGHS, 400),
        ("xml", b'<!DOCTYPE i [<!ENTITY x SYSTEM "file:///etc/passwd">]><instance>&x;</instance>', 400),
        ("xml", b"<instance>" + b"<a>" * 50000, 400),
        ("xml", b"<instance>" + b"<a/>" * 50000 + b"</instance>", 400),
        ("gzip", b"no gzip", 400),
        ("gzip", zlib.compress(b"{}"), 400),
        # Without the time: it would be in the name of the test, which two workers have to agree on.
        ("gzip", gzip.compress(b'{"instance": {}}', mtime=0)[:-3], 400),
        ("gzip", gzip.compress(b" " * (32 << 20), mtime=0), 413),
        ("br", b"x", 415),
        ("json", b" " * (2 << 20), 413),
    ],
    ids=lambda value: value[:30].hex() if isinstance(value, bytes) else str(value),
)
def test_bodies_that_are_none(registry, kind, body, status):
    headers = [("Content-Type", f"application/{'xml' if kind == 'xml' else 'json'}")]
    if kind in ("gzip", "br"):
        headers.append(("Content-Encoding", kind))
    answer = ask(registry, "POST", "/eureka/apps/USER", headers, body)
    assert answer.status == status, answer
    assert as_json(registry, "/eureka/apps")["applications"]["application"] == []
    with open(f"/proc/{registry.proc.pid}/status", encoding="ascii") as text:
        peak = next(int(line.split()[1]) for line in text if line.startswith("VmHWM"))
    assert peak < 200_000, "nobody makes it grow by a small request"


def test_reasons_for_refusing(registry):
    for change, reason in [
        ({"hostName": ""}, "Missing hostname"),
        ({"app": "OTHER"}, "Mismatched appName"),
        ({"ipAddr": "nowhere"}, "ipAddr"),
        ({"dataCenterInfo": None}, "Missing dataCenterInfo"),
        ({"dataCenterInfo": {"name": "Mars"}}, "dataCenterInfo Name"),
        ({"metadata": {"k": ["v"]}}, "metadata k"),
    ]:
        body = json.dumps({"instance": {**document("user", "u1"), **change}}).encode()
        answer = ask(registry, "POST", "/eureka/apps/USER", body=body)
        assert answer.status == 400 and reason in answer.body.decode(), answer
    assert registry.instances("user") == []
    assert ask(registry, "POST", "/eureka/apps/no%20name", body=b"{}").status == 400
    assert ask(registry, "PATCH", "/eureka/apps/USER").status == 405
    assert ask(registry, "GET", "/eureka/nothing").status == 404


# --- end to end --------------------------------------------------------------------------------------


def test_tokens(registry):
    """By Basic, as clients send what stands in the URL; each app by the rights of its own."""
    with open(registry.config_path, encoding="utf-8") as file:
        config = json.load(file)
    secret = "s3cret-of-thirty-two-characters-x"
    config["tokens"] = [{"name": "user-team", "token": secret, "apps": ["user"],
                         "rights": ["read", "write"]}]
    with open(registry.config_path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    assert registry.proc.stop() == 0
    registry.start()
    basic = base64.b64encode(f"user-team:{secret}".encode()).decode()
    mine = [("Authorization", f"Basic {basic}")]
    assert register(registry, "user", "u1").status == 401
    assert register(registry, "user", "u1", headers=mine).status == 204
    assert register(registry, "other", "o1", headers=mine).status == 403
    for method, path, status in [
        ("GET", "/eureka/apps/user", 200),
        ("PUT", "/v2/apps/USER/u1", 200),
        ("PUT", "/eureka/v2/apps/USER/u1/metadata?a=b", 200),
        ("PUT", "/eureka/v2/apps/OTHER/u1", 403),
        ("GET", "/eureka/v2/apps/other/", 403),
        ("GET", "/eureka/apps", 403),
        ("GET", "/eureka/apps/delta/", 403),
        ("GET", "/eureka/vips/user", 403),
        ("GET", "/eureka/instances/u1", 403),
        ("DELETE", "/eureka/apps/USER/u1", 200),
    ]:
        assert ask(registry, method, path).status == 401, path
        assert ask(registry, method, path, mine).status == status, path


def test_survives_a_restart(registry):
    register(registry, "user", "u1", metadata={"a": "ä"}, asgName="asg")
    before = instance_of(registry, "USER", "u1")
    assert registry.proc.stop() == 0
    registry.start()
    after = instance_of(registry, "USER", "u1")
    for moment in ("leaseInfo", "lastUpdatedTimestamp"):
        before.pop(moment)
        after.pop(moment)
    assert after == before


def test_a_gateway_uses_what_eurekas_client_registered(
    registry, node, make_rig, start_service, procs, tmp_path
):
    service = start_service(procs, "found", "f1")
    js = node("eureka-js-client")
    rig = make_rig(tmp_path, procs)
    rig.config["registry"] = {"urls": [registry.url]}
    rig.config["services"]["echo"] = {"discover": "jsapp"}
    rig.start()
    js.do("start", js_config(registry, "jsapp", service.port))
    wait_until(lambda: rig.ask("GET", "/exact").status == 200, "the gateway found it", 10)
    assert ask(registry, "PUT", "/eureka/apps/JSAPP/localhost/status?value=OUT_OF_SERVICE").status == 200
    wait_until(lambda: rig.ask("GET", "/exact").status == 503, "taken out", 10)
    assert ask(registry, "DELETE", "/eureka/apps/JSAPP/localhost/status").status == 200
    wait_until(lambda: rig.ask("GET", "/exact").status == 200, "back", 10)
    js.do("stop")
    wait_until(lambda: rig.ask("GET", "/exact").status == 503, "it left", 10)

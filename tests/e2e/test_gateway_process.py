# SPDX-License-Identifier: Apache-2.0
"""gatewayd as a program: its command line, mistakes at start, reload, drain, discovery."""

import copy
import fcntl
import json
import os
import re
import signal
import ssl
import subprocess
import threading
import time

import pytest

import client
import rig as rig_module
from conftest import assert_problem, seen
from procs import wait_until


@pytest.fixture
def own_rig(tmp_path, make_rig, procs):
    return make_rig(tmp_path, procs)


def run(*argv, timeout_s=20):
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s)


def check(rig, config):
    rig.write(config)
    return run(rig.program, "-c", rig.config_path, "--check")


# --- command line -----------------------------------------------------------------------------


def test_version_and_help(program):
    gatewayd = program("gatewayd")
    version = run(gatewayd, "--version")
    assert version.returncode == 0 and re.search(r"\d+\.\d+\.\d+", version.stdout)
    usage = run(gatewayd, "--help")
    assert usage.returncode == 0
    for option in ("-c", "--check", "--version", "--help"):
        assert option in usage.stdout
    wrong = run(gatewayd, "--nonsense")
    assert wrong.returncode != 0 and wrong.stderr


def test_check_accepts_the_good_one(own_rig):
    done = check(own_rig, own_rig.config)
    assert done.returncode == 0, done.stderr


def test_check_tells_every_mistake_with_its_path(own_rig):
    config = copy.deepcopy(own_rig.config)
    config["routes"][0]["match"]["path"] = "echo"
    config["routes"][1]["service"] = "nosuch"
    config["routes"][2]["auth"] = "nosuch"
    config["routes"][3]["limits"] = ["nosuch"]
    config["routes"][4]["surprise"] = 1
    config["rate_limits"]["ip-5"]["limit"] = -1
    config["rate_limits"]["user-5"]["window_s"] = "sixty"
    config["services"]["echo"]["retries"] = "two"
    config["workers"] = "many"
    del config["domain"]
    done = check(own_rig, config)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    for path in (
        "routes[0].match.path",
        "routes[1].service",
        "routes[2].auth",
        "routes[3].limits",
        "routes[4].surprise",
        "rate_limits.ip-5.limit",
        "rate_limits.user-5.window_s",
        "services.echo.retries",
        "workers",
        "domain",
    ):
        assert re.search(rf"(^|[\s\"':])(\$\.)?{re.escape(path)}\b", said, re.MULTILINE), (path, said)


@pytest.mark.parametrize(
    "text,told",
    [('{"instance": "a",', "line|position|column"), ("", "."), ("[]", "object"), ("null", "line|object"),
     ('{"instance": "a", "instance": "b"}', "duplicate|twice")],
    ids=["cut", "empty", "array", "null", "duplicate"],
)
def test_file_that_is_no_configuration(own_rig, text, told):
    with open(own_rig.config_path, "w", encoding="utf-8") as file:
        file.write(text)
    done = run(own_rig.program, "-c", own_rig.config_path, "--check")
    assert done.returncode == 1
    assert own_rig.config_path in done.stderr and re.search(told, done.stderr, re.IGNORECASE)


# --- mistakes at start ------------------------------------------------------------------------


def assert_does_not_start(rig, *named):
    """One line that names the thing, exit 1, nothing left behind."""
    done = run(rig.program, "-c", rig.config_path)
    assert done.returncode == 1, done.stderr
    for word in named:
        assert word in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert not os.path.exists(rig.config["admin"]["socket"])


def test_no_such_file(own_rig):
    own_rig.config_path = own_rig.config_path + ".nowhere"
    assert_does_not_start(own_rig, own_rig.config_path, "No such file")


def test_port_in_use(own_rig):
    with rig_module.socket.socket() as taken:
        taken.bind(("127.0.0.1", own_rig.ports["plain"]))
        taken.listen()
        own_rig.write()
        assert_does_not_start(own_rig, f"127.0.0.1:{own_rig.ports['plain']}", "in use")


def test_admin_port_in_use(own_rig):
    with rig_module.socket.socket() as taken:
        taken.bind(("127.0.0.1", own_rig.ports["admin"]))
        taken.listen()
        own_rig.write()
        assert_does_not_start(own_rig, f"127.0.0.1:{own_rig.ports['admin']}", "in use")


def test_key_of_another_certificate(own_rig, authority, tmp_path):
    _, other_key = authority.issue("other", ["other.example.com"], directory=str(tmp_path))
    own_rig.config["listeners"][1]["tls"]["certificates"][0]["key"] = other_key
    own_rig.write()
    assert_does_not_start(own_rig, other_key)


def test_certificate_that_is_none(own_rig, tmp_path):
    bad = tmp_path / "bad.crt"
    bad.write_text("this is no certificate\n")
    own_rig.config["listeners"][1]["tls"]["certificates"][0]["certificate"] = str(bad)
    own_rig.write()
    assert_does_not_start(own_rig, str(bad))


def test_missing_key_file(own_rig):
    own_rig.config["listeners"][1]["tls"]["certificates"][0]["key"] = "/nowhere/rig.key"
    own_rig.write()
    assert_does_not_start(own_rig, "/nowhere/rig.key", "No such file")


@pytest.mark.parametrize("content", ["", "{}", '{"keys": 1}', '{"keys": [{"kty": "RSA"}]}', "x"])
def test_key_set_that_is_none(own_rig, content):
    with open(own_rig.signers["rs"].jwks, "w", encoding="utf-8") as file:
        file.write(content)
    own_rig.write()
    assert_does_not_start(own_rig, own_rig.signers["rs"].jwks)


def test_access_log_that_cannot_be_written(own_rig):
    own_rig.config["access_log"]["path"] = "/nowhere/access.log"
    own_rig.write()
    assert_does_not_start(own_rig, "/nowhere/access.log", "No such file")


def test_address_that_is_not_ours(own_rig):
    own_rig.config["listeners"][0]["bind"] = "192.0.2.1:8080"
    own_rig.write()
    assert_does_not_start(own_rig, "192.0.2.1:8080")


# --- TLS --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_tls_versions(own_rig, authority, version):
    own_rig.start()
    context = client.tls_context(authority.certificate)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with own_rig.connect("tls", tls=context) as connection:
        assert connection.sock.version() == version.replace("_", ".")
        assert connection.request("GET", "/ping").body == b"pong"


def test_old_tls_is_refused(own_rig, authority):
    own_rig.config["listeners"][1]["tls"]["min_version"] = "1.3"
    own_rig.start()
    context = client.tls_context(authority.certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        own_rig.connect("tls", tls=context)
    assert own_rig.ask("GET", "/ping", listener="tls").status == 200


def test_certificate_is_chosen_by_name(own_rig, authority, tmp_path):
    names = {"one.example.org": "one", "x.two.example.org": "two"}
    for dns, name in (("one.example.org", "one"), ("*.two.example.org", "two")):
        certificate, key = authority.issue(name, [dns], directory=str(tmp_path))
        own_rig.config["listeners"][1]["tls"]["certificates"].append(
            {"certificate": certificate, "key": key}
        )
    own_rig.start()
    for server_name in (*names, rig_module.HOST, "a.wild.example.com"):
        with own_rig.connect("tls", server_name=server_name) as connection:  # verified by name
            assert connection.request("GET", "/ping").status == 200


def test_handshake_that_is_none_harms_nobody(own_rig):
    own_rig.start()
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", bytes(1000)):
        with client.Connection(
            rig_module.socket.create_connection(("127.0.0.1", own_rig.ports["tls"]))
        ) as connection:
            connection.send(data)
    assert own_rig.ask("GET", "/ping", listener="tls").status == 200


# --- limits of size ---------------------------------------------------------------------------


def test_body_over_the_limit_is_413(own_rig, services):
    own_rig.config["defaults"]["max_body_bytes"] = 1000
    own_rig.start()
    assert own_rig.ask("POST", "/one/x", body=b"x" * 1000).status == 200
    for service in services:
        service.forget()
    with own_rig.connect() as connection:
        answer = connection.request("POST", "/one/x", body=b"x" * 1001)
        assert_problem(answer, 413)
    with own_rig.connect() as connection:
        connection.send(
            client.head_of("POST", "/one/x", "h", [("Transfer-Encoding", "chunked")])
            + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"
        )
        assert_problem(connection.read_response(), 413)
        assert connection.is_closed()
    assert not [r for s in services for r in s.requests() if r["complete"]]


# --- reload and drain -------------------------------------------------------------------------


class Load:
    """Requests over keep-alive connections, each thread one after the other, until told to stop."""

    def __init__(self, rig, target="/echo/x", threads=4):
        self.rig, self.target = rig, target
        self.failures, self.count = [], 0
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)

    def _run(self):
        connection, is_reused = None, False
        while not self.stopping.is_set():
            try:
                connection = connection or self.rig.connect()
                answer = connection.request("GET", self.target)
                if answer.status != 200:
                    self.failures.append(repr(answer))
                is_reused = True
                if answer.first("Connection", "").lower() == "close":
                    connection.close()
                    connection, is_reused = None, False
                with self.lock:
                    self.count += 1
            except (OSError, client.BadResponse) as error:
                # A new connection after the listeners are gone is not a lost request.
                if connection is None and isinstance(error, ConnectionRefusedError):
                    return
                # As every client does (RFC 9112, 9.3.1): an idle connection may be closed at any
                # moment, so a GET on one that ends without a byte is sent again on a fresh one.
                if not (is_reused and not connection.received_since_send):
                    self.failures.append(repr(error))
                connection.close()
                connection, is_reused = None, False

    def wait_for(self, more):
        target = self.count + more
        wait_until(lambda: self.count >= target, f"{more} more requests", 30)


def test_reload_takes_the_new_routes(own_rig):
    own_rig.start()
    assert own_rig.ask("GET", "/new").status == 404
    own_rig.config["routes"].append(
        {"name": "new", "match": {"path": "/new"}, "respond": {"status": 200, "body": "new"}}
    )
    with own_rig.connect() as old:
        assert old.request("GET", "/ping").status == 200
        own_rig.reload()
        assert own_rig.ask("GET", "/new").body == b"new"
        assert old.request("GET", "/new").body == b"new", "the next request of an old connection"


def test_request_begun_before_a_reload_ends_under_the_old_file(own_rig, services):
    own_rig.start()
    for service in services:
        service.forget()
    with own_rig.connect() as connection:
        connection.send(client.head_of("GET", "/echo/x?fault=delay_ms=500", "h"))
        wait_until(lambda: seen(services), "the request is under way")
        own_rig.config["routes"] = [r for r in own_rig.config["routes"] if r["name"] != "echo"]
        own_rig.reload()
        assert own_rig.ask("GET", "/echo/x").status == 404
        assert connection.read_response().status == 200


def test_broken_file_changes_nothing(own_rig):
    own_rig.start()
    mark = len(own_rig.proc.log())
    own_rig.write({**own_rig.config, "routes": "none"})
    own_rig.proc.signal(signal.SIGHUP)
    own_rig.proc.wait_log(r"routes", start=mark)
    assert own_rig.ask("GET", "/echo/x").status == 200
    assert own_rig.admin("GET", "/readyz").status == 200


@pytest.mark.limit(90)
def test_reload_under_load_loses_nothing(own_rig):
    own_rig.start()
    with Load(own_rig) as load:
        load.wait_for(50)
        for _ in range(5):
            own_rig.reload()
            load.wait_for(50)
    assert not load.failures, load.failures[:3]


def rename_service(rig, old, new, service):
    """A reload after which the same routes lead to a service that was not there before."""
    del rig.config["services"][old]
    rig.config["services"][new] = service
    for route in rig.config["routes"]:
        if route.get("service") == old:
            route["service"] = new
    rig.reload()


@pytest.mark.limit(90)
def test_reload_that_brings_a_service_loses_nothing(own_rig):
    """Its instances are there before its first request."""
    own_rig.start()
    # More services make the moment between the two longer.
    spare = {f"spare-{i}": {"endpoints": [{"address": "127.0.0.1:1"}]} for i in range(200)}
    own_rig.config["services"].update(spare)
    service, name = own_rig.config["services"]["echo"], "echo"
    with Load(own_rig) as load:
        for i in range(15):
            load.wait_for(20)
            rename_service(own_rig, name, f"echo-{i}", service)
            name = f"echo-{i}"
        load.wait_for(50)
    assert not load.failures, load.failures[:3]


@pytest.mark.limit(90)
def test_reload_that_discovers_a_service_loses_nothing(own_rig, registry, services):
    """Requests wait for the first list that the registry sends."""
    for i in range(10):
        instance = {"address": "127.0.0.1", "port": services[0].port, "lease_s": 300}
        answer = registry.call("PUT", f"/v1/apps/app-{i}/instances/one", instance)
        assert answer.status in (200, 201), answer
    own_rig.config["registry"] = {"urls": [registry.url]}
    own_rig.start()
    name = "echo"
    with Load(own_rig) as load:
        for i in range(10):
            load.wait_for(20)
            rename_service(own_rig, name, f"echo-{i}", {"discover": f"app-{i}", "retries": 2})
            name = f"echo-{i}"
        load.wait_for(50)
    assert not load.failures, load.failures[:3]


def test_unknown_list_is_not_waited_for_without_end(own_rig):
    """The registry does not answer: 503 after the time for a connection."""
    own_rig.config["registry"] = {"urls": [f"http://127.0.0.1:{rig_module.free_port()}"]}
    own_rig.config["services"]["echo"] = {"discover": "app", "connect_timeout_ms": 200}
    own_rig.write()
    own_rig.proc = own_rig.group.start("gatewayd", [own_rig.program, "-c", own_rig.config_path])
    wait_until(lambda: own_rig.ask("GET", "/ping").status == 200, "it listens", 10, own_rig.proc)
    assert_problem(own_rig.ask("GET", "/echo/x"), 503)
    assert_problem(own_rig.ask("POST", "/echo/x", body=b"x" * 100_000), 503)
    with own_rig.connect() as connection:  # one that leaves while it waits
        connection.send(client.head_of("GET", "/echo/x", "h"))
    assert own_rig.ask("GET", "/ping").status == 200


def states(rig, service):
    """{state: count} of a service's instances."""
    text = rig.admin("GET", "/metrics").body.decode()
    pattern = rf'gatehouse_gateway_service_instances{{service="{service}",state="(\w+)"}} (\d+)'
    return {state: int(count) for state, count in re.findall(pattern, text)}


def test_reload_remembers_who_is_unhealthy(own_rig, procs, start_service):
    sick = start_service(procs, "echo", "echo-sick")
    good = start_service(procs, "echo", "echo-good")
    sick.set_health(False)
    own_rig.config["services"]["echo"] = {
        "endpoints": [{"address": f"127.0.0.1:{s.port}"} for s in (sick, good)],
        "health": {"path": "/health", "interval_ms": 1000, "timeout_ms": 500, "fall": 2},
    }
    own_rig.start()
    wait_until(lambda: states(own_rig, "echo").get("failing") == 1, "the sick one is found")
    own_rig.config["services"]["another"] = own_rig.config["services"]["echo"]
    own_rig.reload()
    assert states(own_rig, "echo") == {"healthy": 1, "failing": 1}, "without a new check"
    sick.forget()
    for _ in range(20):
        assert own_rig.ask("GET", "/echo/x").status == 200
    assert not sick.requests(), "nothing was sent to the sick one"
    sick.set_health(True)
    wait_until(lambda: states(own_rig, "echo").get("failing") == 0, "checks go on")
    del own_rig.config["services"]["echo"]["health"]
    own_rig.reload()
    assert states(own_rig, "echo").get("failing") == 0


def test_sigterm_finishes_what_is_running(own_rig):
    own_rig.start()
    with own_rig.connect() as busy, own_rig.connect() as idle:
        assert idle.request("GET", "/ping").status == 200
        busy.send(client.head_of("GET", "/echo/x?fault=delay_ms=1500", "h"))
        own_rig.proc.signal(signal.SIGTERM)
        wait_until(lambda: own_rig.admin("GET", "/readyz").status == 503, "not ready any more", 2)
        answer = busy.read_response()
        assert answer.status == 200
        assert answer.first("Connection", "").lower() == "close"
        assert own_rig.proc.stop() == 0
        assert not os.path.exists(own_rig.config["admin"]["socket"])


@pytest.mark.limit(90)
def test_sigterm_under_load_loses_nothing(own_rig):
    own_rig.start()
    with Load(own_rig) as load:
        load.wait_for(100)
        own_rig.proc.signal(signal.SIGTERM)
        assert own_rig.proc.popen.wait(20) == 0
        own_rig.proc.stopped_on_purpose = True
    assert not load.failures, load.failures[:3]


def test_drain_ends_in_spite_of_a_request_that_does_not(own_rig):
    own_rig.config["drain_timeout_ms"] = 1000
    own_rig.start()
    with own_rig.connect() as stuck:
        stuck.send(client.head_of("GET", "/echo/x?fault=delay_ms=60000", "h"))
        began = time.monotonic()
        own_rig.proc.signal(signal.SIGTERM)
        own_rig.proc.popen.wait(10)
        own_rig.proc.stopped_on_purpose = True
        assert time.monotonic() - began < 5


def test_log_is_reopened_for_rotation(own_rig):
    own_rig.start()
    own_rig.ask("GET", "/echo/before")
    own_rig.wait_record(endpoint="GET /echo/before")
    os.rename(own_rig.log_path, own_rig.log_path + ".1")
    own_rig.reload()
    own_rig.ask("GET", "/echo/after")
    own_rig.wait_record(endpoint="GET /echo/after")
    assert [r["endpoint"] for r in own_rig.records()] == ["GET /echo/after"]


def start_with_pipe(rig, capacity=4096):
    """Logs to a pipe as standard output; returns its reading end."""
    rig.config["access_log"]["path"] = "-"
    rig.write()
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, capacity)
    with open(os.path.join(rig.directory, "gatewayd.err"), "wb") as errors:
        popen = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", rig.program, "-c", rig.config_path],
            stdout=writer,
            stderr=errors,
        )
    os.close(writer)
    wait_until(lambda: rig.admin("GET", "/readyz").status == 200, "gatewayd ready", 10)
    return popen, reader


def test_log_reader_that_stopped_reading_holds_up_nothing(own_rig):
    popen, reader = start_with_pipe(own_rig)
    try:
        with own_rig.connect() as connection:
            for _ in range(100):
                assert connection.request("GET", "/ping").status == 200
        popen.send_signal(signal.SIGUSR1)
        popen.send_signal(signal.SIGHUP)
        wait_until(lambda: own_rig.reloads() == 1, "the reload", 5)
        assert own_rig.ask("GET", "/ping").status == 200
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(10) == 0
    finally:
        popen.kill()
        popen.wait()
        os.close(reader)


def test_log_to_a_pipe_is_complete(own_rig):
    popen, reader = start_with_pipe(own_rig)
    lines = []

    def read():
        with os.fdopen(reader, "rb") as file:
            lines.extend(file)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        with own_rig.connect() as connection:
            for i in range(500):
                assert connection.request("GET", f"/ping?{i}").status == 200
    finally:
        popen.send_signal(signal.SIGTERM)
        popen.wait(10)
        popen.kill()
        thread.join()
    assert [json.loads(line)["endpoint"] for line in lines] == ["GET /ping"] * 500


def test_log_to_a_fifo_without_reader_is_an_error(own_rig, tmp_path):
    own_rig.config["access_log"]["path"] = str(tmp_path / "fifo")
    os.mkfifo(tmp_path / "fifo")
    assert_does_not_start(own_rig, "fifo")


def test_long_user_is_cut_in_the_log(own_rig):
    own_rig.start()
    user = "x" + "\u00fc" * 600
    token = own_rig.signers["hs"].token(user)
    assert own_rig.ask("GET", "/hs/x", rig_module.bearer(token)).status == 200
    assert own_rig.wait_record(route="hs")["userId"] == "x" + "\u00fc" * 127


# --- discovery --------------------------------------------------------------------------------


@pytest.fixture
def discovering(own_rig, registry, tmp_path):
    """A gateway whose service "echo" comes from the registry, and who registers itself."""
    own_rig.config["registry"] = {
        "urls": [registry.url],
        "cache": str(tmp_path / "cache.json"),
        "register": {"app": "test-gateway", "address": "127.0.0.1", "port": own_rig.ports["tls"]},
    }
    own_rig.config["services"]["echo"] = {"discover": "found", "retries": 2}
    return own_rig.start()


def answering(rig, count=30):
    found = set()
    with rig.connect() as connection:
        for _ in range(count):
            answer = connection.request("GET", "/echo/x")
            if answer.status == 200:
                found.add(answer.json()["instance"])
            else:
                assert_problem(answer, 503)
    return found


def test_instances_come_and_go(discovering, registry, procs, start_service):
    assert_problem(discovering.ask("GET", "/echo/x"), 503)
    options = ("--registry", registry.url, "--lease-s", "2", "--linger-ms", "300")
    one = start_service(procs, "found", "found-1", *options)
    wait_until(lambda: answering(discovering, 3) == {"found-1"}, "the first instance is used")
    start_service(procs, "found", "found-2", *options)
    wait_until(lambda: answering(discovering) == {"found-1", "found-2"}, "both are used")

    assert registry.status("found", "found-2", "OUT_OF_SERVICE") == 200
    wait_until(lambda: answering(discovering) == {"found-1"}, "the second is left alone")
    assert registry.status("found", "found-2", "UP") == 200
    wait_until(lambda: answering(discovering) == {"found-1", "found-2"}, "it is back")

    with Load(discovering) as load:
        load.wait_for(50)
        assert one.proc.stop() == 0  # it deregisters, lingers, ends
        load.wait_for(100)
    assert not load.failures, load.failures[:3]
    assert answering(discovering) == {"found-2"}


def test_killed_instance_costs_no_request(discovering, registry, procs, start_service):
    options = ("--registry", registry.url, "--lease-s", "2")
    services = [start_service(procs, "found", f"found-{i}", *options) for i in (1, 2)]
    wait_until(lambda: answering(discovering) == {"found-1", "found-2"}, "both are used")
    with Load(discovering) as load:
        load.wait_for(50)
        services[0].proc.kill()
        load.wait_for(200)
        wait_until(
            lambda: [i["id"] for i in registry.instances("found")] == ["found-2"], "its lease ends"
        )
        load.wait_for(50)
    assert not load.failures, load.failures[:3]


def test_registry_gone_changes_nothing(discovering, registry, procs, start_service):
    # Its lease is so long that only what the gateway remembers counts.
    start_service(procs, "found", "found-1", "--registry", registry.url, "--lease-s", "60")
    wait_until(lambda: answering(discovering, 3) == {"found-1"}, "the instance is used")
    # The cache file follows a change within a second.
    cache = discovering.config["registry"]["cache"]
    wait_until(lambda: b"found-1" in open(cache, "rb").read(), "the cache file knows it")
    registry.proc.kill()
    assert answering(discovering) == {"found-1"}
    discovering.proc.kill()
    discovering.start()  # cold, without a registry: the cache file knows
    assert answering(discovering) == {"found-1"}
    registry.start()
    wait_until(
        lambda: [i["status"] for i in registry.instances("test-gateway")] == ["UP"],
        "the gateway registers again",
        15,
    )


def test_gateway_registers_and_leaves(discovering, registry):
    listed = wait_until(lambda: registry.instances("test-gateway"), "registered")
    assert listed[0]["port"] == discovering.ports["tls"] and listed[0]["status"] == "UP"
    discovering.proc.signal(signal.SIGTERM)
    wait_until(
        lambda: [i["status"] for i in registry.instances("test-gateway")] in (["OUT_OF_SERVICE"], []),
        "draining is announced",
    )
    assert discovering.proc.stop() == 0
    assert registry.instances("test-gateway") == []

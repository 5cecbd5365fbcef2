# SPDX-License-Identifier: Apache-2.0
"""The whole chain in namespaces: client, NLB, gateways of two domains, registry, services.

One chain serves the whole file; what a test kills is started again before the next one.
"""

import json
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest

import client as http_client
from chain import (
    CLIENTS,
    GATEWAYS,
    HOST_NAMES,
    SERVICES,
    VIPS,
    Chain,
    bearer,
)
from conftest import assert_problem, headers_of
from procs import wait_until

pytestmark = [pytest.mark.usefixtures("lab_possible"), pytest.mark.limit(90)]

PROFILE = "/api/v2/user/profile"


@pytest.fixture(scope="module")
def chain_of_module(lab_possible, build, program, shown_groups):
    for name in ("gatewayd", "nlbd", "nlbctl", "registryd"):
        program(name)
    chain = Chain(build, lease_s=3, change_gateway=raise_limits)
    shown_groups.append(chain.lab.procs)
    yield chain
    tails = chain.lab.procs.tails()
    problems = chain.close()
    shown_groups.remove(chain.lab.procs)
    assert not problems, f"{problems}\n{tails}"


def raise_limits(config):
    """The examples' limits are the demo's matter; here one client sends more than they allow."""
    for limit in config["rate_limits"].values():
        limit.update(limit=1_000_000, burst=1_000_000)


@pytest.fixture
def chain(chain_of_module):
    chain = chain_of_module
    heal(chain)
    chain.forget()
    return chain


def heal(chain):
    """Starts again what an earlier test ended."""
    procs = chain.procs
    if procs["registry"].exit_code() is not None:
        chain.start_registry()
    for name in SERVICES:
        if procs[name].exit_code() is not None:
            chain.start_service(name)
    for name in GATEWAYS:
        if procs[name].exit_code() is not None:
            chain.start_gateway(name)
            chain.wait_gateway_ready(name)
    if procs["nlb"].exit_code() is not None:
        chain.start_nlb()
    chain.wait_registered()
    chain.wait_balanced()


def tls(chain):
    return http_client.tls_context(chain.authority.certificate)


def connect(chain, domain="rider", source=None, timeout_s=5.0):
    """One HTTPS connection from the client host to a domain's VIP."""
    sock = chain.client.connect(VIPS[domain], 443, timeout_s, source)
    return http_client.Connection(sock, tls(chain), HOST_NAMES[domain], timeout_s)


def ask(chain, target, headers=(), domain="rider", source=None, body=None, method="GET"):
    with connect(chain, domain, source) as connection:
        return connection.request(method, target, [*headers, ("Connection", "close")], body)


def took(chain, before):
    after = chain.new_connections()
    return {name: after[name] - before.get(name, 0) for name in after}


class Load:
    """Short HTTPS connections through the VIP, several at a time; /ping asks no service."""

    def __init__(self, chain, target="/ping", headers=(), threads=3, domain="rider"):
        self.chain, self.target, self.headers = chain, target, list(headers)
        self.domain = domain
        self.failures, self.count = [], 0
        self.stopping, self.lock = threading.Event(), threading.Lock()
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
        while not self.stopping.is_set():
            try:
                answer = ask(self.chain, self.target, self.headers, self.domain)
                if answer.status != 200:
                    self.failures.append((time.monotonic(), repr(answer)))
            except (OSError, http_client.BadResponse) as error:
                self.failures.append((time.monotonic(), repr(error)))
            with self.lock:
                self.count += 1
            time.sleep(0.005)  # bounded: the machine has other things to do

    def wait_for(self, more):
        target = self.count + more
        wait_until(lambda: self.count >= target, f"{more} more requests", 30)


# --- the way there and back -------------------------------------------------------------------


def test_connections_spread_and_are_counted(chain):
    before = chain.new_connections()
    for _ in range(100):
        assert ask(chain, "/ping").body == b"pong"
    counted = took(chain, before)
    assert counted["gw-r1"] + counted["gw-r2"] == 100
    assert min(counted["gw-r1"], counted["gw-r2"]) >= 15
    assert counted["gw-d1"] == 0


def test_one_connection_stays_with_one_gateway(chain):
    with connect(chain) as connection:
        ids = []
        for _ in range(20):
            answer = connection.request("GET", PROFILE, bearer(chain.token("rider", "7")))
            ids += headers_of(answer)["x-request-id"]
    served_by = {chain.wait_record(request_id)["gateway_instance"] for request_id in ids}
    assert len(served_by) == 1


def test_client_address_arrives(chain):
    for address in CLIENTS:
        headers = bearer(chain.token("rider", "1"))
        answer = ask(chain, PROFILE, headers, source=address)
        got = headers_of(answer)
        assert got["x-forwarded-for"] == [address]
        assert chain.wait_record(got["x-request-id"][0])["client_ip"] == address


@pytest.mark.parametrize("domain,path", [("rider", "/api/feed/x"), ("driver", "/api/trips/x")])
def test_full_packets_fit_both_tunnels(chain, domain, path):
    """gue to the riders, ipip to the drivers: full-size packets from the client arrive."""
    body = bytes(range(256)) * 2000
    headers = bearer(chain.token(domain, "1"))
    answer = ask(chain, path, headers, domain, body=body, method="PUT")
    assert answer.status == 200 and answer.json()["body_bytes"] == len(body)


def test_answers_bypass_the_nlb(chain):
    """Direct server return: a large answer is not among the bytes that the NLB forwarded."""
    size = 3_000_000
    before = {name: row["bytes"] for name, row in chain.nlb_gateways().items()}
    headers = bearer(chain.token("rider", "1"))
    answer = ask(chain, f"/api/feed/x?fault=bytes={size}", headers)
    assert len(answer.body) == size
    forwarded = sum(row["bytes"] - before[name] for name, row in chain.nlb_gateways().items())
    assert 0 < forwarded < size / 4


def test_domains_are_apart(chain):
    rider, driver = chain.token("rider", "1"), chain.token("driver", "1")
    assert ask(chain, PROFILE, bearer(rider)).status == 200
    assert ask(chain, PROFILE, bearer(driver), "driver").status == 200
    chain.forget()
    assert_problem(ask(chain, PROFILE, bearer(driver)), 401)
    assert_problem(ask(chain, PROFILE, bearer(rider), "driver"), 401)
    assert not chain.requests_seen()


def test_each_instance_of_a_pool_serves(chain):
    for version in ("v1", "v2"):
        served = set()
        for user in range(40):
            headers = bearer(chain.token("rider", str(100 + user)))
            served.add(ask(chain, f"/api/{version}/user/x", headers).json()["instance"])
        assert served == {f"user-{version}-a", f"user-{version}-b"}


def test_stranger_cannot_use_the_tunnel(chain):
    """A packet that looks like the NLB's, sent by somebody else, is dropped and counted."""
    before = decap_reasons(chain, "gw-r1")
    inner = ip_header(CLIENTS[0], VIPS["rider"], 6, 20) + tcp_syn(CLIENTS[0], VIPS["rider"], 443)
    with chain.services["feed-a"].inside():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 4)
    with raw:
        for _ in range(5):
            raw.sendto(inner, (GATEWAYS["gw-r1"][1], 0))
    wait_until(
        lambda: decap_reasons(chain, "gw-r1")["stranger"] >= before["stranger"] + 5, "5 counted"
    )
    after = decap_reasons(chain, "gw-r1")
    assert after["stranger"] == before["stranger"] + 5
    assert after["ipip"] == before["ipip"]


def decap_reasons(chain, name):
    text = chain.gateways[name].run(chain.program("nlbctl"), "--json", "decap", "status", "eth0")
    return json.loads(text)["packets"]


def ip_header(source, destination, protocol, payload_len):
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + payload_len, 1, 0x4000, 64, protocol, 0,
        socket.inet_aton(source), socket.inet_aton(destination),
    )
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:]


def tcp_syn(source, destination, port):
    segment = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, 2, 64240, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!HH", 6, 20)
    return segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


# --- when things end --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_forwarding_goes_on_without_nlbd(chain, number):
    held = [connect(chain) for _ in range(10)]
    try:
        for connection in held:
            assert connection.request("GET", "/ping").status == 200
        with Load(chain) as load:
            load.wait_for(20)
            proc = chain.procs["nlb"]
            proc.stopped_on_purpose = True
            proc.signal(number)
            code = proc.popen.wait(15)
            assert number == signal.SIGKILL or code == 0
            load.wait_for(60)
            for connection in held:
                assert connection.request("GET", "/ping").status == 200, "while nlbd is down"
            chain.start_nlb()
            chain.wait_balanced()
            load.wait_for(60)
            for connection in held:
                assert connection.request("GET", "/ping").status == 200, "after its return"
        assert not load.failures, load.failures[:3]
    finally:
        for connection in held:
            connection.close()


def test_counters_survive_a_restart_of_nlbd(chain):
    for _ in range(10):
        ask(chain, "/ping")
    before = chain.new_connections()
    chain.procs["nlb"].kill()
    ask(chain, "/ping")
    chain.start_nlb()
    chain.wait_balanced()
    assert sum(chain.new_connections().values()) == sum(before.values()) + 1


def test_killed_gateway_is_left_within_two_seconds_and_comes_back(chain):
    with Load(chain) as load:
        load.wait_for(30)
        killed_at = time.monotonic()
        chain.procs["gw-r2"].kill()
        wait_until(lambda: time.monotonic() > killed_at + 2.0, "2 s")
        load.wait_for(60)
        late = [f for f in load.failures if f[0] > killed_at + 2.0]
        assert not late, late[:3]
        before = chain.new_connections()
        chain.start_gateway("gw-r2")
        chain.wait_gateway_ready("gw-r2")
        chain.wait_balanced()
        load.wait_for(60)
    assert not [f for f in load.failures if f[0] > killed_at + 2.0], load.failures[-3:]
    assert took(chain, before)["gw-r2"] > 0


def test_gateway_that_drains_loses_nothing(chain):
    token = chain.token("rider", "55")
    with connect(chain) as held:
        first = held.request("GET", PROFILE, bearer(token))
        name = chain.wait_record(headers_of(first)["x-request-id"][0])["gateway_instance"]
        other = ({"gw-r1", "gw-r2"} - {name}).pop()
        with Load(chain) as load:
            load.wait_for(50)
            proc = chain.procs[name]
            proc.stopped_on_purpose = True
            proc.signal(signal.SIGTERM)
            assert proc.popen.wait(30) == 0
            load.wait_for(50)
        assert not load.failures, load.failures[:3]
    before = chain.new_connections()
    for _ in range(10):
        ask(chain, "/ping")
    assert took(chain, before)[other] == 10


def test_request_under_way_outlives_the_drain(chain):
    """/readyz says 503 for longer than `fall` checks take; the NLB keeps the connection there."""
    token = chain.token("rider", "56")
    with connect(chain, timeout_s=15.0) as held:
        target = f"{PROFILE}?fault=delay_ms=2500"
        held.send(http_client.head_of("GET", target, HOST_NAMES["rider"], bearer(token)))
        wait_until(
            lambda: any("delay_ms" in r["target"] for r in chain.requests_seen("user-service-v2")),
            "the service has it",
        )
        riders = [name for name, (domain, _) in GATEWAYS.items() if domain == "rider"]

        def holders():
            return [n for n in riders if chain.admin_get(n, "/status").json()["connections"]]

        wait_until(lambda: len(holders()) == 1, "one gateway has a connection, this one")
        (name,) = holders()
        proc = chain.procs[name]
        proc.stopped_on_purpose = True
        proc.signal(signal.SIGTERM)
        wait_until(lambda: chain.nlb_gateways()[name]["health"] == "down", "checks fail")
        assert chain.nlb_gateways()[name]["state"] == "draining"
        held.sock.settimeout(0)
        with pytest.raises(ssl.SSLWantReadError):  # it is under way still
            held.sock.recv(1)
        held.sock.settimeout(15.0)
        assert held.read_response().status == 200
    assert proc.popen.wait(30) == 0


def test_drain_by_nlbctl_moves_new_connections_only(chain):
    held = {}
    while len(held) < 2:  # one connection on each gateway
        connection = connect(chain)
        answer = connection.request("GET", PROFILE, bearer(chain.token("rider", "56")))
        name = chain.wait_record(headers_of(answer)["x-request-id"][0])["gateway_instance"]
        held[name] = connection
    try:
        chain.nlbctl("drain", "rider", "gw-r2")
        wait_until(lambda: chain.nlb_gateways()["gw-r2"]["state"] == "draining", "draining")
        before = chain.new_connections()
        for _ in range(20):
            ask(chain, "/ping")
        # A SYN that had to be repeated counts twice.
        assert took(chain, before)["gw-r1"] >= 20 and took(chain, before)["gw-r2"] == 0
        for connection in held.values():
            assert connection.request("GET", "/ping").status == 200
        chain.nlbctl("undrain", "rider", "gw-r2")
        chain.wait_balanced()
        for _ in range(40):
            ask(chain, "/ping")
        assert took(chain, before)["gw-r2"] > 0
        for connection in held.values():
            assert connection.request("GET", "/ping").status == 200
    finally:
        chain.nlbctl("undrain", "rider", "gw-r2")
        for connection in held.values():
            connection.close()


def test_killed_instance_costs_no_request(chain):
    token = bearer(chain.token("driver", "57"))
    with Load(chain, PROFILE, token, threads=1, domain="driver") as load:
        load.wait_for(15)
        chain.procs["user-v2-a"].kill()
        wait_until(lambda: chain.up("user-service-v2") == ["user-v2-b"], "its lease ends", 10)
        load.wait_for(15)
    assert not load.failures, load.failures[:3]


def test_registry_gone_changes_nothing(chain):
    chain.procs["registry"].kill()
    with Load(chain) as load:
        # Longer than a lease, so that whoever believed an empty answer would show.
        ends = time.monotonic() + chain.lease_s + 1
        wait_until(lambda: time.monotonic() > ends, "a lease's time", 20)
    assert not load.failures, load.failures[:3]
    assert ask(chain, PROFILE, bearer(chain.token("rider", "58"))).status == 200
    assert chain.in_use() == sorted(GATEWAYS)
    chain.start_registry()
    chain.wait_registered()
    wait_until(lambda: chain.up("rider-gateway") == ["gw-r1", "gw-r2"], "gateways are back", 15)
    assert ask(chain, PROFILE, bearer(chain.token("rider", "58"))).status == 200


# --- reload and mistakes of nlbd --------------------------------------------------------------


def test_broken_file_changes_nothing(chain):
    mark = len(chain.procs["nlb"].log())
    chain.reload_nlb(lambda config: config["vips"][0].update(port="many"))
    chain.procs["nlb"].wait_log(r"vips\[0\]\.port", start=mark)
    assert ask(chain, "/ping").status == 200
    assert chain.in_use() == sorted(GATEWAYS)


def test_change_of_encapsulation_under_load(chain):
    with Load(chain) as load:
        load.wait_for(20)
        for encapsulation in ("ipip", "gue"):
            chain.reload_nlb(lambda c: c["vips"][0].update(encapsulation=encapsulation))
            wait_until(
                lambda: chain.vip("rider")["encapsulation"] == encapsulation, encapsulation
            )
            load.wait_for(30)
    assert not load.failures, load.failures[:3]


def start_nlbd_with(chain, change, as_nobody=False):
    """nlbd beside the running one, on a host of its own; how it ended."""
    config = chain.nlb_config()
    config["admin"]["socket"] += ".second"
    change(config)
    path = chain.lab.write_json(config, "hosts", "second", "nlb.json")
    words = [*chain.registry.enter_words()]
    if as_nobody:
        words += ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return subprocess.run(
        [*words, chain.program("nlbd"), "-c", path], capture_output=True, text=True, timeout=20
    )


@pytest.mark.parametrize(
    "change,told",
    [
        (lambda c: c.update(interface="nosuch0"), "nosuch0"),
        (lambda c: c["vips"].append({**c["vips"][0], "name": "again"}), "vips[2]"),
        (lambda c: c["vips"][0].update(encapsulation="magic"), "vips[0].encapsulation"),
        (lambda c: c["vips"][1]["gateways"][0].update(weight=-1), "vips[1].gateways[0].weight"),
        (lambda c: c["vips"][1]["gateways"][0].update(address="10.0.0"), "address"),
        (lambda c: c.update(surprise=1), "surprise"),
    ],
    ids=["interface", "two-equal-vips", "encapsulation", "weight", "address", "unknown-member"],
)
def test_nlbd_tells_what_is_wrong(chain, change, told):
    done = start_nlbd_with(chain, change)
    assert done.returncode == 1, done.stderr
    assert told in done.stderr, done.stderr


def test_nlbd_without_privileges_says_so(chain):
    # Its usual folder is refused first.
    socket = f"/tmp/nlbd-of-nobody-{chain.lab.id}.sock"
    done = start_nlbd_with(chain, lambda c: c["admin"].update(socket=socket), as_nobody=True)
    assert done.returncode == 1
    assert "CAP_" in done.stderr or "permitted" in done.stderr.lower(), done.stderr


def test_nlbd_does_not_replace_somebody_elses_program(chain):
    host = chain.services["feed-b"]
    host.run("bpftool", "prog", "load", f"{chain.lab.build}/tests/bpf/pass.bpf.o", "/sys/fs/bpf/o")
    host.run("bpftool", "net", "attach", "xdp", "pinned", "/sys/fs/bpf/o", "dev", "eth0")
    try:
        config = chain.nlb_config()
        config["source_address"]["ipv4"] = host.address
        config["admin"]["socket"] += ".second"
        path = chain.lab.write_json(config, "hosts", "second", "nlb.json")
        done = subprocess.run(
            [*host.enter_words(), chain.program("nlbd"), "-c", path],
            capture_output=True, text=True, timeout=20,
        )
        assert done.returncode == 1
        assert "eth0" in done.stderr, done.stderr
        assert "pass" in host.run("bpftool", "prog", "show", "pinned", "/sys/fs/bpf/o")
        assert "eth0" in host.run("bpftool", "net")
    finally:
        host.run("bpftool", "net", "detach", "xdp", "dev", "eth0")


def test_admin_port_of_nlbd(chain):
    def get(path):
        return http_client.http("127.0.0.1", 9440, "GET", path, connect=chain.nlb.connect)

    assert get("/healthz").status == 200 and get("/readyz").status == 200
    text = get("/metrics").body.decode()
    assert 'vip="rider"' in text and 'gateway="gw-r1"' in text


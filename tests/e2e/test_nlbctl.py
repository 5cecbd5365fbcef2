# SPDX-License-Identifier: Apache-2.0
"""nlbctl's words: trace against what packets really meet, top, the block list, help."""

import fcntl
import json
import os
import pty
import random
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest

import lab as lab_module
from nlb_rig import CLIENTS, VIP, Chain, Talk
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")


class Tool:
    """nlbctl on the load balancer's host."""

    def __init__(self, chain):
        self.chain = chain
        self.socket = chain.lab.path("run", "nlb.sock")
        self.path = chain.program("nlbctl")

    def argv(self, *words):
        return [self.path, "-s", self.socket, *words]

    def say(self, *words):
        return self.chain.nlb.run(*self.argv(*words))

    def json(self, *words):
        return json.loads(self.say("--json", *words))

    def refused(self, *words):
        """What stderr said, and the exit status."""
        script = '"$@" 2>&1; echo "exit $?"'
        said = self.chain.nlb.run("sh", "-c", script, "sh", *self.argv(*words))
        text, _, status = said.rpartition("exit ")
        return text.strip(), int(status)

    def trace(self, source, port, vip=f"{VIP}:443", protocol="tcp"):
        return self.json("trace", f"{source}:{port}", vip, protocol)


@pytest.fixture(scope="module")
def shared(build):
    with lab_module.Lab(build) as lab:
        chain = Chain(lab)
        chain.start()
        yield Tool(chain)


@pytest.fixture
def tool(shared):
    """On a lab that tests leave as they found it."""
    yield shared
    for gateway in shared.chain.gateways:
        shared.chain.set_health(gateway, 200)
    for row in shared.json("blocked"):
        shared.say("unblock", row["cidr"])
    shared.chain.wait_up(3)


@pytest.fixture
def own_tool(make_chain):
    chain = make_chain()
    chain.start()
    return Tool(chain)


def talk_from(chain, source, port):
    """A connection whose source port is known beforehand."""
    with chain.client.inside():
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(3)
        sock.bind((source, port))
        sock.connect((VIP, 443))
    return Talk(sock)


def ends(count):
    """Distinct source ends below the range that the kernel itself takes ports from."""
    ports = random.Random(4).sample(range(10000, 32000), count)
    return [(CLIENTS[i % len(CLIENTS)], port) for i, port in enumerate(ports)]


# --- trace --------------------------------------------------------------------------------------


def test_trace_foretells_the_gateway_of_new_connections(tool):
    met = set()
    for source, port in ends(24):
        told = tool.trace(source, port)
        assert told["new"]["verdict"] == "forwarded" and told["new"]["because"] == "ring"
        with talk_from(tool.chain, source, port) as talk:
            assert told["new"]["gateway"]["name"] == talk.gateway
            assert told["slot"]["owner"]["name"] == talk.gateway
            assert told["new"]["gateway"]["address"] == tool.chain.gateways[talk.gateway].address
        met.add(talk.gateway)
    assert met == {"gw1", "gw2", "gw3"}


def test_trace_knows_where_established_connections_stay(own_tool):
    tool = own_tool
    talks = {end: talk_from(tool.chain, *end) for end in ends(24)}
    stable = 0
    for end, talk in talks.items():
        told = tool.trace(*end)
        assert {e["gateway"]["name"] for e in told["flow_table"]} == {talk.gateway}
        # Some slots moved when gateways came up one after the other; those of the first did not.
        if told["slot"]["moved"]:
            assert told["established"]["because"] == "flow_table"
            continue
        stable += 1
        assert told["established"]["because"] == "ring"
        assert told["established"]["gateway"]["name"] == talk.gateway
        assert len(told["established"]["earlier_owners_named"]) == 2
    assert stable > 0

    tool.chain.nlbctl("drain", "rider", "gw1")
    tool.chain.nlbd.kill()  # it has nothing to do with it, but for the names
    addresses = {name: host.address for name, host in tool.chain.gateways.items()}
    moved = 0
    for end, talk in talks.items():
        told = tool.trace(*end)
        assert talk.echoes()
        assert told["vip"] is None
        assert told["established"]["gateway"]["address"] == addresses[talk.gateway]
        if talk.gateway != "gw1":
            continue
        moved += 1
        assert told["slot"]["moved"] and told["slot"]["moved_minutes_ago"] <= 1
        assert told["established"]["because"] == "flow_table"
        assert told["established"]["earlier_owners_named"] == []
        assert told["new"]["gateway"]["address"] != addresses["gw1"]
        assert told["slot"]["earlier"][0]["address"] == addresses["gw1"]
        assert all(entry["age_ms"] < 60000 and entry["valid"] for entry in told["flow_table"])
    assert moved > 0

    # A load balancer that has lost its table names the earlier owner instead.
    (end, talk) = next(item for item in talks.items() if item[1].gateway == "gw1")
    tool.chain.nlb.run(
        *("sh", "-c", "rm $0/flows", "/sys/fs/bpf/gatehouse/eth0"),
    )
    tool.chain.start_nlbd()  # makes a new, empty one
    wait_until(lambda: tool.chain.states()["gw1"]["state"] == "draining", "gw1 draining")
    told = tool.trace(*end)
    assert told["flow_table"] == [] and told["established"]["because"] == "ring"
    assert told["established"]["earlier_owners_named"][0]["address"] == addresses["gw1"]
    for talk in talks.values():
        talk.close()


def test_trace_changes_and_counts_nothing(tool):
    pins = "/sys/fs/bpf/gatehouse/eth0"

    def dump():
        maps = ("gateway_stats", "gateways", "flow_guard")
        return [
            tool.chain.nlb.run("bpftool", "-j", "map", "dump", "pinned", f"{pins}/{name}")
            for name in maps
        ] + [tool.json("flows")["used"]]

    with talk_from(tool.chain, *ends(1)[0]) as talk:
        assert talk.echoes()
        # The last acknowledgement has gone by when two looks are alike.
        wait_until(lambda: dump() == dump(), "the last packet")
        before = dump()
        for end in ends(5):
            tool.trace(*end)
        assert dump() == before


def test_trace_in_words(tool):
    source, port = next(end for end in ends(50) if not tool.trace(*end)["slot"]["moved"])
    with talk_from(tool.chain, source, port) as talk:
        said = tool.say("trace", f"{source}:{port}", f"{VIP}:443")
    lines = [line.split(None, 1) for line in said.splitlines() if line.strip()]
    words = {line[0]: line[1] for line in lines if len(line) > 1}
    assert words["VIP"] == f"rider, {VIP}, encapsulation gue"
    assert words["source"] == "not blocked"
    address = tool.chain.gateways[talk.gateway].address
    assert words["slot"].endswith(f"owned by {talk.gateway} ({address})")
    assert "CPU" in words["flow"] and f"{talk.gateway} ({address}), used" in words["flow"]
    assert re.search(r"up, next hop ([0-9a-f]{2}:){5}[0-9a-f]{2} by eth0, MTU 1600$", words["gateway"])
    assert words["new"].startswith(f"(SYN)    to {talk.gateway} ({address}), which owns the slot")
    # 20 + 8 + 4, and 4 + 2 * 4 for the earlier owners
    assert words["new"].endswith("up to 1568 bytes fit")
    assert words["established"].endswith("up to 1556 bytes fit")
    assert max(map(len, said.splitlines())) <= 100


def test_trace_names_what_keeps_a_source_out(tool):
    ((source, port),) = ends(1)
    assert tool.say("block", "198.51.100.0/24", "--for", "10m") == "blocked\n"
    told = tool.trace(source, port)
    assert told["blocked"] and told["new"] == {"verdict": "dropped", "reason": "blocked"}
    said = tool.say("trace", f"{source}:{port}", f"{VIP}:443")
    assert re.search(r"source +BLOCKED by 198\.51\.100\.0/24 for another (59\d s|9 min|10 min)", said)
    with pytest.raises(OSError):
        talk_from(tool.chain, source, port)
    tool.say("unblock", "198.51.100.0/24")
    with talk_from(tool.chain, source, port) as talk:
        assert tool.trace(source, port)["new"]["gateway"]["name"] == talk.gateway

    assert tool.trace(source, port, f"{VIP}:80")["new"]["reason"] == "no_service"
    assert tool.trace(source, port, "203.0.113.99:443")["new"] == {
        "verdict": "passed", "reason": "no_vip"
    }
    assert tool.trace(VIP, port)["new"]["reason"] == "spoofed"


VIP6 = "2001:db8:0:10::10"
CLIENT6 = "2001:db8:0:c::10"


def add_ipv6(chain):
    """Addresses and routes of clients and the load balancer; the gateways stay as they are."""
    switch = chain.lab.switch
    switch.sysctl("net.ipv6.conf.all.forwarding", 1)
    switch.ip("address", "add", "fd00::1/64", "dev", "br0", "nodad")
    switch.ip("address", "add", "2001:db8:0:c::1/64", "dev", chain.client.port, "nodad")
    switch.ip("-6", "route", "add", f"{VIP6}/128", "via", "fd00::2")
    chain.nlb.ip("address", "add", "fd00::2/64", "dev", "eth0", "nodad")
    chain.client.ip("address", "add", f"{CLIENT6}/64", "dev", "eth0", "nodad")
    chain.client.ip("-6", "route", "add", "default", "via", "2001:db8:0:c::1")


def send_first(chain, source, port, vip, vip_port, protocol):
    """The first packet of a connection or flow; nobody has to answer."""
    family = socket.AF_INET6 if ":" in vip else socket.AF_INET
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with chain.client.inside(), socket.socket(family, kind) as sock:
        sock.bind((source, port))
        sock.setblocking(False)
        if protocol == "udp":
            sock.sendto(b"x", (vip, vip_port))
        else:
            sock.connect_ex((vip, vip_port))


def test_trace_in_both_families_and_protocols(make_chain):
    chain = make_chain()
    add_ipv6(chain)
    tool = Tool(chain)
    (like,) = chain.config()["vips"]
    kinds = [
        ("udp4", VIP, 53, "udp", "gue"),
        ("tcp6", VIP6, 443, "tcp", "gue"),
        ("udp6", VIP6, 443, "udp", "ipip"),
        ("any6", VIP6, 0, "tcp", "ipip"),
    ]
    vips = [
        {**like, "name": n, "address": a, "port": p, "protocol": k, "encapsulation": e,
         "health": None}
        for n, a, p, k, e in kinds
    ]
    chain.config_path = chain.lab.write_json({**chain.config(), "vips": vips}, "nlb.json")
    chain.start_nlbd()

    def rows():
        return json.loads(chain.nlbctl("gateways"))

    wait_until(lambda: all(row["state"] == "up" for row in rows()), "every gateway up")

    def counts(name):
        return {row["name"]: row["connections"] for row in rows() if row["vip"] == name}

    for name, vip, port, protocol, encapsulation in kinds:
        source = CLIENT6 if vip == VIP6 else CLIENTS[0]
        text = f"[{source}]" if vip == VIP6 else source
        to_port = port or 8080
        to = f"[{vip}]:{to_port}" if vip == VIP6 else f"{vip}:{to_port}"
        met = set()
        for _, from_port in ends(9):
            told = tool.trace(text, from_port, to, protocol)
            assert told["vip"] == name and told["encapsulation"] == encapsulation
            before = counts(name)
            send_first(chain, source, from_port, vip, to_port, protocol)
            wait_until(lambda: counts(name) != before, f"{name}: the packet counted")
            (gateway,) = [g for g, count in counts(name).items() if count > before[g]]
            assert told["new"]["gateway"]["name"] == gateway
            met.add(gateway)
        assert len(met) > 1, name
        # UDP says nothing of a beginning: what the table remembers is what counts.
        told = tool.trace(text, from_port, to, protocol)
        if protocol == "udp":
            assert told["established"]["because"] == "flow_table"
        assert told["flow_table"][0]["gateway"]["name"] == gateway
        outer = 20 if encapsulation == "ipip" else 32
        assert told["new"]["largest_packet"] == 1600 - outer
        said = tool.say("trace", f"{text}:{from_port}", to, protocol)
        assert f"{gateway} (" in said and ("takes every port" in said) == (port == 0)
        assert "next packet" in said if protocol == "udp" else "established" in said

    # Whoever has one address of an IPv6 network of 64 bits has all of it.
    vips[1]["new_connections_per_source"] = {"per_s": 1, "burst": 1}
    chain.lab.write_json({**chain.config(), "vips": vips}, "nlb.json")
    chain.nlbctl("reload")
    neighbour, stranger = f"[{CLIENT6}99]", "[2001:db8:0:d::10]"
    assert tool.trace(neighbour, 1000, f"[{VIP6}]:443")["is_within_rate"]
    send_first(chain, CLIENT6, 9000, VIP6, 443, "tcp")
    limited = {"verdict": "dropped", "reason": "source_rate"}
    assert tool.trace(neighbour, 1000, f"[{VIP6}]:443")["new"] == limited
    assert tool.trace(stranger, 1000, f"[{VIP6}]:443")["is_within_rate"]


def test_trace_names_allow_lists_and_limits(make_chain):
    chain = make_chain(gateways=2)
    chain.start()
    tool = Tool(chain)
    rate = {"per_s": 1, "burst": 2}
    chain.write_config(allow=[CLIENTS[0]], new_connections_per_source=rate)
    chain.nlbctl("reload")
    ((_, port),) = ends(1)
    assert tool.trace(CLIENTS[1], port)["new"] == {"verdict": "dropped", "reason": "not_allowed"}
    assert chain.refuses(CLIENTS[1])
    assert "NOT on the VIP's allow list" in tool.say("trace", f"{CLIENTS[1]}:1", f"{VIP}:443")
    told = tool.trace(CLIENTS[0], port)
    assert told["new"]["verdict"] == "forwarded" and told["is_within_rate"]
    said = tool.say("trace", f"{CLIENTS[0]}:{port}", f"{VIP}:443")
    assert "; on the VIP's allow list; at most 1 new connections a second, not used up" in said

    talks = [talk_from(chain, CLIENTS[0], port) for _, port in ends(2)]
    told = tool.trace(CLIENTS[0], 9999)
    assert told["new"] == {"verdict": "dropped", "reason": "source_rate"}
    assert told["established"]["verdict"] == "forwarded", "only new ones are limited"
    assert chain.refuses(CLIENTS[0])
    wait_until(lambda: tool.trace(CLIENTS[0], 9999)["is_within_rate"], "the next connection's time")
    talks.append(talk_from(chain, CLIENTS[0], 9999))
    for talk in talks:
        talk.close()


def test_decap_is_not_for_the_loopback(tool):
    said, status = tool.refused("decap", "attach", "lo", "--source", "10.0.0.2")
    assert "decap attach lo" in said and "not by lo" in said and status == 2


def test_trace_wants_two_ends(tool):
    for words, sentence in (
        (["198.51.100.7", f"{VIP}:443"], 'the source "198.51.100.7" is not ADDRESS:PORT'),
        (["198.51.100.7:1", "rider"], 'the destination "rider" is not ADDRESS:PORT'),
        (["[2001:db8::1]:1", f"{VIP}:443"], "one end is IPv4, the other IPv6"),
        (["198.51.100.7:1", f"{VIP}:443", "icmp"], "neither tcp nor udp"),
    ):
        said, status = tool.refused("trace", *words)
        assert sentence in said and status == 2, said
    said, status = tool.refused("trace", "1.2.3.4:5", f"{VIP}:443", "--interface", "eth7")
    assert "nothing forwards on eth7" in said and status == 1
    said, status = tool.refused("trace", "1.2.3.4:5", f"{VIP}:443", "--pin-directory", "/sys/fs/bpf/x")
    assert "nothing forwards on this host" in said and "start nlbd" in said and status == 1


# --- the block list -------------------------------------------------------------------------------


def test_block_list_for_people(tool):
    assert tool.say("blocked") == "nothing is blocked\n"
    tool.say("block", "192.0.2.7")
    tool.say("block", "2001:db8::/32", "--for", "119m")
    lines = sorted(line.split() for line in tool.say("blocked").splitlines())
    assert ["192.0.2.7", "-", "0"] in lines
    ((_, hours, unit, minutes, minute, _),) = [line for line in lines if line[0] == "2001:db8::/32"]
    assert (hours, unit, minute) == ("1", "h", "min") and minutes in ("58", "59")
    tool.say("block", "192.0.2.8", "--for", "5")
    ((_, seconds, unit, _),) = [
        line.split() for line in tool.say("blocked").splitlines() if line.startswith("192.0.2.8")
    ]
    assert int(seconds) <= 5 and unit == "s"
    tool.say("unblock", "192.0.2.8")
    assert len(tool.json("blocked")) == 2
    assert tool.say("unblock", "192.0.2.7") == "unblocked\n"
    assert "192.0.2.7" not in tool.say("blocked")

    said, status = tool.refused("block", "198.51.100.0/33")
    assert "neither an address nor a prefix" in said and status == 2
    said, status = tool.refused("block", "198.51.100.1", "--for", "soon")
    assert '--for: "soon" is not a time such as 30s, 10m' in said and status == 2
    said, status = tool.refused("unblock", "192.0.2.7")
    assert "192.0.2.7" in said and status == 1


# --- top ------------------------------------------------------------------------------------------


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, chain, argv, rows=24, columns=100):
        self.main, self.side = pty.openpty()
        self.before = termios.tcgetattr(self.side)
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.side, termios.TIOCSWINSZ, size)

        def take_terminal():
            os.setsid()
            fcntl.ioctl(self.side, termios.TIOCSCTTY, 0)

        self.popen = subprocess.Popen(
            [*chain.nlb.enter_words(), *argv], stdin=self.side, stdout=self.side,
            stderr=self.side, preexec_fn=take_terminal,
        )
        self.seen = ""

    def read_until(self, pattern, timeout_s=10.0):
        deadline = time.monotonic() + timeout_s
        while not re.search(pattern, self.seen):
            left = deadline - time.monotonic()
            assert left > 0, f"/{pattern}/ not in {self.seen!r}"
            if select.select([self.main], [], [], left)[0]:
                self.seen += os.read(self.main, 65536).decode(errors="replace")
        return self.seen

    def ends(self, timeout_s=5.0):
        status = self.popen.wait(timeout_s)
        while select.select([self.main], [], [], 0.1)[0]:
            self.seen += os.read(self.main, 65536).decode(errors="replace")
        return status

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(5)
        os.close(self.main)
        os.close(self.side)


@pytest.fixture
def terminal(tool):
    opened = []

    def start(*words, **size):
        opened.append(Terminal(tool.chain, tool.argv(*words), **size))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def with_traffic(tool, action):
    """Runs the action while connections come and go."""
    done = threading.Event()

    def traffic():
        i = 0
        while not done.is_set():
            with tool.chain.connect(CLIENTS[i % 4]) as talk:
                talk.echoes(b"x" * 1000)
            i += 1
            done.wait(0.01)

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        return action()
    finally:
        done.set()
        thread.join()


def test_top_in_numbers(tool):
    words = ["--json", "top", "--interval", "0.5", "--count", "3"]
    lines = with_traffic(tool, lambda: tool.say(*words)).splitlines()
    assert len(lines) == 3
    for line in lines:
        told = json.loads(line)
        (vip,) = told["vips"]
        assert vip["name"] == "rider" and 0.4 < told["seconds"] < 2
        assert vip["connections_per_s"] > 1
        # Both from one look, but VIPs are counted a moment before their gateways.
        for key in ("packets_per_s", "bits_per_s", "connections_per_s"):
            assert sum(g[key] for g in told["gateways"]) == pytest.approx(vip[key], rel=0.3)
        assert vip["bits_per_s"] > 8 * 40 * vip["packets_per_s"]

    # Against the counters themselves.
    before = sum(g["connections"] for g in tool.chain.states().values())
    told = tool.json("top", "--interval", "1", "--count", "1")
    assert told["vips"][0]["connections_per_s"] == 0
    assert sum(g["connections"] for g in tool.chain.states().values()) == before


def test_top_in_lines(tool):
    tool.say("block", CLIENTS[3])
    with tool.chain.client.inside():
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.bind((CLIENTS[3], 0))
    done = []

    def flood():
        while not done:
            probe.sendto(b"x", (VIP, 443))
            time.sleep(0.005)

    thread = threading.Thread(target=flood)
    thread.start()
    said = tool.say("top", "--interval", "0.5", "--count", "1")
    done.append(True)
    thread.join()
    probe.close()
    assert "\x1b" not in said
    number = r"[\d.]+"
    stamp = r"\d{4}-\d\d-\d\dT[\d:.]+Z"
    for name in (r"\*", "gw1", "gw2", "gw3"):
        line = rf"^{stamp} rider {name} packets/s {number} bits/s {number} connections/s {number}$"
        assert re.search(line, said, re.M), said
    dropped = re.search(rf"^{stamp} dropped (blocked|no_service) packets/s ({number})$", said, re.M)
    assert dropped and float(dropped[2]) > 10, said


@pytest.mark.parametrize("how", ["q", "ctrl-c", "term"])
def test_top_on_a_terminal_ends_and_restores_it(tool, terminal, how):
    screen = terminal("top", "--interval", "0.2")
    screen.read_until("gw3.*\r\n(.|\n)*gw3")  # drawn twice
    assert screen.seen.startswith("\x1b[?1049h\x1b[?25l"), "a screen of its own"
    assert "\x1b[H" in screen.seen, "redrawn in place"
    drawn = screen.seen.split("\x1b[H")[1]
    assert re.search(r"VIP +STATE +PACKETS/S +BITS/S +CONNS/S +ADDRESS", drawn), drawn
    during = termios.tcgetattr(screen.side)
    assert not during[3] & termios.ICANON and not during[3] & termios.ECHO
    if how == "q":
        os.write(screen.main, b"q")
    elif how == "ctrl-c":
        os.write(screen.main, b"\x03")
    else:
        screen.popen.send_signal(signal.SIGTERM)
    assert screen.ends() == 0
    assert screen.seen.endswith("\x1b[?25h\x1b[?1049l")
    assert termios.tcgetattr(screen.side) == screen.before


def test_top_fits_the_screen_and_colours_what_is_wrong(tool, terminal):
    tool.chain.set_health("gw2", 503)
    tool.chain.wait_state("gw2", "down")
    screen = terminal("top", "--interval", "0.2", rows=11, columns=50)
    screen.read_until("more than the screen holds(.|\n)*more than the screen holds")
    drawn = screen.seen.split("\x1b[H")[1]
    rows = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn).replace("\r", "").split("\n")
    assert len(rows) <= 11 and all(len(row) <= 50 for row in rows), rows
    assert re.search(r"\x1b\[31m +gw2 +down", drawn), "red"
    assert not re.search(r"\x1b\[3\dm +gw1", drawn)


def test_top_without_nlbd(tool, terminal):
    screen = terminal("top", "--interval", "0.2")
    screen.read_until("gw3")
    tool.chain.nlbd.stop()
    try:
        assert screen.ends() == 1
        assert "nlbd does not answer any more" in screen.seen
        assert termios.tcgetattr(screen.side) == screen.before
        said, status = tool.refused("top", "--count", "1")
    finally:
        tool.chain.start()
    assert "is it running?" in said and status == 1


# --- help -----------------------------------------------------------------------------------------


def test_every_command_helps(program):
    def run(*words):
        return subprocess.run([program("nlbctl"), *words], capture_output=True, text=True)

    general = run("--help").stdout
    assert max(map(len, general.splitlines())) <= 100
    lines = re.findall(r"^  ([a-z]+(?: (?:attach|detach|status)\b)?)((?: [A-Z\[][^ ]*)*)  +\S", general, re.M)
    names = [name for name, _ in lines]
    assert {"status", "trace", "top", "doctor", "block", "decap attach"} <= set(names)
    assert len(names) == len(set(names)) >= 17
    for name, arguments in lines:
        said = run(*name.split(), "--help")
        assert said.returncode == 0 and said.stderr == ""
        assert said.stdout.startswith(f"usage: nlbctl {name}{arguments}"), said.stdout
        assert max(map(len, said.stdout.splitlines())) <= 90, name
        assert len(said.stdout.splitlines()) >= 5, f"{name}: has something to say"
    assert run("decap", "--help").stdout.count("usage: ") == 3
    done = run("stats", "--help")
    assert done.returncode == 2 and 'no command "stats"' in done.stderr
    done = run("status", "--for", "1m")
    assert done.returncode == 2 and "status takes no --for" in done.stderr
    done = run("decap")
    assert done.returncode == 2 and "nlbctl decap --help" in done.stderr
    done = run("top", "--count", "0")
    assert done.returncode == 2 and "is not a number above 0" in done.stderr
    done = run("top", "--interval", "0")
    assert done.returncode == 2 and "is not a time" in done.stderr


def test_json_everywhere(tool):
    for words in (
        ["status"], ["vips"], ["gateways"], ["flows"], ["flows", "--vip", "rider"], ["blocked"],
        ["reload"], ["drain", "rider", "gw1"], ["undrain", "rider", "gw1"],
        ["block", "192.0.2.1"], ["unblock", "192.0.2.1"],
        ["trace", "198.51.100.7:1000", f"{VIP}:443"], ["top", "--count", "1", "--interval", "0.1"],
    ):
        assert isinstance(tool.json(*words), (dict, list)), words
    with pytest.raises(lab_module.LabError, match='no VIP named "rodeo"'):
        tool.say("flows", "--vip", "rodeo")

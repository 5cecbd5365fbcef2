# SPDX-License-Identifier: Apache-2.0
"""A client, NLBs and gateways that echo, in a lab, and the words to drive them. For tests of the NLB."""

import collections
import ipaddress
import json
import os
import subprocess
import sys

from procs import wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
VIP = "203.0.113.10"
NLB = "10.0.0.2"
NLBS = [NLB, "10.0.0.3"]  # the second one is not always there
POOL = [f"10.0.0.{10 + n}" for n in range(1, 5)]  # addresses that gateways may have
CLIENTS = [f"198.51.100.{n}" for n in range(10, 14)]
TALK_LIMIT_S = 60.0
HEALTH = {"type": "http", "port": 9443, "path": "/readyz", "interval_ms": 100, "timeout_ms": 100}


class Chain:
    """A client, one NLB, some gateways that echo, and the words to drive them."""

    def __init__(self, lab, gateways=3, encapsulation="gue", health=None):
        self.lab = lab
        self.encapsulation = encapsulation
        self.health = health or {**HEALTH, "rise": 2, "fall": 2}
        self.client = lab.add_client("client", CLIENTS)
        self.nlb = lab.add_host("nlb", NLB, transmits_from_xdp=True)
        self.gateways = {}
        self.echoes = {}
        lab.route_vip(VIP, NLB)
        for n in range(1, gateways + 1):
            self.add_gateway(n)
        self.config_path = self.write_config()
        self.nlbd = None
        self.starts = 0

    def program(self, name):
        return os.path.join(self.lab.build, name)

    def add_gateway(self, n):
        name = f"gw{n}"
        host = self.lab.add_host(name, f"10.0.0.{10 + n}", vips=[VIP], transmits_from_xdp=True)
        self.gateways[name] = host
        self.set_health(name, 200)
        self.attach_decap(name)
        self.start_echo(name)

    def attach_decap(self, name):
        """For packets of the NLBs, and of the other gateways, which send on what is not theirs."""
        words = [word for address in (*NLBS, *POOL) for word in ("--source", address)]
        self.gateways[name].run(self.program("nlbctl"), "decap", "attach", "eth0", *words)

    def decap_packets(self, name):
        """What became of packets on a gateway's host."""
        nlbctl = self.program("nlbctl")
        text = self.gateways[name].run(nlbctl, "--json", "decap", "status", "eth0")
        return json.loads(text)["packets"]

    def start_echo(self, name):
        argv = [sys.executable, "-B", os.path.join(HERE, "echo.py"), name, "443", "9443"]
        echo = self.gateways[name].start(f"echo-{name}", [*argv, self.lab.path("health", name)])
        echo.wait_log("listening")
        self.echoes[name] = echo

    def set_health(self, name, status):
        with open(self.lab.path("health", name), "w", encoding="ascii") as file:
            file.write(str(status))

    def config(self, names=None, **changes):
        vip = {
            "name": "rider",
            "address": VIP,
            "port": 443,
            "encapsulation": self.encapsulation,
            "health": self.health,
            "gateways": [
                {"name": name, "address": self.gateways[name].address}
                for name in (names or self.gateways)
            ],
        }
        return {
            "interface": "eth0",
            "flows_per_cpu": 65536,
            "hash_seed": "of the test",
            "admin": {"bind": "127.0.0.1:9440", "socket": self.lab.path("run", "nlb.sock")},
            "vips": [{**vip, **changes}],
        }

    def write_config(self, names=None, **changes):
        return self.lab.write_json(self.config(names, **changes), "nlb.json")

    def start_nlbd(self, program="nlbd", timeout_s=10.0):
        self.starts += 1  # each has a log of its own
        argv = [self.program(program), "-c", self.config_path, "--log-level", "debug"]
        self.nlbd = self.nlb.start(f"nlbd{self.starts}", argv)
        self.nlbd.wait_log(r"forwarding \d+ VIPs", timeout_s)

    def start(self):
        self.start_nlbd()
        self.wait_up(len(self.gateways))

    def nlbctl(self, *words, check=True):
        socket = self.lab.path("run", "nlb.sock")
        return self.nlb.run(self.program("nlbctl"), "-s", socket, "--json", *words, check=check)

    def gateway_rows(self):
        return json.loads(self.nlbctl("gateways"))

    def states(self):
        return {g["name"]: g for g in self.gateway_rows()}

    def wait_state(self, name, state, timeout_s=5.0):
        wait_until(
            lambda: self.states()[name]["state"] == state, f"{name} is {state}", timeout_s, self.nlbd
        )

    def wait_up(self, count, timeout_s=5.0):
        wait_until(
            lambda: sum(g["state"] == "up" for g in self.gateway_rows()) == count,
            f"{count} gateways up",
            timeout_s,
            self.nlbd,
        )

    def connect(self, source=None):
        return Talk(self.client.connect(VIP, 443, 3.0, source))

    def refuses(self, source=None):
        """Whether a connection gets no answer at all."""
        try:
            Talk(self.client.connect(VIP, 443, 0.5, source)).close()
        except TimeoutError:
            return True
        return False

    def dropped(self, reason):
        return json.loads(self.nlbctl("status"))["dropped"][reason]

    def spread(self, count):
        """Opens and closes connections; which gateway took how many."""
        taken = collections.Counter()
        for i in range(count):
            with self.connect(CLIENTS[i % len(CLIENTS)]) as talk:
                assert talk.seen_address == CLIENTS[i % len(CLIENTS)]
                taken[talk.gateway] += 1
        return taken


class Talk:
    """One connection through the chain."""

    def __init__(self, sock):
        self.sock = sock
        self.lines = sock.makefile("rb")
        self.gateway, self.seen_address = self.lines.readline().decode().split()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.lines.close()
        self.sock.close()

    def echoes(self, payload=b"x" * 100):
        self.sock.sendall(payload + b"\n")
        return self.lines.readline() == payload + b"\n"


class Clients:
    """Connections that keep exchanging data: talkers.py on the client's host."""

    def __init__(self, chain, count, interval_s=1.0):
        self.count = count
        self.log = chain.lab.path("logs", "talkers")
        argv = [sys.executable, "-B", os.path.join(HERE, "talkers.py"), VIP, "443"]
        argv += [str(count), str(interval_s), *CLIENTS]
        with open(self.log, "wb") as log:
            self.popen = subprocess.Popen(
                [*chain.client.enter_words(), "setpriv", "--pdeathsig", "KILL", *argv],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.popen.kill()
        self.popen.wait()
        self.popen.stdin.close()

    def tell(self, words):
        self.popen.stdin.write(words.encode() + b"\n")
        self.popen.stdin.flush()

    def now(self):
        """The latest report."""
        assert self.popen.poll() is None, open(self.log, encoding="utf-8").read()[-2000:]
        with open(self.log, "rb") as log:
            log.seek(max(0, os.path.getsize(self.log) - 16384))
            lines = log.read().split(b"\n")
        return json.loads(lines[-2]) if len(lines) > 1 else {"opening": self.count, "least": 0}

    def wait_open(self):
        wait_until(lambda: self.now()["opening"] == 0, "all connections open", TALK_LIMIT_S)
        return self.now()

    def keep_talking(self, rounds=3):
        """Until every connection has exchanged this much more; returns the report."""
        goal = self.now()["least"] + rounds
        # A broken one takes its count along, so they are looked at first.
        wait_until(
            lambda: self.now()["broken"] or self.now()["least"] >= goal,
            f"{rounds} more exchanges on every connection",
            TALK_LIMIT_S,
        )
        return self.now()


class Blocks:
    """The block list as curl sees it."""

    def __init__(self, chain):
        self.chain = chain

    def ask(self, method, path, **query):
        words = [word for pair in query.items() for word in ("-d", "=".join(map(str, pair)))]
        answer = self.chain.nlb.run(
            *("curl", "-sS", "-G", "-X", method, "-w", "\n%{http_code}", *words),
            *("--unix-socket", self.chain.lab.path("run", "nlb.sock"), f"http://nlb{path}"),
        )
        body, _, status = answer.rpartition("\n")
        return int(status), json.loads(body)

    def add(self, cidr, **query):
        assert self.ask("POST", "/block", cidr=cidr, **query) == (200, {"changed": True})

    def list(self):
        return {row["cidr"]: row for row in self.ask("GET", "/blocked")[1]}


class Pinned:
    """The pinned maps of an NLB, as lists of byte strings."""

    def __init__(self, chain):
        self.chain = chain

    def dump(self, name):
        path = f"/sys/fs/bpf/gatehouse/eth0/{name}"
        rows = json.loads(self.chain.nlb.run("bpftool", "-j", "map", "dump", "pinned", path))

        def octets(words):
            return bytes(int(word, 16) for word in words)

        return [(octets(row["key"]), octets(row["value"])) for row in rows]

    def vips(self, name):
        """{(address, port, protocol): (id, encapsulation)}"""
        size = 4 if name == "vips4" else 16
        return {
            (
                str(ipaddress.ip_address(key[:size])),
                int.from_bytes(key[size : size + 2], "big"),
                key[size + 2],
            ): (int.from_bytes(value[:2], "little"), value[2])
            for key, value in self.dump(name)
        }

    def gateways(self):
        """{address: entry} of those in use."""
        found = {}
        for _, value in self.dump("gateways"):
            family, flags = value[38], value[39]
            if flags & 1:
                address = ipaddress.ip_address(value[: 16 if family == 6 else 4])
                assert value[16 if family == 6 else 4 : 16] == b"\0" * (0 if family == 6 else 12)
                found[str(address)] = {
                    "mac": value[16:22].hex(":"),
                    "mtu": int.from_bytes(value[36:38], "little"),
                    "resolved": bool(flags & 2),
                    "encap": value[40],
                }
        return found

    def config(self):
        value = self.dump("config")[0][1]
        return {
            "source": [value[88:92], value[104:120]],
            "vary": [value[120:124], value[124:128]],
            "hz": int.from_bytes(value[136:140], "little"),
            "flags": int.from_bytes(value[140:144], "little"),
            "udp_timeout": int.from_bytes(value[148:152], "little"),
            "icmp_per_tick": int.from_bytes(value[152:156], "little"),
        }

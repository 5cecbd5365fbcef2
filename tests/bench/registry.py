#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""registryd beside Debian's etcd: registrations, renewals, watchers, memory; and how fast a gateway
follows.

usage: registry.py [--quick] [--rounds N]

Both servers run on one core, the load on another, in turns. What is compared is operations per second
of CPU time that the server's process used. An instance of etcd is a key with a lease of its own.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[1:1] = [os.path.join(ROOT, "tests", "e2e")]
sys.dont_write_bytecode = True

import client  # noqa: E402
from load import PROGRAMS, LoadFailed, rss_kib  # noqa: E402
from procs import ProcGroup, exit_on_signals, wait_until  # noqa: E402
from targets import free_ports  # noqa: E402

BUILD = os.environ.get("GATEHOUSE_BUILD", "build")
CONNECTIONS = 64
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

NOTES = """\
Both on one core (etcd with GOMAXPROCS=1), the load on another: 64 keep-alive connections with one
request under way on each, HTTP/1.1 for registryd, gRPC for etcd. An instance (address, port, zone,
version, two pairs of metadata) is a PUT and later a renewal for registryd; for etcd a LeaseGrant and a
Put of the same text, and later a LeaseKeepAlive on a stream that stays open. Data on tmpfs for both, so
that etcd's fsync costs nothing; registryd acknowledges from memory and writes its snapshot up to a
second later, which is the weaker promise, and its CPU time is counted. Operations per second of CPU
time of the server's process; in brackets the lowest and highest round.
"""

WATCH_NOTES = """\
One connection each for so many watchers; the time from before the write is sent until a watcher has read
its event, over all watchers and writes. The load program reads them one after the other on one core,
which is part of the time. A change is what one watcher receives for it, framing included.
"""

CUTOVER_NOTES = """\
A real gateway with one worker discovers two instances, of which one is deregistered and registered
again and again under load, while so many others watch. The time from before the DELETE is sent to the
registry until the last request reaches the instance.
"""


def cpu_s(pid):
    """Of the whole process, threads and processes of its own that have ended included."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


class Bench:
    def __init__(self, options, directory, group):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("registry.py: needs two cores, one for the server")
        self.options, self.directory, self.group = options, directory, group
        self.core, self.other = cores[0], cores[1]
        os.sched_setaffinity(0, {self.other})
        self.servers = {}

    def start_registryd(self, name, **more):
        port = free_ports(1)[0]
        path = os.path.join(self.directory, f"{name}.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({
                "bind": f"127.0.0.1:{port}",
                "store": {"snapshot": os.path.join(self.directory, f"{name}.snapshot")},
                "limits": {"instances_per_client": 10000000}, **more}, file)
        proc = self.group.start(name, ["taskset", "-c", str(self.core),
                                       os.path.join(BUILD, "registryd"), "-c", path])
        wait_until(lambda: client.http("127.0.0.1", port, "GET", "/readyz").status == 200,
                   name, 10, proc)
        return proc, port

    def start_etcd(self):
        port, peer = free_ports(2)
        url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
        proc = self.group.start(
            "etcd",
            ["taskset", "-c", str(self.core), "etcd", "--data-dir", os.path.join(self.directory, "etcd"),
             "--listen-client-urls", url, "--advertise-client-urls", url, "--log-level", "error",
             "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
             "--initial-cluster", f"default={peer_url}", "--quota-backend-bytes", str(4 << 30)],
            env={"GOMAXPROCS": "1"})
        wait_until(lambda: b"true" in client.http("127.0.0.1", port, "GET", "/health").body,
                   "etcd", 20, proc)
        return proc, port

    def load(self, name, *words):
        """One run of a load program, with the CPU time that the server spent meanwhile."""
        proc, port = self.servers[name]
        program = "etcdleases" if name == "etcd" else "leases"
        before = cpu_s(proc.pid)
        figures = self.run(program, port, *words)
        return {**figures, "cpu_s": cpu_s(proc.pid) - before}

    def run(self, program, *words):
        argv = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(self.other),
                os.path.join(PROGRAMS, program), *map(str, words)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300,
                              stdin=subprocess.DEVNULL, start_new_session=True)
        if done.returncode != 0:
            raise LoadFailed(f"{program} {words}: {done.stdout}{done.stderr}")
        figures = json.loads(done.stdout)
        if figures["bad"] or not figures["done"]:
            raise LoadFailed(f"{program} {words}: {figures}")
        return figures

    def in_turns(self, rounds, words_of):
        """{server: [figures of each round]}"""
        found = {name: [] for name in self.servers}
        for number in range(rounds):
            for name in self.servers:
                found[name].append(self.load(name, *words_of(number)))
        return found


def rates(found):
    """Per second of CPU time, and per second."""
    return {
        name: {
            "per_cpu_s": spread([f["done"] / f["cpu_s"] for f in rounds]),
            "per_s": spread([f["done"] / f["seconds"] for f in rounds]),
            "cpu_us": spread([f["cpu_s"] * 1e6 / f["done"] for f in rounds]),
        }
        for name, rounds in found.items()
    }


def ratio(found):
    if "etcd" not in found:
        return None
    return spread([(a["done"] / a["cpu_s"]) / (b["done"] / b["cpu_s"])
                   for a, b in zip(found["registryd"], found["etcd"])])


def measure_store(bench, figures):
    quick = bench.options.quick
    rounds = bench.options.rounds or (1 if quick else 5)
    chunk = 2000 if quick else 100000 // rounds
    total = chunk * rounds
    empty = {name: rss_kib(proc.pid) for name, (proc, _) in bench.servers.items()}
    found = bench.in_turns(rounds, lambda n: ("register", n * chunk, chunk, CONNECTIONS))
    figures["register"] = {"servers": rates(found), "ratio": ratio(found)}
    figures["memory"] = {
        "instances": total,
        "servers": {name: {"kib": rss_kib(proc.pid), "empty_kib": empty[name]}
                    for name, (proc, _) in bench.servers.items()},
    }
    seconds = 1 if quick else 4
    found = bench.in_turns(rounds, lambda n: ("renew", total, seconds, CONNECTIONS))
    figures["renew"] = {"servers": rates(found), "ratio": ratio(found)}
    watchers, writes = (100, 10) if quick else (1000, 60)
    found = bench.in_turns(min(rounds, 3), lambda n: ("watch", watchers, writes))
    figures["watch"] = {
        "watchers": watchers,
        "servers": {
            name: {key: spread([f[key] for f in all_rounds])
                   for key in ("p50_us", "p99_us", "event_bytes")}
            for name, all_rounds in found.items()
        },
    }


def metric(port, name):
    for line in client.http("127.0.0.1", port, "GET", "/metrics").body.decode().splitlines():
        if line.startswith(name):
            return float(line.split()[-1])
    raise LoadFailed(f"no metric {name}")


def measure_leases(bench, figures):
    """So many leases of 30 s at the rate at which clients renew them, for longer than one lasts."""
    count, seconds = (2000, 3) if bench.options.quick else (100000, 36)
    bench.servers = {"registryd": bench.start_registryd("leases")}
    proc, port = bench.servers["registryd"]
    bench.load("registryd", "register", 0, count, CONNECTIONS, 30)
    held = bench.load("registryd", "renew", count, seconds, CONNECTIONS, count // 10)
    figures["leases"] = {
        "instances": count,
        "seconds": seconds,
        "a_second": count // 10,
        "cpu_share": held["cpu_s"] / held["seconds"],
        "expired": metric(port, "gatehouse_registry_expiries_total"),
        "rss_kib": rss_kib(proc.pid),
    }
    proc.stop()


def measure_cutover(bench, figures):
    watchers, rounds = (100, 5) if bench.options.quick else (1000, 60)
    _, port = bench.start_registryd("cutover")
    gateway, admin = free_ports(2)
    path = os.path.join(bench.directory, "gateway.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({
            "instance": "bench", "domain": "bench", "workers": 1,
            "listeners": [{"bind": f"127.0.0.1:{gateway}"}],
            "admin": {"bind": f"127.0.0.1:{admin}",
                      "socket": os.path.join(bench.directory, "gateway.sock")},
            "registry": {"urls": [f"http://127.0.0.1:{port}"]},
            "services": {"cutover": {"discover": "cutover"}},
            "routes": [{"name": "cutover", "match": {"path": "/cutover"}, "service": "cutover"}],
            "access_log": {"path": os.path.join(bench.directory, "access.log")},
        }, file)
    holder = bench.group.start("hold", ["taskset", "-c", str(bench.other),
                                        os.path.join(PROGRAMS, "leases"), str(port), "hold",
                                        str(watchers), "0"])
    holder.wait_log("open", 30)
    proc = bench.group.start("gatewayd", ["taskset", "-c", str(bench.core),
                                          os.path.join(BUILD, "gatewayd"), "-c", path])
    wait_until(lambda: client.http("127.0.0.1", admin, "GET", "/healthz").status == 200,
               "gatewayd", 10, proc)
    found = bench.run("cutover", port, gateway, rounds, 8)
    figures["cutover"] = {"watchers": watchers, "rounds": rounds, "p50_us": found["p50_us"],
                          "p99_us": found["p99_us"], "requests_per_s": found["done"] / found["seconds"]}
    holder.stop()


def measure(options):
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = tempfile.mkdtemp(prefix="gatehouse-bench-", dir=folder)
    group = ProcGroup(os.path.join(directory, "logs"))
    affinity = os.sched_getaffinity(0)
    figures = {}
    try:
        bench = Bench(options, directory, group)
        bench.servers["registryd"] = bench.start_registryd("registryd")
        if shutil.which("etcd"):
            bench.servers["etcd"] = bench.start_etcd()
            line = subprocess.run(["etcd", "--version"], capture_output=True, text=True).stdout
            figures["etcd"] = line.splitlines()[0].rpartition(" ")[2]
        else:
            print("skip  etcd: not installed (scripts/install-deps.sh bench)")
        measure_store(bench, figures)
        for proc, _ in bench.servers.values():
            proc.stop()
        measure_leases(bench, figures)
        measure_cutover(bench, figures)
    finally:
        group.stop_all()
        os.sched_setaffinity(0, affinity)
        shutil.rmtree(directory, ignore_errors=True)
    return figures


# --- tables -------------------------------------------------------------------------------------


def range_of(value, form="{:,.0f}"):
    low, high = form.format(value["min"]), form.format(value["max"])
    return f"{form.format(value['median'])} ({low}–{high})"


def goal(value, text, is_met):
    return f"{value}, goal {text}: {'met' if is_met else 'missed'}"


def rate_rows(figures):
    yield ("operation", "server", "per CPU second", "CPU µs each", "per second", "registryd is")
    for what, floor in (("register", 20000), ("renew", 40000)):
        for name, f in figures[what]["servers"].items():
            rate = range_of(f["per_cpu_s"])
            own = name == "registryd"
            times = figures[what]["ratio"]
            yield (
                what if own else "", name,
                goal(rate, f"{floor:,}", f["per_cpu_s"]["median"] >= floor) if own else rate,
                range_of(f["cpu_us"], "{:.1f}"), range_of(f["per_s"]),
                goal(f"{times['median']:.1f} × ({times['min']:.1f}–{times['max']:.1f})", "10",
                     times["median"] >= 10) if times and not own else "",
            )


def memory_rows(figures):
    yield ("instances", "server", "resident MB", "bytes an instance")
    m = figures["memory"]
    for name, f in m["servers"].items():
        mb = f["kib"] * 1024 / 1e6
        own = name == "registryd"
        yield (
            f"{m['instances']:,}" if own else "", name,
            goal(f"{mb:.0f}", "150", mb <= 150) if own else f"{mb:.0f}",
            f"{(f['kib'] - f['empty_kib']) * 1024 / m['instances']:,.0f}",
        )


def watch_rows(figures):
    yield ("watchers", "server", "p50 ms", "p99 ms", "bytes a change")
    w = figures["watch"]
    for name, f in w["servers"].items():
        own = name == "registryd"
        p50, p99 = (f[key]["median"] / 1000 for key in ("p50_us", "p99_us"))
        yield (
            f"{w['watchers']:,}" if own else "", name,
            goal(f"{p50:.1f}", "10", p50 <= 10) if own else f"{p50:.1f}",
            goal(f"{p99:.1f}", "30", p99 <= 30) if own else f"{p99:.1f}",
            range_of(f["event_bytes"]),
        )


def sections(figures):
    leases, cut = figures["leases"], figures["cutover"]
    p99 = cut["p99_us"] / 1000
    versions = [f"- etcd {figures['etcd']}", ""] if figures.get("etcd") else []
    return [
        ("Registrations and renewals", NOTES, list(rate_rows(figures)), *versions),
        ("Memory", "Resident, after the registrations.\n", list(memory_rows(figures))),
        ("Leases", "Renewed each third of 30 s, for longer than a lease lasts.\n", [
            ("instances", "renewals/s", "of one core", "expired", "resident MB"),
            (f"{leases['instances']:,}", f"{leases['a_second']:,}", f"{leases['cpu_share']:.1%}",
             f"{leases['expired']:.0f}",
             f"{leases['rss_kib'] * 1024 / 1e6:.0f}"),
        ]),
        ("Watchers", WATCH_NOTES, list(watch_rows(figures))),
        ("From the registry to the gateway", CUTOVER_NOTES, [
            ("watchers", "cuts", "requests/s", "p50 ms", "p99 ms"),
            (f"{cut['watchers']:,}", str(cut["rounds"]), f"{cut['requests_per_s']:,.0f}",
             f"{cut['p50_us'] / 1000:.1f}", goal(f"{p99:.1f}", "30", p99 <= 30)),
        ]),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    exit_on_signals()
    figures = measure(parser.parse_args())
    for title, _, rows, *_ in sections(figures):
        print(f"\n{title}\n")
        for row in rows:
            print("  ".join(row))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

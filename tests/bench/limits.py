#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Rate limits: two domains on one host, a limit shared by three gateways, and a million keys.

usage: limits.py [--quick] [--rounds N] [--json FILE]

domains: drivers send a location every 250 ms to their gateway, alone and while riders flood theirs
at ten times their limit; both processes share one core, load and service have another.
shared: three gateways on one real Redis are asked for ten times a limit; how much passes.
keys: a table that meets two million keys, alone and with Redis.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[1:1] = [os.path.join(ROOT, "tests", "e2e")]
sys.dont_write_bytecode = True

import load  # noqa: E402
import tables  # noqa: E402
from identity import Authority  # noqa: E402
from procs import ProcGroup, exit_on_signals, wait_until  # noqa: E402
from targets import Backend, free_ports  # noqa: E402
from tokens import BulkSigner, write_users  # noqa: E402

BUILD = os.environ.get("GATEHOUSE_BUILD", "build")
DRIVERS, DRIVER_RATE = 400, 1600  # each every 250 ms
RIDERS, RIDER_LIMIT = 500, 2  # a second for each
FLOOD_RATE = 10 * RIDERS * RIDER_LIMIT
KEYS = 1_000_000


class Bench:
    def __init__(self, options, directory, group):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("limits.py: needs two cores")
        self.options, self.directory, self.group = options, directory, group
        self.gateway_prefix = ["taskset", "-c", str(cores[0])]
        self.load_prefix = ["taskset", "-c", str(cores[1])]
        os.sched_setaffinity(0, {cores[1]})
        authority = Authority(os.path.join(directory, "tls"))
        self.certificate, self.key = authority.issue("bench", ["bench.example.com"])
        self.openssl_conf = os.path.join(directory, "openssl.cnf")
        with open(self.openssl_conf, "w", encoding="ascii") as file:
            file.write(load.OPENSSL_CONF)
        self.redis_url = None

    def gateway(self, name, signer, limit, route, tls=True, store=None):
        """A gatewayd of its own: (its port, its admin port)."""
        port, admin = free_ports(2)
        config = {
            "instance": name, "domain": name.rpartition("-")[0], "workers": 1,
            "listeners": [{"bind": f"127.0.0.1:{port}"}],
            "admin": {"bind": f"127.0.0.1:{admin}",
                      "socket": os.path.join(self.directory, f"{name}.sock")},
            "rate_limits": {"limit": limit},
            "routes": [{"name": "api", "match": {"path": "/*"}, "limits": ["limit"], **route}],
            "access_log": {"path": os.path.join(self.directory, f"{name}.log")},
        }
        if tls:
            config["listeners"][0]["tls"] = {
                "certificates": [{"certificate": self.certificate, "key": self.key}]}
        if signer:
            config["auth"] = {"users": {
                "type": "jwt", "issuer": signer.issuer, "audiences": [signer.audience],
                "algorithms": [signer.algorithm], "jwks": {"file": signer.jwks}}}
            config["routes"][0]["auth"] = "users"
        if "service" in route:
            config["services"] = {route["service"]: {
                "endpoints": [{"address": f"127.0.0.1:{p}"} for p in self.backend.pools["user"]]}}
        if store:
            config["rate_limit_store"] = store
        path = os.path.join(self.directory, f"{name}.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        proc = self.group.start(name, [os.path.join(BUILD, "gatewayd"), "-c", path],
                                prefix=self.gateway_prefix)
        wait_until(lambda: self.metrics(admin), "gatewayd ready", 10, proc)
        return port, admin

    @staticmethod
    def metrics(admin):
        done = subprocess.run(["curl", "-sf", f"http://127.0.0.1:{admin}/metrics"],
                              capture_output=True, text=True, check=False)
        return dict(line.rsplit(" ", 1) for line in done.stdout.splitlines() if line[:1] != "#")

    def paced(self, port, seconds, connections, rate, users):
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *self.load_prefix,
             os.path.join(load.PROGRAMS, "paced"), str(port), str(seconds), str(connections),
             str(rate), users, "/api/location"],
            env={**os.environ, "OPENSSL_CONF": self.openssl_conf}, stdout=subprocess.PIPE,
            text=True)

    def redis(self):
        if self.redis_url or not shutil.which("redis-server"):
            return self.redis_url
        port = free_ports(1)[0]
        proc = self.group.start("redis", ["redis-server", "--port", port, "--save", "",
                                          "--dir", self.directory], prefix=self.load_prefix)
        wait_until(lambda: subprocess.run(["redis-cli", "-p", str(port), "ping"], check=False,
                                          capture_output=True).stdout == b"PONG\n",
                   "redis-server ready", 10, proc)
        self.redis_url = f"redis://127.0.0.1:{port}"
        return self.redis_url


def result_of(proc):
    out = proc.communicate()[0]
    if proc.returncode:
        raise SystemExit(f"limits.py: {proc.args[0]}: status {proc.returncode}")
    return json.loads(out.splitlines()[-1])


def measure_domains(bench):
    bench.backend = Backend(bench.group, os.path.join(bench.directory, "backend"),
                            bench.load_prefix)
    ports, users = {}, {}
    for name, count in (("driver", DRIVERS), ("rider", RIDERS)):
        signer = BulkSigner(os.path.join(bench.directory, name), name, "HS256",
                            f"https://id.example.com/{name}", name)
        users[name] = write_users(os.path.join(bench.directory, f"{name}.users"), signer, count,
                                  count)
        limit = {"key": "user", "limit": RIDER_LIMIT if name == "rider" else 100, "window_s": 1}
        ports[name], _ = bench.gateway(f"{name}-1", signer, limit, {"service": "user"})
    seconds = 2 if bench.options.quick else 8
    rounds = {"alone": [], "flooded": []}
    riders = []
    for _ in range(bench.options.rounds):
        for kind, found in rounds.items():
            flood = None
            if kind == "flooded":
                flood = bench.paced(ports["rider"], seconds + 1, 100, FLOOD_RATE, users["rider"])
                time.sleep(0.5)
            found.append(result_of(
                bench.paced(ports["driver"], seconds, 100, DRIVER_RATE, users["driver"])))
            if flood:
                riders.append(result_of(flood))
    def middle(kind, member):
        return statistics.median(r[member] for r in rounds[kind])

    return {
        kind: {"p50_us": middle(kind, "p50_us"), "p99_us": middle(kind, "p99_us"),
               "requests": sum(r["requests"] for r in found),
               "errors": sum(r["bad_status"] + r["broken"] for r in found)}
        for kind, found in rounds.items()
    } | {"flood": {
        "requests_s": round(statistics.median(
            r["requests"] / (r["duration_us"] / 1e6) for r in riders)),
        "admitted_s": round(statistics.median(
            (r["requests"] - r["bad_status"]) / (r["duration_us"] / 1e6) for r in riders))}}


def measure_shared(bench):
    """Windows of one second, after the burst is spent."""
    if not bench.redis():
        return None
    found = {}
    seconds = 3 if bench.options.quick else 6
    for limit in (10, 100, 1000):
        gateways = [
            bench.gateway(f"shared{limit}-{i}", None,
                          {"key": "endpoint", "limit": limit, "window_s": 1},
                          {"respond": {"status": 200, "body": "x"}}, tls=False, store={
                              "type": "redis", "url": bench.redis_url, "gateways": 3})
            for i in range(3)]
        for _, admin in gateways:
            wait_until(lambda a=admin: bench.metrics(a).get(
                "gatehouse_gateway_rate_limit_store_up") == "1", "counting in common", 10)
        users = os.path.join(bench.directory, "nobody.users")
        with open(users, "w", encoding="ascii") as file:
            file.write("device-0\n")
        rate = max(10 * limit // 3, 1)
        loads = [subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *bench.load_prefix, sys.executable, __file__,
             "--ask", str(port), str(seconds), str(rate)], stdout=subprocess.PIPE, text=True)
            for port, _ in gateways]
        times = sorted(t for proc in loads for t in json.loads(proc.communicate()[0]))
        begin, windows = times[0] + 1, []
        while begin + 1 <= times[0] + seconds:
            windows.append(sum(begin <= t < begin + 1 for t in times))
            begin += 1
        found[str(limit)] = {"windows": windows,
                        "mean": statistics.mean(windows) / limit - 1,
                        "worst": max(windows) / limit - 1}
        bench.group.stop_all()
        bench.redis_url = None
        bench.redis()
    return found


def ask(port, seconds, rate):
    """The other end of measure_shared: prints when requests were admitted."""
    from client import Connection  # pylint: disable=import-outside-toplevel
    import socket  # pylint: disable=import-outside-toplevel

    admitted, begun = [], time.monotonic()
    with Connection(socket.create_connection(("127.0.0.1", port))) as connection:
        n = 0
        while time.monotonic() < begun + seconds:
            pause = begun + n / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            n += 1
            if connection.request("GET", "/x").status == 200:
                admitted.append(time.monotonic())
    print(json.dumps(admitted))


def measure_keys(bench):
    found = {}
    for name, url in (("local", None), ("redis", bench.redis())):
        if name == "redis" and not url:
            continue
        argv = [*bench.gateway_prefix, os.path.join(load.PROGRAMS, "limit_keys"), str(KEYS)]
        done = subprocess.run(argv + ([url] if url else []), capture_output=True, text=True,
                              check=True)
        found[name] = json.loads(done.stdout)
    return found


def measure(options):
    with tempfile.TemporaryDirectory(prefix="gatehouse-limits-") as directory:
        group = ProcGroup(os.path.join(directory, "logs"))
        try:
            bench = Bench(options, directory, group)
            found = {"keys": measure_keys(bench), "shared": measure_shared(bench)}
            found["domains"] = measure_domains(bench)
            return found
        finally:
            group.stop_all()


DOMAIN_NOTES = f"""\
{DRIVERS} drivers send a location every 250 ms to the gateway of their domain, alone and while {RIDERS} riders ask
theirs for ten times their limit. A gatewayd of one worker each, both on one core, load and service on another;
TLS, HS256 tokens, a limit by user, an access log. A request's latency counts from when it is due.
"""

SHARED_NOTES = """\
Three gatewayd on one core and a real Redis; each second after the first, in which the burst is spent.
"""

KEYS_NOTES = """\
A table of 2^20 places meets two million keys, one after the other as quickly as it can; longest: with
whatever else the machine did at that moment. Beside Redis, keys that come quicker than it can be
told of are counted in the gateway alone.
"""


def sections(found):
    """(title, notes, rows) for tables."""
    domains, flood = found["domains"], found["domains"]["flood"]
    yield ("Two domains", DOMAIN_NOTES, [
        ["drivers", "p50", "p99", "requests", "errors", "riders"],
        *([kind, f"{d['p50_us']:.0f} µs", f"{d['p99_us']:.0f} µs", str(d["requests"]),
           str(d["errors"]), riders]
          for kind, d, riders in (
              ("alone", domains["alone"], "none"),
              ("flooded", domains["flooded"],
               f"{flood['requests_s']} requests/s, {flood['admitted_s']} admitted")))])
    if found["shared"]:
        yield ("A limit shared by three gateways", SHARED_NOTES, [
            ["limit", "asked for", "admitted each second", "mean", "highest"],
            *([f"{limit}/s", "10 ×", ", ".join(map(str, s["windows"])), f"{s['mean']:+.1%}",
               f"{s['worst']:+.1%}"] for limit, s in found["shared"].items())])
    yield ("Two million keys", KEYS_NOTES, [
        ["store", "a check", "p99", "p99.999", "longest", "memory", "grown by", "refused", "not told"],
        *([name, f"{k['mean_ns']} ns", f"{k['p99_ns']} ns", f"{k['p99999_ns'] / 1000:.0f} µs",
           f"{k['max_us']} µs", f"{k['rss_kib']} KiB", f"{k['grown_kib']} KiB",
           str(k["keys"] - k["admitted"]), str(k["not_told"])] for name, k in found["keys"].items())])


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="short: does it work?")
    parser.add_argument("--rounds", type=int, help="of the domains")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (1 if options.quick else 5)
    return options


def main():
    if sys.argv[1:2] == ["--ask"]:
        ask(int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
        return
    options = parse(sys.argv[1:])
    exit_on_signals()
    found = measure(options)
    for title, _, rows in sections(found):
        print(f"\n{title}\n")
        tables.print_table(rows)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()

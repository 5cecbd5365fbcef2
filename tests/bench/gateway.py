#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""CPU time per request of one gateway worker, beside HAProxy, nginx and a bare TLS proxy.

usage: gateway.py [--quick] [--rounds N] [--seconds N] [--only CASE[,CASE…]] [--targets NAME[,NAME…]]
                  [--json FILE] [--list]

All programs run side by side on one core and are loaded one after another, A B C D A B C D; load
generator and service have another core. What is compared is the CPU time that the program's process
used, divided by the requests that were answered. Every target proves first that it does the work.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[1:1] = [os.path.join(ROOT, "tests", "e2e")]
sys.dont_write_bytecode = True

import load  # noqa: E402
from checks import LIMIT, NotEqualWork, check_limit, check_work  # noqa: E402
from identity import Authority  # noqa: E402
from procs import NotReady, ProcGroup, exit_on_signals, wait_until  # noqa: E402
from targets import PREFIXES, TARGETS, Backend, Work  # noqa: E402
from tokens import BulkSigner, write_users  # noqa: E402

ISSUER = "https://id.example.com/bench"
AUDIENCE = "bench-app"
USERS = 1000
# What is measured comes before whatever else the machine does, where we may ask for that. Each program
# has a session of its own, and the kernel weighs sessions (sched(7), autogroups) before processes.
RAISE = 'echo -10 2>/dev/null >/proc/self/autogroup; exec nice -n -10 "$@"'
PRIORITY = ["sh", "-c", RAISE, "sh"] if os.geteuid() == 0 else []
SMALL = tuple(prefix + "profile" for prefix in PREFIXES.values())
LARGE = tuple(prefix + "1m" for prefix in PREFIXES.values())


class Case:
    def __init__(self, name, title, algorithm=None, tokens=USERS, connections=64, paths=SMALL):
        self.name = name
        self.title = title
        self.algorithm = algorithm
        self.tokens = tokens
        self.connections = connections
        self.paths = paths

    def run_load(self, generator, target, seconds, users_file):
        return generator.keep_alive(
            target.port, seconds, self.connections, users_file, self.paths
        )


class ConnectionCase(Case):
    """A new connection for every request."""

    def __init__(self, name, title, is_resumed):
        super().__init__(name, title, connections=32)
        self.is_resumed = is_resumed

    def run_load(self, generator, target, seconds, users_file):
        return generator.connections(
            target.port, seconds, self.connections, self.paths[0], self.is_resumed
        )


CASES = (
    Case("none", "keep-alive, no token"),
    Case("hs256", "keep-alive, HS256", "HS256"),
    Case("rs256", "keep-alive, RS256", "RS256"),
    Case("es256", "keep-alive, ES256", "ES256"),
    Case("rs256-20k", "keep-alive, RS256, 20,000 tokens", "RS256", tokens=20000),
    ConnectionCase("full", "connection per request, no token", False),
    ConnectionCase("resumed", "connection per request, resumed, no token", True),
    Case("1m-down", "1 MB down, no token, 16 connections", connections=16, paths=LARGE),
)


class Bench:
    def __init__(self, options, directory, group):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("gateway.py: needs two cores, one for the program under test")
        self.options = options
        self.directory = directory
        self.group = group
        self.core, other = cores[0], cores[1]
        self.prefix = [*PRIORITY, "taskset", "-c", str(self.core)]
        # Ourselves too: what we do between the rounds must not warm or disturb the worker's core.
        os.sched_setaffinity(0, {other})
        self.authority = Authority(os.path.join(directory, "tls"))
        self.certificate, self.key = self.authority.issue("bench", ["bench.example.com"])
        openssl_conf = os.path.join(directory, "openssl.cnf")
        with open(openssl_conf, "w", encoding="ascii") as file:
            file.write(load.OPENSSL_CONF)
        self.generator = load.Generator([*PRIORITY, "taskset", "-c", str(other)], openssl_conf)
        self.backend = Backend(
            group, os.path.join(directory, "backend"), [*PRIORITY, "taskset", "-c", str(other)]
        )

    def signer(self, name, algorithm):
        if not algorithm:
            return None
        return BulkSigner(
            os.path.join(self.directory, "keys"), name, algorithm, ISSUER, AUDIENCE
        )

    def start(self, kind, signer, **limits):
        work = Work(self.certificate, self.key, self.backend.pools, signer, **limits)
        return kind(self.group, self.directory, self.prefix, work)

    def prove_limits(self, kind, signer):
        for limit in ("ip_limit", "key_limit"):
            target = self.start(kind, signer, **{limit: LIMIT})
            try:
                check_limit(target, self.authority, signer, limit == "ip_limit")
            finally:
                target.stop()

    def run(self, case):
        signer = self.signer(case.name, case.algorithm)
        stranger = self.signer("stranger", case.algorithm)
        users_file = write_users(
            os.path.join(self.directory, f"{case.name}.users"), signer, USERS, case.tokens
        )
        kinds = [
            kind
            for kind in TARGETS
            if kind.name in self.options.targets and (kind.does_tokens or not signer)
        ]
        targets = []
        try:
            for kind in kinds:
                if not kind.is_bare:
                    self.prove_limits(kind, signer)
                targets.append(self.start(kind, signer))
                check_work(targets[-1], self.authority, signer, stranger, self.generator.env)
            return self.rounds(case, targets, users_file)
        finally:
            for target in targets:
                target.stop()

    def rounds(self, case, targets, users_file):
        results = {target.name: [] for target in targets}
        for target in targets:
            self.measure(case, target, 1, users_file)  # warms caches and connection pools
        for number in range(self.options.rounds):
            at = number % len(targets)
            for target in targets[at:] + targets[:at]:
                figures = self.measure(case, target, self.options.seconds, users_file)
                results[target.name].append(figures)
        return {
            "title": case.title,
            "algorithm": case.algorithm,
            "connections": case.connections,
            "tokens": case.tokens if case.algorithm else 0,
            "targets": {name: summary(rounds) for name, rounds in results.items()},
            "ratios": ratios(results),
        }

    def measure(self, case, target, seconds, users_file):
        pid = target.proc.pid
        target.mark_log()
        cpu, busy, wall = load.cpu_ns(pid), load.core_busy_ns(self.core), time.monotonic_ns()
        try:
            done = case.run_load(self.generator, target, seconds, users_file)
        except load.LoadFailed as error:
            raise NotEqualWork(f"{target.name}: {error}\n{target.state()}") from None
        wall = time.monotonic_ns() - wall
        busy = load.core_busy_ns(self.core) - busy
        # Lines still to be written belong to these requests: wait for them, and for their cost.
        self.wait_for_log(target, done["requests"])
        cpu = load.cpu_ns(pid) - cpu
        return {
            "cpu_us": cpu / 1000 / done["requests"],
            "rps": done["requests"] * 1e6 / done["duration_us"],
            "p50_us": done["p50_us"],
            "p99_us": done["p99_us"],
            "requests": done["requests"],
            "worker_busy": cpu / wall,
            "others_on_core": max(0.0, (busy - cpu) / wall),
            "rss_kib": load.rss_kib(pid),
        }

    def wait_for_log(self, target, requests):
        if target.is_bare:
            return
        try:
            wait_until(lambda: target.log_lines() >= requests, "log lines", timeout_s=5)
        except NotReady:
            raise NotEqualWork(
                f"{target.name}: {target.log_lines()} log lines for {requests} requests"
            ) from None


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(rounds):
    columns = ("cpu_us", "rps", "p50_us", "p99_us", "worker_busy", "others_on_core", "rss_kib")
    return {
        **{column: spread([figures[column] for figures in rounds]) for column in columns},
        "requests": sum(figures["requests"] for figures in rounds),
        "rounds_cpu_us": [round(figures["cpu_us"], 3) for figures in rounds],
    }


def ratios(results):
    """gatewayd's CPU time as a multiple of each peer's, round by round."""
    own = results.get("gatewayd")
    if not own:
        return {}
    return {
        name: spread([a["cpu_us"] / b["cpu_us"] for a, b in zip(own, peer)])
        for name, peer in results.items()
        if name != "gatewayd"
    }


def table(document):
    """Rows of text: a line per case and target."""
    rows = [("case", "target", "CPU µs/request", "gatewayd is", "requests/s", "p50 ms", "p99 ms")]
    for case in document["cases"].values():
        title = case["title"]
        for name, figures in case["targets"].items():
            cpu, ratio = figures["cpu_us"], case["ratios"].get(name)
            rows.append(
                (
                    title,
                    name,
                    f"{cpu['median']:.1f} ({cpu['min']:.1f}–{cpu['max']:.1f})",
                    f"{ratio['median']:.2f} × ({ratio['min']:.2f}–{ratio['max']:.2f})"
                    if ratio
                    else "",
                    f"{figures['rps']['median']:,.0f}",
                    f"{figures['p50_us']['median'] / 1000:.2f}",
                    f"{figures['p99_us']['median'] / 1000:.2f}",
                )
            )
            title = ""
    return rows


def print_table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def warnings(document):
    """What makes figures doubtful, a sentence each."""
    shares = [
        figures["others_on_core"]["median"]
        for case in document["cases"].values()
        for figures in case["targets"].values()
    ]
    if max(shares) > 0.1:
        yield (
            f"other programs had up to {max(shares):.0%} of the core under test: times are longer "
            "than on a quiet machine, ratios less exact"
        )


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s: does it work?")
    parser.add_argument("--rounds", type=int, default=5, help="how often each target is loaded")
    parser.add_argument("--seconds", type=int, default=3, help="how long each time")
    parser.add_argument("--only", help="names of cases, with commas; see --list")
    parser.add_argument("--targets", help="names of targets, with commas")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--list", action="store_true", help="print the cases' names")
    options = parser.parse_args(argv)
    known = {case.name: case for case in CASES}
    if options.list:
        for case in CASES:
            print(f"{case.name:12} {case.title}")
        raise SystemExit(0)
    if options.quick:
        options.rounds, options.seconds = 2, 1
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    names = options.only.split(",") if options.only else list(known)
    for name in names:
        if name not in known:
            parser.error(f"--only: no case {name!r}, there are: {', '.join(known)}")
    options.cases = [known[name] for name in names]
    targets = [kind.name for kind in TARGETS]
    options.targets = options.targets.split(",") if options.targets else targets
    for name in options.targets:
        if name not in targets:
            parser.error(f"--targets: no target {name!r}, there are: {', '.join(targets)}")
    return options


def measure_all(options):
    document = {
        "unit": "CPU microseconds per request",
        "rounds": options.rounds,
        "seconds": options.seconds,
        "versions": {kind.name: kind.version() for kind in TARGETS if kind.name in options.targets},
        "cases": {},
    }
    with tempfile.TemporaryDirectory(prefix="gatehouse-bench-") as directory:
        group = ProcGroup(os.path.join(directory, "logs"))
        try:
            bench = Bench(options, directory, group)
            for case in options.cases:
                print(f"gateway: {case.title} …", file=sys.stderr, flush=True)
                document["cases"][case.name] = bench.run(case)
        except (NotEqualWork, NotReady) as error:
            raise SystemExit(f"gateway.py: {error}") from None
        finally:
            group.stop_all()
    return document


def main():
    options = parse(sys.argv[1:])
    exit_on_signals()
    document = measure_all(options)
    print_table(table(document))
    for line in warnings(document):
        print(f"doubtful: {line}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2, ensure_ascii=False)
            file.write("\n")


if __name__ == "__main__":
    main()

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
import tables  # noqa: E402
from cases import CASES, USERS  # noqa: E402
from checks import LIMIT, NotEqualWork, check_limit, check_work  # noqa: E402
from identity import Authority  # noqa: E402
from procs import NotReady, ProcGroup, exit_on_signals, wait_until  # noqa: E402
from targets import TARGETS, Backend, Work  # noqa: E402
from tokens import BulkSigner, write_users  # noqa: E402

ISSUER = "https://id.example.com/bench"
AUDIENCE = "bench-app"
# What is measured comes before whatever else the machine does, where we may ask for that. Each program
# has a session of its own, and the kernel weighs sessions (sched(7), autogroups) before processes.
RAISE = 'echo -10 2>/dev/null >/proc/self/autogroup; exec nice -n -10 "$@"'
PRIORITY = ["sh", "-c", RAISE, "sh"] if os.geteuid() == 0 else []


class Bench:
    def __init__(self, options, directory, group):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("gateway.py: needs two cores, one for the program under test")
        self.options = options
        self.directory = directory
        self.group = group
        self.core, other = cores[0], cores[1]
        self.proven = set()
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

    def start(self, kind, signer, label=None, **orders):
        if "token" in orders.get("without", ()):
            signer = None
        work = Work(self.certificate, self.key, self.backend.pools, signer, **orders)
        return kind(self.group, self.directory, self.prefix, work, label)

    def prove_limits(self, kind, signer, algorithm):
        """Once for each way to name the key; a program's configuration is otherwise the same."""
        if (kind, algorithm) in self.proven:
            return
        self.proven.add((kind, algorithm))
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
        wanted = [kind for kind in TARGETS if kind.name in self.options.targets]
        targets = []
        try:
            for label, kind, orders in case.entries(wanted):
                partial = bool(orders.get("without"))
                if not kind.is_bare and not partial:
                    self.prove_limits(kind, signer, case.algorithm)
                targets.append(self.start(kind, signer, label, **orders))
                if not partial:
                    check_work(targets[-1], self.authority, signer, stranger, self.generator.env)
            if case.section == "memory":
                return self.fill(case, targets)
            return self.rounds(case, targets, users_file)
        finally:
            for target in targets:
                target.stop()

    def fill(self, case, targets):
        """Memory per silent connection. Programs grow in steps: many are needed, one round is enough."""
        count = case.silent // 10 if self.options.quick else case.silent
        figures = {}
        for target in targets:
            before = load.private_kib(target.proc.pid)
            try:
                holder = self.generator.hold(target.port, count, case.paths[0])
            except load.LoadFailed as error:
                raise NotEqualWork(f"{target.label}: {error}\n{target.state()}") from None
            try:
                time.sleep(1)  # what is let go of when idle has been
                after = load.private_kib(target.proc.pid)
            finally:
                holder.stdin.close()
                held = int(holder.stdout.readline() or 0)
                holder.wait()
            if held != count:
                raise NotEqualWork(f"{target.label}: closed {count - held} of {count} connections")
            figures[target.label] = {
                "bytes": (after - before) * 1024 / count,
                "before_kib": before,
                "after_kib": after,
            }
        return {
            "section": case.section,
            "title": case.title,
            "connections": count,
            "goal": case.goal,
            "targets": figures,
        }

    def rounds(self, case, targets, users_file):
        results = {target.label: [] for target in targets}
        # Warms caches and connection pools.
        warm = [self.measure(case, target, 1, users_file) for target in targets]
        if case.section == "latency":
            case.calibrate(
                figures["rps"] for figures, target in zip(warm, targets) if not target.is_bare
            )
        for number in range(self.options.rounds):
            at = number % len(targets)
            for target in targets[at:] + targets[:at]:
                figures = self.measure(case, target, self.options.seconds, users_file)
                results[target.label].append(figures)
        signature_us = None
        if case.section == "first":
            signature_us = load.signature_us(self.prefix, case.speed_name)
        return {
            "section": case.section,
            "title": case.title,
            "algorithm": case.algorithm,
            "connections": case.connections,
            "tokens": case.tokens if case.algorithm else 0,
            "goal": case.goal,
            "floor_goal": case.floor_goal,
            "rate": getattr(case, "rate", None),
            "signature_us": signature_us,
            "targets": {name: summary(rounds) for name, rounds in results.items()},
            "ratios": ratios(results, "cpu_us"),
            "p50_ratios": ratios(results, "p50_us"),
            "p99_ratios": ratios(results, "p99_us"),
        }

    def measure(self, case, target, seconds, users_file):
        pid = target.proc.pid
        target.mark_log()
        user = load.user_ns(pid)
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
            "user_us": (load.user_ns(pid) - user) / 1000 / done["requests"],
            "rps": done["requests"] * 1e6 / done["duration_us"],
            "p50_us": done["p50_us"],
            "p99_us": done["p99_us"],
            "requests": done["requests"],
            "worker_busy": cpu / wall,
            "others_on_core": max(0.0, (busy - cpu) / wall),
            "rss_kib": load.rss_kib(pid),
        }

    def wait_for_log(self, target, requests):
        if target.is_bare or "log" in target.work.without:
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
    columns = [column for column in rounds[0] if column != "requests"]
    return {
        **{column: spread([figures[column] for figures in rounds]) for column in columns},
        "requests": sum(figures["requests"] for figures in rounds),
        "rounds_cpu_us": [round(figures["cpu_us"], 3) for figures in rounds],
    }


def ratios(results, column):
    """gatewayd's figure as a multiple of each peer's, round by round."""
    own = results.get("gatewayd")
    if not own:
        return {}
    return {
        name: spread([a[column] / b[column] for a, b in zip(own, peer)])
        for name, peer in results.items()
        if name != "gatewayd"
    }


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
    for title, _, rows in tables.sections(document):
        print(f"\n{title}\n")
        tables.print_table(rows)
    for line in tables.warnings(document):
        print(f"doubtful: {line}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2, ensure_ascii=False)
            file.write("\n")


if __name__ == "__main__":
    main()

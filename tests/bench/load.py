# SPDX-License-Identifier: Apache-2.0
"""Load on one target for a while, and what it cost the target's process."""

import glob
import json
import os
import subprocess

PROGRAMS = os.path.join(os.environ.get("GATEHOUSE_BUILD", "build"), "tests/bench")
HERE = os.path.dirname(os.path.abspath(__file__))
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

# Every client of the benchmark offers exactly this, so that all targets end up with one suite and
# one curve, whatever they would have preferred.
OPENSSL_CONF = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = P-256
"""


class LoadFailed(Exception):
    """The generator did not run, or saw answers that make its figures worthless."""


def cpu_ns(pid):
    """User and system time of all threads of the process."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            with open(path, encoding="ascii") as file:
                total += int(file.read().split()[0])
        except OSError:
            continue  # the thread ended
    if total:
        return total
    # Kernels without CONFIG_SCHED_INFO: the same sum in clock ticks.
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 10**9 // TICKS_PER_S


def signature_us(prefix, name):
    """What OpenSSL takes to check one signature: the best of three, nothing else is in it."""
    best = 0.0
    for _ in range(3):
        done = subprocess.run(
            [*prefix, "openssl", "speed", "-seconds", "1", "-mr", name],
            capture_output=True,
            text=True,
            check=True,
        )
        # "+F2:…" and "+F4:…": index, bits, signatures per second, checks per second
        found = [line for line in done.stdout.splitlines() if line.startswith(("+F2:", "+F4:"))]
        took = 1e6 / float(found[-1].split(":")[4])
        best = min(best, took) if best else took
    return best


def user_ns(pid):
    """User time alone, of all threads."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[11]) * 10**9 // TICKS_PER_S


def core_busy_ns(core):
    """What everybody together used of the core, stolen time included."""
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"cpu{core} "):
                user, nice, system, _idle, _wait, irq, softirq, steal = map(
                    int, line.split()[1:9]
                )
                busy = user + nice + system + irq + softirq + steal
                return busy * 10**9 // TICKS_PER_S
    raise LoadFailed(f"/proc/stat knows no core {core}")


def private_kib(pid):
    """Memory of the process alone, whatever the kernel keeps for its sockets left out."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_"))


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


class Generator:
    """Where load comes from: `prefix` puts its programs on a core of their own."""

    def __init__(self, prefix, openssl_conf):
        self.prefix = ["setpriv", "--pdeathsig", "KILL", *prefix]
        self.env = {**os.environ, "OPENSSL_CONF": openssl_conf}

    def _run(self, argv, seconds):
        argv = [str(word) for word in argv]
        done = subprocess.run(
            self.prefix + argv,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            start_new_session=True,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"requests"')]
        if done.returncode != 0 or not lines:
            raise LoadFailed(f"{argv[0]}: status {done.returncode}: {done.stdout}{done.stderr}")
        result = json.loads(lines[-1])
        for kind in ("bad_status", "broken", "timeouts"):
            if result[kind]:
                raise LoadFailed(f"{argv[0]}: {result[kind]} of {result['requests']} {kind}")
        if not result["requests"]:
            raise LoadFailed(f"{argv[0]}: no request was answered in {seconds} s")
        return result

    def keep_alive(self, port, seconds, connections, users_file, paths, body_bytes=0):
        return self._run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"]
            + ["-s", os.path.join(HERE, "request.lua"), f"https://127.0.0.1:{port}/"]
            + ["--", body_bytes, users_file, *paths],
            seconds,
        )

    def streams(self, port, seconds, connections, streams, users_file, paths):
        """HTTP/2."""
        program = os.path.join(PROGRAMS, "streams")
        argv = [program, port, seconds, connections, streams, users_file, *paths]
        return self._run(argv, seconds)

    def paced(self, port, seconds, connections, rate, users_file, paths):
        """So many requests per second, whatever the answers do. It looks at the clock before the
        service, with which it shares a core, gets on; or it would measure how long that works."""
        first = ["chrt", "-f", "1"] if os.geteuid() == 0 else []
        program = os.path.join(PROGRAMS, "paced")
        argv = [*first, program, port, seconds, connections, rate, users_file, *paths]
        return self._run(argv, seconds)

    def hold(self, port, connections, path):
        """Opens silent connections; returns the process that holds them until its stdin closes."""
        proc = subprocess.Popen(
            [*self.prefix, os.path.join(PROGRAMS, "idle"), str(port), str(connections), path],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if proc.stdout.readline() != "open\n":
            proc.kill()
            raise LoadFailed(f"idle: {connections} connections could not be opened")
        return proc

    def connections(self, port, seconds, connections, path, is_resumed):
        """A connection per request."""
        kind = "resumed" if is_resumed else "full"
        program = os.path.join(PROGRAMS, "handshakes")
        result = self._run([program, port, seconds, connections, kind, path], seconds)
        share = result["resumed"] / result["requests"]
        if not is_resumed and share:
            raise LoadFailed(f"{share:.0%} of the handshakes were resumed, wanted whole ones")
        # The first of each connection has no ticket yet.
        if is_resumed and result["resumed"] + connections < result["requests"]:
            raise LoadFailed(f"only {share:.1%} of the handshakes were resumed")
        return result

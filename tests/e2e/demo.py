#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The demo: one machine plays client, NLB, gateways, registry and services; real HTTPS goes through.

  demo.py          bring it up, show and check each step, take it down
  demo.py --lab    bring it up and leave it running to play with
  demo.py --down   take that down

Every step asserts what it says. Standard library only; `make demo` runs it as root.
"""

import argparse
import json
import os
import shlex
import signal
import sys
import threading
import time
import traceback

import lab as lab_module
from chain import (
    CLIENTS,
    GATEWAYS,
    HOST_NAMES,
    SERVICES,
    VIPS,
    Chain,
    bearer,
)
from procs import NotReady, exit_on_signals, wait_until

LAB_ID = "ghlab"
PROFILE = "/api/v2/user/profile"
CONNECTIONS = 120


class Failed(Exception):
    """A step did not show what it claims."""


class Screen:
    def __init__(self):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
        self.colour = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.step_number = 0

    def paint(self, code, text):
        return f"\033[{code}m{text}\033[0m" if self.colour else text

    def title(self, text):
        print(self.paint("1", text))

    def step(self, text):
        self.step_number += 1
        print("\n" + self.paint("1;36", f"{self.step_number}. {text}"))

    def command(self, words):
        quoted = [w if w.startswith("#") else shlex.quote(w) for w in words]
        print(self.paint("2", "   $ " + " ".join(quoted)))

    def note(self, text):
        for line in text.splitlines():
            print("     " + line)

    def ok(self, text):
        print("   " + self.paint("32", "✓ ") + text)

    def failed(self, text):
        print("   " + self.paint("1;31", "✗ " + text))


def check(condition, what, seen=""):
    if not condition:
        raise Failed(f"{what}{': ' if seen else ''}{seen}")


class Demo:
    def __init__(self, chain, screen):
        self.chain = chain
        self.screen = screen
        self.noted = []  # (what, request id) whose access-log records are shown at the end
        self.tokens = {
            "rider": chain.token("rider", "98765"),
            "driver": chain.token("driver", "4711"),
        }

    def ask(self, domain, path, token=None, headers=(), show=True):
        headers = (bearer(token) if token else []) + list(headers)
        curl = self.chain.curl[domain]
        if show:
            self.screen.command(brief(curl.command(path, self.with_names(headers))))
        answer = curl.get(path, headers)
        check(answer.status, f"{path} at the {domain} VIP got no answer", answer.body.decode())
        return answer

    def with_names(self, headers):
        """The headers with each token replaced by a word that says whose it is."""
        names = {f"Bearer {token}": f"Bearer {who.upper()}" for who, token in self.tokens.items()}
        return [(name, names.get(value, value)) for name, value in headers]

    def steps(self):
        return [
            self.spread,
            self.refused_without_token,
            self.served_with_token,
            self.versions,
            self.wrong_domain,
            self.over_the_limit,
            self.instance_killed,
            self.gateway_drained,
            self.gateway_killed,
            self.access_log,
        ]

    # --- the steps ----------------------------------------------------------------------------

    def spread(self):
        self.screen.step("Connections spread over the gateways")
        before = self.chain.new_connections()
        curl = self.chain.curl["rider"]
        self.screen.command([*brief(curl.command("/ping")), f"# {CONNECTIONS} connections"])
        answers = curl.get_all(["/ping"] * CONNECTIONS, [("Connection", "close")])
        bad = [a for a in answers if a.status != 200 or a.body != b"pong"]
        check(not bad, f"{len(bad)} of {CONNECTIONS} requests failed", f"{bad[:1]}")
        after = self.chain.new_connections()
        took = {name: after[name] - before[name] for name in after}
        self.screen.note("the NLB's own counters, new connections by gateway:")
        for name in sorted(took):
            self.screen.note(f"  {name}  {took[name]:4}  {'█' * (took[name] // 3)}")
        riders = [took["gw-r1"], took["gw-r2"]]
        check(sum(riders) == CONNECTIONS, "the counters add up to other than was sent", f"{took}")
        # Of 120 fair coin tosses fewer than 24 heads come once in ten billion runs.
        check(min(riders) >= CONNECTIONS // 5, "connections are not spread", f"{took}")
        check(took["gw-d1"] == 0, "riders reached the drivers' gateway", f"{took}")
        self.screen.ok(f"{CONNECTIONS} HTTPS connections to one VIP, both riders' gateways used")

    def refused_without_token(self):
        self.screen.step("A request without a token is refused at the gateway")
        self.chain.forget()
        answer = self.ask("rider", PROFILE)
        check(answer.status == 401, "expected 401", f"{answer}")
        challenge = answer.first("WWW-Authenticate", "")
        check(challenge.startswith("Bearer"), "no WWW-Authenticate: Bearer", f"{answer}")
        problem = answer.json()
        self.screen.note(f"{answer.status}, WWW-Authenticate: {challenge}")
        self.screen.note(answer.body.decode().strip())
        check(problem["status"] == 401, "the problem document disagrees", f"{problem}")
        touched = self.chain.requests_seen()
        check(not touched, "a service was touched", f"{touched}")
        self.noted.append(("without a token", problem["request_id"]))
        self.screen.ok("401 with a reason, and no service saw anything")

    def served_with_token(self):
        self.screen.step("With a valid token it reaches a service, which is told who asks")
        self.chain.forget()
        answer = self.ask("rider", PROFILE, self.tokens["rider"], [("X-User-Id", "1")])
        check(answer.status == 200, "expected 200", f"{answer}")
        saw = answer.json()
        headers = {name.lower(): value for name, value in saw["headers"]}
        self.screen.note(f"{saw['instance']} received {saw['method']} {saw['path']} with")
        for name in ("x-user-id", "x-request-id", "x-forwarded-for"):
            self.screen.note(f"  {name}: {headers.get(name)}")
        users = [value for name, value in saw["headers"] if name.lower() == "x-user-id"]
        check(users == ["98765"], "X-User-Id is not the token's alone", f"{users}")
        check(headers.get("x-request-id"), "no X-Request-Id", f"{headers}")
        check(headers.get("x-forwarded-for") == CLIENTS[0], "X-Forwarded-For", f"{headers}")
        check(saw["path"] == "/user/profile", "the prefix was not rewritten", saw["path"])
        check(len(self.chain.requests_seen()) == 1, "exactly one instance received it")
        hidden = [n for n, _ in answer.headers if n.lower().startswith(("x-internal", "server"))]
        check(not hidden, "the client saw internal headers", f"{hidden}")
        self.noted.append(("with a token", headers["x-request-id"]))
        self.screen.ok("200; a forged X-User-Id was replaced; X-Internal-Server never left")

    def versions(self):
        self.screen.step("Two versions of one API go to two pools")
        for version in ("v1", "v2"):
            answer = self.ask("rider", f"/api/{version}/user/profile", self.tokens["rider"])
            check(answer.status == 200, "expected 200", f"{answer}")
            app = answer.json()["app"]
            check(app == f"user-service-{version}", "the wrong pool answered", app)
            self.screen.ok(f"/api/{version}/user/profile → {app} ({answer.json()['instance']})")

    def wrong_domain(self):
        self.screen.step("A rider's token is worth nothing to the drivers' gateways")
        self.chain.forget()
        answer = self.ask("driver", PROFILE, self.tokens["rider"])
        check(answer.status == 401, "expected 401", f"{answer}")
        check(not self.chain.requests_seen(), "a service was touched")
        self.noted.append(("rider at the driver VIP", answer.json()["request_id"]))
        self.screen.ok("401 at the driver VIP")
        answer = self.ask("driver", PROFILE, self.tokens["driver"])
        check(answer.status == 200, "a driver's token must be taken there", f"{answer}")
        self.screen.ok("200 with a driver's token (other key, other algorithm, same service)")

    def over_the_limit(self):
        self.screen.step("Over the limit (search: 10 a second) there is 429, and when to come back")
        self.chain.forget()
        curl = self.chain.curl["rider"]
        count = 40
        headers = bearer(self.tokens["rider"])
        words = brief(curl.command("/api/search", self.with_names(headers)))
        self.screen.command([*words, f"# {count} times on one connection"])
        began = time.monotonic()
        answers = curl.get_all(["/api/search"] * count, headers)
        took_s = time.monotonic() - began
        served = [a for a in answers if a.status == 200]
        refused = [a for a in answers if a.status == 429]
        self.screen.note(f"{len(served)} × 200, {len(refused)} × 429 in {took_s:.2f} s")
        check(len(served) + len(refused) == count, "something else came back", f"{answers[:1]}")
        check(refused, "no request was refused")
        check(len(served) >= 10, "fewer were served than the limit allows", f"{len(served)}")
        most = 10 + 10 * took_s + 1
        check(len(served) <= most, "more were served than the limit allows", f"{len(served)}")
        check(refused[0].first("Retry-After", "").isdigit(), "no Retry-After", f"{refused[0]}")
        reached = len(self.chain.requests_seen("feed-service"))
        check(reached == len(served), "refused requests reached a service", f"{reached}")
        self.noted.append(("over the limit", refused[0].json()["request_id"]))
        self.screen.ok(f"429 with Retry-After: {refused[0].first('Retry-After')}; "
                       f"the service saw only the {reached} served ones")

    def instance_killed(self):
        self.screen.step("A service instance dies (SIGKILL): nobody notices")
        chain = self.chain
        wait_until(lambda: len(chain.up("user-service-v2")) == 2, "both instances up")
        load = Load(chain, [chain.token("rider", str(user)) for user in range(1000, 1060)])
        with load:
            load.wait_for(25)
            killed_at = time.monotonic()
            chain.procs["user-v2-b"].kill()
            self.screen.note("user-v2-b killed while requests come in all the time")
            wait_until(
                lambda: chain.up("user-service-v2") == ["user-v2-a"],
                "the registry lets the dead instance go",
                chain.lease_s + 5,
            )
            gone_s = time.monotonic() - killed_at
            load.wait_for(len(load.answers) + 30)
        both = {a.json()["instance"] for at, a in load.answers if at < killed_at and a.status == 200}
        check(both == {"user-v2-a", "user-v2-b"}, "both served before", f"{both}")
        after = [a for at, a in load.answers if at >= killed_at]
        failed = [a for _, a in load.answers if a.status != 200]
        self.screen.note(
            f"{len(load.answers)} requests, {len(after)} of them after the kill: "
            f"{len(failed)} failed; out of the registry after {gone_s:.1f} s"
        )
        check(not failed, f"{len(failed)} requests failed", f"{failed[:1]}")
        self.screen.ok("out of rotation at once, out of the registry with its lease, no failure")

    def gateway_drained(self):
        self.screen.step("A gateway is drained with a request under way: nothing is lost")
        chain = self.chain
        riders = [name for name, (domain, _) in GATEWAYS.items() if domain == "rider"]

        def holders():
            return [n for n in riders if chain.admin_get(n, "/status").json()["connections"]]

        wait_until(lambda: not holders(), "former connections have ended")
        answers = []
        path = f"{PROFILE}?fault=delay_ms=2500"
        asking = threading.Thread(
            target=lambda: answers.append(self.ask("rider", path, self.tokens["rider"])), daemon=True
        )
        asking.start()
        wait_until(lambda: len(holders()) == 1, "one gateway has the request")
        (name,) = holders()
        wait_until(
            lambda: any("delay_ms" in r["target"] for r in chain.requests_seen("user-service-v2")),
            "the service has the request",
        )
        proc = chain.procs[name]
        proc.stopped_on_purpose = True
        proc.signal(signal.SIGTERM)
        self.screen.note(f"{name} has a request of 2.5 s under way, and is told to end (SIGTERM)")
        wait_until(lambda: chain.nlb_gateways()[name]["health"] == "down", "its checks fail")
        state = chain.nlb_gateways()[name]["state"]
        check(state == "draining", "the NLB takes it for", state)
        check(not answers, "the request was not under way any more", f"{answers}")
        curl = chain.curl["rider"]
        others = curl.get_all(["/ping"] * 20, [("Connection", "close")])
        check(all(a.status == 200 for a in others), "new connections fail", f"{others[:1]}")
        asking.join(20)
        check(answers and answers[0].status == 200, "the request failed", f"{answers}")
        check(proc.popen.wait(20) == 0, "gatewayd ended badly")
        chain.start_gateway(name)
        chain.wait_gateway_ready(name)
        chain.wait_balanced()
        self.screen.ok(f"200 for it, 20 of 20 for new connections to the other one; {name} is back")

    def gateway_killed(self):
        self.screen.step("A gateway dies (SIGKILL): new connections go to the other within 2 s")
        chain = self.chain
        curl = chain.curl["rider"]
        chain.procs["gw-r2"].kill()
        killed_at = time.monotonic()
        refused = 0
        healthy_since = None
        while time.monotonic() - killed_at < 2.0:
            answer = curl.get("/ping")
            if answer.status == 200:
                healthy_since = healthy_since or time.monotonic() - killed_at
            else:
                refused += 1
                healthy_since = None
        before = chain.new_connections()
        answers = curl.get_all(["/ping"] * 40, [("Connection", "close")])
        failed = [a for a in answers if a.status != 200]
        check(not failed, f"after 2 s {len(failed)} of 40 connections fail", f"{failed[:1]}")
        after = chain.new_connections()
        took = {name: after[name] - before.get(name, 0) for name in after}
        check(took["gw-r1"] == 40, "not all went to the other gateway", f"{took}")
        self.screen.note(
            f"{refused} connections refused while the NLB found out, "
            f"none after {healthy_since or 0:.2f} s"
        )
        self.screen.ok(f"40 of 40 new connections after 2 s, by the NLB's counters: {took}")

    def access_log(self):
        self.screen.step("Each request was recorded")
        wanted = {
            "without a token": {"status": 401},
            "with a token": {
                "status": 200,
                "endpoint": f"GET {PROFILE}",
                "userId": "98765",
                "service": "user-v2",
            },
            "rider at the driver VIP": {"status": 401, "gateway_instance": "gw-d1"},
            "over the limit": {"status": 429, "limited_by": "search"},
        }
        for what, request_id in self.noted:
            record = self.chain.wait_record(request_id)
            keys = ("timestamp", "userId", "endpoint", "latency_ms", "status", "service")
            shown = {key: record.get(key) for key in (*keys, "gateway_instance", "limited_by")}
            self.screen.note(f"{what}:")
            self.screen.note("  " + json.dumps({k: v for k, v in shown.items() if v is not None}))
            for key, value in wanted[what].items():
                check(record.get(key) == value, f"{what}: {key}", f"{record}")
            check(record["gateway_instance"] in GATEWAYS, "gateway_instance", f"{record}")
        self.screen.ok(f"{len(self.noted)} records found by request id")


class Load:
    """Requests one after the other, on and on, until told to stop."""

    def __init__(self, chain, tokens):
        self.chain = chain
        self.tokens = tokens
        self.answers = []  # (when it was sent, answer)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(30)

    def _run(self):
        i = 0
        while not self.stopping.is_set():
            began = time.monotonic()
            answer = self.chain.curl["rider"].get(PROFILE, bearer(self.tokens[i % len(self.tokens)]))
            self.answers.append((began, answer))
            i += 1

    def wait_for(self, count):
        wait_until(lambda: len(self.answers) >= count, f"{count} requests answered", 30)


def brief(words):
    """The command line without what repeats in every one of them."""
    left_out = {"--silent", "--show-error", "--disable", "--http1.1", "--noproxy", "*"}
    valued = {"--connect-timeout", "--max-time", "--resolve"}
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in valued:
            skip = True
        elif word == "--cacert":
            kept += ["--cacert", "ca.crt"]
            skip = True
        elif word not in left_out:
            kept.append(word)
    return kept


def run_demo(build, screen):
    began = time.monotonic()
    screen.title("gatehouse: the whole chain on one machine")
    chain = None
    try:
        chain = Chain(build, tell=lambda text: screen.ok(text))
        screen.note(f"riders {HOST_NAMES['rider']} = {VIPS['rider']}, "
                    f"drivers {HOST_NAMES['driver']} = {VIPS['driver']}")
        for step in Demo(chain, screen).steps():
            step()
    except (Failed, NotReady, lab_module.LabError, OSError) as error:
        screen.failed(str(error))
        show_logs(chain, screen)
        return 1
    except Exception:
        screen.failed(traceback.format_exc())
        show_logs(chain, screen)
        return 1
    finally:
        # A second Ctrl-C must not leave half of it behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if chain:
            problems = chain.close()
    if problems:
        screen.failed(f"programs ended badly: {problems}")
        return 1
    screen.title(f"\nAll steps did what they say, in {time.monotonic() - began:.0f} s. "
                 "Everything is taken down.")
    return 0


def show_logs(chain, screen):
    if chain:
        screen.note("the last lines of every program:")
        screen.note(chain.lab.procs.tails(12))


def run_lab(build, screen):
    if os.path.exists(os.path.join(lab_module.STATE_ROOT, LAB_ID)):
        print("The lab is already up; `make lab-down` takes it down.", file=sys.stderr)
        return 1
    chain = Chain(build, LAB_ID, keep=True, lease_s=10, tell=lambda text: screen.ok(text))
    try:
        helper = write_helper(chain)
        for domain, user in (("rider", "98765"), ("driver", "4711")):
            with open(chain.lab.path(f"{domain}.token"), "w", encoding="ascii") as file:
                file.write(chain.token(domain, user, lifetime_s=30 * 86400))
        chain.lab.leave_running()
    except BaseException:
        chain.close()
        raise
    directory = chain.lab.directory
    screen.title("\nThe lab is up. Things to try:")
    token = f'-H "Authorization: Bearer $(cat {directory}/rider.token)"'
    for words in (
        f"{helper} client curl -i {token} https://{HOST_NAMES['rider']}{PROFILE}",
        f"{helper} nlb nlbctl status",
        f"{helper} nlb nlbctl gateways",
        f"{helper} nlb nlbctl drain rider gw-r2      # and back: {helper} nlb nlbctl undrain rider gw-r2",
        f"{helper} gw-r1 gatewayctl status",
        f"{helper} gw-r2 gatewayctl drain --wait     # ends it; and again: "
        f"{helper} gw-r2 gatewayd -c {directory}/hosts/gw-r2/gateway.json",
        f"{helper} registry curl http://10.0.0.9:8761/v1/apps",
        f"{helper} gw-r1 nlbctl decap status eth0",
        f"{helper} nlb tcpdump -ni eth0",
        f"tail -f {directory}/hosts/gw-r1/rider-access.log",
    ):
        print("  " + words)
    print(f"hosts: {', '.join(sorted(chain.lab.hosts))}")
    print(f"logs: {directory}/logs; configuration: {directory}/hosts; services: "
          f"{', '.join(f'{n} {a}' for n, (_, a) in SERVICES.items())}")
    print("make lab-down takes it down.")
    return 0


def write_helper(chain):
    """A script that runs a command on one of the lab's hosts, set up to find everything."""
    resolve = [f"{HOST_NAMES[d]}:443:{VIPS[d]}" for d in VIPS]
    home = os.path.dirname(chain.lab.path("home", "x"))
    with open(os.path.join(home, ".curlrc"), "w", encoding="ascii") as file:
        file.write(f"cacert = {chain.authority.certificate}\nnoproxy = *\n")
        file.writelines(f'resolve = "{entry}"\n' for entry in resolve)
    nlbctl = chain.lab.path("bin", "nlbctl")
    with open(nlbctl, "w", encoding="ascii") as file:
        # A host's nlbd is reached on that host only, as on machines of their own.
        socket = f"{chain.lab.directory}/hosts/$LAB_HOST/nlb.sock"
        file.write(f'#!/bin/sh\nexec {chain.program("nlbctl")} --socket {socket} "$@"\n')
    os.chmod(nlbctl, 0o755)
    path = chain.lab.path("on")
    with open(path, "w", encoding="ascii") as file:
        file.write(
            "#!/bin/sh\n"
            "# Runs a command on a host of the lab: on HOST COMMAND [ARGUMENT...]\n"
            '[ $# -ge 2 ] || { echo "usage: on HOST COMMAND [ARGUMENT...]" >&2; exit 2; }\n'
            "host=$1\n"
            "shift\n"
            "export LAB_HOST=$host\n"
            f"for socket in {chain.lab.directory}/hosts/$host/*.sock; do\n"
            '\t[ -S "$socket" ] && export GATEHOUSE_GATEWAY="$socket"\ndone\n'
            f"export PATH={os.path.dirname(nlbctl)}:{chain.lab.build}:$PATH CURL_HOME={home}\n"
            f"exec nsenter --net=/run/netns/{chain.lab.id}-$host unshare --mount --propagation "
            'private \\\n\tsh -c \'mount --bind "$0" /sys/fs/bpf && exec "$@"\' '
            f'{chain.lab.directory}/bpf/$host "$@"\n'
        )
    os.chmod(path, 0o755)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--lab", action="store_true", help="leave it running to play with")
    group.add_argument("--down", action="store_true", help="take the running lab down")
    options = parser.parse_args()
    build = os.environ.get("GATEHOUSE_BUILD", "build")
    screen = Screen()
    reason = lab_module.why_not()
    if reason:
        print(f"demo: cannot run here: {reason}", file=sys.stderr)
        return 1
    exit_on_signals()
    if options.down:
        lab_module.take_down(LAB_ID)
        return 0
    return run_lab(build, screen) if options.lab else run_demo(build, screen)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted; everything is taken down", file=sys.stderr)
        sys.exit(130)

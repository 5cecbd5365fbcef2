# SPDX-License-Identifier: Apache-2.0
"""What the gateway benchmark measures: which programs, doing what, under which load."""

import resource

from targets import PREFIXES, STAGES, TARGETS, Floor, Gatewayd, route_prefix

USERS = 1000
SMALL = tuple(prefix + "profile" for prefix in PREFIXES.values())
LARGE = tuple(prefix + "1m" for prefix in PREFIXES.values())
SINK = tuple(prefix + "up" for prefix in PREFIXES.values())
MANY_ROUTES = (1, 100, 10000)


class Case:
    """Keep-alive HTTP/1.1; and what the other cases have in common."""

    section = "cpu"
    is_h2 = False

    def __init__(self, name, title, goal=None, algorithm=None, **load):
        self.name = name
        self.title = title
        self.goal = goal  # at most so much of the best peer's CPU time
        self.floor_goal = None  # ... of the floor's
        self.algorithm = algorithm
        self.tokens = load.get("tokens", USERS)
        self.connections = load.get("connections", 64)
        self.paths = load.get("paths", SMALL)
        self.body_bytes = load.get("body_bytes", 0)
        if load.get("has_floor_goal"):
            self.floor_goal = 1.6

    def entries(self, wanted):
        """(label, program, work) of all that are compared; `wanted` are the programs to take."""
        return [
            (kind.name, kind, {"is_h2": self.is_h2})
            for kind in wanted
            if (kind.does_tokens or not self.algorithm) and not (kind.is_bare and self.is_h2)
        ]

    def run_load(self, generator, target, seconds, users_file):
        return generator.keep_alive(
            target.port, seconds, self.connections, users_file, self.paths, self.body_bytes
        )


class StreamsCase(Case):
    """HTTP/2. The floor, which moves bytes, has no service that would understand it."""

    is_h2 = True
    streams = 32

    def __init__(self, name, title, goal, algorithm=None):
        super().__init__(name, title, goal, algorithm, connections=16)

    def run_load(self, generator, target, seconds, users_file):
        return generator.streams(
            target.port, seconds, self.connections, self.streams, users_file, self.paths
        )


class ConnectionCase(Case):
    """A new connection for every request."""

    def __init__(self, name, title, goal, is_resumed):
        super().__init__(name, title, goal, connections=32)
        self.is_resumed = is_resumed

    def run_load(self, generator, target, seconds, users_file):
        return generator.connections(
            target.port, seconds, self.connections, self.paths[0], self.is_resumed
        )


class PacedCase(Case):
    """The same number of requests per second for all: half of what the slowest can do."""

    section = "latency"
    rate = None

    def calibrate(self, throughputs):
        self.rate = max(100, int(min(throughputs) / 2))

    def run_load(self, generator, target, seconds, users_file):
        if self.rate is None:
            return super().run_load(generator, target, seconds, users_file)
        return generator.paced(
            target.port, seconds, self.connections, self.rate, users_file, self.paths
        )


class RoutesCase(Case):
    """The same load over more and more routes."""

    section = "routes"

    def __init__(self, name, title, count):
        paths = [route_prefix(i) + "profile" for i in range(0, count, max(1, count // USERS))]
        super().__init__(name, title, paths=paths)
        self.count = count

    def entries(self, wanted):
        return [
            (kind.name, kind, {"routes": self.count}) for kind in wanted if not kind.is_bare
        ]


class StagesCase(Case):
    """gatewayd alone, with more and more of its work."""

    section = "stages"

    def entries(self, wanted):
        if Gatewayd not in wanted:
            return []
        entries = [("floor", Floor, {})] if Floor in wanted else []
        entries.append(("proxy alone", Gatewayd, {"without": STAGES}))
        for i, stage in enumerate(STAGES):
            entries.append((f"with {stage}", Gatewayd, {"without": STAGES[i + 1 :]}))
        return entries


class FirstSeenCase(Case):
    """Tokens that gatewayd never remembers, beside the same ones remembered."""

    section = "first"

    def __init__(self, name, title, algorithm, speed_name):
        super().__init__(name, title, 6, algorithm, tokens=20000)
        self.speed_name = speed_name  # of the bare check in `openssl speed`

    def entries(self, wanted):
        if Gatewayd not in wanted:
            return []
        # The fewest that can be remembered are forgotten before they come round again.
        return [("remembered", Gatewayd, {}), ("first seen", Gatewayd, {"token_cache": 64})]


class IdleCase(Case):
    """Silent connections: memory, not time."""

    section = "memory"
    # The floor and HAProxy want two descriptors for each.
    silent = min(10000, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1000) // 2)


CASES = (
    Case("none", "keep-alive, no token", 0.8, has_floor_goal=True),
    Case("hs256", "keep-alive, HS256", 0.65, "HS256", has_floor_goal=True),
    Case("rs256", "keep-alive, RS256", 0.45, "RS256", has_floor_goal=True),
    Case("es256", "keep-alive, ES256", 0.3, "ES256", has_floor_goal=True),
    Case("rs256-20k", "keep-alive, RS256, 20,000 tokens", None, "RS256", tokens=20000),
    StreamsCase("h2", "HTTP/2, 16 × 32 streams, no token", 0.8),
    StreamsCase("h2-rs256", "HTTP/2, 16 × 32 streams, RS256", 0.5, "RS256"),
    ConnectionCase("full", "connection per request, no token", 0.95, False),
    ConnectionCase("resumed", "connection per request, resumed, no token", 0.95, True),
    Case("1m-down", "1 MB down, no token, 16 connections", 1.0, connections=16, paths=LARGE),
    Case(
        "1m-up",
        "1 MB up, no token, 16 connections",
        1.0,
        connections=16,
        paths=SINK,
        tokens=8,
        body_bytes=1 << 20,
    ),
    PacedCase("latency", "latency at half load, no token", 1.0),
    IdleCase("idle", "silent TLS connections", 0.95),
    *(RoutesCase(f"routes-{n}", f"{n:,} route{'s' * (n > 1)}", n) for n in MANY_ROUTES),
    FirstSeenCase("rs256-first", "RS256", "RS256", "rsa2048"),
    FirstSeenCase("es256-first", "ES256", "ES256", "ecdsap256"),
    StagesCase("stages", "stages of gatewayd, RS256", None, "RS256"),
)
assert {kind.name for kind in TARGETS} >= {"gatewayd", "floor"}

# SPDX-License-Identifier: Apache-2.0
"""The gateway benchmark's figures as tables, with what a reader must know about them."""

NOTES = """\
One worker thread on one core; load generator (wrk and programs of tests/bench) and service (nginx) on
another. CPU time is user and system time of the process under test, its log writing included, divided
by the requests it answered. "gatewayd is 0.50 ×" means: half the CPU time of that target, round by
round; a goal stands beside the peer that comes closest, and beside the floor where there is one.

Everybody does the same work and proves it before being measured: TLS 1.3 (P-256,
TLS_AES_128_GCM_SHA256), token verified with issuer, audience and expiry, `X-User-Id` from the token
(a client's own is removed), `X-Request-Id` new, `X-Forwarded-*` rewritten, two limits counted (address
and user; address and device where there is no token), route by path prefix to pools of two, each
choosing between two at random, internal response headers removed, a JSON line per request in a file,
keep-alive HTTP/1.1 to the service. gatewayd also writes `traceparent` and the `RateLimit` fields.
`floor` is a TLS proxy that moves bytes and does nothing else; stock nginx verifies no tokens and is
left out where there are some. Tokens are of 1,000 users and are sent again and again, one after the
other, as clients do; gatewayd remembers those it has verified, its peers verify each time.

With two cores load generator and service reach their limit before gatewayd does: requests per
second say how much load there was, not how much would be possible.
"""

LATENCY_NOTES = """\
So many requests per second for everybody, half of what the slowest could do, over 64 connections with
HTTP/1.1, no token. A request is due when its time has come, answered or not what went before, and its
latency counts from then.
"""

MEMORY_NOTES = """\
Private memory of the process, without what the kernel holds for sockets: its growth divided by the
connections, each of which sent one request and then nothing.
"""

ROUTES_NOTES = """\
The same load spread over all routes, each a path prefix; HAProxy has them in a map.
"""

FIRST_NOTES = """\
20,000 tokens in turn, which gatewayd remembers, or which are always new to it (it has room for 64);
beside what `openssl speed` takes for one signature check on the same core. User time alone: the slower
the gateway, the more often the other core is idle, and the kernel's time to wake it is not the token's.
"""

STAGES_NOTES = """\
gatewayd with RS256 tokens of 1,000 users in the requests: a proxy that forwards, names the request and
sets X-Forwarded-*, and then one stage more in each row.
"""


def times(spread, goal=None):
    text = f"{spread['median']:.2f} × ({spread['min']:.2f}–{spread['max']:.2f})"
    if goal is None:
        return text
    return f"{text}, goal {goal:g}: {'met' if spread['median'] <= goal else 'missed'}"


def closest(ratios):
    """The peer that gatewayd has to beat."""
    peers = {name: ratio["median"] for name, ratio in ratios.items() if name != "floor"}
    return max(peers, key=peers.get) if peers else None


def with_goal(case, ratios, name):
    if name not in ratios:
        return ""
    if name == "floor":
        return times(ratios[name], case.get("floor_goal"))
    return times(ratios[name], case.get("goal") if name == closest(ratios) else None)


def micro(spread):
    return f"{spread['median']:.1f} ({spread['min']:.1f}–{spread['max']:.1f})"


def cpu_rows(cases):
    yield ("case", "target", "CPU µs/request", "gatewayd is", "requests/s", "p50 ms", "p99 ms")
    for case in cases:
        title = case["title"]
        for name, figures in case["targets"].items():
            yield (
                title,
                name,
                micro(figures["cpu_us"]),
                with_goal(case, case["ratios"], name),
                f"{figures['rps']['median']:,.0f}",
                f"{figures['p50_us']['median'] / 1000:.2f}",
                f"{figures['p99_us']['median'] / 1000:.2f}",
            )
            title = ""


def latency_rows(cases):
    yield ("requests/s", "target", "p50 ms", "p99 ms", "gatewayd's p50 is", "p99 is", "CPU µs")
    for case in cases:
        rate = f"{case['rate']:,}"
        for name, figures in case["targets"].items():
            p50 = case["p50_ratios"].get(name)
            yield (
                rate,
                name,
                f"{figures['p50_us']['median'] / 1000:.3f}",
                f"{figures['p99_us']['median'] / 1000:.3f}",
                times(p50) if p50 else "",
                with_goal(case, case["p99_ratios"], name),
                micro(figures["cpu_us"]),
            )
            rate = ""


def memory_rows(cases):
    yield ("connections", "target", "bytes each", "gatewayd is", "without any", "with all")
    for case in cases:
        count = f"{case['connections']:,}"
        own = case["targets"].get("gatewayd")
        ratios = {}
        for name, figures in case["targets"].items():
            if own and name != "gatewayd":
                ratio = own["bytes"] / figures["bytes"]
                ratios[name] = {"median": ratio, "min": ratio, "max": ratio}
        for name, figures in case["targets"].items():
            yield (
                count,
                name,
                f"{figures['bytes']:,.0f}",
                with_goal(case, ratios, name),
                f"{figures['before_kib'] / 1024:.1f} MiB",
                f"{figures['after_kib'] / 1024:.1f} MiB",
            )
            count = ""


def routes_rows(cases):
    yield ("routes", "target", "CPU µs/request", "gatewayd is", "the same with the fewest routes")
    first = cases[0]["targets"]
    for case in cases:
        title = case["title"]
        for name, figures in case["targets"].items():
            ratio = case["ratios"].get(name)
            base = first.get(name)
            growth = figures["cpu_us"]["median"] / base["cpu_us"]["median"] if base else None
            yield (
                title,
                name,
                micro(figures["cpu_us"]),
                times(ratio) if ratio else "",
                f"{growth:.2f} ×" if growth else "",
            )
            title = ""


def stages_rows(cases):
    yield ("work", "CPU µs/request", "more than the row above", "× floor")
    for case in cases:
        floor = case["targets"].get("floor")
        above = None
        for name, figures in case["targets"].items():
            cpu = figures["cpu_us"]["median"]
            yield (
                name,
                micro(figures["cpu_us"]),
                "" if above is None else f"{cpu - above:+.1f}",
                f"{cpu / floor['cpu_us']['median']:.2f}" if floor else "",
            )
            above = cpu


def first_rows(cases):
    yield (
        "algorithm",
        "remembered, user µs",
        "first seen, user µs",
        "difference",
        "signature alone",
        "beyond the signature",
    )
    for case in cases:
        known, new = (case["targets"][name]["user_us"] for name in ("remembered", "first seen"))
        difference = new["median"] - known["median"]
        beyond = difference - case["signature_us"]
        yield (
            case["title"],
            micro(known),
            micro(new),
            f"{difference:.1f}",
            f"{case['signature_us']:.1f}",
            f"{beyond:.1f}, goal {case['goal']}: {'met' if beyond <= case['goal'] else 'missed'}",
        )


SECTIONS = (
    ("cpu", "Gateway: CPU time per request", NOTES, cpu_rows),
    ("latency", "Gateway: latency at half load", LATENCY_NOTES, latency_rows),
    ("memory", "Gateway: memory of silent TLS connections", MEMORY_NOTES, memory_rows),
    ("routes", "Gateway: many routes", ROUTES_NOTES, routes_rows),
    ("first", "Gateway: a token seen for the first time", FIRST_NOTES, first_rows),
    ("stages", "Gateway: what each stage costs", STAGES_NOTES, stages_rows),
)


def sections(document):
    """(title, notes, rows) of each table; the first row is the head."""
    found = []
    for key, title, notes, rows in SECTIONS:
        # Documents of earlier versions had one table.
        cases = [c for c in document["cases"].values() if c.get("section", "cpu") == key]
        if cases:
            found.append((title, notes, list(rows(cases))))
    return found


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
        if "others_on_core" in figures
    ]
    if shares and max(shares) > 0.1:
        yield (
            f"other programs had up to {max(shares):.0%} of the core under test: times are longer "
            "than on a quiet machine, ratios less exact"
        )

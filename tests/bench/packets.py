# SPDX-License-Identifier: Apache-2.0
"""The load balancer's figures: packets, a veth pair, rings, memory. bench.py calls it."""

import json
import os
import subprocess
import sys

BUILD = os.environ.get("GATEHOUSE_BUILD", "build")
PROGRAM = os.path.join(BUILD, "tests", "bench", "nlb")
RINGS = os.path.join(BUILD, "tests", "bench", "rings")

NOTES = """\
One packet through the program by `BPF_PROG_TEST_RUN`, without a network card: nanoseconds per packet, median of the
rounds with the lowest and the highest. `XDP_TX, swapped MACs` and `bare ipip push` are floors: what sending a packet
back costs at least, and what putting a constant header in front costs. The harness that restores the packet after each
run and makes it one of another connection is measured as well and taken off. "× XDP_TX" is with the harness on both
sides, for less than a nanosecond is left of that floor. 64-byte frames (84 with IPv6) of established TCP connections
where nothing else is said; with several connections each packet is of one drawn at random. The flow table has room for
2 M connections per CPU. "SYN": every packet begins another connection and is written to the table.
"""

PEER_NOTES = """\
The last columns are another balancer's object file, given with `--with`, through the same harness in the same rounds, in
turns, with the same VIPs, gateways and connections: {names}. Its connection table has room for 4 M connections per CPU, which is
Katran's default on two cores. "ours ÷ its" is the median of the rounds' own ratios.
"""

VETH_NOTES = """\
The program attached natively to one end of a veth pair; the kernel's live frames are sent in at the other, 64-byte
packets of 64 k connections at random, and what comes back ends there. Generator, forwarding and end share one core.
"""

SCALE_NOTES = """\
What the kernel says the maps take at the limits, {vips} VIPs, {gateways:,} gateways and {connections_per_cpu:,}
connections per CPU ({cpus} CPUs here); and the time from "this gateway is gone" to the new ring in place, for a VIP with
{pool_gateways:,} gateways (building, writing and one map update, as nlbd does it).
"""

RING_NOTES = """\
Rings of 65,537 slots: the largest share of one gateway over the mean, and the slots that change their owner when one of N
gateways is out, is removed or is added, also as multiples of 1/N.
"""

# What is left when one row is taken off another: (what it is, the row, the row that lacks it).
STEPS = (
    ("Ethernet and IPv4 headers, bit of the address, counter", "no VIP (pass)", None),
    ("TCP header, two look-ups of the VIP in vain", "no VIP, but bit of one (pass)", "no VIP (pass)"),
    ("(parsing, look-up of the VIP, hash, counter, but no ring)", "VIP without gateways (drop)", None),
    ("ring slot, gateway, counters of the gateway, new MAC addresses", "l2", "VIP without gateways (drop)"),
    ("moving the head, outer IPv4 header with checksum", "ipip", "l2"),
    ("UDP and GUE headers", "gue", "ipip"),
    ("looking up and naming two second choices", "gue, two second choices", "gue"),
    ("flow table, entry in the cache", "ipip, slot moved: table hit", "ipip"),
    ("64 k connections: the ring is not in the nearest cache", "ipip, 64 k flows", "ipip"),
    ("64 k connections: the flow table is not either", "ipip, 64 k flows, table hits", "ipip, 64 k flows"),
    ("a new connection: finding its place and writing it", "ipip, new connections (SYN)", "ipip, SYN flood, guarded"),
    ("UDP: the flow table is always asked", "ipip, UDP", "ipip"),
    ("looking the source up in a block list of 1,001 networks", "ipip, past a block list", "ipip"),
    ("IPv6 inside and outside in place of IPv4", "IPv6 in IPv6, ipip", "ipip"),
    ("gateway: looking up the packet's socket", "gateway: off with gue, socket looked up", "gateway: off with gue"),
)


def run_json(argv, timeout):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise SystemExit(f"bench.py: {' '.join(argv)} failed with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def in_veth_pair(argv):
    """Runs argv with --veth in a network namespace that has a pair of its own."""
    namespace = f"gatehouse-bench-{os.getpid()}"

    def ip(*words, check=True):
        subprocess.run(["ip", *words], check=check, capture_output=True)

    ip("netns", "add", namespace)
    try:
        ip("-n", namespace, "link", "add", "gen", "type", "veth", "peer", "name", "fwd")
        inside = ["ip", "netns", "exec", namespace]
        ip("-n", namespace, "link", "set", "lo", "up")
        for name in ("gen", "fwd"):
            quiet = [*inside, "sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1"]
            subprocess.run(quiet, check=True, capture_output=True)
            ip("-n", namespace, "link", "set", name, "up")
        return run_json([*inside, *argv, "--veth", "gen,fwd"], 900)
    finally:
        ip("netns", "delete", namespace, check=False)


def measure(options):
    """The document, or None and the reason why there is none."""
    if not os.access(PROGRAM, os.X_OK):
        return None, f"{PROGRAM} is not built"
    if os.geteuid() != 0:
        return None, "needs root to load BPF programs"
    rounds = str(options.rounds or (3 if options.quick else 9))
    argv = [PROGRAM, "--json", "--rounds", rounds]
    argv += [word for spec in options.peers for word in ("--with", spec)]
    print("nlb: packets …", file=sys.stderr, flush=True)
    document = run_json(argv, 1800)
    print("nlb: veth pair …", file=sys.stderr, flush=True)
    document["veth"] = in_veth_pair(argv)
    print("nlb: scale …", file=sys.stderr, flush=True)
    document["scale"] = run_json([PROGRAM, "--scale", "--rounds", rounds], 300)
    document["rings"] = run_json([RINGS, "--json"], 300)
    return document, None


def spread(value, low, high, digits=1):
    return f"{value:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def case_rows(document):
    has_peers = any("peer" in case for case in document["cases"])
    rows = [["case", "ns/packet", "× XDP_TX", "× bare push"]]
    if has_peers:
        rows[0] += ["peer", "its ns/packet", "ours ÷ its"]
    for case in document["cases"]:
        row = [case["name"], spread(case["ns"], case["ns_min"], case["ns_max"])]
        row += [f"{case[key]:.1f}" if key in case else "" for key in ("to_xdp_tx", "to_ipip_push")]
        if "peer" in case:
            peer = spread(case["peer_ns"], case["peer_ns_min"], case["peer_ns_max"])
            goal = f" (goal {case['goal']:.1f})" if "goal" in case else ""
            row += [case["peer"], peer, f"{case['to_peer']:.2f}{goal}"]
        elif has_peers:
            row += ["", "", ""]
        rows.append(row)
    return rows


def step_rows(document):
    ns = {case["name"]: case["ns"] for case in document["cases"]}
    rows = [["step", "ns", "measured as"]]
    for what, row, lacks in STEPS:
        value = ns[row] - (ns[lacks] if lacks else 0)
        rows.append([what, f"{value:.1f}", f"{row} − {lacks}" if lacks else row])
    return rows


def veth_rows(document):
    floor = next(v["mpps"] for v in document["veth"] if v["name"].startswith("XDP_TX"))
    rows = [["program", "million packets/s", "÷ XDP_TX", "lost"]]
    for v in document["veth"]:
        lost = f"{max(v['lost'], 0) * 100:.2f} %"
        rows.append([v["name"], spread(v["mpps"], v["mpps_min"], v["mpps_max"]), f"{v['mpps'] / floor:.2f}", lost])
    return rows


def scale_rows(document):
    s = document["scale"]
    mib = 1 << 20
    total = s["flow_bytes"] + s["ring_bytes"] + s["other_bytes"]
    change = spread(s["pool_change_ms"], s["pool_change_ms_min"], s["pool_change_ms_max"])
    return [
        ["what", "figure"],
        [f"flow table, {s['connections_per_cpu']:,} connections on each of {s['cpus']} CPUs", f"{s['flow_bytes'] / mib:.1f} MiB"],
        [f"{s['vips']} rings", f"{s['ring_bytes'] / mib:.1f} MiB"],
        ["all other maps", f"{s['other_bytes'] / mib:.1f} MiB"],
        ["together", f"{total / mib:.1f} MiB"],
        [f"one of {s['pool_gateways']:,} gateways leaves or comes", f"{change} ms"],
    ]


def ring_rows(document):
    rows = [["gateways", "imbalance", "one is out", "one removed", "one added", "build"]]
    for r in document["rings"]:
        n = r["gateways"]
        cells = [f"{n:,}", f"{r['imbalance'] * 100:.2f} %"]
        for key, share in (("out", n), ("removed", n), ("added", n + 1)):
            times = r[f"{key}_per_share"]
            cells.append(f"{times / share * 100:.3f} % ({times:.2f} × 1/N)")
        rows.append([*cells, f"{r['build_ms']:.1f} ms"])
    return rows


def sections(document):
    """(title, notes, rows) of each table."""
    names = sorted({case["peer"] for case in document["cases"] if "peer" in case})
    notes = NOTES
    if names:
        notes += "\n" + PEER_NOTES.format(names=", ".join(f"`{name}`" for name in names))
    return [
        ("NLB: nanoseconds per packet", notes, case_rows(document)),
        ("NLB: where the nanoseconds go", "Differences of the rows above.\n", step_rows(document)),
        ("NLB: native XDP through a veth pair", VETH_NOTES, veth_rows(document)),
        ("NLB: at the limits", SCALE_NOTES.format(**document["scale"]), scale_rows(document)),
        ("NLB: rings", RING_NOTES, ring_rows(document)),
    ]

# SPDX-License-Identifier: Apache-2.0
"""What nlbd makes of VIPs and gateways of both address families: the maps that packets meet."""

import ipaddress
import json
import os
import socket
import threading

import pytest

import lab as lab_module
from nlb_rig import NLB, VIP, Pinned
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")

VIP6 = "2001:db8:0:10::10"
NLB6 = "fd00::2"
CONFIG_ANY_PORT = 2


def add_ipv6(chain):
    chain.nlb.ip("address", "add", f"{NLB6}/64", "dev", "eth0", "nodad")
    for n, host in enumerate(chain.gateways.values(), 1):
        host.ip("address", "add", f"fd00::1{n}/64", "dev", "eth0", "nodad")


def vip(name, address, port, protocol, encapsulation, gateways):
    return {
        "name": name,
        "address": address,
        "port": port,
        "protocol": protocol,
        "encapsulation": encapsulation,
        "gateways": [{"address": gateway} for gateway in gateways],
    }


def write(chain, vips, **more):
    chain.lab.write_json({**chain.config(), "vips": vips, **more}, "nlb.json")


def test_maps_hold_both_families_and_protocols(make_chain):
    chain = make_chain(gateways=2)
    add_ipv6(chain)
    six, four = ["fd00::11", "fd00::12"], ["10.0.0.11", "10.0.0.12"]
    vips = [
        vip("a", VIP, 443, "tcp", "gue", four),
        vip("b", VIP6, 443, "tcp", "gue", six),
        vip("c", VIP6, 443, "udp", "ipip", four),
        vip("d", VIP, 53, "udp", "ipip", six),
        vip("e", VIP6, 0, "tcp", "l2", six),
    ]
    write(chain, vips, udp_timeout_s=30, icmp_per_cpu_s=0)
    chain.start_nlbd()
    chain.wait_up(10)
    pinned = Pinned(chain)
    v4, v6 = pinned.vips("vips4"), pinned.vips("vips6")
    assert set(v4) == {(VIP, 0, 0), (VIP, 443, 6), (VIP, 53, 17)}
    assert set(v6) == {(VIP6, 0, 0), (VIP6, 443, 6), (VIP6, 443, 17), (VIP6, 0, 6)}
    assert [v4[VIP, 443, 6][1], v6[VIP6, 443, 17][1], v6[VIP6, 0, 6][1]] == [2, 1, 3]
    entries = pinned.gateways()
    assert set(entries) == {*four, *six}
    for name, own, other in zip(chain.gateways, four, six):
        mac = json.loads(chain.gateways[name].run("ip", "-j", "link", "show", "eth0"))[0]["address"]
        for address in (own, other):
            assert entries[address]["mac"] == mac and entries[address]["resolved"]
            assert entries[address]["mtu"] == 1600
    config = pinned.config()
    assert config["source"] == [ipaddress.ip_address(NLB).packed, ipaddress.ip_address(NLB6).packed]
    assert config["udp_timeout"] == 30 * config["hz"] and config["icmp_per_tick"] == 0
    assert config["flags"] & CONFIG_ANY_PORT

    # An nlbd that starts finds its own entries again, of either family.
    ids = {**v4, **v6}
    chain.nlbd.kill()
    chain.start_nlbd()
    chain.wait_up(10)
    assert {**pinned.vips("vips4"), **pinned.vips("vips6")} == ids

    # Less of it again: entries go, and the address itself with the last service on it.
    write(chain, vips[:1], source_address={"ipv4": "10.9.0.0/24", "ipv6": "fd00:9::/112"})
    chain.nlbctl("reload")
    assert pinned.vips("vips6") == {} and set(pinned.vips("vips4")) == {(VIP, 0, 0), (VIP, 443, 6)}
    assert set(pinned.gateways()) == set(four)
    config = pinned.config()
    assert config["source"][0] == bytes([10, 9, 0, 0]) and config["vary"][0] == b"\0\0\0\xff"
    assert config["source"][1] == ipaddress.ip_address("fd00:9::").packed
    assert config["vary"][1] == b"\0\0\xff\xff" and not config["flags"] & CONFIG_ANY_PORT


def test_ipv6_next_hop_is_followed(make_chain):
    chain = make_chain(gateways=1)
    add_ipv6(chain)
    six = vip("b", VIP6, 443, "tcp", "gue", ["fd00::11", "fd00:1::1"])
    write(chain, [six, vip("c", VIP6, 444, "tcp", "gue", ["10.1.0.1"])])
    chain.nlb.ip("route", "add", "unreachable", "10.1.0.1/32")
    chain.start_nlbd()
    chain.wait_up(1)
    states = {row["address"]: row for row in json.loads(chain.nlbctl("gateways"))}
    for address in ("fd00:1::1", "10.1.0.1"):
        assert states[address]["state"] == "unresolved" and "no route" in states[address]["why"]

    host = chain.gateways["gw1"]
    host.ip("link", "set", "eth0", "address", "02:00:00:00:99:01")
    chain.nlb.run("ip", "neigh", "replace", "fd00::11", "lladdr", "02:00:00:00:99:01", "dev",
                  "eth0", "nud", "reachable")
    pinned = Pinned(chain)
    wait_until(lambda: pinned.gateways()["fd00::11"]["mac"] == "02:00:00:00:99:01",
               "the new MAC address", 1.0)

    # An IPv4 gateway over a router that is known by its IPv6 address, with an MTU of its own.
    chain.nlb.ip("route", "replace", "10.1.0.1/32", "via", "inet6", "fd00::11", "dev", "eth0",
                 "mtu", "1400")
    wait_until(lambda: pinned.gateways().get("10.1.0.1", {}).get("mtu") == 1400, "a route", 1.0)
    assert pinned.gateways()["10.1.0.1"]["mac"] == "02:00:00:00:99:01"
    chain.nlb.ip("-6", "route", "add", "fd00:1::/64", "via", "fd00::11")
    wait_until(lambda: "fd00:1::1" in pinned.gateways(), "its route", 1.0)
    assert pinned.gateways()["fd00:1::1"]["mac"] == "02:00:00:00:99:01"


def test_families_that_do_not_fit_are_told(make_chain):
    chain = make_chain(gateways=1)
    chain.nlb.sysctl("net.ipv6.conf.eth0.disable_ipv6", 1)

    def refused(vips, **more):
        write(chain, vips, **more)
        with pytest.raises(lab_module.LabError) as caught:
            chain.nlb.run(os.path.join(chain.lab.build, "nlbd"), "-c", chain.config_path)
        assert chain.nlb.run("ls", "/sys/fs/bpf/gatehouse", check=False) == ""
        return str(caught.value)

    six = [vip("b", VIP6, 443, "tcp", "gue", ["fd00::11"])]
    assert "no IPv6 address, which tunnels to the gateways of vip=b" in refused(six)
    mixed = [vip("b", VIP6, 443, "tcp", "ipip", ["fd00::11", "10.0.0.11"])]
    assert "vips[0].gateways[1].address: is IPv4, while" in refused(mixed)
    chain.nlb.ip("link", "set", "eth0", "mtu", "1300")
    said = refused(six, source_address={"ipv6": "fd00::2"})
    assert "MTU of 1300, too small for the encapsulation of vip=b (88 bytes)" in said
    assert "raise it to 1588, at the very least to 1368" in said

    # Enough for IPv4, whose clients count on less; what it means is said with numbers.
    write(chain, [vip("a", VIP, 443, "tcp", "gue", ["10.0.0.11"])])
    chain.start_nlbd()
    assert "packets over 1256 bytes do not fit the tunnel" in chain.nlbd.log()
    assert "advertise an MSS of 1216" in chain.nlbd.log()


def route_ipv6(chain):
    """Clients and router of IPv6 beside those of IPv4, and the VIP on the gateways."""
    switch, client = chain.lab.switch, chain.client
    switch.sysctl("net.ipv6.conf.all.forwarding", 1)
    switch.ip("address", "add", "fd00::1/64", "dev", "br0", "nodad")
    switch.ip("address", "add", "fd01::1/64", "dev", client.port, "nodad")
    client.ip("address", "add", "fd01::10/64", "dev", "eth0", "nodad")
    client.ip("-6", "route", "add", "default", "via", "fd01::1")
    switch.ip("-6", "route", "add", f"{VIP6}/128", "via", NLB6)
    for host in chain.gateways.values():
        host.ip("address", "add", f"{VIP6}/128", "dev", "lo", "nodad")
        host.ip("-6", "route", "add", "default", "via", "fd00::1")
        nlbctl = chain.program("nlbctl")
        host.run(nlbctl, "decap", "attach", "eth0", "--source", NLB, "--source", NLB6)


class Server:
    """Answers every connection or packet to the IPv6 VIP with the gateway's name and the client."""

    def __init__(self, host, protocol, name):
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with host.inside():
            self.socket = socket.socket(socket.AF_INET6, kind)
        self.socket.settimeout(0.1)  # how soon it notices that it was closed
        self.socket.bind((VIP6, 8443))
        self.name = name
        answer = self.answer_connection if protocol == "tcp" else self.answer_packet
        if protocol == "tcp":
            self.socket.listen(64)
        self.is_open = True
        self.thread = threading.Thread(target=self.run, args=(answer,))
        self.thread.start()

    def run(self, answer):
        while self.is_open:
            try:
                answer()
            except TimeoutError:
                pass
        self.socket.close()

    def answer_connection(self):
        connection, peer = self.socket.accept()
        with connection:
            connection.sendall(f"{self.name} {peer[0]}".encode())

    def answer_packet(self):
        _, peer = self.socket.recvfrom(2048)
        self.socket.sendto(f"{self.name} {peer[0]}".encode(), peer)

    def close(self):
        self.is_open = False
        self.thread.join()


def ask(chain, protocol):
    with chain.client.inside():
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET6, kind) as sock:
            sock.settimeout(2)
            sock.connect((VIP6, 8443))
            if protocol == "udp":
                sock.send(b"who")
            name, peer = sock.recv(2048).decode().split()
            assert peer == "fd01::10", "the gateway sees the client's own address"
            return name


@pytest.mark.parametrize("encapsulation", ["gue", "ipip"])
@pytest.mark.parametrize("family", [4, 6])
def test_ipv6_clients_reach_gateways_of_both_families(make_chain, family, encapsulation):
    chain = make_chain(gateways=2)
    add_ipv6(chain)
    route_ipv6(chain)
    addresses = ["fd00::11", "fd00::12"] if family == 6 else ["10.0.0.11", "10.0.0.12"]
    write(chain, [
        vip("t", VIP6, 8443, "tcp", encapsulation, addresses),
        vip("u", VIP6, 0, "udp", encapsulation, addresses),
    ])
    servers = [
        Server(host, protocol, name)
        for protocol in ("tcp", "udp")
        for name, host in chain.gateways.items()
    ]
    try:
        chain.start_nlbd()
        chain.wait_up(4)
        for protocol in ("tcp", "udp"):
            assert {ask(chain, protocol) for _ in range(20)} == {"gw1", "gw2"}
        assert sum(json.loads(chain.nlbctl("status"))["dropped"].values()) == 0
    finally:
        for server in servers:
            server.close()

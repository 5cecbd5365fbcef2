# SPDX-License-Identifier: Apache-2.0
"""PROXY protocol: the client's address as listed peers tell it, and what nobody may forge."""

import ipaddress
import re
import socket
import struct
import time

import pytest

import client
import rig as rig_module
from conftest import headers_of

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT = "203.0.113.7"
CLIENT6 = "2001:db8::7"


def version1(address):
    family = "TCP6" if ":" in address else "TCP4"
    other = "2001:db8::1" if ":" in address else "192.0.2.1"
    return f"PROXY {family} {address} {other} 4711 443\r\n".encode()


def version2(address, tlvs=b"", command=1):
    ip = ipaddress.ip_address(address)
    other = ipaddress.ip_address("2001:db8::1" if ip.version == 6 else "192.0.2.1")
    block = ip.packed + other.packed + struct.pack(">HH", 4711, 443) + tlvs
    family = 0x21 if ip.version == 6 else 0x11
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack(">H", len(block)) + block


LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
SPOKEN = [
    ("v1", version1(CLIENT), CLIENT),
    ("v1-ipv6", version1(CLIENT6), CLIENT6),
    ("v1-unknown", b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ("v2", version2(CLIENT), CLIENT),
    ("v2-ipv6", version2(CLIENT6), CLIENT6),
    ("v2-tlvs", version2(CLIENT, b"\x02\x00\x07a.b.org\x04\x00\x03abc"), CLIENT),
    ("v2-long-tlv", version2(CLIENT, b"\xe0\x0f\x00" + bytes(0xF00)), CLIENT),
    ("v2-local", LOCAL, "127.0.0.1"),
]


@pytest.fixture
def own_rig(tmp_path, make_rig, procs):
    own = make_rig(tmp_path, procs)
    for listener in own.config["listeners"]:
        listener["proxy_protocol"] = {"from": ["127.0.0.1/32"]}
    own.config["client"] = {"handshake_timeout_ms": 700}
    return own


def counter(rig, name):
    text = rig.admin("GET", "/metrics").body.decode()
    return int(re.search(rf"^{name} (\d+)$", text, re.MULTILINE)[1])


def refused(rig):
    return counter(rig, "gatehouse_gateway_proxy_headers_refused_total")


def open_socket(rig, listener, source=None):
    source = (source, 0) if source else None
    address = ("127.0.0.1", rig.ports[listener])
    return socket.create_connection(address, 10, source_address=source)


def connect(rig, listener, header, pause_s=None):
    """A connection of a proxy: the header first, byte by byte if there is to be a pause."""
    sock = open_socket(rig, listener)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in [header] if pause_s is None else [bytes([byte]) for byte in header]:
        sock.sendall(piece)
        time.sleep(pause_s or 0)
    tls = client.tls_context(rig.authority.certificate) if listener == "tls" else None
    return client.Connection(sock, tls, rig_module.HOST)


@pytest.mark.parametrize("listener", ["plain", "tls"])
@pytest.mark.parametrize("header,address", [s[1:] for s in SPOKEN], ids=[s[0] for s in SPOKEN])
def test_address_is_the_clients_everywhere(own_rig, listener, header, address):
    own_rig.start()
    with connect(own_rig, listener, header) as connection:
        for path in ("/echo/first", "/echo/second"):
            got = headers_of(connection.request("GET", path))
            assert got["x-forwarded-for"] == [address]
    assert own_rig.wait_record(endpoint="GET /echo/second")["client_ip"] == address
    assert refused(own_rig) == 0


@pytest.mark.parametrize("listener", ["plain", "tls"])
@pytest.mark.parametrize("header", [version1(CLIENT), version2(CLIENT)], ids=["v1", "v2"])
def test_header_in_single_bytes(own_rig, listener, header):
    own_rig.start()
    with connect(own_rig, listener, header, pause_s=0.002) as connection:
        assert headers_of(connection.request("GET", "/echo/x"))["x-forwarded-for"] == [CLIENT]


def test_limits_count_the_client(own_rig):
    own_rig.start()
    statuses = {}
    for address in (CLIENT, CLIENT6):
        for _ in range(6):
            with connect(own_rig, "plain", version2(address)) as connection:
                answer = connection.request("GET", "/limit/ip")
                statuses.setdefault(address, []).append(answer.status)
    for address, seen in statuses.items():
        assert seen == [200] * 5 + [429], address


def test_trusted_proxies_are_judged_by_the_told_address(own_rig):
    own_rig.config["trusted_proxies"] = [f"{CLIENT}/32"]
    own_rig.start()
    for address, expected in ((CLIENT, "198.51.100.9"), ("203.0.113.8", "203.0.113.8")):
        with connect(own_rig, "plain", version2(address)) as connection:
            connection.request("GET", f"/echo/{address}", [("X-Forwarded-For", "198.51.100.9")])
        record = own_rig.wait_record(endpoint=f"GET /echo/{address}")
        assert record["client_ip"] == expected


LIES = [
    ("no-header", b"GET /echo/x HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bad-line", b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 99999\r\n"),
    ("endless-line", b"PROXY UNKNOWN " + b"x" * 200),
    ("udp", version2(CLIENT).replace(b"\x21\x11\x00\x0c", b"\x21\x12\x00\x0c", 1)),
    ("short-address", SIGNATURE + b"\x21\x11\x00\x04abcd"),
    ("tlv-beyond-end", version2(CLIENT, b"\x02\xff\xff")),
    ("wrong-checksum", version2(CLIENT, b"\x03\x00\x04abcd")),
    ("too-long", SIGNATURE + b"\x21\x11\xff\xff"),
    ("cut", version2(CLIENT)[:20]),
]


@pytest.mark.parametrize("data", [lie[1] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_lies_are_cut_off(own_rig, services, data):
    own_rig.start()
    for service in services:
        service.forget()
    with client.Connection(open_socket(own_rig, "plain")) as connection:
        if data == LIES[-1][1]:
            connection.send(data)
            connection.sock.shutdown(socket.SHUT_WR)
        else:
            connection.send(data + b"GET /echo/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.is_closed()
    assert refused(own_rig) == 1
    own_rig.proc.wait_log("127.0.0.1 sends no good PROXY header")
    assert not any(service.requests() for service in services)


def test_header_that_does_not_come_ends_in_time(own_rig):
    own_rig.start()
    for listener, data in (("plain", b""), ("tls", version2(CLIENT)[:15])):
        with client.Connection(open_socket(own_rig, listener)) as connection:
            connection.send(data)
            assert connection.is_closed(5)
    assert refused(own_rig) == 2
    own_rig.proc.wait_log("127.0.0.1 sends no PROXY header in time")


def test_check_that_only_connects_is_no_mistake(own_rig):
    own_rig.start()
    open_socket(own_rig, "plain").close()
    with connect(own_rig, "plain", LOCAL) as connection:
        assert connection.request("GET", "/ping").status == 200
    assert refused(own_rig) == 0


def test_others_cannot_speak_it(own_rig):
    """A peer that is not listed is served as what it is, and its header is a malformed request."""
    own_rig.start()
    with client.Connection(open_socket(own_rig, "plain", "127.0.0.2")) as connection:
        got = headers_of(connection.request("GET", "/echo/x"))
        assert got["x-forwarded-for"] == ["127.0.0.2"]
    with client.Connection(open_socket(own_rig, "plain", "127.0.0.2")) as connection:
        connection.send(version1(CLIENT) + b"GET /echo/forged HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.read_response().status in (400, 501)
    assert not any(r["client_ip"] == CLIENT for r in own_rig.records())


def test_second_header_is_a_malformed_request(own_rig):
    own_rig.start()
    with connect(own_rig, "plain", version1(CLIENT)) as connection:
        connection.send(version1(CLIENT6) + b"GET /echo/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.read_response().status in (400, 501)

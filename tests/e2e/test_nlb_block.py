# SPDX-License-Identifier: Apache-2.0
"""The block list of nlbd, over its unix socket."""

import http.client
import json
import socket

import pytest

from nlb_rig import CLIENTS, Blocks
from procs import wait_until

pytestmark = pytest.mark.usefixtures("lab_possible")


def test_block_list_is_kept_and_runs_out(make_chain):
    chain = make_chain(gateways=1)
    chain.start()
    blocks = Blocks(chain)
    assert blocks.list() == {}
    blocks.add("198.51.100.77/24")  # the bits behind the prefix do not count
    blocks.add("2001:db8::1")
    blocks.add("192.0.2.1", for_s=2)
    blocks.add("192.0.2.2", for_s=600)
    rows = blocks.list()
    assert set(rows) == {"198.51.100.0/24", "2001:db8::1", "192.0.2.1", "192.0.2.2"}
    assert rows["2001:db8::1"] == {"cidr": "2001:db8::1", "left_s": None, "dropped": 0}
    assert rows["192.0.2.1"]["left_s"] in (1, 2) and 595 <= rows["192.0.2.2"]["left_s"] <= 600

    # It survives nlbd, killed even, and goes on running out.
    chain.nlbd.kill()
    chain.start_nlbd()
    assert set(blocks.list()) >= {"198.51.100.0/24", "2001:db8::1", "192.0.2.2"}
    wait_until(lambda: "192.0.2.1" not in blocks.list(), "the end of a block", 5.0)
    chain.nlbd.wait_log("blocked=192.0.2.1: its time is over")
    blocks.add("192.0.2.2")
    assert blocks.list()["192.0.2.2"]["left_s"] is None

    for cidr in list(blocks.list()):
        assert blocks.ask("POST", "/unblock", cidr=cidr) == (200, {"changed": True})
    assert blocks.list() == {}


def test_block_list_says_what_is_wrong(make_chain):
    chain = make_chain(gateways=1)
    chain.start()
    blocks = Blocks(chain)
    for query, status, words in (
        ({}, 400, "cidr must be given"),
        ({"cidr": "web"}, 400, '"web" is neither an IP address nor a prefix'),
        ({"cidr": "10.0.0.0/33"}, 400, "neither"),
        ({"cidr": "0.0.0.0/0"}, 400, "would block every source"),
        ({"cidr": "::/0"}, 400, "would block every source"),
        ({"cidr": "10.0.0.1", "for_s": "10m"}, 400, "no number of seconds"),
        ({"cidr": "10.0.0.1", "for_s": "0"}, 400, "no number of seconds"),
        ({"cidr": "10.0.0.1", "for_s": 10**9}, 400, "at most 31622400 seconds"),
    ):
        got, problem = blocks.ask("POST", "/block", **query)
        assert got == status and words in problem["detail"], (query, problem)
    blocks.add("198.51.100.0/24")
    got, problem = blocks.ask("POST", "/unblock", cidr="198.51.100.10")
    assert got == 404 and "198.51.100.0/24, which holds it, is" in problem["detail"]
    got, problem = blocks.ask("POST", "/unblock", cidr="198.51.0.0/16")
    assert got == 404 and "198.51.0.0/16 is not blocked" in problem["detail"]

    # Nobody changes or reads it over the admin port.
    for method, path in (("POST", "/block?cidr=10.0.0.1"), ("GET", "/blocked")):
        answer = chain.nlb.run("curl", "-sS", "-i", "-X", method, f"http://127.0.0.1:9440{path}")
        assert answer.startswith("HTTP/1.1 403")
    metrics = chain.nlb.run("curl", "-sS", "http://127.0.0.1:9440/metrics")
    assert "\ngatehouse_nlb_blocked_sources 1\n" in metrics


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("nlb")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def test_block_list_takes_what_an_attack_brings(make_chain):
    """Twenty thousand in a row: each must cost the same, or checks of gateways would time out."""
    chain = make_chain(gateways=1)
    chain.start()
    control = UnixConnection(chain.lab.path("run", "nlb.sock"))

    def ask(method, path):
        control.request(method, path)
        answer = control.getresponse()
        return answer.status, json.loads(answer.read())

    count = 20000
    for i in range(count):
        cidr = f"192.{i >> 16}.{i >> 8 & 255}.{i & 255}"
        assert ask("POST", f"/block?cidr={cidr}&for_s={3 if i == 7 else 600}")[0] == 200
    assert chain.states()["gw1"]["checks_failed"] == 0
    wait_until(lambda: len(ask("GET", "/blocked")[1]) == count - 1, "the end of one block", 10.0)
    assert len(chain.nlbctl("blocked")) > count * 20
    control.close()

    # The next nlbd knows all of them, among them who holds whom.
    chain.nlbd.kill()
    chain.start_nlbd()
    assert len(ask("GET", "/blocked")[1]) == count - 1
    assert ask("POST", "/unblock?cidr=192.0.0.9") == (200, {"changed": True})
    assert ask("POST", "/unblock?cidr=192.0.0.9")[0] == 404
    assert ask("POST", f"/block?cidr={CLIENTS[0]}")[0] == 200
    assert chain.refuses(CLIENTS[0]) and not chain.refuses(CLIENTS[1])

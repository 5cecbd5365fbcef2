# SPDX-License-Identifier: Apache-2.0
"""Sources that are kept out: block list, allow lists, new connections of one source address."""

import json

import pytest

from nlb_rig import CLIENTS, Blocks

pytestmark = pytest.mark.usefixtures("lab_possible")


def reload(chain, **changes):
    chain.write_config(**changes)
    chain.nlbctl("reload")


def test_blocked_source_gets_no_answer(make_chain):
    chain = make_chain(gateways=2)
    chain.start()
    blocks = Blocks(chain)
    talk = chain.connect(CLIENTS[0])
    blocks.add(CLIENTS[0])
    assert chain.refuses(CLIENTS[0]) and not chain.refuses(CLIENTS[1])
    rows = blocks.list()
    assert rows[CLIENTS[0]]["dropped"] == chain.dropped("blocked") > 0

    # Blocked anew: the count goes on. Unblocked: its connections are as they were.
    blocks.add(CLIENTS[0], for_s=60)
    assert blocks.list()[CLIENTS[0]]["dropped"] >= rows[CLIENTS[0]]["dropped"]
    blocks.add("198.51.100.0/24")
    assert all(chain.refuses(client) for client in CLIENTS[:2])
    assert blocks.ask("POST", "/unblock", cidr="198.51.100.0/24")[0] == 200
    assert chain.refuses(CLIENTS[0]) and not chain.refuses(CLIENTS[1])
    assert blocks.ask("POST", "/unblock", cidr=CLIENTS[0])[0] == 200
    assert talk.echoes() and not chain.refuses(CLIENTS[0])
    talk.close()


def test_block_holds_while_nlbd_starts_again(make_chain):
    chain = make_chain(gateways=1)
    chain.start()
    blocks = Blocks(chain)
    blocks.add(CLIENTS[0], for_s=60)
    chain.nlbd.kill()
    assert chain.refuses(CLIENTS[0]) and not chain.refuses(CLIENTS[1])
    chain.start_nlbd()
    assert chain.refuses(CLIENTS[0]) and not chain.refuses(CLIENTS[1])
    chain.nlbctl("reload")
    assert chain.refuses(CLIENTS[0]), "a reload keeps the flag"


def test_allow_list_changes_without_a_gap(make_chain):
    chain = make_chain(gateways=2)
    chain.start()
    reload(chain, allow=[f"{CLIENTS[0]}/32", "192.0.2.0/24"])
    talk = chain.connect(CLIENTS[0])
    assert chain.refuses(CLIENTS[1]) and chain.dropped("not_allowed") > 0

    # One that stays in the list is never refused, however often it changes.
    before = chain.dropped("not_allowed")
    for n in range(20):
        reload(chain, allow=[CLIENTS[0], f"192.0.{n}.0/24", *(CLIENTS[1:2] if n == 19 else [])])
        assert talk.echoes()
    assert chain.dropped("not_allowed") == before
    assert not chain.refuses(CLIENTS[1]) and chain.refuses(CLIENTS[2])

    # By the longest prefix; and another VIP's list is another list.
    reload(chain, allow=["198.51.100.0/24"])
    assert not any(chain.refuses(client) for client in CLIENTS)
    reload(chain)
    assert chain.refuses("198.51.100.13") is False
    config = chain.config()
    other = {**config["vips"][0], "name": "other", "port": 444, "allow": [CLIENTS[3]]}
    config["vips"].append(other)
    chain.lab.write_json(config, "nlb.json")
    chain.nlbctl("reload")
    assert talk.echoes() and not any(chain.refuses(client) for client in CLIENTS)
    path = "/sys/fs/bpf/gatehouse/eth0/allowed"
    dump = json.loads(chain.nlb.run("bpftool", "-j", "map", "dump", "pinned", path))
    assert len(dump) == 1, "lists of the past are gone"
    talk.close()


def test_one_source_opens_no_more_connections_than_it_may(make_chain):
    chain = make_chain(gateways=2)
    chain.start()
    reload(chain, new_connections_per_source={"per_s": 1, "burst": 4})
    taken = [not chain.refuses(CLIENTS[0]) for _ in range(6)]
    assert taken[:4] == [True] * 4 and False in taken[4:]
    assert chain.dropped("source_rate") > 0
    assert not chain.refuses(CLIENTS[1]), "another source has its own"
    talk = chain.connect(CLIENTS[1])
    reload(chain)
    assert talk.echoes() and not any(chain.refuses(CLIENTS[0]) for _ in range(6))
    talk.close()

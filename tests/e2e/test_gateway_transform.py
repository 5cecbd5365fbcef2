# SPDX-License-Identifier: Apache-2.0
"""What services see of a request, and clients of answers: ids, traces, forwarding, internal headers."""

import re

import pytest

from conftest import headers_of
from rig import bearer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{PARENT}"


@pytest.fixture(scope="module")
def changing(tmp_path_factory, module_procs, make_rig):
    """Rules for all answers, and for those of one route."""
    rig = make_rig(tmp_path_factory.mktemp("gateway"), module_procs)
    rig.config["defaults"]["response"].update(
        set={"Strict-Transport-Security": "max-age=1", "Content-Type": "text/forged",
             "X-Path": "${request.path}"},
        add={"X-Route": "${route.name}"})
    rig.config["routes"] += [
        {"name": "own", "match": {"path": "/own/*"}, "auth": "hs", "service": "echo",
         "response": {"set": {"X-User": "${claim.sub}"}, "remove": ["WWW-Authenticate"]}},
        {"name": "gone", "match": {"path": "/moved"}, "redirect": {"location": "/echo/x"}}]
    return rig.start()


@pytest.fixture(scope="module")
def trusting(tmp_path_factory, module_procs, make_rig):
    """The client is a proxy that is believed."""
    rig = make_rig(tmp_path_factory.mktemp("gateway"), module_procs)
    rig.config["trusted_proxies"] = ["127.0.0.0/8"]
    rig.config["defaults"]["request"] = {"remove": []}
    rig.config["defaults"]["underscores_in_headers"] = True
    return rig.start()


def traced(rig, *parents, state=()):
    fields = [("traceparent", parent) for parent in parents]
    fields += [("tracestate", value) for value in state]
    got = headers_of(rig.ask("GET", "/echo/x", fields))
    assert len(got["traceparent"]) == 1
    version, trace, parent, flags = got["traceparent"][0].split("-")
    assert version == "00" and re.fullmatch("[0-9a-f]{32}", trace) and parent != PARENT
    assert re.fullmatch("[0-9a-f]{16}", parent) and int(parent, 16) and int(trace, 16)
    assert rig.wait_record(request_id=got["x-request-id"][0])["trace_id"] == trace
    return trace, flags, got.get("tracestate", [])


@pytest.mark.parametrize("sent,flags", [
    (f"{GOOD}-01", "01"), (f"{GOOD}-00", "00"), (f"{GOOD}-03", "03"), (f"{GOOD}-02", "02"),
    (f"{GOOD}-fc", "00"), (f"{GOOD}-ff", "03"),
    (f"01{GOOD[2:]}-01", "01"), (f"cc{GOOD[2:]}-01-what-comes", "01")])
def test_traces_go_on(rig, sent, flags):
    assert traced(rig, sent, state=["a=1,b=2", "c=3"]) == (TRACE, flags, ["a=1,b=2", "c=3"])


@pytest.mark.parametrize("sent", [
    [], [""], ["00"], [f"{GOOD}"], [f"{GOOD}-1"], [f"{GOOD}-01-"], [f"{GOOD}-01-more"],
    [f"ff{GOOD[2:]}-01"], [f"{GOOD.upper()}-01"], [f"00-{'0' * 32}-{PARENT}-01"],
    [f"00-{TRACE}-{'0' * 16}-01"], [f"00_{TRACE}-{PARENT}-01"], [f"00-{TRACE}-{PARENT}-0g"],
    [f"0x{GOOD[2:]}-01"], [f"01{GOOD[2:]}-01.what"], [f"{GOOD}-01", f"{GOOD}-01"],
    [f"{GOOD}-01", "x"]])
def test_traces_begin(rig, sent):
    """... where there is none that could go on, and then its state means nothing."""
    trace, flags, state = traced(rig, *sent, state=["a=1"])
    assert trace != TRACE and flags == "01" and not state
    assert traced(rig, *sent)[0] != trace


@pytest.mark.parametrize("sent,kept", [
    ("from-proxy-1", True), ("A_b.c:d/e+f=", True), ("x" * 128, True), ("x" * 129, False),
    ("a b", False), ('a"b', False), ("\xe4", False), ("", False)])
def test_request_ids(rig, trusting, sent, kept):
    got = headers_of(trusting.ask("GET", "/echo/x", [("X-Request-Id", sent)]))["x-request-id"]
    assert (got == [sent]) == kept and len(got) == 1
    if not kept:
        assert re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", got[0])
    got = headers_of(rig.ask("GET", "/echo/x", [("X-Request-Id", sent)]))["x-request-id"]
    assert got != [sent] and len(got) == 1


FORWARDING = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "gopher"),
              ("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Port", "666"),
              ("x-forwarded-prefix", "/admin"), ("X-FORWARDED-Server", "evil"),
              ("X-Real-Ip", "6.6.6.6"), ("Forwarded", "for=6.6.6.6"),
              ("X-Forwarded-Client-Cert", "Hash=0"), ("X_Forwarded_Port", "667"),
              ("X-Internal-Admin", "1"), ("x-internal-", "1"), ("X_Internal_Admin", "1")]


def test_strangers_are_not_believed(rig):
    got = headers_of(rig.ask("GET", "/echo/x", FORWARDING))
    assert got["x-forwarded-for"] == ["127.0.0.1"] and got["x-forwarded-proto"] == ["http"]
    assert got["x-forwarded-host"] == [got["host"][0]]
    assert not [name for name in got if name.replace("_", "-").startswith(
        ("x-forwarded-", "x-real", "forwarded", "x-internal"))
        and name not in ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")]


def test_proxies_are_believed(trusting):
    """... in what they say of the client and of where they listen, not in what is ours to say."""
    got = headers_of(trusting.ask("GET", "/echo/x", FORWARDING))
    assert got["x-forwarded-for"] == ["6.6.6.6, 127.0.0.1"]
    assert got["x-forwarded-proto"] == ["http"] and got["x-forwarded-host"] == [got["host"][0]]
    assert got["x-forwarded-port"] == ["666"] and got["x-forwarded-prefix"] == ["/admin"]
    assert not {"x-real-ip", "forwarded", "x-forwarded-client-cert"} & set(got)
    # Its defaults take nothing away.
    assert got["x-internal-admin"] == ["1"] and got["x_internal_admin"] == ["1"]


@pytest.mark.parametrize("target,fields,status,route", [
    ("/nowhere", [], 404, None), ("/echo/%zz", [], 400, None), ("/own/x", [], 401, "own"),
    ("/dead", [], 502, "dead"), ("/ping", [], 200, "ping"), ("/moved", [], 308, "gone")])
def test_rules_hold_for_answers_of_our_own(changing, target, fields, status, route):
    answer = changing.ask("GET", target, fields)
    assert answer.status == status
    assert answer.all("Strict-Transport-Security") == ["max-age=1"]
    assert answer.all("X-Route") == ([route] if route else [])
    assert answer.all("X-Path") == ([target] if target != "/echo/%zz" else [])
    assert not answer.all("X-User"), "there is no claim"
    if status >= 400:  # what makes it what it is cannot be taken away
        assert answer.all("Content-Type") == ["application/problem+json"]
        assert answer.json()["status"] == status
    if status == 401:
        assert answer.all("WWW-Authenticate")
    if status == 308:
        assert answer.first("Location") == "/echo/x"


def test_rules_hold_for_answers_of_services(changing):
    answer = changing.ask("GET", "/own/x", bearer(changing.signers["hs"].token("98765")))
    assert answer.all("X-User") == ["98765"] and answer.all("X-Route") == ["own"]

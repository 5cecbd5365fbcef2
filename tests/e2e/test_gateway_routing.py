# SPDX-License-Identifier: Apache-2.0
"""Where requests go: matching, templates, redirects, fixed answers, splits, mirrors, versions.

Everything over HTTP/1.1 and HTTP/2; the service tells what it received.
"""

import collections
import json
import os
import re
import socket
import subprocess
import tempfile

import pytest

import client
import h2
import rig as rig_module
from client import Response
from conftest import seen
from procs import wait_until
from rig import HOST, bearer

PROTOCOLS = ["--http1.1", "--http2-prior-knowledge"]


def curl(rig, protocol, target, method="GET", headers=(), body=None, listener="plain"):
    """One request by curl in that protocol, the target as it is."""
    with tempfile.TemporaryDirectory(prefix="gatehouse-routing-") as directory:
        head, content = os.path.join(directory, "head"), os.path.join(directory, "content")
        words = ["curl", "--disable", "--silent", "--show-error", "--noproxy", "*", protocol]
        words += ["--path-as-is", "--globoff", "--max-time", "15", "--dump-header", head]
        words += ["--output", content]
        words += ["--head"] if method == "HEAD" else ["--request", method]
        if body is not None:
            words += ["--data-binary", "@-"]
        if not any(name.lower() == "host" for name, _ in headers):
            words += ["-H", f"Host: {HOST}"]
        for name, value in headers:
            words += ["-H", f"{name}: {value}"]
        words.append(f"http://127.0.0.1:{rig.ports[listener]}{target}")
        subprocess.run(words, input=body or b"", check=True, timeout=30)
        with open(head, "rb") as file:
            lines = file.read().decode("latin-1").split("\r\n")
        got = b""
        if os.path.exists(content) and method != "HEAD":
            with open(content, "rb") as file:
                got = file.read()
    version, status = lines[0].split(" ")[:2]
    assert version == ("HTTP/2" if protocol != PROTOCOLS[0] else "HTTP/1.1")
    pairs = [tuple(line.split(": ", 1)) for line in lines[1:] if ": " in line]
    return Response(int(status), pairs, got)


@pytest.fixture(scope="module")
def routing(tmp_path_factory, make_rig, module_procs, services):
    """A gateway whose routes are those of this file."""
    rig = make_rig(tmp_path_factory.mktemp("routing"), module_procs)
    rig.ports["redirect"] = rig_module.free_port()
    rig.config["listeners"].append(
        {
            "bind": f"127.0.0.1:{rig.ports['redirect']}",
            "redirect_to_https": True,
            "https_port": rig.ports["tls"],
        }
    )
    rig.config["defaults"]["request"] = {"set": {"X-Route": "${route.name}"}}
    rig.config["routes"] = ROUTES
    return rig.start()


@pytest.fixture(autouse=True)
def forget(services):
    for service in services:
        service.forget()


@pytest.fixture(params=PROTOCOLS, ids=["h1", "h2"])
def ask(request, routing):
    return lambda target, *args, **more: curl(routing, request.param, target, *args, **more)


def route(name, path, **more):
    return {"name": name, "match": {"path": path, **more.pop("match", {})}, **more}


ROUTES = []


def header(answer, name):
    """What the service received under that name; None when nothing."""
    found = [value for key, value in answer.json()["headers"] if key.lower() == name.lower()]
    assert len(found) < 2, found
    return found[0] if found else None


# --- templates ------------------------------------------------------------------------------------

ROUTES += [
    route(
        "templates",
        "/t/{id}/{kind}/*",
        auth="hs",
        service="echo",
        request={
            "set": {
                "X-Tenant": "${claim.tenant}",
                "X-All": "${path.id}|${path.kind}|${query.q}|${cookie.lane}|${header.X-Old}",
                "X-Literal": "$$${client.ip}$$",
            },
            "add": {"X-Number": "n${claim.level}"},
            "remove": ["X-Old"],
        },
        response={
            "set": {"X-Seen": "${request.method} ${request.host} ${request.path}"},
            "add": {"X-Id": "${request.id}", "X-User": "${claim.sub}"},
        },
    ),
]


def test_header_values_from_templates(ask, routing):
    token = routing.signers["hs"].token("u1", claims={"tenant": "acme", "level": 42})
    headers = bearer(token) + [("Cookie", "a=b; lane=blue"), ("X-Old", "old"), ("X-Tenant", "evil")]
    answer = ask("/t/a%20b/k/rest?x=1&q=5+%26%206", headers=headers)
    assert answer.status == 200
    assert header(answer, "X-Tenant") == "acme"
    assert header(answer, "X-All") == "a b|k|5 & 6|blue|old"
    assert header(answer, "X-Old") is None
    assert header(answer, "X-Number") == "n42"
    assert header(answer, "X-Literal") == "$127.0.0.1$"
    assert header(answer, "X-Route") == "templates"
    assert answer.first("X-Seen") == f"GET {HOST} /t/a%20b/k/rest"
    assert answer.first("X-Id") == header(answer, "X-Request-Id")
    assert answer.first("X-User") == "u1"


def test_a_missing_value_leaves_the_header_out(ask, routing):
    token = routing.signers["hs"].token("u1", claims={"tenant": ["a", "list"]})
    answer = ask("/t/1/k?q=1", headers=bearer(token) + [("X-Tenant", "evil"), ("X-All", "evil")])
    assert answer.status == 200
    assert header(answer, "X-Tenant") is None and header(answer, "X-All") is None
    assert header(answer, "X-Number") is None


def test_no_value_ends_a_header(ask, routing, services):
    token = routing.signers["hs"].token("u1", claims={"tenant": "a\r\nX-Evil: 1", "level": 1})
    answer = ask("/t/1/k?q=a%0d%0aX-Evil:%201", headers=bearer(token) + [("Cookie", "lane=x")])
    assert answer.status == 200
    for name in ("X-Tenant", "X-All", "X-Evil"):
        assert header(answer, name) is None
    assert not [s.seen()["malformed"] for s in services if s.seen()["malformed"]]


# --- paths for the service ------------------------------------------------------------------------

ROUTES += [
    route("path", "/users/{id}/mails/{mail}", service="echo", rewrite_path="/v2/{mail}/of-${path.id}"),
    route("path-rest", "/people/{id}/*", service="echo", rewrite_path="/v3/{id}/x/*"),
    route("path-query", "/by-query", service="echo", rewrite_path="/q/${query.to}/z"),
]


@pytest.mark.parametrize(
    "target,status,want",
    [
        ("/users/7/mails/9?x=%2F", 200, "/v2/9/of-7?x=%2F"),
        ("/users/a%20b/mails/%C3%A9", 200, "/v2/%C3%A9/of-a%20b"),
        ("/people/7/a/b/", 200, "/v3/7/x/a/b/"),
        ("/people/7", 200, "/v3/7/x"),
        ("/by-query?to=a/../b%3f", 200, "/q/a%2F..%2Fb%3F/z?to=a/../b%3f"),
        ("/by-query?to=..", 400, None),
        ("/by-query?to=", 400, None),
        ("/by-query", 400, None),
    ],
)
def test_path_from_a_template(ask, services, target, status, want):
    answer = ask(target)
    assert answer.status == status
    if want:
        assert answer.json()["target"] == want
    else:
        assert not seen(services)


# --- redirects and fixed answers ------------------------------------------------------------------

ROUTES += [
    route("r-whole", "/r/whole/{id}", redirect={"status": 301, "location": "https://n.example/u/${path.id}?f=${query.f}"}),
    route("r-host", "/r/host/*", redirect={"status": 307, "host": "n.example", "port": 8443}),
    route("r-scheme", "/r/scheme", redirect={"status": 302, "scheme": "https"}),
    route("r-path", "/r/path/{id}", redirect={"status": 303, "path": "/p/{id}/x"}),
    route("r-prefix", "/r/prefix/*", redirect={"prefix": "/new/", "keep_query": False}),
    route("r-open", "/r/open/*", redirect={"location": "/${request.rest}"}),
    route("fixed", "/fixed", respond={"status": 203, "body": '{"a": 1}', "content_type": "application/json", "headers": {"X-Path": "${request.path}", "Cache-Control": "max-age=5"}}),
    route("nothing", "/nothing", respond={"status": 204}),
]


@pytest.mark.parametrize(
    "target,status,location",
    [
        ("/r/whole/a%20b?f=1%262&g=2", 301, "https://n.example/u/a%20b?f=1%262"),
        ("/r/host/a/b?q=1", 307, "http://n.example:8443/r/host/a/b?q=1"),
        ("/r/scheme?q=1", 302, f"https://{HOST}/r/scheme?q=1"),
        ("/r/path/7", 303, "/p/7/x"),
        ("/r/path/7?q=%0d%0aX:1", 303, "/p/7/x?q=%0d%0aX:1"),
        ("/r/prefix/a/b?q=1", 308, "/new/a/b"),
        ("/r/prefix", 308, "/new/"),
        ("/r/open//evil.example", 308, "/evil.example"),
        ("/r/open/%2e%2e/%2e%2e//evil.example/", 404, None),
        ("/r/whole/%0d%0aX-Evil:%201", 301, "https://n.example/u/%0D%0AX-Evil:%201?f="),
    ],
)
def test_redirect(ask, target, status, location):
    answer = ask(target, headers=[("Host", f"{HOST}:1234")])
    assert answer.status == status
    assert answer.first("Location") == location
    assert answer.first("X-Evil") is None
    if location:
        assert answer.body == b"" and answer.first("Content-Length") == "0"


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_fixed_answer(ask, method):
    answer = ask("/fixed", method)
    assert answer.status == 203
    assert answer.body == (b"" if method == "HEAD" else b'{"a": 1}')
    assert answer.first("Content-Length") == "8"
    assert answer.first("Content-Type") == "application/json"
    assert answer.first("X-Path") == "/fixed" and answer.first("Cache-Control") == "max-age=5"
    answer = ask("/nothing", method)
    assert (answer.status, answer.body, answer.first("Content-Length")) == (204, b"", None)


def test_redirect_to_https_keeps_all_but_the_port(ask, routing):
    port = routing.ports["tls"]
    for host in (HOST, f"{HOST}:80", f"{HOST}:{routing.ports['redirect']}"):
        answer = ask("//evil.example/..%2f?q=1&r", headers=[("Host", host)], listener="redirect")
        assert answer.status == 308
        assert answer.first("Location") == f"https://{HOST}:{port}//evil.example/..%2f?q=1&r"
    answer = ask("/", headers=[("Host", "[::1]:80")], listener="redirect")
    assert answer.first("Location") == f"https://[::1]:{port}/"

# SPDX-License-Identifier: Apache-2.0
"""Where requests go: matching, templates, redirects, fixed answers, splits, mirrors, versions.

Everything over HTTP/1.1 and HTTP/2; the service tells what it received.
"""

import os
import re
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
            # curl's own ways to say "empty" and "not at all"
            empty = f"{name}:" if value is None else f"{name};"
            words += ["-H", f"{name}: {value}" if value else empty]
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
    one, other = (f"{service.address}:{service.port}" for service in services)
    rig.config["services"] |= {
        "left": {"endpoints": [{"address": one}]},
        "right": {"endpoints": [{"address": other}], "retries": 2, "response_timeout_ms": 3000},
    }
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
    route(
        "path",
        "/users/{id}/mails/{mail}",
        service="echo",
        rewrite_path="/v2/{mail}/of-${path.id}",
    ),
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
        ("/by-query?to=a..b%3f", 200, "/q/a..b%3F/z?to=a..b%3f"),
        ("/by-query?to=a/../b", 400, None),
        ("/by-query?to=%5c..", 400, None),
        ("/by-query?to=%00", 400, None),
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
    route(
        "r-whole",
        "/r/whole/{id}",
        redirect={"status": 301, "location": "https://n.example/u/${path.id}?f=${query.f}"},
    ),
    route("r-host", "/r/host/*", redirect={"status": 307, "host": "n.example", "port": 8443}),
    route("r-scheme", "/r/scheme", redirect={"status": 302, "scheme": "https"}),
    route("r-path", "/r/path/{id}", redirect={"status": 303, "path": "/p/{id}/x"}),
    route("r-prefix", "/r/prefix/*", redirect={"prefix": "/new/", "keep_query": False}),
    route("r-open", "/r/open/*", redirect={"location": "/${request.rest}"}),
    route(
        "fixed",
        "/fixed",
        respond={
            "status": 203,
            "body": '{"a": 1}',
            "content_type": "application/json",
            "headers": {"X-Path": "${request.path}", "Cache-Control": "max-age=5"},
        },
    ),
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


# --- matching -------------------------------------------------------------------------------------

ROUTES += [
    route("match-any", "/match", service="echo"),
    route("match-header", "/match", service="echo", match={"headers": {"X-A": "*"}}),
    route("match-cookie", "/match", service="echo", match={"cookies": {"lane": "b*"}}),
    route("match-query", "/match", service="echo", match={"query": {"beta": "*"}}),
    route(
        "match-two",
        "/match",
        service="echo",
        match={"cookies": {"lane": "blue"}, "query": {"q r": "1 2"}},
    ),
    route("match-post", "/match", service="echo", match={"methods": ["POST"]}),
    route("match-only", "/only", service="echo", match={"methods": ["GET"], "cookies": {"k": "1"}}),
    route("match-put", "/only", service="echo", match={"methods": ["PUT", "REPORT"]}),
]


@pytest.mark.parametrize(
    "method,target,headers,want",
    [
        ("GET", "/match", [], "match-any"),
        ("POST", "/match", [], "match-post"),
        ("OPTIONS", "/match", [], "match-any"),
        ("GET", "/match", [("x-a", "")], "match-header"),
        ("POST", "/match", [("X-A", "1")], "match-header"),
        ("GET", "/match", [("Cookie", "a=1; lane=blau; lane=red")], "match-cookie"),
        ("GET", "/match", [("Cookie", "xlane=blue; Lane=blue")], "match-any"),
        ("GET", "/match?beta", [], "match-query"),
        ("GET", "/match?x=1&bet%61=" + "v" * 3000, [], "match-query"),
        ("GET", "/match?q%20r=1+2", [("Cookie", "lane=blue")], "match-two"),
        ("GET", "/match?q+r=1%202&q+r=3", [("Cookie", "lane=blue"), ("X-A", "1")], "match-two"),
        ("HEAD", "/only", [("Cookie", "k=1")], "match-only"),
        ("PUT", "/only", [("Cookie", "k=1")], "match-put"),
        ("REPORT", "/only", [], "match-put"),
    ],
)
def test_match(ask, services, method, target, headers, want):
    assert ask(target, method, headers).status == 200
    got = [v for k, v in seen(services)[0]["headers"] if k.lower() == "x-route"]
    assert got == [want]


def test_allow_names_what_would_match(ask):
    answer = ask("/only", "POST", [("Cookie", "k=1")])
    assert answer.status == 405 and answer.first("Allow") == "GET, HEAD, PUT, REPORT"
    answer = ask("/only", "OPTIONS")
    assert answer.status == 405 and answer.first("Allow") == "PUT, REPORT"
    assert ask("/only/x", "PUT").status == 404


# --- versions -------------------------------------------------------------------------------------


def version(name, path, match=None, **more):
    return route(
        f"{path[1:].replace('/', '-')}-{name}",
        path,
        match=match or {},
        service="echo",
        version={"name": name, **more},
        request={"set": {"X-Version": "${version.name}"}},
    )


def vendor(number):
    return f"application/vnd.example.v{number}+json"


ROUTES += [
    version(
        "v1",
        "/by/header",
        {"headers": {"X-API-Version": "1"}},
        deprecated="2020-01-01T00:00:00Z",
    ),
    version("v2", "/by/header", {"headers": {"X-API-Version": "2"}}),
    version("v3", "/by/header"),
    version("v1", "/by/query", {"query": {"version": "1"}}),
    version("v2", "/by/query", {"query": {"version": "2"}}),
    version("v1", "/by/type", {"accept": [vendor(1), "application/json;version=1"]}),
    version("v2", "/by/type", {"accept": [vendor(2), "application/json;version=2"]}),
    version("v1", "/by/default", {"accept": ["application/vnd.example.v1+json"]}),
    version("v2", "/by/default"),
    version("v1", "/by/body", {"content_type": [vendor(1)], "methods": ["POST"]}),
]


@pytest.mark.parametrize(
    "target,headers,want",
    [
        ("/by/header", [("X-API-Version", "1")], "v1"),
        ("/by/header", [("x-api-version", "2")], "v2"),
        ("/by/header", [("X-API-Version", "9")], "v3"),
        ("/by/header", [], "v3"),
        ("/by/query?version=2", [], "v2"),
        ("/by/query?version=3", [], 404),
        ("/by/query", [], 404),
        ("/by/type", [("Accept", "application/vnd.example.v2+json")], "v2"),
        ("/by/type", [("Accept", 'text/html, application/json; Version="2"')], "v2"),
        ("/by/type", [("Accept", f"application/json;version=2;q=0.3, {vendor(1)};q=0.4")], "v1"),
        ("/by/type", [("Accept", f"application/json;version=2, {vendor(1)};q=0.4")], "v2"),
        ("/by/type", [("Accept", "application/json;version=3")], 406),
        ("/by/type", [("Accept", "text/html")], 406),
        ("/by/type", [("Accept", "*/*")], "v1"),
        ("/by/type", [("Accept", "application/*;q=0.1")], "v1"),
        ("/by/type", [("Accept", None)], "v1"),
        ("/by/type", [("Accept", "")], 406),
        ("/by/default", [("Accept", "*/*")], "v2"),
        ("/by/default", [("Accept", "application/vnd.example.v1+json;q=0.1, */*")], "v1"),
        ("/by/default", [("Accept", "application/vnd.example.v1+json;q=0, */*")], "v2"),
    ],
)
def test_version(ask, routing, target, headers, want):
    answer = ask(target, headers=headers)
    if isinstance(want, int):
        assert answer.status == want
        return
    assert answer.status == 200 and header(answer, "X-Version") == want
    assert bool(answer.first("Deprecation")) == (target == "/by/header" and want == "v1")
    assert routing.wait_record(request_id=header(answer, "X-Request-Id"))["version"] == want


def test_version_of_the_body(ask):
    typed = [("Content-Type", "application/vnd.example.v1+json; charset=utf-8")]
    assert ask("/by/body", "POST", typed, b"{}").status == 200
    # Without bodies: this curl takes an answer that comes before its body was sent as an error.
    assert ask("/by/body", "POST", [("Content-Type", "text/plain")]).status == 415
    assert ask("/by/body", "PUT", typed).status == 405


# --- splits ---------------------------------------------------------------------------------------


def split(left, right, **more):
    parts = [{"service": "left", "weight": left}, {"service": "right", "weight": right}]
    return {"split": parts, **more}


ROUTES += [
    route("by-user", "/split/user", auth="hs", **split(1, 1, sticky="user")),
    route("by-cookie", "/split/cookie", **split(1, 1, sticky="cookie:lane")),
    route("by-header", "/split/header", **split(1, 1, sticky=["header:X-Device", "cookie:lane"])),
    route("by-ip", "/split/ip", **split(1, 1, sticky="ip")),
    route("by-chance", "/split/chance", **split(1, 1)),
    route("all-right", "/split/right", **split(0, 1, sticky="cookie:lane")),
]


def instances(rig, path, keys, headers_for):
    """Which instance got each key's request, over one connection."""
    got = []
    with rig.connect() as connection:
        for key in keys:
            answer = connection.request("GET", path, headers_for(key))
            assert answer.status == 200, answer
            got.append(answer.json()["instance"])
    return got


def metric(rig, pattern):
    text = rig.admin("GET", "/metrics").body.decode()
    return int(re.search(f"^gatehouse_gateway_{pattern} (\\d+)$", text, re.MULTILINE)[1])


@pytest.mark.parametrize("path", ["user", "cookie", "header"])
def test_sticky_split_keeps_keys(ask, routing, path):
    def headers_for(key):
        if path == "user":
            return bearer(routing.signers["hs"].token(f"u{key}"))
        return [("X-Device", str(key))] if path == "header" else [("Cookie", f"a=b; lane={key}")]

    keys = list(range(24))
    first = instances(routing, f"/split/{path}", keys, headers_for)
    assert set(first) == {"echo-a", "echo-b"}
    assert instances(routing, f"/split/{path}", keys, headers_for) == first
    for key in keys[:4]:
        assert ask(f"/split/{path}", headers=headers_for(key)).json()["instance"] == first[key]


def test_sticky_split_takes_the_first_key_that_is_there(routing):
    keys = list(range(24))
    lane = lambda k: [("Cookie", f"lane={k}")]
    # The same services and weights: the same choice on every route.
    by_cookie = instances(routing, "/split/cookie", keys, lane)
    assert instances(routing, "/split/header", keys, lane) == by_cookie
    by_device = instances(
        routing, "/split/header", keys, lambda k: [("Cookie", f"lane={k}"), ("X-Device", "d")]
    )
    assert len(set(by_device)) == 1


def test_without_a_key_chance_decides(routing):
    for path in ("cookie", "chance"):
        got = instances(routing, f"/split/{path}", range(64), lambda _: [])
        assert set(got) == {"echo-a", "echo-b"}
    assert len(set(instances(routing, "/split/ip", range(16), lambda _: []))) == 1
    keys = lambda k: [("Cookie", f"lane={k}")] if k % 2 else []
    assert set(instances(routing, "/split/right", range(32), keys)) == {"echo-b"}


def test_split_is_counted(routing):
    before = [
        metric(routing, f'split_requests_total{{route="by-chance",service="{service}"}}')
        for service in ("left", "right")
    ]
    got = instances(routing, "/split/chance", range(32), lambda _: [])
    for service, instance, count in zip(("left", "right"), ("echo-a", "echo-b"), before):
        after = metric(routing, f'split_requests_total{{route="by-chance",service="{service}"}}')
        assert after - count == got.count(instance)


def test_sticky_split_moves_few_keys_when_weights_change(routing):
    keys = list(range(60))
    headers_for = lambda key: [("Cookie", f"lane={key}")]
    first = instances(routing, "/split/cookie", keys, headers_for)
    parts = next(r for r in ROUTES if r["name"] == "by-cookie")["split"]
    parts[1]["weight"] = 3
    try:
        routing.reload()
        second = instances(routing, "/split/cookie", keys, headers_for)
    finally:
        parts[1]["weight"] = 1
        routing.reload()
    moved = [(a, b) for a, b in zip(first, second) if a != b]
    assert moved and set(moved) == {("echo-a", "echo-b")}
    assert instances(routing, "/split/cookie", keys, headers_for) == first


# --- mirrors --------------------------------------------------------------------------------------


def mirror(path, **more):
    return route(
        path,
        f"/mirror/{path}/*",
        service="left",
        rewrite_prefix="/m/",
        mirror={"service": "right", **more},
        request={"set": {"X-Set": "${route.name}"}},
    )


ROUTES += [
    mirror("all", max_body_bytes=100000),
    mirror("none", percent=0),
    mirror("some", percent=50),
    mirror("plain", host_suffix=""),
    mirror("few", max_requests=1),
    mirror("socket") | {"websocket": True},
]


def mirrored(rig, name, result):
    return metric(rig, f'mirrored_requests_total{{route="{name}",result="{result}"}}')


def wait_copies(services, count):
    return wait_until(
        lambda: services[1].requests() if len(services[1].requests()) >= count else None,
        f"{count} copies",
        10,
    )


def complete(requests):
    return [request for request in requests if request["complete"]]


@pytest.mark.parametrize("body", [None, b"", b"x" * 70000], ids=["none", "empty", "70k"])
def test_copy_has_the_same_head_and_body(ask, services, body):
    method = "POST" if body is not None else "GET"
    sent = [("X-A", "1"), ("Host", "h.example:81")]
    answer = ask("/mirror/all/a%20b?q=1", method, sent, body)
    assert answer.status == 200 and answer.json()["instance"] == "echo-a"
    original = answer.json()
    copy = wait_until(lambda: complete(services[1].requests()), "the copy", 10)[0]
    for name in ("method", "target", "body_bytes", "body_sha256"):
        assert copy[name] == original[name]
    assert original["target"] == "/m/a%20b?q=1" and original["body_bytes"] == len(body or b"")

    def fields(request):
        own = ("host", "content-length", "transfer-encoding")
        pairs = [(name.lower(), value) for name, value in request["headers"]]
        return sorted((name, value) for name, value in pairs if name not in own)

    assert fields(copy) == fields(original)
    assert ("x-set", "all") in fields(copy)
    both = original["headers"] + copy["headers"]
    hosts = [[value] for name, value in both if name.lower() == "host"]
    assert hosts == [["h.example:81"], ["h.example-shadow:81"]]


def test_share_and_mark_of_copies(routing, services):
    with routing.connect() as connection:
        for _ in range(64):
            connection.request("GET", "/mirror/some/x")
            connection.request("GET", "/mirror/none/x")
        connection.request("GET", "/mirror/plain/x")
    wait_until(lambda: "/m/x" in [r["target"] for r in services[1].requests()], "a copy", 10)
    wait_until(
        lambda: mirrored(routing, "some", "answered") + mirrored(routing, "plain", "answered")
        == len(complete(services[1].requests())),
        "all copies",
        10,
    )
    copies = services[1].requests()
    assert 8 < len(copies) < 57 and mirrored(routing, "none", "answered") == 0
    hosts = [v for request in copies for k, v in request["headers"] if k.lower() == "host"]
    assert hosts.count(HOST) == 1 and hosts.count(f"{HOST}-shadow") == len(copies) - 1


@pytest.mark.parametrize("fault", ["reset", "silent", "raw=Z2FyYmFnZQ==", "status=503"])
def test_copy_never_fails_the_original_and_is_sent_once(routing, services, fault):
    result = "answered" if fault.startswith("status") else "failed"
    before = mirrored(routing, "all", result)
    answer = routing.ask("PUT", "/mirror/all/x", [("X-Test-Fault", f"only=echo-b,{fault}")], b"abc")
    assert answer.status == 200 and answer.json()["instance"] == "echo-a"
    wait_until(lambda: mirrored(routing, "all", result) == before + 1, "the copy's end", 10)
    assert len(services[1].requests()) == 1
    assert routing.wait_record(request_id=header(answer, "X-Request-Id"))["service"] == "left"
    with_id = [r for r in routing.records() if r["request_id"] == header(answer, "X-Request-Id")]
    assert len(with_id) == 1  # copies are not in the access log


def test_slow_copy_delays_nobody_and_too_many_are_left_out(routing, services):
    answered, busy = (mirrored(routing, "few", result) for result in ("answered", "busy"))
    slow = [("X-Test-Fault", "only=echo-b,delay_ms=1500")]
    with routing.connect() as connection:
        for _ in range(6):
            assert connection.request("GET", "/mirror/few/x", slow).status == 200
        # One copy per worker; all connections of this test are one worker's.
        assert mirrored(routing, "few", "busy") == busy + 5
        assert mirrored(routing, "few", "answered") == answered
    wait_until(lambda: mirrored(routing, "few", "answered") == answered + 1, "the slow copy", 10)
    assert len(services[1].requests()) == 1


def test_long_bodies_are_not_copied(routing, services):
    before = mirrored(routing, "all", "too_large")
    body = b"y" * 300000
    answer = routing.ask("POST", "/mirror/all/length", body=body)
    assert answer.status == 200 and answer.json()["body_bytes"] == len(body)
    with routing.connect() as connection:
        chunked = [("Transfer-Encoding", "chunked")]
        connection.send(client.head_of("POST", "/mirror/all/chunked", HOST, chunked))
        for _ in range(30):
            connection.send(b"2710\r\n" + b"z" * 10000 + b"\r\n")
        connection.send(b"0\r\n\r\n")
        answer = connection.read_response()
    assert answer.status == 200 and answer.json()["body_bytes"] == 300000
    assert mirrored(routing, "all", "too_large") == before + 2
    assert services[1].seen()["count"] == 0


def test_body_that_ends_early_is_not_copied(routing, services):
    before = mirrored(routing, "all", "cut")
    with routing.connect() as connection:
        length = [("Content-Length", "100")]
        connection.send(client.head_of("POST", "/mirror/all/cut", HOST, length) + b"half")
        wait_until(lambda: services[0].requests(), "the original", 10)
    wait_until(lambda: mirrored(routing, "all", "cut") == before + 1, "the copy given up", 10)
    assert services[1].seen()["count"] == 0


def test_websockets_and_grpc_are_not_copied(routing, services):
    with h2.Session(routing.ports["plain"]) as session:
        grpc = [("content-type", "application/grpc")]
        session.send(h2.request(1, "/mirror/all/rpc", "POST", grpc))
        session.answer(1)
    headers = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    headers += [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    with routing.connect() as connection:
        connection.send(client.head_of("GET", "/mirror/socket/x", HOST, headers))
        connection.read_head()
    assert routing.ask("GET", "/mirror/all/last").status == 200
    targets = [request["target"] for request in wait_copies(services, 1)]
    assert targets == ["/m/last"]


def test_copies_under_way_do_not_hold_up_the_end(tmp_path, make_rig, procs, services):
    rig = make_rig(tmp_path, procs)
    one, other = (f"{service.address}:{service.port}" for service in services)
    rig.config["services"] = {
        "left": {"endpoints": [{"address": one}]},
        "right": {"endpoints": [{"address": other}], "response_timeout_ms": 60000},
    }
    rig.config["routes"] = [mirror("all")]
    rig.start()
    slow = [("X-Test-Fault", "only=echo-b,delay_ms=30000")]
    for _ in range(8):
        assert rig.ask("POST", "/mirror/all/x", slow, b"abc").status == 200
    wait_copies(services, 8)
    assert rig.proc.stop() == 0

# SPDX-License-Identifier: Apache-2.0
"""Web pages of other origins: preflights, and what any other answer says to them."""

import shutil

import pytest

import client
from conftest import seen
from procs import wait_until
from rig import bearer

APP = "https://app.example.com"
TENANT = "https://a.tenants.example.com"
STRANGER = "https://evil.example"
POLICY = {"origins": [APP, "https://*.tenants.example.com"], "credentials": True,
          "headers": ["Authorization", "Content-Type"], "exposed_headers": ["X-Total", "RateLimit"],
          "max_age_s": 300}
OPEN = {"origins": ["*"]}
FOREIGN = "header=Access-Control-Allow-Origin:*"  # what the service says on its own


def route(name, path, match=None, **more):
    return {"name": name, "match": {"path": path, **(match or {})}, **more}


@pytest.fixture(scope="module")
def cors(tmp_path_factory, module_procs, make_rig):
    rig = make_rig(tmp_path_factory.mktemp("gateway"), module_procs)
    header = {"headers": {"X-Version": "2"}}
    rig.config["routes"] = [
        route("api", "/api/*", auth="hs", service="echo", cors=POLICY),
        route("open", "/open", service="echo", cors=OPEN),
        route("default", "/default", service="echo"),
        route("off", "/off", service="echo", cors={"origins": []}),
        route("read", "/item", {"methods": ["GET"]}, service="echo", cors=OPEN),
        route("write", "/item", {"methods": ["PUT", "DELETE"]}, auth="hs", service="echo",
              cors=POLICY),
        route("narrow", "/narrow", service="echo", cors={**POLICY, "methods": ["GET", "POST"]}),
        route("plain", "/version", service="echo", cors=OPEN),
        route("second", "/version", header, service="echo", cors=POLICY),
        route("only-second", "/versioned", header, service="echo", cors=POLICY),
        route("by-cookie", "/lane", {"cookies": {"lane": "*"}}, service="echo", cors=POLICY),
        route("typed", "/typed", {"content_type": ["application/json"], "methods": ["POST"]},
              service="echo", cors=POLICY),
        route("limited", "/limited", service="echo", limits=["ip-5"], cors=POLICY),
        route("dead", "/dead", service="dead", cors=POLICY),
        route("own", "/own", {"hosts": ["own.example.com"]}, service="echo", cors=POLICY),
        route("unread", "/unread", service="echo", cors=POLICY, request={"remove": ["Origin"]},
              response={"set": {"Vary": "Accept", "Access-Control-Allow-Origin": "*"}}),
    ]
    rig.config["routes"] += [  # so many that they are indexed by the header
        route(f"tenant-{i}", "/tenants", {"headers": {"X-Tenant": str(i)}}, service="echo",
              cors=POLICY) for i in range(24)]
    rig.config["defaults"]["cors"] = {"origins": [APP], "methods": ["GET"]}
    return rig.start()


@pytest.fixture(autouse=True)
def forget(services):
    for service in services:
        service.forget()


def preflight(cors, target, method="GET", headers=None, origin=APP, more=()):
    fields = [("Origin", origin), ("Access-Control-Request-Method", method), *more]
    if headers is not None:
        fields.append(("Access-Control-Request-Headers", headers))
    return cors.ask("OPTIONS", target, fields)


def said(answer):
    """What an answer says to browsers, short."""
    return {name.lower().removeprefix("access-control-"): value for name, value in answer.headers
            if name.lower().startswith("access-control-")}


def vary(answer):
    return [word.strip() for line in answer.all("Vary") for word in line.split(",")]


@pytest.mark.parametrize("target,method,asked,want", [
    ("/api/x", "GET", "authorization",
     {"allow-origin": APP, "allow-credentials": "true", "max-age": "300",
      "allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
      "allow-headers": "Authorization, Content-Type"}),
    # Whatever is asked for, and nothing where nothing is.
    ("/open", "PATCH", "x-a,x-b",
     {"allow-origin": "*", "max-age": "600", "allow-headers": "x-a,x-b",
      "allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE"}),
    ("/open", "GET", None, {"allow-origin": "*", "max-age": "600",
                            "allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE"}),
    ("/open", "GET", "x-a <script>", {"allow-origin": "*", "max-age": "600",
                                      "allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE"}),
    ("/default", "GET", "x-a", {"allow-origin": APP, "max-age": "600", "allow-methods": "GET",
                                "allow-headers": "x-a"}),
    ("/off", "GET", "x-a", {}),
    # The route is that of the later request, not of OPTIONS.
    ("/item", "GET", "x-a", {"allow-origin": "*", "max-age": "600", "allow-headers": "x-a",
                             "allow-methods": "GET, HEAD"}),
    ("/item", "DELETE", "x-a",
     {"allow-origin": APP, "allow-credentials": "true", "max-age": "300",
      "allow-methods": "PUT, DELETE", "allow-headers": "Authorization, Content-Type"}),
    ("/narrow", "DELETE", None,
     {"allow-origin": APP, "allow-credentials": "true", "max-age": "300",
      "allow-methods": "GET, POST", "allow-headers": "Authorization, Content-Type"}),
])
def test_preflight(cors, services, target, method, asked, want):
    answer = preflight(cors, target, method, asked)
    assert answer.status == 204 and not answer.body
    assert said(answer) == want
    assert vary(answer) == ["Origin", "Access-Control-Request-Method",
                            "Access-Control-Request-Headers"]
    assert not seen(services)


@pytest.mark.parametrize("target,asked,want", [
    ("/version", "x-a", "plain"), ("/version", "x-version, x-a", "second"),
    ("/versioned", "x-version", "only-second"), ("/versioned", None, "only-second"),
    ("/tenants", "x-tenant", "tenant-0"), ("/tenants", None, "tenant-0"), ("/lane", None, "by-cookie"), ("/typed", "content-type", "typed"),
])
def test_preflights_are_for_the_route_of_the_later_request(cors, services, target, asked, want):
    """... of which only the names of headers are known."""
    def records():
        return [record for record in cors.records() if record["route"] == want]

    before = len(records())
    answer = preflight(cors, target, "POST", asked)
    assert answer.status == 204 and said(answer)["allow-origin"] == ("*" if want == "plain" else APP)
    wait_until(lambda: len(records()) > before, "its line in the access log")
    record = records()[-1]
    assert record["reason"] == "cors_preflight"
    assert record["method"] == "OPTIONS" and record["status"] == 204 and record["userId"] is None
    assert not seen(services)


@pytest.mark.parametrize("target,method,more,status", [
    ("/nowhere", "GET", [], 404),
    ("/item", "PATCH", [], 405),
    ("/own", "GET", [], 404),
    ("/own", "GET", [("Host", "own.example.com")], 204),
])
def test_where_the_route_is_not_known(cors, services, target, method, more, status):
    """As any other request."""
    host = dict(more).get("Host", "api.test.example.com")
    with cors.connect() as connection:
        connection.send((f"OPTIONS {target} HTTP/1.1\r\nHost: {host}\r\nOrigin: {APP}\r\n"
                         f"Access-Control-Request-Method: {method}\r\n\r\n").encode())
        answer = connection.read_response("OPTIONS")
    assert answer.status == status
    # Of the defaults, so that a page can read the error.
    assert said(answer)["allow-origin"] == APP
    assert not seen(services)


@pytest.mark.parametrize("origin", [
    STRANGER, "null", "https://tenants.example.com", "https://eviltenants.example.com",
    "http://app.example.com", "https://app.example.com.evil.example", "https://app.example.com:8443",
    "https://evil.example/.tenants.example.com", "https://evil.example:1.tenants.example.com"])
def test_strangers_get_nothing(cors, services, origin):
    answer = preflight(cors, "/api/x", origin=origin)
    assert answer.status == 204 and not said(answer) and "Origin" in vary(answer)
    assert not seen(services)
    answer = cors.ask("GET", "/narrow", [("Origin", origin), ("X-Test-Fault", FOREIGN)])
    assert answer.status == 200 and not said(answer) and "Origin" in vary(answer)


def test_two_origins_are_none(cors):
    answer = cors.ask("GET", "/narrow", [("Origin", APP), ("Origin", APP)])
    assert answer.status == 200 and not said(answer)


@pytest.mark.parametrize("fields", [
    [], [("Origin", APP)], [("Access-Control-Request-Method", "GET")],
    [("Origin", APP), ("Access-Control-Request-Method", "not a method")]])
def test_other_options_are_forwarded(cors, services, fields):
    assert cors.ask("OPTIONS", "/open", fields).json()["method"] == "OPTIONS"
    assert seen(services)


@pytest.mark.parametrize("origin", [APP, TENANT])
def test_answers_of_services(cors, origin):
    """What the service says about it is replaced."""
    fault = f"{FOREIGN},header=access-control-expose-headers:X-Secret,header=Vary:Accept"
    answer = cors.ask("GET", "/narrow", [("Origin", origin), ("X-Test-Fault", fault)])
    assert said(answer) == {"allow-origin": origin, "allow-credentials": "true",
                            "expose-headers": "X-Total, RateLimit"}
    assert len(answer.all("Access-Control-Allow-Origin")) == 1
    assert vary(answer) == ["Accept", "Origin"]


def test_vary_without_an_origin(cors):
    """A cache must not give a page what was kept without an origin."""
    answer = cors.ask("GET", "/narrow", [("X-Test-Fault", FOREIGN)])
    assert not said(answer) and vary(answer) == ["Origin"]
    for value in ("*", "origin"):
        fault = [("X-Test-Fault", f"header=Vary:{value}")]
        assert vary(cors.ask("GET", "/narrow", fault)) == [value]
    assert not vary(cors.ask("GET", "/open", [("Origin", APP)]))


def test_rules_cannot_undo_it(cors):
    """... that take Origin from the request, or set these fields."""
    answer = cors.ask("GET", "/unread", [("Origin", TENANT)])
    assert said(answer)["allow-origin"] == TENANT and vary(answer) == ["Accept", "Origin"]
    assert "origin" not in {name.lower() for name, _ in answer.json()["headers"]}
    assert not said(cors.ask("GET", "/unread", [("Origin", STRANGER)]))


@pytest.mark.parametrize("target,fields,status", [
    ("/api/x", [], 401), ("/api/x", bearer("no.good.token"), 401), ("/dead", [], 502),
    ("/api/a%2fb", [], 400), ("/nowhere", [], 404)])
def test_errors_can_be_read(cors, target, fields, status):
    answer = cors.ask("GET", target, [("Origin", APP), *fields])
    assert answer.status == status
    assert said(answer)["allow-origin"] == APP and "Origin" in vary(answer)
    assert not said(cors.ask("GET", target, [("Origin", STRANGER), *fields]))


def test_limits(cors, services):
    """By address they hold for preflights, too, and their refusals can be read."""
    refused = [answer for answer in [preflight(cors, "/limited") for _ in range(7)]
               if answer.status == 429]
    assert refused and said(refused[0])["allow-origin"] == APP
    assert refused[0].first("Retry-After")
    answer = cors.ask("GET", "/limited", [("Origin", APP)])
    assert answer.status == 429 and said(answer)["allow-credentials"] == "true"
    assert not seen(services)


def test_http2(cors, services):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")

    def ask(*words):
        head = client.run_here("curl", "-sS", "-i", "--http2-prior-knowledge", "-H", f"Origin: {APP}",
                               *words).split("\n\n")[0].split("\n")
        assert head[0].startswith("HTTP/2")
        return head[0].split()[1], dict(line.split(": ", 1) for line in head[1:])

    url = f"http://127.0.0.1:{cors.ports['plain']}"
    status, fields = ask("-X", "OPTIONS", "-H", "Access-Control-Request-Method: PUT", f"{url}/item")
    assert status == "204" and fields["access-control-allow-origin"] == APP
    assert fields["access-control-allow-methods"] == "PUT, DELETE" and not seen(services)
    status, fields = ask(f"{url}/api/x")
    assert status == "401" and fields["access-control-allow-origin"] == APP
    status, fields = ask("-H", f"X-Test-Fault: {FOREIGN}", f"{url}/narrow")
    assert status == "200" and fields["access-control-allow-origin"] == APP

# SPDX-License-Identifier: Apache-2.0
"""Who is let in, as whom: places of tokens, several issuers, API keys, client certificates."""

import json
import os
import subprocess
import time

import pytest

import client
import identity
from conftest import assert_problem, headers_of, seen
from issuer import Key, key_set
from procs import wait_until
from rig import HOST, bearer

A, B = "https://id.example.com/a", "https://id.example.com/b"


@pytest.fixture(scope="module")
def keys():
    """Two issuers' keys of the same name."""
    return Key("same"), Key("same")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """An authority that signs clients' certificates."""
    return identity.Authority(str(tmp_path_factory.mktemp("people")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("identity")


@pytest.fixture(scope="module")
def api_key(folder, program):
    """Runs gatewayctl api-key new; returns the key."""

    def make(user, *words):
        argv = [program("gatewayctl"), "api-key", "new", "--user", user]
        argv += ["--file", str(folder / "keys.json"), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    return make


@pytest.fixture(scope="module")
def acme(api_key):
    return api_key("acme", "--id", "acme-1", "--scope", "read", "--scope", "write",
                   "--claim", "tenant=T-1")


@pytest.fixture(scope="module")
def rig(folder, make_rig, keys, people, acme):
    rig = make_rig(folder)

    def jwt(name, issuer, key, **more):
        path = str(folder / f"{name}.jwks.json")
        with open(path, "wb") as file:
            file.write(key_set(key))
        base = {"type": "jwt", "issuer": issuer, "audiences": ["app"], "algorithms": ["ES256"]}
        rig.config["auth"][name] = {**base, "leeway_s": 0, "jwks": {"file": path}, **more}

    def route(name, auth, **more):
        rig.config["routes"].append(
            {"name": name, "match": {"path": f"/{name}/*"}, "auth": auth, "service": "echo", **more}
        )

    jwt("a", A, keys[0], forward={"sub": "X-User-Id", "org.unit": "X-Unit", "n": "X-Number",
                                  "list": "X-List", "flag": "X-Flag", "o": "X-Object"})
    jwt("b", B, keys[1])
    jwt("other-audience", A, keys[0], audiences=["other"])
    jwt("cookie", A, keys[0], token={"cookie": "session"})
    jwt("places", A, keys[0], token=[{"header": "X-Token"}, {"cookie": "session"}])
    jwt("kept", A, keys[0], keep_token=True)
    jwt("short", A, keys[0], max_lifetime_s=600)
    file = str(folder / "keys.json")
    rig.config["auth"]["key"] = {"type": "api_key", "keys_file": file,
                                 "forward": {"sub": "X-User-Id", "tenant": "X-Tenant"}}
    places = [{"query": "api_key"}, {"cookie": "key"}, {"header": "Authorization"}]
    rig.config["auth"]["key-anywhere"] = {"type": "api_key", "keys_file": file, "token": places}
    rig.config["auth"]["cert"] = {
        "type": "mtls",
        "allow": ["uri:spiffe://x/staff/*", "dns:*.svc.example.com", "email:*@example.com"],
        "forward": {"sub": "X-User-Id", "dns": "X-Names"},
    }
    for name in ("a", "b", "other-audience", "cookie", "places", "kept", "short", "key",
                 "key-anywhere", "cert"):
        route(name, name)
    route("two", ["a", "b"])
    route("audiences", ["other-audience", "a"])
    route("mixed", ["cert", "a", "key"])
    route("maybe", ["a", "key"], auth_optional=True)
    route("need-scope", ["a", "key"], require={"scope": ["write"]})
    route("need-nested", "a", require={"realm.roles": {"contains": ["x", "y"]}})
    route("need-equal", "a", require={"plan": {"one_of": ["gold", 7]}, "org.unit": {"equals": "u"}})
    rig.config["listeners"][1]["tls"].update(client_auth="request", client_ca=people.certificate)
    return rig.start()


@pytest.fixture(autouse=True)
def forget(services):
    for service in services:
        service.forget()


def user_of(answer):
    assert answer.status == 200, answer
    return headers_of(answer).get("x-user-id")


# --- tokens ------------------------------------------------------------------------------------


def test_either_issuer_and_nobody_else(rig, keys, services):
    assert user_of(rig.ask("GET", "/two/x", bearer(keys[0].token(A, sub="from-a")))) == ["from-a"]
    assert user_of(rig.ask("GET", "/two/x", bearer(keys[1].token(B, sub="from-b")))) == ["from-b"]
    for service in services:
        service.forget()
    # The keys have the same name; each is for its own issuer all the same.
    for token in (keys[0].token(B), keys[1].token(A), keys[0].token("https://x/")):
        for _ in range(2):
            answer = rig.ask("GET", "/two/x", bearer(token))
            assert_problem(answer, 401)
            assert 'error="invalid_token"' in answer.first("WWW-Authenticate")
    # ... and what one auth remembers is nothing to another.
    token = keys[0].token(A)
    assert rig.ask("GET", "/a/x", bearer(token)).status == 200
    for path in ("/b/x", "/other-audience/x"):
        assert_problem(rig.ask("GET", path, bearer(token)), 401)
    assert len(seen(services)) == 1


def test_same_issuer_several_audiences(rig, keys):
    assert user_of(rig.ask("GET", "/audiences/x", bearer(keys[0].token(A, sub="1")))) == ["1"]
    token = keys[0].token(A, sub="2", aud=["other"])
    assert user_of(rig.ask("GET", "/audiences/x", bearer(token))) == ["2"]
    token = keys[0].token(A, aud="third")
    assert_problem(rig.ask("GET", "/audiences/x", bearer(token)), 401)


def test_token_in_a_cookie(rig, keys, services):
    token = keys[0].token(A)
    cookies = f"theme=dark; session={token}; lang=en"
    answer = rig.ask("GET", "/cookie/x", [("Cookie", cookies)])
    assert user_of(answer) == ["u1"]
    assert headers_of(answer)["cookie"] == ["theme=dark; lang=en"]
    assert "cookie" not in headers_of(rig.ask("GET", "/cookie/x", [("Cookie", f"session={token}")]))
    for service in services:
        service.forget()
    for headers in (
        bearer(token),
        [("Cookie", f"session={token}; session={token}")],
        [("Cookie", f"session={token}"), ("Cookie", "session=x")],
        [("Cookie", f"Session={token}")],
        [("Cookie", "session=")],
    ):
        assert_problem(rig.ask("GET", "/cookie/x", headers), 401)
    assert not seen(services)


def test_the_first_place_that_has_something_decides(rig, keys, services):
    token = keys[0].token(A)
    for headers in ([("x-token", token)], [("X-Token", f"bearer {token}")],
                    [("Cookie", f"session={token}")],
                    [("X-Token", token), ("Cookie", "a=b; session=garbage")]):
        answer = rig.ask("GET", "/places/x", headers)
        assert user_of(answer) == ["u1"]
        assert "x-token" not in headers_of(answer)
        assert "session" not in json.dumps(headers_of(answer).get("cookie", []))
    for service in services:
        service.forget()
    for headers in ([("X-Token", "garbage"), ("Cookie", f"session={token}")],
                    [("X-Token", token), ("X-Token", token)]):
        assert_problem(rig.ask("GET", "/places/x", headers), 401)
    assert not seen(services)


def test_tokens_are_taken_out_unless_kept(rig, keys):
    token = keys[0].token(A)
    assert "authorization" not in headers_of(rig.ask("GET", "/a/x", bearer(token)))
    assert headers_of(rig.ask("GET", "/kept/x", bearer(token)))["authorization"] == [f"Bearer {token}"]
    # Not checked here, so it is the service's own affair.
    assert "authorization" in headers_of(rig.ask("GET", "/echo/x", bearer(token)))


def test_optional_authentication(rig, keys, acme, services):
    answer = rig.ask("GET", "/maybe/x", [("X-User-Id", "admin"), ("Authorization", "Basic eDp5")])
    assert user_of(answer) is None
    assert "authorization" not in headers_of(answer)
    assert user_of(rig.ask("GET", "/maybe/x", bearer(keys[0].token(A)))) == ["u1"]
    assert user_of(rig.ask("GET", "/maybe/x", [("X-API-Key", acme)])) == ["acme"]
    for service in services:
        service.forget()
    for headers in (bearer("garbage"), bearer(keys[0].token(A, exp=1)), [("X-API-Key", "x")],
                    bearer("garbage") + [("X-API-Key", acme)]):  # nothing makes up for a bad one
        assert_problem(rig.ask("GET", "/maybe/x", headers), 401)
    assert not seen(services)


def test_claims_become_headers(rig, keys):
    token = keys[0].token(A, org={"unit": "u-1"}, n=4.50, list=["a", "b"], flag=False, o={"k": [1]})
    got = headers_of(rig.ask("GET", "/a/x", bearer(token)))
    want = {"x-unit": "u-1", "x-number": "4.5", "x-list": "a,b", "x-flag": "false", "x-object": '{"k":[1]}'}
    assert {name: got[name][0] for name in want} == want
    for bad in ("a\r\nX-Admin: 1", "a\nb", "a\x00b", "a\x7f", " a", "a\t"):
        for claims in ({"org": {"unit": bad}}, {"list": ["x", bad, "y"]}, {"sub": bad}):
            if bad.startswith(" ") and "list" in claims:
                continue  # inside the joined text a space is harmless
            answer = rig.ask("GET", "/a/x", bearer(keys[0].token(A, **claims)))
            assert_problem(answer, 401)


@pytest.mark.parametrize(
    "path, claims, status",
    [
        ("need-scope", {"scope": "read write"}, 200),
        ("need-scope", {"scope": ["write"]}, 200),
        ("need-scope", {"scope": "writer"}, 403),
        ("need-scope", {}, 403),
        ("need-nested", {"realm": {"roles": ["z", "y", "x"]}}, 200),
        ("need-nested", {"realm": {"roles": ["x"]}}, 403),
        ("need-nested", {"realm": {"roles": "x y"}}, 200),
        ("need-nested", {"realm.roles": ["x", "y"]}, 200),
        ("need-nested", {"roles": ["x", "y"]}, 403),
        ("need-equal", {"plan": "gold", "org": {"unit": "u"}}, 200),
        ("need-equal", {"plan": 7, "org": {"unit": "u"}}, 200),
        ("need-equal", {"plan": "7", "org": {"unit": "u"}}, 403),
        ("need-equal", {"plan": ["gold"], "org": {"unit": "u"}}, 403),
        ("need-equal", {"plan": "gold silver", "org": {"unit": "u"}}, 403),
        ("need-equal", {"plan": "gold", "org": {"unit": 1}}, 403),
    ],
)
def test_what_a_route_requires(rig, keys, services, path, claims, status):
    answer = rig.ask("GET", f"/{path}/x", bearer(keys[0].token(A, **claims)))
    assert answer.status == status
    if status == 403:
        assert 'error="insufficient_scope"' in answer.first("WWW-Authenticate")
        assert not seen(services)


def test_tokens_that_live_too_long(rig, keys):
    now = int(time.time())
    assert rig.ask("GET", "/short/x", bearer(keys[0].token(A, exp=now + 600, iat=now))).status == 200
    for claims in ({"exp": now + 700, "iat": now}, {"exp": now + 60, "iat": now - 600}):
        answer = rig.ask("GET", "/short/x", bearer(keys[0].token(A, **claims)))
        assert_problem(answer, 401)
        assert "longer than allowed" in answer.first("WWW-Authenticate")


# --- API keys ----------------------------------------------------------------------------------


def test_api_keys(rig, acme, services):
    answer = rig.ask("GET", "/key/x", [("x-api-key", acme)])
    got = headers_of(answer)
    assert got["x-user-id"] == ["acme"] and got["x-tenant"] == ["T-1"] and "x-api-key" not in got
    record = rig.wait_record(request_id=got["x-request-id"][0])
    assert record["userId"] == "acme"
    assert rig.ask("GET", "/need-scope/x", [("X-API-Key", acme)]).status == 200
    for service in services:
        service.forget()
    for headers in ([], [("X-API-Key", "")], [("X-API-Key", acme[:-1])],
                    [("X-API-Key", acme + "A")], [("X-API-Key", "x" * 9000)],
                    [("X-API-Key", acme), ("X-API-Key", acme)], bearer(acme)):
        answer = rig.ask("GET", "/key/x", headers)
        assert_problem(answer, 401)
        assert answer.all("WWW-Authenticate") == ['ApiKey realm="test"']
    assert not seen(services)
    with open(rig.log_path, encoding="utf-8") as log:
        assert acme not in log.read() + rig.proc.log()


def test_api_keys_elsewhere(rig, acme):
    for target, headers in (
        (f"/key-anywhere/x?a=1&api_key={acme}&b=2", []),
        ("/key-anywhere/x?a=1&b=2", [("Cookie", f"key={acme}; k=v")]),
        ("/key-anywhere/x?a=1&b=2", [("Authorization", f"ApiKey {acme}")]),
    ):
        answer = rig.ask("GET", target, headers)
        assert user_of(answer) == ["acme"]
        assert answer.json()["target"] == "/key-anywhere/x?a=1&b=2"
        assert acme not in answer.body.decode()
    answer = rig.ask("GET", f"/key-anywhere/x?api_key={acme}")
    assert answer.json()["target"] == "/key-anywhere/x"
    assert_problem(rig.ask("GET", "/key-anywhere/x", [("Authorization", f"Bearer {acme}")]), 401)


def test_api_keys_come_and_go_with_the_file(rig, folder, api_key, acme):
    def status(key):
        return rig.ask("GET", "/key/x", [("X-API-Key", key)]).status

    fresh = api_key("newcomer")
    late = api_key("late", "--expires", "2020-01-01T00:00:00Z")
    wait_until(lambda: status(fresh) == 200, "the new key")
    assert status(late) == 401 and status(acme) == 200
    path = folder / "keys.json"
    document = json.loads(path.read_text())
    assert fresh not in path.read_text() and os.stat(path).st_mode & 0o777 == 0o640
    entry = next(key for key in document["keys"] if key["user"] == "newcomer")
    entry["disabled"] = True
    (folder / "keys.tmp").write_text(json.dumps(document))
    os.rename(folder / "keys.tmp", path)
    wait_until(lambda: status(fresh) == 401, "the disabled key")
    entry["expire"] = "misspelt"
    path.write_text(json.dumps(document))
    wait_until(lambda: "has a member that is none of" in rig.proc.log(), "the complaint")
    assert status(acme) == 200  # the last good one stays


def test_api_key_tool(program, tmp_path):
    def run(*words, stdin=""):
        argv = [program("gatewayctl"), "api-key", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=10, input=stdin)

    made = run("new", "--user", "u", "--id", "one")
    entry = json.loads(made.stderr)
    assert entry["id"] == "one" and run("hash", "-", stdin=made.stdout).stdout.strip() == entry["hash"]
    file = str(tmp_path / "k.json")
    assert run("new", "--user", "u", "--id", "one", "--file", file).returncode == 0
    twice = run("new", "--user", "u", "--id", "one", "--file", file)
    assert twice.returncode == 1 and "is there already" in twice.stderr and not twice.stdout
    for words in ((), ("new",), ("hash", "short"), ("new", "--user", "u", "--expires", "soon"),
                  ("new", "--user", "u", "--claim", "x"), ("frob",)):
        done = run(*words)
        assert done.returncode == 2 and done.stderr and not done.stdout, words
    for word in ("new", "hash", "--file", "exit status"):
        assert word in run("--help").stdout


# --- client certificates -----------------------------------------------------------------------


def ask_as(rig, certificate, path="/cert/x", headers=()):
    context = client.tls_context(rig.authority.certificate)
    if certificate:
        context.load_cert_chain(*certificate)
    with rig.connect("tls", HOST, tls=context) as connection:
        return connection.request("GET", path, headers)


def test_names_in_certificates(rig, people, keys, acme):
    def issue(name, dns, names=()):
        return people.issue(name, dns, usage="clientAuth", names=names)

    staff = issue("staff", ["staff.example.org"], ["URI:spiffe://x/staff/eve/1"])
    got = headers_of(ask_as(rig, staff))
    assert got["x-user-id"] == ["spiffe://x/staff/eve/1"] and got["x-names"] == ["staff.example.org"]
    both = issue("both", ["Db.svc.example.com"], ["email:bob@example.com"])
    assert user_of(ask_as(rig, both)) == ["Db.svc.example.com"]
    mail = issue("mail", ["mail"], ["email:bob@example.com"])
    assert user_of(ask_as(rig, mail)) == ["bob@example.com"]
    for number, (dns, names) in enumerate((
        ("deep.db.svc.example.com", ()),
        ("svc.example.com", ("URI:spiffe://x/staff/",)),
        ("x", ("URI:spiffe://x/staffx/eve", "email:a@b@example.com")),
        ("spiffe", ("email:bob@example.com.evil.org",)),
    )):
        answer = ask_as(rig, issue(f"bad-{number}", [dns], names))
        assert_problem(answer, 403)
    assert_problem(ask_as(rig, None), 403)
    assert_problem(rig.ask("GET", "/cert/x"), 403)
    # Beside others it counts where it fits, and is no obstacle where it does not.
    token = bearer(keys[0].token(A))
    assert user_of(ask_as(rig, staff, "/mixed/x", token)) == ["spiffe://x/staff/eve/1"]
    assert user_of(ask_as(rig, mail, "/mixed/x")) == ["bob@example.com"]
    assert user_of(ask_as(rig, None, "/mixed/x", token)) == ["u1"]
    assert user_of(ask_as(rig, None, "/mixed/x", [("X-API-Key", acme)])) == ["acme"]
    nothing = ask_as(rig, None, "/mixed/x")
    assert_problem(nothing, 401)
    assert nothing.all("WWW-Authenticate") == ['Bearer realm="test", ApiKey realm="test"']

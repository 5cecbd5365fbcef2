# SPDX-License-Identifier: Apache-2.0
"""Key sets from URLs and files while the gateway runs: fetched, rotated, kept when they fail."""

import os
import re
import threading

import pytest

from conftest import assert_problem, headers_of, seen
from issuer import Key, Url, key_set
from procs import wait_until
from rig import bearer, free_port

ISSUER = "https://id.example.com/url"


@pytest.fixture
def urls():
    """Makes key-set URLs that end with the test."""
    made = []

    def make(*args, **options):
        made.append(Url(*args, **options))
        return made[-1]

    yield make
    for url in made:
        url.close()


@pytest.fixture(scope="module")
def keys():
    return Key("k1"), Key("k2")


@pytest.fixture
def url_rig(tmp_path, make_rig, procs):
    """A gateway whose route /es wants tokens by the keys at a URL."""

    def make(**jwks):
        rig = make_rig(tmp_path, procs)
        rig.config["auth"]["es"] = {
            **{"type": "jwt", "issuer": ISSUER, "algorithms": ["ES256"], "leeway_s": 0},
            "jwks": {"timeout_ms": 2000, **jwks},
        }
        return rig

    return make


def metric(rig, name, labels=""):
    text = rig.admin("GET", "/metrics").body.decode()
    match = re.search(rf"^gatehouse_gateway_{name}{re.escape(labels)} (\S+)$", text, re.MULTILINE)
    return float(match[1]) if match else None


def fetches(rig, result):
    return metric(rig, "jwks_fetches_total", f'{{auth="es",result="{result}"}}')


def ask(rig, token):
    return rig.ask("GET", "/es/x", bearer(token))


def state_of(rig):
    return next(a for a in rig.admin("GET", "/status").json()["auth"] if a["name"] == "es")


def test_keys_come_over_https_by_name(url_rig, urls, keys, authority):
    url = urls([keys[0]], certificate=authority.issue_once("issuer", ["localhost"]))
    rig = url_rig(url=url.url(), ca=authority.certificate).start()
    assert headers_of(ask(rig, keys[0].token(ISSUER)))["x-user-id"] == ["u1"]
    assert state_of(rig)["state"] == "good" and state_of(rig)["keys"] == 1
    # A reload that changes nothing about it neither fetches again nor loses the keys.
    before = url.fetches
    rig.reload()
    assert ask(rig, keys[0].token(ISSUER)).status == 200
    assert url.fetches == before == 1


def test_a_url_with_another_certificate_is_not_believed(url_rig, urls, keys, authority):
    url = urls([keys[0]], certificate=authority.issue_once("issuer", ["localhost"]))
    rig = url_rig(url=url.url("127.0.0.1"), ca=authority.certificate).start()
    assert_problem(ask(rig, keys[0].token(ISSUER)), 503)
    assert state_of(rig)["state"] == "failing"


def test_start_without_the_url(url_rig, urls, keys):
    port = free_port()
    rig = url_rig(url=f"http://localhost:{port}/keys?v=1", allow_http=True).start()
    answer = ask(rig, keys[0].token(ISSUER))
    assert_problem(answer, 503)
    assert 1 <= int(answer.first("Retry-After")) <= 31
    assert not answer.all("WWW-Authenticate")
    assert_problem(rig.ask("GET", "/es/x"), 401)  # needs no key to be refused
    assert rig.ask("GET", "/echo/x").status == 200
    assert rig.wait_record(status=503)["reason"] == "no_keys"
    urls([keys[0]], port=port)
    wait_until(lambda: ask(rig, keys[0].token(ISSUER)).status == 200, "the first keys", 40)


def test_the_last_good_keys_stay(url_rig, urls, keys):
    url = urls([keys[0]])
    rig = url_rig(url=url.url(), allow_http=True, refresh_s=1).start()
    token = keys[0].token(ISSUER)
    assert ask(rig, token).status == 200
    elsewhere = urls([keys[1]])
    failures = [
        (500, b"no", {}, "status 500"),
        (200, b"garbage", {}, "line 1"),
        (200, b'{"keys":[]}', {}, "no key"),
        (200, b" " * (257 << 10) + key_set(keys[1]), {}, "too large"),
        # Secrets at a URL are none: whoever reads them could sign.
        (200, b'{"keys":[{"kty":"oct","k":"' + b"A" * 43 + b'"}]}', {}, "no key"),
        (302, b"", {"Location": elsewhere.url()}, "redirects are not followed"),
    ]
    for url.status, url.body, url.headers, problem in failures:
        before = fetches(rig, "failed")
        wait_until(lambda: fetches(rig, "failed") > before + (before > 0), "failed fetches", 40)
        assert problem in state_of(rig)["problem"], state_of(rig)
        assert state_of(rig)["state"] == "failing"
        assert ask(rig, token).status == 200
    assert elsewhere.fetches == 0
    url.publish(keys[0])
    wait_until(lambda: state_of(rig)["state"] == "good", "a good fetch", 40)


def test_rotation_with_requests_in_flight(url_rig, urls, keys, services):
    url = urls([keys[0]])
    rig = url_rig(url=url.url(), allow_http=True, refresh_s=600).start()
    old, new = keys[0].token(ISSUER), keys[1].token(ISSUER)
    assert ask(rig, old).status == 200
    slow = []

    def go_slowly():
        slow.append(rig.ask("GET", "/es/x?fault=delay_ms=1500", bearer(old)).status)

    thread = threading.Thread(target=go_slowly)
    thread.start()
    wait_until(lambda: any("delay" in r["target"] for r in seen(services)), "it at the service")
    url.publish(keys[1])
    assert ask(rig, new).status == 401  # what makes it look
    wait_until(lambda: ask(rig, new).status == 200, "the new key", 10)
    answer = ask(rig, old)  # remembered, but its key is gone
    assert_problem(answer, 401)
    assert 'error="invalid_token"' in answer.first("WWW-Authenticate")
    thread.join()
    assert slow == [200]
    # Names of keys that nobody has do not make it ask again and again.
    assert url.fetches == 2
    for number in range(50):
        assert ask(rig, keys[1].token(ISSUER, kid=f"no-{number}")).status == 401
    assert url.fetches == 2 and fetches(rig, "ok") == 2
    assert metric(rig, "auth_refused_total", '{reason="unknown_key"}') >= 50


def test_a_copy_on_disk_serves_until_the_url_is_back(url_rig, urls, keys, tmp_path):
    cache = str(tmp_path / "es.jwks.cache")
    url = urls([keys[0]])
    rig = url_rig(url=url.url(), allow_http=True, cache=cache).start()
    assert ask(rig, keys[0].token(ISSUER)).status == 200
    assert os.stat(cache).st_mode & 0o777 == 0o600
    rig.proc.stop()
    url.close = lambda: None
    url.server.shutdown()
    url.server.server_close()
    rig.start()
    assert ask(rig, keys[0].token(ISSUER)).status == 200
    assert state_of(rig)["from_cache"] is True


def test_a_changed_file_counts_without_a_reload(tmp_path, make_rig, procs, keys):
    rig = make_rig(tmp_path, procs)
    path = rig.signers["es"].jwks
    rig.config["auth"]["es"]["issuer"] = ISSUER
    del rig.config["auth"]["es"]["audiences"]
    with open(path, "wb") as file:
        file.write(key_set(keys[0]))
    rig.start()
    old, new = keys[0].token(ISSUER), keys[1].token(ISSUER)
    assert ask(rig, old).status == 200 and ask(rig, new).status == 401

    def replace(content):
        with open(path + ".new", "wb") as file:
            file.write(content)
        os.rename(path + ".new", path)

    replace(key_set(keys[1]))
    wait_until(lambda: ask(rig, new).status == 200, "the new file", 10)
    assert ask(rig, old).status == 401
    before = metric(rig, "auth_file_reloads_failed_total")
    replace(b'{"keys": [')
    wait_until(lambda: metric(rig, "auth_file_reloads_failed_total") > before, "the failure", 10)
    assert ask(rig, new).status == 200
    replace(key_set(keys[0], keys[1]))
    wait_until(lambda: ask(rig, old).status == 200, "both keys", 10)

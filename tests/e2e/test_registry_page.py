# SPDX-License-Identifier: Apache-2.0
"""The registry's page: what it may load and run, and, in a browser, what it shows."""

import json
import re
import signal
from urllib.parse import quote

import pytest

import browser as browser_module
from procs import wait_until
from rig import bearer

ADMIN = "admin-0123456789abcdef"

# What would run if any of it became markup.
HOSTILE = [
    "<img src=x onerror='window.hacked=1'>",
    "</script><script>window.hacked=2</script>",
    "\"><svg/onload=window.hacked=3>",
    "javascript:window.hacked=4",
    "{{window.hacked=5}}`${window.hacked=6}`",
]


def instance(**more):
    return {"address": "10.1.0.5", "port": 8080, "lease_s": 60, **more}


def put(registry, app, name, headers=(), **more):
    answer = registry.call("PUT", f"/v1/apps/{app}/instances/{quote(name, safe='')}",
                           instance(**more), headers=headers)
    assert answer.status in (200, 201), answer


def test_page_loads_nothing_and_runs_nothing_else(registry):
    answer = registry.call("GET", "/")
    assert answer.status == 200 and answer.first("Content-Type") == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in answer.first(
        "Content-Security-Policy").split(";"))
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'" and policy["base-uri"] == "'none'"
    for kind in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", policy[kind]), policy
    assert answer.first("X-Content-Type-Options") == "nosniff"
    page = answer.body.decode()
    assert "innerHTML" not in page and "insertAdjacent" not in page and "document.write" not in page
    assert not re.findall(r"https?://|//[a-z]+\.[a-z]", re.sub(r'"https? "', "", page))
    assert registry.call("HEAD", "/").status == 200


def test_leases_and_changes(registry):
    for name in ("u1", "u2"):
        put(registry, "user", name)
    registry.status("user", "u1", "DOWN")
    registry.call("DELETE", "/v1/apps/user/instances/u2")
    leases = registry.call("GET", "/v1/apps/user/leases").json()
    assert [lease["id"] for lease in leases["leases"]] == ["u1"]
    assert 0 <= leases["leases"][0]["age_ms"] < 60000 and leases["leases"][0]["held"] is False
    changes = registry.call("GET", "/v1/changes").json()["changes"]
    assert [(c["event"], c["app"], c["id"]) for c in changes] == [
        ("delete", "user", "u2"), ("status", "user", "u1")]
    assert changes[1]["status"] == "DOWN" and changes[0]["index"] > changes[1]["index"]
    assert len(registry.call("GET", "/v1/changes?limit=1").json()["changes"]) == 1
    assert registry.call("GET", "/v1/changes?limit=0").status == 400
    assert registry.call("GET", "/v1/apps/unknown/leases").json()["leases"] == []
    assert registry.call("GET", "/v1/apps/no%20name/leases").status == 400


# --- in a browser -------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(browser_module.missing() is not None,
                                   reason=str(browser_module.missing()))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = browser_module.Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture
def page(chromium, registry):
    chromium.console.clear()
    chromium.size(1300, 900)
    chromium.open(registry.url + "/")
    wait_until(lambda: chromium.text("#live") == "live", "live", 20)
    return chromium


@needs_browser
def test_page_is_live(page, registry):
    def shows(text):
        wait_until(lambda: text in page.text("#apps"), text, 20)

    shows("No instances are registered.")
    put(registry, "user-service", "user-17", zone="zone-a", version="2.3.1", metadata={"git": "abc"})
    for text in ("user-service", "1 of 1 up", "user-17", "10.1.0.5:8080", "zone-a", "2.3.1",
                 "git=abc", "of 60 s"):
        shows(text)
    wait_until(lambda: "registered" in page.text("#changes"), "the change", 20)
    registry.status("user-service", "user-17", "OUT_OF_SERVICE")
    shows("OUT OF SERVICE set")
    shows("0 of 1 up")
    page.run("document.querySelector('#search').value = 'no such'; draw()")
    shows("Nothing matches.")
    page.run("document.querySelector('#search').value = 'user 10.1.0.5'; draw()")
    shows("user-17")
    # It comes back by itself, and knows what happened meanwhile.
    registry.proc.stopped_on_purpose = True
    registry.proc.signal(signal.SIGTERM)
    registry.proc.popen.wait(10)
    wait_until(lambda: "not connected" in page.text("#live"), "lost", 20)
    registry.start()
    registry.call("DELETE", "/v1/apps/user-service/instances/user-17")
    wait_until(lambda: page.text("#live") == "live", "live again", 20)
    shows("No instances are registered.")
    wait_until(lambda: "left" in page.text("#changes"), "the change", 20)


@needs_browser
def test_page_shows_strangers_words_as_words(page, registry):
    for number, text in enumerate(HOSTILE):
        put(registry, "evil", text.replace(" ", "") + str(number), zone=text[:64],
            version=text[:64], metadata={text[:64]: text})
    wait_until(lambda: all(text in page.text("#apps") for text in HOSTILE), "all of it as text", 20)
    assert page.run("typeof window.hacked") == "undefined"
    assert page.run("document.querySelectorAll('img, svg, iframe, object').length") == 0
    assert page.run("document.scripts.length") == 1
    assert [e for e in page.console if e.get("level") == "error" or "exception" in e] == []
    # And if something got in all the same, the policy would stop it.
    page.run("document.body.append(Object.assign(document.createElement('script'),"
             " {textContent: 'window.hacked = 7'}))")
    page.run("document.body.insertAdjacentHTML('beforeend', "
             + json.dumps('<img src="data:," onerror="window.hacked=8">') + ")")
    wait_until(lambda: page.run("1") and len([e for e in page.console if "Content Security Policy"
                                              in e.get("text", "")]) >= 2, "two refusals", 20)
    assert page.run("typeof window.hacked") == "undefined"


@needs_browser
def test_page_fits_a_phone(page, registry):
    put(registry, "user-service", "user-" + "x" * 120, zone="zone-a", address="2001:db8::1:2:3:4",
        metadata={"url": "https://" + "long." * 40 + "example"})
    for number in range(150):
        put(registry, "a-service-with-a-rather-long-name-for-a-phone", f"i-{number:03}")
    page.size(390, 844, True)
    wait_until(lambda: "user-" in page.text("#apps") and "150 of 150" in page.text("#apps"), "shown", 20)
    assert page.run("document.documentElement.scrollWidth") <= 390
    # An app of many is opened by hand, a part at a time.
    page.run("[...document.querySelectorAll('summary')].find(s => s.innerText.includes('rather')).click()")
    wait_until(lambda: "50 more" in page.text("#apps"), "opened", 20)
    assert "i-099" in page.text("#apps") and "i-100" not in page.text("#apps")
    page.run("document.querySelector('.more button').click()")
    wait_until(lambda: "i-149" in page.text("#apps"), "the others", 20)
    assert page.run("document.documentElement.scrollWidth") <= 390


@needs_browser
def test_page_asks_for_a_token(chromium, make_registry):
    guarded = make_registry(tokens=[{"name": "admin", "token": ADMIN}]).start()
    put(guarded, "user-service", "user-17", bearer(ADMIN))
    chromium.open(guarded.url + "/")

    def enter(token):
        chromium.run(f"document.querySelector('#token').value = {json.dumps(token)}; "
                     "document.querySelector('#ask button').click()")

    wait_until(lambda: "wants a token" in chromium.text("#ask"), "asked for", 20)
    enter("wrong-0123456789abcdef")
    wait_until(lambda: "does not know this token" in chromium.text("#ask"), "refused", 20)
    enter(ADMIN)
    wait_until(lambda: "user-17" in chromium.text("#apps"), "shown", 20)
    assert ADMIN not in chromium.run("location.href") and ADMIN not in guarded.proc.log()
    put(guarded, "user-service", "user-18", bearer(ADMIN))
    wait_until(lambda: "user-18" in chromium.text("#apps"), "live", 20)

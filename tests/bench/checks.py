# SPDX-License-Identifier: Apache-2.0
"""Proof that a target does the work of a case before its figures count: a gateway that answers 401
to everything, or writes no log, would win every benchmark."""

import http.client
import json
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from procs import NotReady, wait_until
from targets import PREFIXES

LIMIT = 12  # of the short-lived instances that must answer 429
FORGED = {"X-User-Id": "forged", "X-Request-Id": "forged", "X-Forwarded-For": "192.0.2.1"}


class NotEqualWork(Exception):
    """A target does less, or something else, than the case asks for."""


class Client:
    """One connection. Every request counts: the log must have a line for each."""

    def __init__(self, target, authority):
        self.target = target
        self.sent = 0
        self.context = ssl.create_default_context(cafile=authority.certificate)
        self.connect()

    def connect(self):
        raw = socket.create_connection(("127.0.0.1", self.target.port), timeout=5)
        self.http = http.client.HTTPConnection("bench.example.com")
        self.http.sock = self.context.wrap_socket(raw, server_hostname="bench.example.com")

    def get(self, path, token=None, device="device-x", headers=None):
        """(status, header fields by lower-case name, body)"""
        fields = {"X-Device-Id": device, **(headers or {})}
        if token:
            fields["Authorization"] = f"Bearer {token}"
        try:
            self.http.request("GET", path, headers=fields)
            answer = self.http.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotEqualWork(
                f"{self.target.name}: no answer to {path}: {error!r}\n{self.target.state()}"
            ) from None
        self.sent += 1
        return answer.status, {n.lower(): v for n, v in answer.getheaders()}, body

    def echo(self, path, token=None, headers=None):
        status, fields, body = self.get(path, token, headers=headers)
        if status != 200:
            raise NotEqualWork(f"{self.target.name}: {path} answered {status}: {body[:200]!r}")
        pairs = (line.partition("=") for line in body.decode().splitlines())
        return fields, {name: value for name, _, value in pairs}


def expect(target, what, got, wanted):
    if got != wanted:
        raise NotEqualWork(f"{target.name}: {what}: got {got!r}, wanted {wanted!r}")


def check_tls(target, openssl_env):
    """What the load generator, whose OpenSSL reads the same file, will negotiate."""
    done = subprocess.run(
        ["openssl", "s_client", "-brief", "-connect", f"127.0.0.1:{target.port}"],
        env=openssl_env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=10,
    )
    said = done.stdout + done.stderr
    for wanted in ("TLSv1.3", "TLS_AES_128_GCM_SHA256", "prime256v1"):
        if wanted not in said:
            raise NotEqualWork(f"{target.name}: no {wanted} in the handshake:\n{said}")


def check_headers(target, client, token):
    wanted_user = "user-0001" if token else ""
    seen = []
    for _ in range(2):
        fields, got = client.echo(PREFIXES["user"] + "echo", token, FORGED)
        expect(target, "X-User-Id at the service", got["user"], wanted_user)
        expect(target, "X-Forwarded-For at the service", got["for"], "127.0.0.1")
        expect(target, "X-Forwarded-Proto at the service", got["proto"], "https")
        expect(target, "X-Internal-Server at the client", fields.get("x-internal-server"), None)
        expect(target, "X-Powered-By at the client", fields.get("x-powered-by"), None)
        if token:
            expect(target, "Authorization at the service", got["authorization"], "")
        seen.append(got["request"])
    if len(set(seen)) != 2 or "forged" in seen or min(map(len, seen)) < 16:
        raise NotEqualWork(f"{target.name}: request ids at the service: {seen}")
    expect(target, "body", len(client.get(PREFIXES["user"] + "profile", token)[2]), 1024)


def check_pools(target, client, authority, token, pools):
    """Both instances get requests when there are some at a time: one after the other may all go to the
    one that answers sooner. One that seemed slow, on a busy machine, is asked again after a while."""

    def ask(prefix):
        other = Client(target, authority)
        ports = {int(other.echo(prefix + "echo", token)[1]["port"]) for _ in range(20)}
        return ports, other.sent

    with ThreadPoolExecutor(8) as executor:
        for pool, prefix in PREFIXES.items():
            ports, until = set(), time.monotonic() + 20
            while ports != set(pools[pool]) and time.monotonic() < until:
                for found, sent in executor.map(ask, [prefix] * 8):
                    ports |= found
                    client.sent += sent
            expect(target, f"instances of {pool}", ports, set(pools[pool]))


def check_tokens(target, client, signer, stranger):
    """Refused: no token, a changed byte, an old one, one for others, another issuer's key."""
    good = signer.token("user-0001")
    head, payload, signature = good.split(".")
    swapped = ("B" if signature[0] == "A" else "A") + signature[1:]
    bad = {
        "no token": None,
        "a changed signature": f"{head}.{payload}.{swapped}",
        "an expired token": signer.token("user-0001", lifetime_s=-120),
        "another issuer": signer.token("user-0001", claims={"iss": "https://other.example.com"}),
        "another audience": signer.token("user-0001", claims={"aud": "other"}),
        "another key": stranger.token("user-0001", header={"kid": signer.kid}),
    }
    for what, token in bad.items():
        # HAProxy 2.6 leaves OpenSSL's error queue full after a bad signature and then drops the
        # connection, mistaking that for an error of its TLS.
        client.connect()
        status = client.get(PREFIXES["user"] + "echo", token)[0]
        expect(target, f"status for {what}", status, 401)
    client.connect()
    expect(target, "status for a good token", client.get(PREFIXES["user"] + "p", good)[0], 200)


def check_log(target, client):
    """A line of JSON per request."""

    def is_complete():
        return target.log_lines() >= client.sent

    try:
        wait_until(is_complete, "log lines", timeout_s=5)
    except NotReady:
        pass
    lines = target.log_text().splitlines()
    expect(target, "log lines", len(lines), client.sent)
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise NotEqualWork(f"{target.name}: log line {line!r}: {error}") from None
        for member in ("timestamp", "endpoint", "latency_ms", "status", "request_id", "upstream"):
            if member not in record and record.get("status") == 200:
                raise NotEqualWork(f"{target.name}: no {member} in its log: {line!r}")


def check_routes(target, client, token):
    """The last of many leads to its service as well, and what only looks like one does not."""
    for prefix in (target.work.prefixes[0], target.work.prefixes[-1]):
        status = client.get(prefix + "profile", token)[0]
        expect(target, f"status of {prefix}", status, 200)
    wrong = target.work.prefixes[-1].replace("/api/r", "/api/x")
    if client.get(wrong + "profile", token)[0] == 200:
        raise NotEqualWork(f"{target.name}: {wrong} is answered")


def check_work(target, authority, signer, stranger, openssl_env):
    """Raises NotEqualWork unless the target does all of its case's work."""
    check_tls(target, openssl_env)
    client = Client(target, authority)
    if target.is_bare:
        expect(target, "status", client.get(PREFIXES["user"] + "profile")[0], 200)
        return
    target.mark_log()  # the handshake alone may have been written down as well
    token = signer.token("user-0001") if signer else None
    check_headers(target, client, token)
    check_pools(target, client, authority, token, target.work.pools)
    if signer:
        check_tokens(target, client, signer, stranger)
    if target.work.prefixes:
        check_routes(target, client, token)
    check_log(target, client)


def check_limit(target, authority, signer, is_by_ip):
    """Of an instance with a low limit: the requests after it are refused, by the right key."""
    client = Client(target, authority)

    def ask(i):
        token = signer.token(f"user-{i}") if signer else None
        return client.get(PREFIXES["user"] + "profile", token, device=f"device-{i}")[0]

    which = "address" if is_by_ip else "user" if signer else "device"
    # Under one key; or under a key of its own each time, when the address alone is limited.
    got = [ask(i if is_by_ip else 0) for i in range(LIMIT + 2)]
    expect(target, f"requests let through by the limit per {which}", got.count(200), LIMIT)
    expect(target, f"status over the limit per {which}", got[-1], 429)
    if not is_by_ip:
        expect(target, f"status of another {which} meanwhile", ask(1), 200)

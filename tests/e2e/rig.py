# SPDX-License-Identifier: Apache-2.0
"""One gatewayd on loopback before test services: no root, no lab. For the gateway's own tests."""

import json
import os
import random
import re
import signal
import socket

import client
import identity
from procs import wait_until

HOST = "api.test.example.com"
ISSUER = "https://id.example.com/test"
AUDIENCE = "test-app"


def free_port():
    """A port that nothing uses, below those the kernel hands out for outgoing connections."""
    while True:
        port = random.randrange(18000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Rig:
    """Ports, certificates, keys and a configuration; start() runs gatewayd with it."""

    def __init__(self, directory, group, program, authority, signers, endpoints):
        self.directory = str(directory)
        self.group = group
        self.program = program
        self.authority = authority
        self.ports = {name: free_port() for name in ("plain", "tls", "admin")}
        self.certificate, self.key = authority.issue_once("rig", [HOST, "*.wild.example.com"])
        self.signers = {name: s.copy_to(self._folder("jwks")) for name, s in signers.items()}
        self.log_path = os.path.join(self.directory, "access.log")
        self.config_path = os.path.join(self.directory, "gateway.json")
        self.config = self._config(endpoints)
        self.proc = None

    def _folder(self, name):
        path = os.path.join(self.directory, name)
        os.makedirs(path, exist_ok=True)
        return path

    def _config(self, endpoints):
        def issuer(name, **more):
            signer = self.signers[name]
            return {
                "type": "jwt",
                "issuer": ISSUER,
                "audiences": [AUDIENCE],
                "algorithms": [signer.algorithm],
                "jwks": {"file": signer.jwks},
                "leeway_s": 0,
                "user_claim": "sub",
                "forward": {"sub": "X-User-Id"},
                **more,
            }

        def service(addresses, **more):
            return {"endpoints": [{"address": a} for a in addresses], **more}

        def route(name, path, **more):
            return {"name": name, "match": {"path": path, **more.pop("match", {})}, **more}

        return {
            "instance": "gw-test",
            "domain": "test",
            "workers": 2,
            "listeners": [
                {"bind": f"127.0.0.1:{self.ports['plain']}"},
                {
                    "bind": f"127.0.0.1:{self.ports['tls']}",
                    "tls": {
                        "certificates": [{"certificate": self.certificate, "key": self.key}],
                        "min_version": "1.2",
                    },
                },
            ],
            "admin": {
                "bind": f"127.0.0.1:{self.ports['admin']}",
                "socket": os.path.join(self.directory, "gateway.sock"),
            },
            "auth": {name: issuer(name) for name in self.signers},
            "rate_limits": {
                "user-5": {"key": "user", "limit": 5, "window_s": 60, "burst": 5},
                "ip-5": {"key": "ip", "limit": 5, "window_s": 60, "burst": 5},
                "endpoint-5": {"key": "endpoint", "limit": 5, "window_s": 60, "burst": 5},
                "global-5": {"key": "global", "limit": 5, "window_s": 60, "burst": 5},
                "quick": {"key": "ip", "limit": 1, "window_s": 1, "burst": 1},
            },
            "services": {
                "echo": service(endpoints, retries=2, response_timeout_ms=10000),
                "one": service(endpoints[:1], retries=2),
                "hasty": service(endpoints[:1], retries=0, response_timeout_ms=300),
                "dead": service(["127.0.0.1:1"], retries=1, connect_timeout_ms=250),
            },
            "defaults": {
                "max_body_bytes": 1 << 30,
                "response": {"remove": ["X-Internal-*", "Server", "X-Powered-By"]},
            },
            "routes": [
                route("echo", "/echo/*", service="echo"),
                route("one", "/one/*", service="one"),
                route("hasty", "/hasty/*", service="hasty"),
                route("dead", "/dead", service="dead"),
                route("rs", "/rs/*", auth="rs", service="echo"),
                route("es", "/es/*", auth="es", service="echo"),
                route("hs", "/hs/*", auth="hs", service="echo"),
                route("rewritten", "/api/v2/user/*", service="echo", rewrite_prefix="/user/"),
                route("exact", "/exact", service="echo"),
                route("template", "/users/{id}/orders", service="echo"),
                route("get-only", "/methods", service="echo", match={"methods": ["GET", "PUT"]}),
                route("by-host", "/where", service="echo", match={"hosts": ["other.example.com"]},
                      request={"set": {"X-Route": "exact host"}}),
                route("by-suffix", "/where", service="echo", match={"hosts": ["*.example.com"]},
                      request={"set": {"X-Route": "suffix"}}),
                route("by-none", "/where", service="echo", request={"set": {"X-Route": "any"}}),
                route("changed", "/changed", service="echo",
                      request={"set": {"X-Client": "web"}, "remove": ["X-Debug"]},
                      response={"set": {"Cache-Control": "no-store"}}),
                route("limit-user", "/limit/user", auth="hs", service="echo", limits=["user-5"]),
                route("limit-ip", "/limit/ip", service="echo", limits=["ip-5"]),
                route("limit-endpoint", "/limit/endpoint", service="echo", limits=["endpoint-5"]),
                route("limit-other", "/limit/other", service="echo", limits=["endpoint-5"]),
                route("limit-global", "/limit/global", service="echo", limits=["global-5"]),
                route("limit-quick", "/limit/quick", service="echo", limits=["quick"]),
                route("ping", "/ping", respond={"status": 200, "body": "pong"}),
            ],
            "access_log": {"path": self.log_path},
            "drain_delay_ms": 300,
            "drain_timeout_ms": 5000,
        }

    def write(self, config=None):
        with open(self.config_path, "w", encoding="utf-8") as file:
            json.dump(self.config if config is None else config, file, indent=2)
        return self.config_path

    def start(self):
        self.write()
        self.proc = self.group.start("gatewayd", [self.program, "-c", self.config_path])
        wait_until(
            lambda: self.admin("GET", "/readyz").status == 200, "gatewayd ready", 10, self.proc
        )
        return self

    def reload(self):
        """SIGHUP with the configuration as it is now; returns when it is in force."""
        self.write()
        before = self.reloads()
        self.proc.signal(signal.SIGHUP)
        wait_until(lambda: self.reloads() > before, "reload", 10, self.proc)
        # What it tells is asked of each worker, who has taken up the configuration before it answers.
        self.admin("GET", "/status")

    def reloads(self):
        """How many reloads have succeeded, by the gateway's own metric."""
        text = self.admin("GET", "/metrics").body.decode()
        return int(re.search(r"^gatehouse_gateway_reloads_total (\d+)$", text, re.MULTILINE)[1])

    def admin(self, method, path):
        return client.http("127.0.0.1", self.ports["admin"], method, path)

    def connect(self, listener="plain", server_name=HOST, timeout_s=10.0, tls=None):
        sock = socket.create_connection(("127.0.0.1", self.ports[listener]), timeout_s)
        if listener == "tls":
            tls = tls or client.tls_context(self.authority.certificate)
        return client.Connection(sock, tls, server_name, timeout_s)

    def ask(self, method, target, headers=(), body=None, listener="plain"):
        """One request on a connection of its own."""
        with self.connect(listener) as connection:
            return connection.request(method, target, headers, body)

    def records(self):
        """The access log so far."""
        try:
            with open(self.log_path, encoding="utf-8") as file:
                return [json.loads(line) for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def wait_record(self, **wanted):
        """The first record with these members; the log's writer may lag a little."""

        def find():
            for record in self.records():
                if all(record.get(key) == value for key, value in wanted.items()):
                    return record
            return None

        return wait_until(find, f"an access-log record with {wanted}", 5)

    def memory_kib(self):
        """Resident memory now, and its peak since reset_peak()."""
        values = {}
        with open(f"/proc/{self.proc.pid}/status", encoding="ascii") as status:
            for line in status:
                key, _, value = line.partition(":")
                if key in ("VmRSS", "VmHWM"):
                    values[key] = int(value.split()[0])
        return values["VmRSS"], values["VmHWM"]

    def reset_peak(self):
        with open(f"/proc/{self.proc.pid}/clear_refs", "w", encoding="ascii") as file:
            file.write("5")


def make_signers(directory):
    """One issuer for each algorithm, named as the rig's routes are."""
    return {
        name: identity.Signer(directory, name, algorithm, ISSUER, AUDIENCE)
        for name, algorithm in (("rs", "RS256"), ("es", "ES256"), ("hs", "HS256"))
    }


def bearer(token):
    return [("Authorization", f"Bearer {token}")]


class Registry:
    """A real registryd on loopback."""

    def __init__(self, directory, procs, program):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.procs, self.program = procs, program
        self.config_path = str(directory / "registry.json")
        self.snapshot = str(directory / "registry.snapshot")
        self.tls = None  # an ssl.SSLContext, where it speaks TLS
        self.config = {
            "bind": f"127.0.0.1:{self.port}",
            "store": {"type": "memory", "snapshot": self.snapshot},
            "lease": {"default_s": 30, "sweep_ms": 100},
        }
        self.write()

    def write(self, **more):
        self.config.update(more)
        with open(self.config_path, "w", encoding="utf-8") as file:
            json.dump(self.config, file)

    def start(self):
        program = self.program if isinstance(self.program, list) else [self.program]
        self.proc = self.procs.start("registryd", [*program, "-c", self.config_path])
        wait_until(lambda: self.call("GET", "/readyz").status == 200, "registryd ready", 10,
                   self.proc)
        return self

    def reload(self, **more):
        """SIGHUP with the configuration as it is now; returns when it is in force."""
        self.write(**more)
        before = self.proc.log().count("reloaded")
        self.proc.signal(signal.SIGHUP)
        wait_until(lambda: self.proc.log().count("reloaded") > before, "reload", 10, self.proc)

    def instances(self, app):
        answer = client.http("127.0.0.1", self.port, "GET", f"/v1/apps/{app}")
        return answer.json()["instances"] if answer.status == 200 else []

    def call(self, method, path, document=None, **more):
        body = json.dumps(document).encode() if document is not None else None
        return client.http("127.0.0.1", self.port, method, path, body=body, tls=self.tls, **more)

    def status(self, app, instance, status):
        path = f"/v1/apps/{app}/instances/{instance}/status"
        return self.call("PUT", path, {"status": status}).status

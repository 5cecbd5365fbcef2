# SPDX-License-Identifier: Apache-2.0
"""The whole chain in a lab: client, NLB, two domains of gateways, registry, services.

Demo and tests use it alike. Programs run with the very files of config/, adapted by adapt().
Standard library only.
"""

import copy
import json
import os
import signal
import sys

import client as http_client
import identity
from lab import Lab
from procs import wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SERVICE = os.path.join(ROOT, "tests", "service", "service.py")

NLB = "10.0.0.2"
REGISTRY = "10.0.0.9"
CLIENTS = ["198.51.100.10", "198.51.100.11", "198.51.100.12"]
VIPS = {"rider": "203.0.113.10", "driver": "203.0.113.20"}
HOST_NAMES = {"rider": "api.rider.example.com", "driver": "api.driver.example.com"}
GATEWAYS = {
    "gw-r1": ("rider", "10.0.0.11"),
    "gw-r2": ("rider", "10.0.0.12"),
    "gw-d1": ("driver", "10.0.0.21"),
}
SERVICES = {
    "user-v1-a": ("user-service-v1", "10.0.0.31"),
    "user-v1-b": ("user-service-v1", "10.0.0.32"),
    "user-v2-a": ("user-service-v2", "10.0.0.33"),
    "user-v2-b": ("user-service-v2", "10.0.0.34"),
    "feed-a": ("feed-service", "10.0.0.35"),
    "feed-b": ("feed-service", "10.0.0.36"),
}
SERVICE_PORT = 8080
CONTROL_PORT = 9090
ADMIN_PORT = 9443
ISSUERS = {
    "rider": ("RS256", "https://id.example.com/rider", "rider-app"),
    "driver": ("ES256", "https://id.example.com/driver", "driver-app"),
}


def load_example(*parts):
    with open(os.path.join(ROOT, "config", *parts), encoding="utf-8") as file:
        return json.load(file)


def adapt(document, places):
    """A copy of a configuration with the beginnings of its paths replaced."""
    if isinstance(document, dict):
        return {key: adapt(value, places) for key, value in document.items()}
    if isinstance(document, list):
        return [adapt(value, places) for value in document]
    if isinstance(document, str):
        for old, new in places.items():
            if document.startswith(old):
                return new + document[len(old) :]
    return copy.copy(document)


class Chain:
    """Brings everything up on construction; close() or `with` takes it down."""

    def __init__(
        self,
        build="build",
        lab_id=None,
        keep=False,
        lease_s=3,
        tell=lambda text: None,
        change_gateway=lambda config: None,
    ):
        self.lease_s = lease_s
        self.change_gateway = change_gateway  # of every gateway's configuration
        self.tell = tell
        self.lab = Lab(build, lab_id, keep)
        try:
            self._bring_up()
        except BaseException:
            self.lab.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        return self.lab.close()

    def _bring_up(self):
        lab = self.lab
        self.procs = {}
        self._make_identities()
        self.client = lab.add_client("client", CLIENTS)
        self.nlb = lab.add_host("nlb", NLB, transmits_from_xdp=True)
        self.registry = lab.add_host("registry", REGISTRY)
        self.gateways = {
            name: lab.add_host(name, address, vips=[VIPS[domain]], transmits_from_xdp=True)
            for name, (domain, address) in GATEWAYS.items()
        }
        self.services = {
            name: lab.add_host(name, address) for name, (_, address) in SERVICES.items()
        }
        for vip in VIPS.values():
            lab.route_vip(vip, NLB)
        self.tell(f"{len(lab.hosts)} network namespaces: a switch and {len(lab.hosts) - 1} hosts")

        self.start_registry()
        for name in SERVICES:
            self.start_service(name)
        self.wait_registered()
        self.tell(f"registryd, {len(SERVICES)} service instances that registered themselves")
        for name in GATEWAYS:
            self.start_gateway(name)
            self.attach_decap(name)
        for name in GATEWAYS:
            self.wait_gateway_ready(name)
        self.start_nlb()
        self.wait_balanced()
        self.tell(f"{len(GATEWAYS)} gateways, decapsulation on their hosts, nlbd")
        self.curl = {
            domain: http_client.Curl(
                self.client.run, HOST_NAMES[domain], VIPS[domain], ca=self.authority.certificate
            )
            for domain in VIPS
        }

    def _make_identities(self):
        self.authority = identity.Authority(os.path.dirname(self.lab.path("ca", "x")))
        tls = os.path.dirname(self.lab.path("tls", "x"))
        self.signers = {}
        for domain, (algorithm, issuer, audience) in ISSUERS.items():
            self.authority.issue(domain, [HOST_NAMES[domain]], directory=tls)
            jwks = os.path.dirname(self.lab.path("jwks", "x"))
            signer = identity.Signer(jwks, domain, algorithm, issuer, audience)
            # Where the examples look for it.
            os.rename(signer.jwks, os.path.join(jwks, f"{domain}.json"))
            self.signers[domain] = signer

    def places(self, host):
        """Where a host's programs find what the examples name by absolute paths."""
        own = os.path.dirname(self.lab.path("hosts", host, "x"))
        return {
            "/etc/gatehouse/tls": os.path.join(self.lab.directory, "tls"),
            "/etc/gatehouse/jwks": os.path.join(self.lab.directory, "jwks"),
            "/var/lib/gatehouse": own,
            "/var/log/gatehouse": own,
            "/run/gatehouse": own,
        }

    def program(self, name):
        return os.path.join(self.lab.build, name)

    # --- starting and stopping ----------------------------------------------------------------

    def start_registry(self):
        config = adapt(load_example("registry.json"), self.places("registry"))
        path = self.lab.write_json(config, "hosts", "registry", "registry.json")
        proc = self.registry.start("registryd", [self.program("registryd"), "-c", path])
        self.procs["registry"] = proc
        self.registry.wait_port(8761, proc)

    def start_service(self, name):
        app, address = SERVICES[name]
        argv = [sys.executable, "-B", SERVICE, "--app", app, "--id", name]
        argv += ["--bind", f"{address}:{SERVICE_PORT}", "--control", f"{address}:{CONTROL_PORT}"]
        argv += ["--registry", f"http://{REGISTRY}:8761", "--lease-s", str(self.lease_s)]
        self.procs[name] = self.services[name].start(name, argv)

    def gateway_config(self, name):
        domain, address = GATEWAYS[name]
        config = adapt(load_example("domains", f"{domain}.json"), self.places(name))
        config["instance"] = name
        config["workers"] = 2
        config["admin"]["bind"] = f"{address}:{ADMIN_PORT}"
        config["registry"]["register"].update(address=address, id=name)
        self.change_gateway(config)
        return config

    def start_gateway(self, name):
        path = self.lab.write_json(self.gateway_config(name), "hosts", name, "gateway.json")
        argv = [self.program("gatewayd"), "-c", path]
        self.procs[name] = self.gateways[name].start(name, argv)
        return self.procs[name]

    def attach_decap(self, name):
        domain, _ = GATEWAYS[name]
        sources = [NLB] + [address for d, address in GATEWAYS.values() if d == domain]
        self.gateways[name].run(
            *(self.program("nlbctl"), "decap", "attach", "eth0", "--vip", VIPS[domain]),
            *(word for address in sources for word in ("--source", address)),
        )

    def nlb_config(self):
        config = adapt(load_example("nlb.json"), self.places("nlb"))
        config["hash_seed"] = "of the lab"
        return config

    def start_nlb(self):
        path = self.lab.write_json(self.nlb_config(), "hosts", "nlb", "nlb.json")
        self.procs["nlb"] = self.nlb.start("nlbd", [self.program("nlbd"), "-c", path])
        return self.procs["nlb"]

    def reload_nlb(self, change=lambda config: None):
        """Writes another file and tells nlbd; whoever calls waits for what shall come of it."""
        config = self.nlb_config()
        change(config)
        self.lab.write_json(config, "hosts", "nlb", "nlb.json")
        self.procs["nlb"].signal(signal.SIGHUP)

    # --- waiting ------------------------------------------------------------------------------

    def instances(self, app):
        """The live instances of an app, as the registry lists them; [] while it knows none."""
        answer = http_client.http(
            REGISTRY, 8761, "GET", f"/v1/apps/{app}", connect=self.registry.connect
        )
        return answer.json()["instances"] if answer.status == 200 else []

    def up(self, app):
        return sorted(i["id"] for i in self.instances(app) if i["status"] == "UP")

    def wait_registered(self):
        for app in sorted({app for app, _ in SERVICES.values()}):
            wanted = sorted(name for name, (a, _) in SERVICES.items() if a == app)
            wait_until(lambda: self.up(app) == wanted, f"{app}: {wanted} registered")

    def admin_get(self, name, path):
        """A read of a gateway's admin port, from the NLB's host as a health check would."""
        address = GATEWAYS[name][1]
        return http_client.http(address, ADMIN_PORT, "GET", path, connect=self.nlb.connect)

    def wait_gateway_ready(self, name, timeout_s=10.0):
        wait_until(
            lambda: self.admin_get(name, "/readyz").status == 200,
            f"{name} ready",
            timeout_s,
            self.procs[name],
        )

    def wait_balanced(self, gateways=tuple(GATEWAYS), timeout_s=10.0):
        """Until exactly these gateways get new connections."""
        wait_until(
            lambda: self.in_use() == sorted(gateways),
            f"NLB forwards to {', '.join(gateways)}",
            timeout_s,
            self.procs["nlb"],
        )

    # --- looking ------------------------------------------------------------------------------

    def nlbctl(self, *words):
        """nlbctl's JSON document."""
        socket_path = os.path.join(self.places("nlb")["/run/gatehouse"], "nlb.sock")
        try:
            text = self.nlb.run(self.program("nlbctl"), "-s", socket_path, "--json", *words)
        except Exception as error:
            raise ConnectionError(str(error)) from error
        return json.loads(text)

    def nlb_gateways(self):
        """{gateway name: its row}, over all VIPs."""
        return {row["name"]: row for row in self.nlbctl("gateways")}

    def vip(self, name):
        return next(row for row in self.nlbctl("vips") if row["name"] == name)

    def in_use(self):
        return sorted(n for n, row in self.nlb_gateways().items() if row["state"] == "up")

    def new_connections(self):
        """How many connections the NLB has sent to each gateway, by its own counters."""
        return {name: row["connections"] for name, row in self.nlb_gateways().items()}

    def seen(self, name):
        """What a service instance has received."""
        address = SERVICES[name][1]
        return http_client.http(
            address, CONTROL_PORT, "GET", "/_seen", connect=self.services[name].connect
        ).json()

    def forget(self):
        for name, host in self.services.items():
            if self.procs[name].exit_code() is None:
                http_client.http(
                    SERVICES[name][1], CONTROL_PORT, "DELETE", "/_seen", connect=host.connect
                )

    def requests_seen(self, app=None):
        """All requests that live instances have received since forget()."""
        found = []
        for name, (owner, _) in SERVICES.items():
            if app in (None, owner) and self.procs[name].exit_code() is None:
                found += self.seen(name)["requests"]
        return found

    def access_log(self, *names):
        """The records of these gateways (default: all), oldest first."""
        records = []
        for name in names or GATEWAYS:
            domain = GATEWAYS[name][0]
            path = os.path.join(
                self.places(name)["/var/log/gatehouse"], f"{domain}-access.log"
            )
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    records += [json.loads(line) for line in file if line.endswith("\n")]
        return sorted(records, key=lambda record: record["timestamp"])

    def wait_record(self, request_id, timeout_s=5.0):
        """The access-log record of one request; the writer is a thread of its own, so it may lag."""

        def find():
            return [r for r in self.access_log() if r.get("request_id") == request_id]

        return wait_until(find, f"access-log record of request {request_id}", timeout_s)[0]

    def token(self, domain, user, **options):
        return self.signers[domain].token(user, **options)


def bearer(token):
    return [("Authorization", f"Bearer {token}")]

# SPDX-License-Identifier: Apache-2.0
"""The programs of the gateway benchmark: the service behind, and the gateways that are compared.

Every target gets the same orders (class Work) and writes its own configuration from them. Whether
it obeys is checked by gateway.py before anything is measured.
"""

import json
import os
import socket
import subprocess

from procs import wait_until

NO_LIMIT = 1000000  # per second and key: counted, never reached
PREFIXES = {"user": "/api/user/", "feed": "/api/feed/"}


STAGES = ("token", "limits", "rules", "log")


def route_prefix(number):
    return f"/api/r{number:05}/"


def free_ports(count):
    """Ports that were free a moment ago; all are held until the last is known."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return ports


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def is_listening(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


class Work:
    """What every target has to do for one case."""

    def __init__(
        self,
        certificate,
        key,
        pools,
        signer,
        ip_limit=None,
        key_limit=None,
        is_h2=False,
        routes=0,
        without=(),
        token_cache=65536,
    ):
        self.certificate = certificate
        self.key = key
        self.pools = pools  # name → two ports
        self.signer = signer  # None: no token
        # Requests per minute in the checks; None: counted against NO_LIMIT.
        self.ip_limit = ip_limit
        self.key_limit = key_limit
        self.is_h2 = is_h2
        self.prefixes = [route_prefix(i) for i in range(routes)]  # beside those of the pools
        self.token_cache = token_cache  # tokens that gatewayd remembers
        self.without = without  # of STAGES; only gatewayd can leave them out


class Backend:
    """Debian's nginx as the service: 1 KB of JSON from memory, 1 MB from a file, a sink for 1 MB, and
    an echo of what arrived. Four listeners stand for two pools of two instances."""

    def __init__(self, group, directory, prefix):
        ports = free_ports(4)
        self.pools = {"user": ports[:2], "feed": ports[2:]}
        os.makedirs(directory, exist_ok=True)
        body = json.dumps({"profile": "x" * 1008})
        assert len(body) == 1023
        with open(os.path.join(directory, "1m"), "wb") as file:
            file.write(os.urandom(1 << 20))
        echo = "".join(
            f"{name}=${variable}\\n"
            for name, variable in (
                ("port", "server_port"),
                ("user", "http_x_user_id"),
                ("request", "http_x_request_id"),
                ("for", "http_x_forwarded_for"),
                ("proto", "http_x_forwarded_proto"),
                ("authorization", "http_authorization"),
                ("device", "http_x_device_id"),
            )
        )
        conf = write(
            os.path.join(directory, "nginx.conf"),
            f"""
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    underscores_in_headers on;
    client_body_temp_path {directory}/body;
    client_max_body_size 2m;
    client_body_buffer_size 2m;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream self {{ server 127.0.0.1:{ports[0]}; keepalive 64; }}
    server {{
        {" ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in ports)}
        add_header X-Internal-Server "$hostname:$server_port";
        add_header X-Powered-By bench;
        default_type application/json;
        location / {{ return 200 '{body}\\n'; }}
        location ~ /echo$ {{ return 200 "{echo}"; }}
        location ~ /1m$ {{ alias {directory}/1m; }}
        # Reads the whole body before it answers.
        location ~ /up$ {{
            rewrite .* /received break;
            proxy_pass http://self;
            proxy_http_version 1.1;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header Connection "";
            proxy_method GET;
        }}
    }}
}}
""",
        )
        self.proc = group.start(
            "backend", ["nginx", "-p", directory, "-c", conf], prefix=prefix
        )
        for port in ports:
            wait_until(lambda p=port: is_listening(p), "the backend", proc=self.proc)


class Target:
    """One program under test."""

    name = ""
    does_tokens = True
    is_bare = False  # the floor: only moves bytes

    def __init__(self, group, directory, prefix, work, label=None):
        self.label = label or self.name
        self.directory = os.path.join(directory, self.label.replace(" ", "-"))
        os.makedirs(self.directory, exist_ok=True)
        self.port = free_ports(1)[0]
        self.work = work
        self.log_path = os.path.join(self.directory, "access.log")
        write(self.log_path, "")
        self.proc = group.start(f"bench-{self.label.replace(' ', '-')}", self.argv(), prefix=prefix)
        self.redirect_log()
        wait_until(lambda: is_listening(self.port), self.name, proc=self.proc)
        self.mark_log()

    def argv(self):
        raise NotImplementedError

    def redirect_log(self):
        """For programs whose access log is their standard output."""

    def file(self, name, text):
        return write(os.path.join(self.directory, name), text)

    def mark_log(self):
        """Lines are counted from here. Nothing is cut off: HAProxy clears O_APPEND and would leave a
        hole."""
        self.log_at = self.log_mark = os.path.getsize(self.log_path)
        self.log_count = 0

    def log_lines(self):
        with open(self.log_path, "rb") as log:
            log.seek(self.log_at)
            while piece := log.read(1 << 20):
                self.log_count += piece.count(b"\n")
                self.log_at += len(piece)
        return self.log_count

    def log_text(self):
        with open(self.log_path, "rb") as log:
            log.seek(self.log_mark)
            return log.read().decode()

    def state(self):
        """For messages: does it run, and what did it say last."""
        code = self.proc.exit_code()
        running = "it runs" if code is None else f"it ended with {code}"
        return f"{running}\n{self.proc.log_tail(5)}"

    def stop(self):
        self.proc.stopped_on_purpose = True
        self.proc.popen.terminate()
        try:
            self.proc.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.proc.kill()
        if os.path.getsize(self.log_path) > 1 << 20:
            os.truncate(self.log_path, 0)


class Gatewayd(Target):
    name = "gatewayd"
    program = os.path.join(os.environ.get("GATEHOUSE_BUILD", "build"), "gatewayd")

    @classmethod
    def version(cls):
        return _first_line([cls.program, "--version"])

    def argv(self):
        work = self.work
        auth = {}
        limits = "limits" not in work.without
        if work.signer:
            auth["bench"] = {
                "type": "jwt",
                "issuer": work.signer.issuer,
                "audiences": [work.signer.audience],
                "algorithms": [work.signer.algorithm],
                "jwks": {"file": work.signer.jwks},
                "user_claim": "sub",
                "forward": {"sub": "X-User-Id"},
            }

        def rule(key, per_minute):
            if per_minute is None:
                return {"key": key, "limit": NO_LIMIT, "window_s": 1}
            return {"key": key, "limit": per_minute, "window_s": 60}

        conf = {
            "instance": "bench",
            "domain": "bench",
            "workers": 1,
            "listeners": [
                {
                    "bind": f"127.0.0.1:{self.port}",
                    "tls": {
                        "certificates": [{"certificate": work.certificate, "key": work.key}],
                        "min_version": "1.3",
                        "alpn": ["h2", "http/1.1"] if work.is_h2 else ["http/1.1"],
                    },
                }
            ],
            "auth": auth,
            "token_cache_tokens": work.token_cache,
            "rate_limits": {
                "per-ip": rule("ip", work.ip_limit),
                "second": rule("user" if work.signer else "header:X-Device-Id", work.key_limit),
            },
            "services": {
                pool: {"endpoints": [{"address": f"127.0.0.1:{port}"} for port in ports]}
                for pool, ports in work.pools.items()
            },
            "defaults": {
                "limits": ["per-ip"] if limits else [],
                # Guarded by itself only where an issuer forwards it.
                "request": {"remove": ["X-User-Id"]},
                "response": {"remove": ["X-Internal-*", "Server", "X-Powered-By"]},
            },
            "routes": [
                {
                    "name": name,
                    "match": {"path": prefix + "*"},
                    "limits": ["second"] if limits else [],
                    "service": pool,
                    **({"auth": "bench"} if work.signer else {}),
                }
                for name, prefix, pool in [
                    *((pool, prefix, pool) for pool, prefix in PREFIXES.items()),
                    *((f"r{i}", prefix, "user") for i, prefix in enumerate(work.prefixes)),
                ]
            ],
            "access_log": {"path": self.log_path},
            "admin": {"bind": f"127.0.0.1:{free_ports(1)[0]}"},
            "drain_delay_ms": 0,
            "drain_timeout_ms": 1000,
        }
        if "rules" in work.without:
            conf["defaults"]["request"] = {}
            conf["defaults"]["response"] = {"remove": []}
        if "log" in work.without:
            conf["access_log"] = {"path": None}
        return [self.program, "-c", self.file("gatewayd.json", json.dumps(conf, indent=2))]


class Haproxy(Target):
    """One HAProxy serves its frontend with the token rules that its manual recommends. Its log goes
    to standard output, which is a file here: the cheapest way it has to write one."""

    name = "haproxy"
    program = "haproxy"

    @classmethod
    def version(cls):
        return _first_line([cls.program, "-v"]).split(" - ")[0]

    def token_rules(self):
        signer = self.work.signer
        if not signer:
            return "    http-request set-var(txn.key) req.hdr(X-Device-Id)\n"
        if signer.algorithm == "HS256":
            key = signer.secret.decode()
        else:
            key = os.path.join(self.directory, "public.pem")
            subprocess.run(
                ["openssl", "pkey", "-in", signer.key, "-pubout", "-out", key],
                check=True,
                capture_output=True,
            )
        deny = "http-request deny deny_status 401"
        return f"""
    http-request set-var(txn.token) http_auth_bearer
    {deny} unless {{ var(txn.token),jwt_header_query('$.alg') -m str {signer.algorithm} }}
    {deny} unless {{ var(txn.token),jwt_verify({signer.algorithm},"{key}") -m int 1 }}
    http-request set-var(txn.claims) var(txn.token),word(2,.),ub64dec
    {deny} unless {{ var(txn.claims),json_query('$.iss') -m str {signer.issuer} }}
    {deny} unless {{ var(txn.claims),json_query('$.aud') -m str {signer.audience} }}
    http-request set-var(txn.now) date
    {deny} unless {{ var(txn.claims),json_query('$.exp','int'),sub(txn.now) -m int gt 0 }}
    http-request set-var(txn.key) var(txn.claims),json_query('$.sub')
    http-request del-header Authorization
    http-request set-header X-User-Id %[var(txn.key)]
"""

    def argv(self):
        work = self.work
        # One file with both parts is what HAProxy reads.
        pem = os.path.join(self.directory, "bench.pem")
        with open(pem, "wb") as out:
            for part in (work.certificate, work.key):
                with open(part, "rb") as file:
                    out.write(file.read())

        def over(number, per_minute):
            bound = NO_LIMIT * 60 if per_minute is None else per_minute
            return f"{{ sc_http_req_rate({number}) gt {bound} }}"

        user = "%[var(txn.key),json(utf8s)]" if work.signer else ""
        log_format = (
            '{"timestamp":%Ts.%ms,"userId":"' + user + '","endpoint":"%HM %{+E}HP",'
            '"latency_ms":%Ta,"status":%ST,"service":"%b","gateway_instance":"bench",'
            '"request_id":"%ID","route":"%f","client_ip":"%ci","method":"%HM",'
            '"host":"%[var(txn.host),json(utf8s)]","bytes_in":%U,"bytes_out":%B,'
            '"upstream":"%si:%sp","upstream_ms":%Tr,"attempts":%rc,"tls":"%sslv",'
            '"protocol":"%HV","reason":"%tsc"}'
        )
        backends = "".join(
            f"""
backend {pool}
    balance random(2)
"""
            + "".join(f"    server {pool}{i} 127.0.0.1:{port}\n" for i, port in enumerate(ports))
            for pool, ports in work.pools.items()
        )
        alpn = "h2,http/1.1" if work.is_h2 else "http/1.1"
        more = ""
        if work.prefixes:
            lines = "".join(f"{prefix} user\n" for prefix in work.prefixes)
            more = f"    use_backend %[path,map_beg({self.file('routes.map', lines)})]\n"
        conf = f"""
global
    nbthread 1
    maxconn 12000
    no strict-limits
    log stdout format raw local0
    stats socket {self.directory}/admin.sock
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-bind-curves P-256

defaults
    mode http
    log global
    option http-keep-alive
    http-reuse always
    timeout connect 2s
    timeout client 60s
    timeout server 10s
    timeout http-request 10s
    timeout http-keep-alive 600s

backend by_ip
    stick-table type ip size 100k expire 2m store http_req_rate(60s)
backend by_key
    stick-table type string len 64 size 100k expire 2m store http_req_rate(60s)

frontend bench
    bind 127.0.0.1:{self.port} backlog 4096 ssl crt {pem} alpn {alpn}
    unique-id-format %[uuid]
    unique-id-header X-Request-Id
    log-format '{log_format}'
    http-request set-var(txn.host) req.hdr(Host)
    http-request track-sc0 src table by_ip
    http-request deny deny_status 429 if {over(0, work.ip_limit)}
    http-request del-header X-User-Id
    http-request del-header X_User_Id
    http-request del-header X-Request-Id
    http-request del-header Forwarded
{self.token_rules()}
    http-request track-sc1 var(txn.key) table by_key
    http-request deny deny_status 429 if {over(1, work.key_limit)}
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host %[var(txn.host)]
    http-response del-header X-Internal- -m beg
    http-response del-header Server
    http-response del-header X-Powered-By
    use_backend user if {{ path_beg {PREFIXES["user"]} }}
    use_backend feed if {{ path_beg {PREFIXES["feed"]} }}
{more}{backends}
"""
        return [self.program, "-f", self.file("haproxy.cfg", conf)]

    def redirect_log(self):
        self.log_path = self.proc.log_path


class Nginx(Target):
    """Stock nginx knows no tokens, so it takes part where there are none."""

    name = "nginx"
    program = "nginx"
    does_tokens = False

    @classmethod
    def version(cls):
        return _first_line([cls.program, "-v"]).partition(": ")[2]

    def argv(self):
        work = self.work

        def zone(name, variable, per_minute):
            rate = f"{NO_LIMIT}r/s" if per_minute is None else "1r/m"
            return f"limit_req_zone {variable} zone={name}:16m rate={rate};"

        def limit(name, per_minute):
            burst = NO_LIMIT if per_minute is None else per_minute - 1
            return f"limit_req zone={name} burst={burst} nodelay;"

        log_format = (
            '{"timestamp":$msec,"userId":"","endpoint":"$request_method $uri",'
            '"latency_ms":$request_time,"status":$status,"service":"$proxy_host",'
            '"gateway_instance":"bench","request_id":"$request_id","route":"$proxy_host",'
            '"client_ip":"$remote_addr","method":"$request_method","host":"$host",'
            '"bytes_in":$request_length,"bytes_out":$bytes_sent,"upstream":"$upstream_addr",'
            '"upstream_ms":"$upstream_response_time","attempts":1,"tls":"$ssl_protocol",'
            '"cipher":"$ssl_cipher","curve":"$ssl_curve","protocol":"$server_protocol"}'
        )
        upstreams = "".join(
            f"""
    upstream {pool} {{
        random two least_conn;
        {" ".join(f"server 127.0.0.1:{port};" for port in ports)}
        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 4s;
    }}"""
            for pool, ports in work.pools.items()
        )
        locations = "".join(
            f"""
        location {prefix} {{ proxy_pass http://{pool}; }}"""
            for pool, prefix in [
                *PREFIXES.items(),
                *(("user", prefix) for prefix in work.prefixes),
            ]
        )
        conf = f"""
daemon off;
master_process off;
pid {self.directory}/nginx.pid;
error_log {self.directory}/error.log crit;
events {{ worker_connections 16384; }}
http {{
    client_body_temp_path {self.directory}/body;
    proxy_temp_path {self.directory}/proxy;
    fastcgi_temp_path {self.directory}/fastcgi;
    uwsgi_temp_path {self.directory}/uwsgi;
    scgi_temp_path {self.directory}/scgi;
    log_format bench escape=json '{log_format}';
    access_log {self.log_path} bench buffer=64k flush=1s;
    {zone("ip", "$binary_remote_addr", work.ip_limit)}
    {zone("key", "$http_x_device_id", work.key_limit)}
    limit_req_status 429;
{upstreams}
    server {{
        listen 127.0.0.1:{self.port} ssl{" http2" if work.is_h2 else ""} backlog=4096;
        ssl_certificate {work.certificate};
        ssl_certificate_key {work.key};
        ssl_protocols TLSv1.3;
        ssl_ecdh_curve prime256v1;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
        http2_max_concurrent_streams 128;
        client_max_body_size 2m;
        proxy_request_buffering off;
        {limit("ip", work.ip_limit)}
        {limit("key", work.key_limit)}
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_set_header X-User-Id "";
        proxy_set_header Forwarded "";
        proxy_set_header X-Request-Id $request_id;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto https;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_hide_header X-Internal-Server;
        proxy_hide_header X-Powered-By;
        {locations}
    }}
}}
"""
        argv = [self.program, "-p", self.directory, "-c", self.file("nginx.conf", conf)]
        return argv


class Floor(Target):
    name = "floor"
    program = os.path.join(os.environ.get("GATEHOUSE_BUILD", "build"), "tests/bench/floor")
    is_bare = True

    @classmethod
    def version(cls):
        return "a bare TLS proxy on epoll, none of the features"

    def argv(self):
        work = self.work
        backend = work.pools["user"][0]
        return [self.program, self.port, backend, work.certificate, work.key]


TARGETS = (Gatewayd, Haproxy, Nginx, Floor)


def _first_line(argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).strip().splitlines()[0]

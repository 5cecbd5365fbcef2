# SPDX-License-Identifier: Apache-2.0
"""An identity provider for the tests: keys, tokens by an independent library, and a key-set URL."""

import contextlib
import http.server
import json
import ssl
import threading
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

import identity


class Key:
    """A P-256 key with its public half as a JWK."""

    def __init__(self, kid):
        self.kid = kid
        self.key = ec.generate_private_key(ec.SECP256R1())
        numbers = self.key.public_key().public_numbers()
        self.jwk = {
            **{"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig"},
            "x": identity.b64url(numbers.x.to_bytes(32, "big")),
            "y": identity.b64url(numbers.y.to_bytes(32, "big")),
        }

    def token(self, issuer, kid=None, **claims):
        now = int(time.time())
        payload = {"iss": issuer, "aud": "app", "sub": "u1", "iat": now, "exp": now + 600}
        payload.update(claims)
        payload = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(payload, self.key, "ES256", {"kid": kid or self.kid})


def key_set(*keys):
    return json.dumps({"keys": [key.jwk for key in keys]}).encode()


class Url:
    """Serves a key set over http or https; `answer` may be changed at any time."""

    def __init__(self, keys=(), certificate=None, port=0):
        self.body, self.status, self.headers = key_set(*keys), 200, {}
        self.fetches = 0
        url = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                url.fetches += 1
                self.send_response(url.status)
                for name, value in url.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(url.body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(url.body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "https"
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, host="localhost"):
        return f"{self.scheme}://{host}:{self.port}/keys?v=1"

    def publish(self, *keys):
        self.body, self.status, self.headers = key_set(*keys), 200, {}

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

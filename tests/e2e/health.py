# SPDX-License-Identifier: Apache-2.0
"""A health endpoint that answers as a file tells it to, for tests of the load balancer's checks.

usage: health.py PORT FILE [CERTIFICATE KEY]
FILE is JSON, read anew for each request: status, body, pad (bytes of filling before the body),
delay_s, and want_host (another Host header gets 421). With a certificate it speaks TLS. Says on its
output when it was asked.
"""

import http.server
import json
import socket
import ssl
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked", time.monotonic(), flush=True)
        with open(self.server.told, encoding="utf-8") as file:
            told = json.load(file)
        time.sleep(told.get("delay_s", 0))
        status = told.get("status", 200)
        if told.get("want_host") not in (None, self.headers["Host"]):
            status = 421
        body = b"." * told.get("pad", 0) + told.get("body", "").encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, *_):
        pass  # a check that gives up is ordinary


def main(port, told, *identity):
    server = Server(("::", int(port)), Handler)
    server.told = told
    if identity:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*identity)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    print("listening", flush=True)
    server.serve_forever()


main(*sys.argv[1:])

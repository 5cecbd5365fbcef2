# SPDX-License-Identifier: Apache-2.0
"""A service whose every byte a test decides, for what no honest service does.

`serve(connection)` runs in a thread for each connection; Peer has what such a script needs.
Standard library only.
"""

import socket
import struct
import threading


class Gone(OSError):
    """The gateway closed its side."""


class Peer:
    """One connection of the gateway's, at the service's end."""

    def __init__(self, service, sock, number):
        self.service = service
        self.sock = sock
        self.number = number  # 1 for the service's first connection
        self.buffer = b""

    def read_head(self):
        while b"\r\n\r\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise Gone("no request")
            self.buffer += data
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        with self.service.lock:
            self.service.heads.append(head.decode("latin-1"))
        return head

    def send(self, data):
        self.sock.sendall(data)

    def answer(self, body=b"ok", status="200 OK"):
        self.send(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status.encode(), len(body)))
        self.send(body)

    def wait_closed(self):
        """Until the gateway closes."""
        while self.sock.recv(65536):
            pass

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Scripted:
    """Listens on loopback until stop(); `heads` are the request heads it got, as text.

    With an ssl.SSLContext it speaks TLS; `refused` counts the handshakes that failed.
    """

    def __init__(self, serve, tls=None):
        self.serve = serve
        self.tls = tls
        self.refused = 0
        self.lock = threading.Lock()
        self.heads = []
        self.connections = 0
        self.open = set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            # Or the second of two small writes waits for the gateway's delayed acknowledgement.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self.open.add(sock)
            peer = Peer(self, sock, self.connections)
            threading.Thread(target=self._run, args=(peer,), daemon=True).start()

    def _run(self, peer):
        if self.tls:
            try:
                peer.sock = self.tls.wrap_socket(peer.sock, server_side=True)
            except OSError:
                self.refused += 1
                return
        try:
            while True:
                self.serve(peer)
        except OSError:
            pass
        finally:
            peer.sock.close()
            self.open.discard(peer.sock)

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in list(self.open):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

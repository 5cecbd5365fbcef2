# SPDX-License-Identifier: Apache-2.0
"""A real Redis on loopback, and a path to it that can be slow, broken or lead elsewhere."""

import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from procs import wait_until
from rig import free_port


class RedisServer:
    """redis-server without anything on disk: each start begins empty."""

    def __init__(self, directory, procs):
        self.program = shutil.which("redis-server")
        if not self.program:
            pytest.skip("redis-server is not installed")
        self.directory = os.path.join(str(directory), "redis")
        os.makedirs(self.directory, exist_ok=True)
        self.port = free_port()
        self.procs = procs
        self.proc = None

    def start(self):
        self.proc = self.procs.start("redis", [
            self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--dir", self.directory])
        wait_until(lambda: self.call("PING") == "PONG", "redis-server ready", 10, self.proc)
        return self

    def kill(self):
        self.proc.kill()

    def freeze(self):
        self.proc.signal(signal.SIGSTOP)

    def thaw(self):
        self.proc.signal(signal.SIGCONT)

    def call(self, *words):
        done = subprocess.run(["redis-cli", "-p", str(self.port), *words], check=False,
                              capture_output=True, text=True, timeout=10)
        return done.stdout.strip()


class Path:
    """A TCP relay to the server. `delay_s` holds back every piece; while it `lies` connections get
    an answer in another language, while it is `cut` they end at once."""

    def __init__(self, target_port):
        self.target_port = target_port
        self.delay_s, self.lies, self.is_cut = 0.0, False, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.links = set()
        self.lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()
        self.drop()

    def drop(self):
        """Ends the connections that are there; how new ones fare is another matter."""
        with self.lock:
            links, self.links = self.links, set()
        for link in links:
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.links.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client:
            if self.is_cut:
                return
            try:
                if self.lies:
                    client.sendall(b"220 mail.example.com ESMTP\r\n\0\xff*-7\r\n")
                    client.recv(65536)
                    return
                with socket.create_connection(("127.0.0.1", self.target_port), 5) as server:
                    self._relay(client, server)
            except OSError:
                pass
            finally:
                with self.lock:
                    self.links.discard(client)

    def _relay(self, client, server):
        waiting = []  # when, to whom, what
        while True:
            pause = max(0, waiting[0][0] - time.monotonic()) if waiting else None
            for source in select.select([client, server], [], [], pause)[0]:
                data = source.recv(65536)
                if not data:
                    return
                to = server if source is client else client
                # Half of it each way.
                waiting.append((time.monotonic() + self.delay_s / 2, to, data))
            while waiting and waiting[0][0] <= time.monotonic():
                _, to, data = waiting.pop(0)
                to.sendall(data)

# SPDX-License-Identifier: Apache-2.0
"""A real redis-server of its own, on loopback."""

import shutil
import subprocess

import pytest

from procs import wait_until
from rig import free_port


class Redis:
    def __init__(self, directory, procs, *options):
        if not shutil.which("redis-server") or not shutil.which("redis-cli"):
            pytest.skip("redis-server is not installed")
        self.directory, self.procs, self.options = directory, procs, options
        directory.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.proc = None

    def start(self):
        argv = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        argv += ["--dir", str(self.directory), *self.options]
        self.proc = self.procs.start("redis", argv)
        wait_until(lambda: self.cli("ping") == "PONG", "redis ready", 10, self.proc)
        return self

    def cli(self, *words):
        argv = ["redis-cli", "-p", str(self.port), *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        return done.stdout.strip()

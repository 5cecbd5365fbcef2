# SPDX-License-Identifier: Apache-2.0
"""Changing a rig's gatewayd under way: `gatewayctl upgrade`, and the processes that come of it."""

import json
import os
import signal
import subprocess

from procs import wait_until


def is_running(pid):
    """Not a zombie either, whose parent may be a container's idle first process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Upgrades:
    """Use it as a context: at the end the youngest process is stopped."""

    def __init__(self, rig, ctl, prefix=()):
        self.rig, self.ctl, self.prefix = rig, ctl, list(prefix)
        self.pids = [rig.proc.pid]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.pids[1:]:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)

    def run(self, *words):
        socket = self.rig.config["admin"]["socket"]
        return subprocess.run(
            [*self.prefix, self.ctl, "--socket", socket, *words], capture_output=True, text=True, timeout=60
        )

    @property
    def pid(self):
        return self.pids[-1]

    def upgrade(self):
        """With the configuration as it is now; returns the new process's id."""
        self.rig.write()
        self.rig.proc.stopped_on_purpose = True
        done = self.run("--json", "upgrade")
        assert done.returncode == 0, done.stderr + self.rig.proc.log_tail()
        told = json.loads(done.stdout)
        assert told["upgraded"] is True
        self.pids.append(told["pid"])
        return told["pid"]

    def wait_for_end(self, pid, timeout_s=20):
        wait_until(lambda: not is_running(pid), f"process {pid} has ended", timeout_s)

    def stop(self):
        """SIGTERM to the process that serves."""
        os.kill(self.pid, signal.SIGTERM)
        self.wait_for_end(self.pid)

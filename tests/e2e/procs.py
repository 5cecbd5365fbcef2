# SPDX-License-Identifier: Apache-2.0
"""Starts programs, waits until they are ready, keeps their output and ends them on any exit.

Knows nothing of networks or of gatehouse; lab.py adds namespaces. Standard library only.
"""

import atexit
import os
import re
import signal
import subprocess
import threading
import time
import weakref

_groups = weakref.WeakSet()

SANITIZER = re.compile(
    r"ERROR: (Address|Leak|Thread)Sanitizer|WARNING: ThreadSanitizer|runtime error: |"
    r"LeakSanitizer has encountered"
)


class NotReady(Exception):
    """Something did not happen in time, or a program ended before it was ready."""


def wait_until(condition, what, timeout_s=10.0, proc=None):
    """Polls until condition() is truthy and returns its value. An OSError counts as "not yet"."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.005
    while True:
        reason = None
        try:
            value = condition()
            if value:
                return value
        except OSError as error:
            reason = error
        if proc is not None and proc.exit_code() is not None:
            raise NotReady(
                f"{what}: {proc.name} ended with {proc.exit_code()}\n{proc.log_tail()}"
            )
        if time.monotonic() > deadline:
            tail = "\n" + proc.log_tail() if proc is not None else ""
            raise NotReady(f"{what}: not within {timeout_s} s ({reason or 'condition false'}){tail}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.05)


class Proc:
    """One running program. Its output (stdout and stderr) goes to one file, kept after its end."""

    def __init__(self, name, argv, log_path, env=None, cwd=None, detached=False):
        self.name = name
        self.argv = [str(word) for word in argv]
        self.log_path = log_path
        self.stopped_on_purpose = False
        full = self.argv
        if not detached:
            # Should this process be SIGKILLed, the program goes with it.
            full = ["setpriv", "--pdeathsig", "KILL"] + full
        with open(log_path, "ab") as log:
            # An own session: Ctrl-C on the terminal reaches us alone, and we end it in order.
            self.popen = subprocess.Popen(
                full,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self.popen.pid

    def exit_code(self):
        """None while it runs; negative when a signal ended it."""
        return self.popen.poll()

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def log_tail(self, lines=25):
        tail = self.log().splitlines()[-lines:]
        return "\n".join(f"  {self.name}| {line}" for line in tail)

    def wait_log(self, pattern, timeout_s=10.0, start=0):
        """Waits for a line that matches; returns the match."""
        regex = re.compile(pattern)
        return wait_until(
            lambda: regex.search(self.log(), start),
            f"{self.name}: log line /{pattern}/",
            timeout_s,
            self,
        )

    def signal(self, number):
        if self.exit_code() is None:
            self.popen.send_signal(number)

    def kill(self):
        self.stopped_on_purpose = True
        self.signal(signal.SIGKILL)
        return self.popen.wait(10)

    def stop(self, timeout_s=15.0):
        """SIGTERM, then SIGKILL if it does not obey; returns the exit code."""
        self.stopped_on_purpose = True
        self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(10)
            raise NotReady(
                f"{self.name} did not end within {timeout_s} s of SIGTERM\n{self.log_tail()}"
            ) from None

    def problems(self):
        """What no test expects: sanitizer reports, or an end that nobody asked for."""
        found = [line for line in self.log().splitlines() if SANITIZER.search(line)]
        code = self.exit_code()
        if code is not None and not self.stopped_on_purpose:
            found.append(f"ended by itself with {code}")
        return found


class ProcGroup:
    """The programs of one test or lab. Newest are stopped first."""

    def __init__(self, directory):
        self.directory = directory
        os.makedirs(directory, exist_ok=True)
        self.procs = []
        self.lock = threading.Lock()
        _groups.add(self)

    def start(self, name, argv, env=None, cwd=None, prefix=(), detached=False):
        log_path = os.path.join(self.directory, f"{name}.log")
        proc = Proc(name, list(prefix) + list(argv), log_path, env, cwd, detached)
        with self.lock:
            self.procs.append(proc)
        return proc

    def stop_all(self):
        """Stops everything, however that goes; returns the problems of all programs by name."""
        with self.lock:
            procs, self.procs = self.procs[::-1], []
        found = {proc.name: proc.problems() for proc in procs}
        for proc in procs:
            proc.stopped_on_purpose = True
            proc.signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        for proc in procs:
            try:
                proc.popen.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                proc.popen.kill()
                proc.popen.wait(10)
                found[proc.name].append("did not end within 10 s of SIGTERM")
        for proc in procs:
            found[proc.name] += [p for p in proc.problems() if p not in found[proc.name]]
        return {name: lines for name, lines in found.items() if lines}

    def kill_all(self):
        for proc in self.procs:
            if proc.exit_code() is None:
                proc.popen.kill()
                proc.popen.wait(10)
        self.procs = []

    def tails(self, lines=25):
        names = sorted(name for name in os.listdir(self.directory) if name.endswith(".log"))
        parts = []
        for name in names:
            with open(os.path.join(self.directory, name), encoding="utf-8", errors="replace") as f:
                tail = f.read().splitlines()[-lines:]
            if tail:
                parts.append("\n".join(f"  {name[:-4]}| {line}" for line in tail))
        return "\n".join(parts)


@atexit.register
def _kill_what_is_left():
    for group in list(_groups):
        group.kill_all()


def exit_on_signals():
    """Makes SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that every `finally` runs."""

    def leave(number, _frame):
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)

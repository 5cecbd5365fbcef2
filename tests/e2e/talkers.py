# SPDX-License-Identifier: Apache-2.0
"""Many long-lived connections that keep exchanging data, from one process. Standard library only.

usage: talkers.py ADDRESS PORT COUNT INTERVAL_S SOURCE [SOURCE ...]
Each connection reads its greeting ("NAME ..."), then sends a line every INTERVAL_S and expects it
back within PATIENCE_S. What is going on is one JSON line on stdout every 100 ms: connections open,
broken (with the first reasons), waiting, exchanges that the slowest connection has completed, and
connections by gateway. "close NAME" on stdin ends those to one gateway in order, "end" all of them.
"""

import collections
import json
import os
import selectors
import socket
import sys
import time

PATIENCE_S = 15.0
REPORT_S = 0.1
OPENING_AT_ONCE = 64


class Talker:
    def __init__(self, number, sock):
        self.number = number
        self.sock = sock
        self.gateway = None
        self.received = b""
        self.expected = None  # None: the greeting
        self.exchanges = 0
        self.sent_at = time.monotonic()

    def is_waiting(self):
        return self.gateway is None or self.expected is not None

    def send(self):
        self.exchanges += 1
        self.expected = b"%d %d %s\n" % (self.number, self.exchanges, b"x" * 100)
        self.sent_at = time.monotonic()
        self.sock.sendall(self.expected)

    def take(self):
        """What has come in; an OSError or ValueError says why the connection is broken."""
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionResetError("closed by the other side")
        self.received += data
        if not self.received.endswith(b"\n"):
            return
        if self.gateway is None:
            self.gateway = self.received.split()[0].decode()
        elif self.received != self.expected:
            raise ValueError(f"expected {self.expected[:40]}, got {self.received[:40]}")
        self.received = b""
        self.expected = None


class Talkers:
    def __init__(self, address, port, count, interval_s, sources):
        self.target = (address, port)
        self.to_open = collections.deque(
            (n, sources[n % len(sources)]) for n in range(count)
        )
        self.interval_s = interval_s
        self.selector = selectors.DefaultSelector()
        self.talkers = {}
        self.opening = {}
        self.due = collections.deque()  # talkers in the order in which they speak next
        self.broken = collections.Counter()
        self.reasons = []
        self.closed = 0

    def open_some(self):
        while self.to_open and len(self.opening) < OPENING_AT_ONCE:
            number, source = self.to_open.popleft()
            sock = socket.socket()
            sock.setblocking(False)
            sock.bind((source, 0))
            sock.connect_ex(self.target)
            talker = Talker(number, sock)
            self.opening[number] = talker
            self.selector.register(sock, selectors.EVENT_READ, talker)

    def drop(self, talker, reason=None):
        self.selector.unregister(talker.sock)
        talker.sock.close()
        self.opening.pop(talker.number, None)
        self.talkers.pop(talker.number, None)
        if reason is None:
            self.closed += 1
            return
        self.broken[talker.gateway or "?"] += 1
        if len(self.reasons) < 10:
            self.reasons.append(f"{talker.gateway}: {reason}")

    def on_readable(self, talker):
        try:
            talker.take()
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            self.drop(talker, str(error))
            return
        if talker.number in self.opening and talker.gateway:
            self.talkers[talker.number] = self.opening.pop(talker.number)
            self.due.append((time.monotonic(), talker))

    def speak(self, now):
        while self.due and self.due[0][0] <= now:
            _, talker = self.due.popleft()
            if talker.number not in self.talkers:
                continue
            self.due.append((now + self.interval_s, talker))
            try:
                if not talker.is_waiting():
                    talker.send()
                elif now - talker.sent_at > PATIENCE_S:
                    self.drop(talker, f"no answer for {PATIENCE_S} s")
            except OSError as error:
                self.drop(talker, str(error))

    def report(self):
        living = self.talkers.values()
        print(
            json.dumps(
                {
                    "opening": len(self.opening) + len(self.to_open),
                    "open": len(self.talkers),
                    "closed": self.closed,
                    "broken": sum(self.broken.values()),
                    "broken_by": dict(self.broken),
                    "reasons": self.reasons,
                    "waiting": sum(t.is_waiting() for t in living),
                    "least": min((t.exchanges - t.is_waiting() for t in living), default=0),
                    "gateways": collections.Counter(t.gateway for t in living),
                }
            ),
            flush=True,
        )

    def obey(self, line):
        """False at the end."""
        words = line.split()
        if not words or words == ["end"]:
            return False
        for talker in [t for t in self.talkers.values() if t.gateway == words[1]]:
            self.drop(talker)
        return True

    def run(self):
        os.set_blocking(0, False)
        self.selector.register(0, selectors.EVENT_READ, None)
        reported_at = 0.0
        while True:
            self.open_some()
            for key, _ in self.selector.select(0.01):
                if key.data:
                    self.on_readable(key.data)
                elif not self.obey(os.read(0, 4096).decode()):
                    return
            now = time.monotonic()
            self.speak(now)
            if now - reported_at > REPORT_S:
                self.report()
                reported_at = now


if __name__ == "__main__":
    ADDRESS, PORT, COUNT, INTERVAL_S, *SOURCES = sys.argv[1:]
    Talkers(ADDRESS, int(PORT), int(COUNT), float(INTERVAL_S), SOURCES).run()

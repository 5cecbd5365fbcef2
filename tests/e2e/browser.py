# SPDX-License-Identifier: Apache-2.0
"""Drives Debian's chromium without a window, by its debugging pipe. Standard library only."""

import base64
import json
import os
import select
import shutil
import subprocess
import time


def missing():
    """Why there is no browser, or None."""
    return None if shutil.which("chromium") else "no chromium (scripts/install-deps.sh browser)"


class Browser:
    def __init__(self, directory):
        to_child, self._write = os.pipe()
        self._read, from_child = os.pipe()

        def wire():
            # The browser reads 3 and writes 4; by way of high numbers, so that neither is lost.
            high = [os.dup2(fd, 100 + i) for i, fd in enumerate((to_child, from_child))]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars",
             "--remote-debugging-pipe", f"--user-data-dir={directory}/profile", "about:blank"],
            preexec_fn=wire, close_fds=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "HOME": str(directory)},
        )
        os.close(to_child)
        os.close(from_child)
        self._buffer = b""
        self._id = 0
        self.console = []  # what the page complained about
        target = self._call("Target.createTarget", {"url": "about:blank"}, None)["targetId"]
        self._session = self._call(
            "Target.attachToTarget", {"targetId": target, "flatten": True}, None)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def _message(self, deadline):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self._read, 1 << 20) if ready else b""
            if not data:
                raise TimeoutError("the browser says nothing")
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(message)
        if message.get("method") == "Runtime.exceptionThrown":
            self.console.append(message["params"]["exceptionDetails"])
        elif message.get("method") == "Log.entryAdded":
            self.console.append(message["params"]["entry"])
        return message

    def _call(self, method, params=None, session="", timeout_s=30):
        self._id += 1
        request = {"id": self._id, "method": method, "params": params or {}}
        if session is not None:
            request["sessionId"] = self._session
        os.write(self._write, json.dumps(request).encode() + b"\0")
        deadline = time.monotonic() + timeout_s
        while True:
            message = self._message(deadline)
            if message.get("id") == self._id:
                assert "error" not in message, message
                return message["result"]

    def size(self, width, height, mobile=False):
        self._call("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1,
            "mobile": mobile})

    def open(self, url):
        self._call("Page.navigate", {"url": url})

    def run(self, expression):
        """The value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", {
            "expression": expression, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector="body"):
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText || ''")

    def screenshot(self, path):
        data = self._call("Page.captureScreenshot", {"format": "png"})["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def close(self):
        os.close(self._write)
        os.close(self._read)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

"""A headless Chromium, spoken to over two pipes in its own protocol (Chrome DevTools): no driver and no network."""
import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
import warnings

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe").split()
PATIENCE = 90  # seconds for an answer, on a busy machine


def find_browser():
    """The browser's path; the test is skipped, and a warning in pytest's summary says so, where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        reason = "NO BROWSER: pages are not opened; install one (Debian: apt-get install chromium)"
        warnings.warn(reason, stacklevel=2)
        pytest.skip(reason)
    return found


class Browser:
    """One page. `complaints` are exceptions of its script, errors of its console and what its policy refused;
    `requests` are the addresses that it asked for.
    """

    def __init__(self, folder):
        program, self._profile = find_browser(), tempfile.mkdtemp(dir=str(folder))
        pipes = os.pipe() + os.pipe()
        mine, self._answers = pipes[1], pipes[2]
        # Chromium takes what it is told from descriptor 3 and answers on 4; these here must be others.
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (pipes[0], pipes[3])]
        words = ["bash", "-c", 'exec "$0" "$@" 3<&%d 4>&%d 2>/dev/null' % tuple(theirs), program]
        self._process = subprocess.Popen(words + FLAGS + ["--user-data-dir=" + self._profile, "about:blank"],
                                         pass_fds=theirs, stdout=subprocess.DEVNULL)
        for end in [pipes[0], pipes[3]] + theirs:
            os.close(end)
        self._tell, self._number, self._rest, self._session = os.fdopen(mine, "wb"), 0, b"", None
        self.complaints, self.requests = [], []
        target = next(row for row in self.call("Target.getTargets")["targetInfos"] if row["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def call(self, method, **parameters):
        """A command's answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._tell.write(json.dumps(message).encode() + b"\0")
        self._tell.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self):
        while b"\0" not in self._rest:
            part = os.read(self._answers, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        line, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(line.decode())
        method, told = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.complaints.append(told["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        return message

    def shape(self, width, height=900, dark=False, phone=False, media=""):
        """The size of its window in pixels, and how it likes pages."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", media=media, features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, path):
        """A file, until it is loaded."""
        self.complaints, self.requests = [], []
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def run(self, script):
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script):
        """Until an expression is true."""
        until = time.monotonic() + PATIENCE
        while not self.run(script):
            assert time.monotonic() < until, "never true: " + script
            time.sleep(0.02)

    def press(self, key):
        """A key, where the focus is."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def point(self, x, y, click=False):
        """The mouse at a place of the window, and a click there."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased") if click else ("mouseMoved",):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left" if click else "none", clickCount=1)

    def picture(self, whole=True):
        """The page as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])

    def close(self):
        """Ends it and removes what it wrote."""
        self._process.terminate()
        self._process.wait()
        self._tell.close()
        os.close(self._answers)
        shutil.rmtree(self._profile, ignore_errors=True)

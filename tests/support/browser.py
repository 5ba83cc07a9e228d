"""A headless Chromium, spoken to through two pipes in the DevTools protocol: JSON messages that end in a zero byte."""

import json
import os
import shutil
import subprocess
from base64 import b64decode
from contextlib import contextmanager, suppress
from itertools import count

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KEYS = {"ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9, "Enter": 13}


@contextmanager
def chromium(folder):
    """A browser with a profile of its own in the folder; the test is skipped where there is no Chromium."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no headless browser: none of {', '.join(NAMES)} is installed")
    to_browser, from_browser = os.pipe(), os.pipe()
    wanted = {3: to_browser[0], 4: from_browser[1]}  # --remote-debugging-pipe reads from 3 and writes to 4
    script = 'exec 3<&"$0" 4>&"$1"; shift; exec "$@"'
    options = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder}"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [program, *options, "--remote-debugging-pipe", "about:blank"]
    process = subprocess.Popen(
        ["bash", "-c", script, str(wanted[3]), str(wanted[4]), *command],
        pass_fds=wanted.values(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in wanted.values():
        os.close(end)
    try:
        yield Browser(to_browser[1], from_browser[0])
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        os.close(to_browser[1])
        os.close(from_browser[0])


class Browser:
    """Opens pages, one at a time. `errors` are the console's, `requests` the addresses that the page asked for."""

    def __init__(self, writing, reading):
        self.writing, self.reading, self.ids = writing, reading, count(1)
        self.buffer, self.session, self.events = b"", None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Send a command and give its result."""
        number = next(self.ids)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path, width=1280, height=900, *, dark=False, script=True, media=""):
        """Load a file in a window of this width."""
        self.events.clear()
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Page.navigate", url=path.absolute().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def run(self, expression):
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key):
        """Press and release a key."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        pressed = {"type": "keyDown", "text": "\r"} if key == "Enter" else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", **pressed, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def screenshot(self, path):
        """A picture of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(b64decode(shot["data"]))

    @property
    def errors(self):
        """What the console, uncaught errors and the page's policy say."""
        said = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for event in self.events if event.get("method") in said]

    @property
    def requests(self):
        """The addresses asked for, but for what the page itself holds."""
        sent = (event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent")
        return [url for event in sent if not (url := event["request"]["url"]).startswith("data:")]

    def _read(self):
        while b"\0" not in self.buffer:
            part = os.read(self.reading, 2**16)
            assert part, "the browser has gone"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

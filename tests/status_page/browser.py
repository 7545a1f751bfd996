"""A headless Chromium, driven over a pipe by its own DevTools protocol, with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_S = 60.0
# Chromium reads commands from descriptor 3 and answers on 4. Copies made last: they may lie where these must be.
_ON_3_AND_4 = """
import os, sys
kept = [os.dup(os.dup(os.dup(int(number)))) for number in sys.argv[1:3]]
os.dup2(kept[0], 3), os.dup2(kept[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str | None:
    """The program that `SIE_TRITON_CHROMIUM` names, or the first that is installed; None without one."""
    named = os.environ.get("SIE_TRITON_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One browser with one page. It keeps what the page asked for, logged, and threw.

    It may reach loopback alone: every other host resolves to nothing.
    """

    def __init__(self, program: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="sie-triton-browser-"))
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-ISc", _ON_3_AND_4, str(theirs_in), str(theirs_out), program, *self._arguments()],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._number = 0
        self._answers: queue.Queue[Mapping[str, Any]] = queue.Queue()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._session = ""
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Browser:
        try:
            self._attach()
        except BaseException:
            self._end()
            raise
        return self

    def _attach(self) -> None:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")

    def _arguments(self) -> list[str]:
        return [
            "--no-sandbox",  # root has none, nor have many containers; only pages of ours are opened
            "--headless",
            "--remote-debugging-pipe",
            f"--user-data-dir={self._folder}",
            "--no-first-run",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--lang=en",
            "about:blank",
        ]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        """With all of its processes, which are a session of their own."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._write)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _listen(self) -> None:
        pending = b""
        with os.fdopen(self._read, "rb", buffering=0) as pipe:
            while chunk := pipe.read(1 << 20):
                *messages, pending = (pending + chunk).split(b"\0")
                for message in messages:
                    self._take(json.loads(message))

    def _take(self, message: Mapping[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case None:
                self._answers.put(message)
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(params["entry"]["text"])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command to the page."""
        return self._call(method, self._session, **params)

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": params}
        if session:
            command["sessionId"] = session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            answer = self._answers.get(timeout=TIMEOUT_S)
            if answer["id"] == self._number:
                assert "error" not in answer, (method, answer["error"])
                found: dict[str, Any] = answer["result"]
                return found

    def open(self, url: str) -> None:
        """Go to a page; what happened on the one before is forgotten."""
        self.requests.clear()
        self.complaints.clear()
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited where it is a promise."""
        answer = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            allowUnsafeEvalBlockedByCSP=False,  # no rights that the page has not
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = 30.0) -> None:
        """Return when an expression is true in the page."""
        deadline = time.monotonic() + seconds
        while not self._holds(condition):
            assert time.monotonic() < deadline, (condition, self.run("document.body.innerText"), self.complaints)
            time.sleep(0.05)

    def _holds(self, condition: str) -> bool:
        try:
            return bool(self.run(f"Boolean({condition})"))
        except AssertionError as error:
            if "navigated or closed" in str(error):  # it goes from one page to the next just now
                return False
            raise

    def text(self, selector: str) -> str:
        """What a person reads in an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def fill(self, selector: str, text: str) -> None:
        """Type a text into a field, as a keyboard does."""
        self.run(f"(f => {{ f.focus(); f.select() }})(document.querySelector({json.dumps(selector)}))")
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key: `Tab`, `Enter`."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option, and tell the page."""
        self.run(
            f"(f => {{ f.value = {json.dumps(value)}; f.dispatchEvent(new Event('change')) }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )

    def upload(self, selector: str, *paths: Path) -> None:
        """Choose files."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def look(self, *, width: int = 1100, height: int = 900, dark: bool = False) -> None:
        """Give the window a size, in pixels, and the user a taste."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, *, whole: bool = True) -> bytes:
        """The whole page as a PNG, or what the window shows of it."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

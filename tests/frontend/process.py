"""The frontend as a process of its own, as a container runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx


class FrontendProcess:
    """One `sie-triton-frontend` on a free port. Its log is what it wrote to stderr."""

    def __init__(self, log: Path, *arguments: str | Path, scheme: str = "http", **environment: str) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sie_frontend.main", "--port", "0", *map(str, arguments)],
                env={**os.environ, **environment},
                stderr=stderr,
            )
        self.port = int(self.wait_for(rf"running on {scheme}://127\.0\.0\.1:(\d+)")[1])
        self.url = f"{scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> FrontendProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first place in the log that matches."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(re.finditer(pattern, self.log))
            assert found or self.process.poll() is None, self.log
            return bool(found)

        until(look)
        return found[0]

    def status(self, path: str) -> int:
        """The status of a GET on a connection of its own; 0 if nobody listens."""
        try:
            # Without `verify` every call would read all certificates.
            return httpx.get(f"{self.url}{path}", timeout=10, verify=False).status_code
        except httpx.TransportError:
            return 0

    def wait_ready(self) -> None:
        """Return when `/readyz` says ok."""
        until(lambda: self.status("/readyz") == 200)

    def terminate(self) -> None:
        """SIGTERM, which is what a container gets."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(30)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Return when `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

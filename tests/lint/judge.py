"""The real tritonserver as the judge of a repository: which of its models it loads, and why not the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from sie_triton.embedded.installation import Installation
from sie_triton.embedded.server import ServerSpec, TritonServer


class Judge(TritonServer):
    """A tritonserver that goes on where models do not load. `completes`: in Triton's default mode."""

    completes = True

    def _command(self, installation: Installation, backends: Path) -> list[str]:
        changed = {
            "--exit-on-error=true": "--exit-on-error=false",
            "--strict-readiness=true": "--strict-readiness=false",
        }
        command = [changed.get(word, word) for word in super()._command(installation, backends)]
        return [word for word in command if not (self.completes and word == "--disable-auto-complete-config")]


class StrictJudge(Judge):
    """The same with `--disable-auto-complete-config`."""

    completes = False


def verdicts(repository: Path, log: Path, judge: type[Judge] = Judge) -> dict[str, str]:
    """Model name -> "" where it is ready, else Triton's reason."""
    with _running(judge(ServerSpec(repository, log))) as server:
        index = httpx.post(f"{server.url}/v2/repository/index", timeout=30).json()
    found: dict[str, str] = {}
    for entry in index:
        ready = entry.get("state") == "READY"
        found[entry["name"]] = "" if ready else entry.get("reason") or entry.get("state") or "not loaded"
    return found


@contextmanager
def _running(server: Judge) -> Iterator[Judge]:
    server.start()
    try:
        server.wait_ready(300)
        yield server
    finally:
        server.stop(15)

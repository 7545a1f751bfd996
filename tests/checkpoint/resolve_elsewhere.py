"""Resolves checkpoints in a process of its own, as the client library reads its variables when it is imported.

Run as a program: one JSON call per line on stdin, one JSON outcome per line on stdout. `Elsewhere` is the other side.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What one call of `resolve_checkpoint` came to."""

    checkpoint: dict[str, Any] | None
    diagnostics: list[dict[str, Any]]
    announced: list[str]
    progress: list[list[Any]]
    """File, bytes done, bytes in all."""

    @property
    def codes(self) -> list[str]:
        return [diagnostic["code"] for diagnostic in self.diagnostics]

    @property
    def text(self) -> str:
        return "\n".join(f"{diagnostic['message']}\n{diagnostic['hint']}" for diagnostic in self.diagnostics)

    @property
    def found(self) -> dict[str, Any]:
        assert self.checkpoint is not None, self.text
        return self.checkpoint

    @property
    def folder(self) -> Path:
        return Path(self.found["folder"])


class Elsewhere:
    """A process that resolves; its variables are ours without the library's, and `environment`."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        file_size_limit: int | None = None,
        stalled_seconds: float | None = None,
    ) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        settings = json.dumps({"file_size_limit": file_size_limit, "stalled_seconds": stalled_seconds})
        self._process = subprocess.Popen(
            [sys.executable, __file__, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=kept | dict(environment),
            text=True,
        )

    def resolve(self, hf_id: str | None, **arguments: Any) -> Outcome:
        """What `resolve_checkpoint(hf_id, ...)` comes to there."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"hf_id": hf_id, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process died; its traceback is on stderr"
        return Outcome(**json.loads(line))

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=300)


def _call(arguments: dict[str, Any]) -> dict[str, Any]:
    from sie_triton.checkpoint import resolve_checkpoint  # only the program imports it
    from sie_triton.diagnostics import DiagnosticError

    announced: list[str] = []
    progress: list[tuple[str, int, int | None]] = []
    defaults: dict[str, Any] = {"revision": None, "weights": None, "bundle_weights_path": None}
    outcome: dict[str, Any] = {"checkpoint": None, "diagnostics": [], "announced": announced, "progress": progress}
    try:
        found = resolve_checkpoint(
            **(defaults | arguments),
            progress=lambda file, done, total: progress.append((file, done, total)),
            announce=announced.append,
        )
        outcome["checkpoint"] = {
            "folder": str(found.folder),
            "source": found.source,
            "revision": found.revision,
            "identity": found.identity,
            "files": found.files,
            "digests": found.digests,
        }
    except DiagnosticError as error:
        outcome["diagnostics"] = [{"code": d.code, "message": d.message, "hint": d.hint} for d in error.diagnostics]
    return outcome


def _main() -> None:
    settings = json.loads(sys.argv[1])
    if settings["file_size_limit"] is not None:
        import resource  # Unix only
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (settings["file_size_limit"], settings["file_size_limit"]))
    if settings["stalled_seconds"] is not None:
        from sie_triton.checkpoint import hub

        hub.STALLED_SECONDS = settings["stalled_seconds"]
    for line in sys.stdin:
        print(json.dumps(_call(json.loads(line))), flush=True)


if __name__ == "__main__":
    _main()

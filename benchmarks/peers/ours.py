"""Ours over HTTP: `sie-triton serve` on a repository that the runner built."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers import Files, HttpServer, sie_wire


def server(files: Files, port: int, variant: str, cache: Path) -> HttpServer:
    """`variant` is the folder of the built repository."""
    command = [sys.executable, "-m", "sie_triton.cli", "serve", "-r", variant, "--port", str(port)]
    return HttpServer(
        command=[*command, "--log-dir", str(cache / "log")],
        port=port,
        path=f"/v1/encode/{files.model_id}",
        ready_path="/readyz",
        content_type=sie_wire.CONTENT_TYPE,
        request=sie_wire.request,
        vectors=sie_wire.vectors,
    )

"""A repository behind the real tritonserver and the real frontend, inside the test's process."""

from __future__ import annotations

import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from shared import run_folder
from sie_frontend.main import make_server
from sie_frontend.settings import Settings

from sie_triton.embedded.ports import free_port
from sie_triton.embedded.server import ServerSpec, TritonServer

# A busy machine takes long to start a process for every graph.
_READY_SECONDS = 300


@dataclass
class Served:
    """What `serve` started."""

    url: str
    triton: TritonServer
    server: uvicorn.Server
    thread: threading.Thread

    def stop(self) -> None:
        """End both; nothing is left when this returns."""
        self.server.should_exit = True
        self.thread.join(timeout=30)
        self.triton.stop()


def serve(repository: Path) -> Served:
    """Start tritonserver and a frontend, and wait until `/readyz` says so."""
    log = Path(tempfile.mkdtemp(prefix="log-", dir=run_folder())) / "tritonserver.log"
    triton = TritonServer(ServerSpec(repository, log))
    triton.start()
    try:
        triton.wait_ready(_READY_SECONDS)
        port = free_port()
        server = make_server(Settings(repository, triton_url=triton.url.removeprefix("http://"), port=port))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{port}"
        _await_ready(url)
    except BaseException:
        triton.stop()
        raise
    return Served(url, triton, server, thread)


def _await_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{url} never became ready")

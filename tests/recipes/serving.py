"""A repository behind the real tritonserver and the real frontend, inside the test's process.

The server is supervised, as `sie-triton serve` does it. What it had to bring back is told at the end of the run.
"""

from __future__ import annotations

import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn
from shared import note_incident, run_folder
from sie_frontend.main import make_server
from sie_frontend.serving.ailments import Ailments
from sie_frontend.settings import Settings

from sie_triton.embedded.ports import free_port
from sie_triton.embedded.server import ServerSpec, TritonServer
from sie_triton.embedded.supervisor import Supervisor
from sie_triton.serving.restarts import Restarts, ailments_of

# A busy machine takes long to start a process for every graph.
_READY_SECONDS = 300


@dataclass
class Served:
    """What `serve` started."""

    url: str
    supervisor: Supervisor
    server: uvicorn.Server
    thread: threading.Thread

    @property
    def triton(self) -> TritonServer:
        """The server that runs now."""
        return self.supervisor.server

    def stop(self) -> None:
        """End both; nothing is left when this returns."""
        self.server.should_exit = True
        self.thread.join(timeout=30)
        self.supervisor.stop()


def serve(repository: Path) -> Served:
    """Start tritonserver and a frontend, and wait until `/readyz` says so."""
    log = Path(tempfile.mkdtemp(prefix="log-", dir=run_folder())) / "tritonserver.log"
    restarts = Restarts(partial(note_incident, log), lambda: None)
    supervisor = Supervisor(ServerSpec(repository, log), on_change=restarts, on_trouble=restarts.trouble)
    restarts.ailments = Ailments(partial(ailments_of, supervisor), supervisor.suspect)
    supervisor.start()
    try:
        supervisor.wait_ready(_READY_SECONDS)
        port = free_port()
        settings = Settings(repository, triton_url=supervisor.url.removeprefix("http://"), port=port)
        server = make_server(settings, ailments=restarts.ailments, discharge=supervisor.discharge)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{port}"
        _await_ready(url)
    except BaseException:
        supervisor.stop()
        raise
    return Served(url, supervisor, server, thread)


def _await_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{url} never became ready")

"""A tritonserver that tests use unsupervised, whose start is begun again as the supervisor would."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from shared import note_incident

from sie_triton.embedded.server import ServerSpec, TritonServer
from sie_triton.embedded.stuck import StartWatch

_STARTS = 3


def ready(spec: ServerSpec, timeout: float = 120.0) -> TritonServer:
    """A server that is ready. Raises `DiagnosticError` as `TritonServer.wait_ready` does."""
    for attempt in range(1, _STARTS + 1):
        server = TritonServer(spec)
        try:
            server.start()
            if _became_ready(server, timeout, last=attempt == _STARTS):
                return server
        except BaseException:
            server.stop(0)
            raise
        server.stop(0)
    raise AssertionError("the last start raises")


def _became_ready(server: TritonServer, timeout: float, *, last: bool) -> bool:
    """Whether the server is ready; False for one that could not help it."""
    watch, deadline = StartWatch(server, 20.0), time.monotonic() + timeout
    while not server.is_ready():
        cause = watch.look()
        if not last and (cause or server.lost_its_locks()):
            note_incident(server.spec.log_path, cause.message if cause else "a lock failed")
            return False
        if server.poll() is not None or time.monotonic() >= deadline:
            server.wait_ready(0)
        time.sleep(0.05)
    return True


@contextlib.contextmanager
def started(spec: ServerSpec) -> Iterator[TritonServer]:
    """A server that is ready, and stopped at the end."""
    server = ready(spec)
    try:
        yield server
    finally:
        server.stop(5)

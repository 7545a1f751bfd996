"""What would be waited for for ever: a process that ended before it was heard of, or that does nothing any more.

A start is ended then, and begun again by the `supervisor`; in a running server the `healer` sees to that one model.
"""

from __future__ import annotations

import time
from typing import Final

from sie_triton.diagnostics import Diagnostic
from sie_triton.embedded import logs
from sie_triton.embedded.server import TritonServer

UNHEARD_S: Final = 5.0
"""tritonserver notices within two seconds that a process ended while its model was loaded, unless that ended before it
had said anything: that one is waited for for ever."""
MEMORY_HINT: Final = (
    "the kernel's log tells if memory ran out: load fewer models or lower their `instance_group` counts"
)


class StartWatch:
    """Looks after one start of a server, until that is ready. Its processes may do nothing for `patience_s` seconds.

    A process that loads a model computes, or waits for the disk. Seldom, on a busy machine, one does neither and hangs.
    """

    def __init__(self, server: TritonServer, patience_s: float) -> None:
        self._server = server
        self._patience_s = patience_s
        self._ended: dict[int, tuple[str | None, float]] = {}

    def look(self) -> Diagnostic | None:
        """Why this start will never end, if that can be told."""
        if cause := self._server.never_ended():
            return cause
        stubs, pid, now = self._server.stubs, self._server.pid, time.monotonic()
        for death in stubs.look(pid) if pid else ():
            self._ended[death.pid] = (death.model, now)
        for one, (model, since) in self._ended.items():
            known = logs.shows_failed_load(self._server.spec.log_path, model)
            if now - since >= UNHEARD_S and stubs.unburied(one) and not known:
                return never_loaded(model)
        still = min((stubs.stood_still(one) for one in stubs.alive), default=0.0)
        return None if still < self._patience_s else self._stands_still(still)

    def _stands_still(self, seconds: float) -> Diagnostic:
        log = self._server.spec.log_path
        waiting = sorted(set(self._server.stubs.models.values()) - logs.loaded_models(log))
        names = f", those of {', '.join(f'`{name}`' for name in waiting)} among them" if waiting else ""
        message = f"no process of its models has computed or read anything for {seconds:.0f} s{names}"
        return Diagnostic("SIE722", message, hint=f"a disk that does not answer? tritonserver's log is `{log}`")


def never_loaded(model: str | None) -> Diagnostic:
    """What is told of a process that ended before tritonserver had heard of it."""
    name = f"model `{model}`" if model else "a model"
    message = f"the process of {name} ended as it began, and tritonserver would wait for it for ever"
    return Diagnostic("SIE711", message, hint=MEMORY_HINT)

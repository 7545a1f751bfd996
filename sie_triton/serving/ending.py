"""What Ctrl-C does to a command that serves: it is answered at once, and the second one waits for nobody."""

from __future__ import annotations

import logging
import signal
from types import FrameType

import uvicorn

from sie_triton.embedded.supervisor import Supervisor
from sie_triton.interrupts import tell

ANSWER = "stopping: requests in flight are finished first; Ctrl-C again ends at once\n"


class Ending:
    """Notes interrupts, answers the first, and kills the supervised server, if there is one, on any further."""

    def __init__(self, supervisor: Supervisor | None = None) -> None:
        self._supervisor = supervisor
        self._interrupts = 0

    def note(self, number: int) -> None:
        """A signal came. Signal handlers may call this."""
        if number != signal.SIGINT:
            return
        self._interrupts += 1
        if self._interrupts == 1:
            tell(ANSWER)
            return
        # What is cut short complains with a traceback.
        logging.getLogger("uvicorn.error").disabled = True
        if self._supervisor is not None:
            self._supervisor.kill()

    def follow(self, server: uvicorn.Server) -> None:
        """Note the signals that a frontend gets; it goes on to handle them as it does."""
        handle = server.handle_exit

        def noted(number: int, frame: FrameType | None) -> None:
            self.note(number)
            handle(number, frame)

        server.handle_exit = noted  # type: ignore[assignment, method-assign]

    def await_end(self) -> None:
        """End the supervised server, however often Ctrl-C is pressed meanwhile: nothing may be left behind."""
        signal.signal(signal.SIGINT, lambda number, _: self.note(number))
        if self._supervisor is not None:
            self._supervisor.stop()

    def raise_interrupt(self) -> None:
        """Raise `KeyboardInterrupt` if there was one, so that the command ends as one that was interrupted."""
        if self._interrupts:
            raise KeyboardInterrupt

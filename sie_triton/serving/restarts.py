"""What a command that runs a supervised tritonserver tells of it, to its user and to the frontend."""

from __future__ import annotations

from collections.abc import Callable

from sie_frontend.serving.ailments import Ailment, Ailments

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded.supervisor import State, Supervisor, Transition

Announce = Callable[[str], None]


class Restarts:
    """Follows a supervisor: announces every restart, and calls `give_up` once there will be no other.

    `ailments` is what a frontend is to know of it.
    """

    def __init__(self, announce: Announce, give_up: Callable[[], None]) -> None:
        self._announce = announce
        self._give_up = give_up
        self._failure: list[Diagnostic] = []
        self.ailments = Ailments()

    def __call__(self, transition: Transition) -> None:
        """One change of the server's state."""
        if transition.state is State.WAITING:
            cause = transition.diagnostic.message if transition.diagnostic else ""
            self._announce(f"{cause}; starting it again in {transition.delay:.1f} s")
        if transition.state is State.FAILED:
            self._failure += [transition.diagnostic] if transition.diagnostic else []
            self._give_up()

    def trouble(self, diagnostic: Diagnostic) -> None:
        """Announce that one model went down."""
        self._announce(diagnostic.message)
        self.ailments.changed()

    def raise_failure(self) -> None:
        """Raise `DiagnosticError` if the supervisor gave up."""
        if self._failure:
            raise DiagnosticError(self._failure)


def ailments_of(supervisor: Supervisor) -> dict[str, Ailment]:
    """What the supervisor knows, in the frontend's words."""
    troubles = supervisor.troubles()
    return {name: Ailment(one.cause, one.times, one.down, one.failing, one.number) for name, one in troubles.items()}

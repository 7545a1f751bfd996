"""Keeps one tritonserver running: restarts it when it dies, gives up when that does not help.

A thread, because its user is a command-line process that waits for something else. The server's own parent is the
warden (see `warden`), so that it does not matter which thread starts it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded import logs
from sie_triton.embedded.server import ServerSpec, TritonServer

_POLL_SECONDS = 0.1
_LOOK_SECONDS = 1.0


class State(str, Enum):
    """Where a supervised server stands."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state. `diagnostic` says why for `WAITING` (the death) and `FAILED`; `delay` is the wait."""

    state: State
    diagnostic: Diagnostic | None = None
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Waits `first_delay` seconds before a restart, twice as long before the next, at most `max_delay`.

    A server that was never ready gets `starts` attempts, and those only where it is not the repository that fails.
    Gives up at the death that would need more than `limit` restarts within `window` seconds. A server that was
    ready for `window` seconds starts again from `first_delay`. It may take `ready_timeout` seconds to be ready, and
    `model_timeout` more for each model that it loads.
    """

    first_delay: float = 0.5
    max_delay: float = 30.0
    limit: int = 5
    starts: int = 4
    window: float = 300.0
    ready_timeout: float = 300.0
    model_timeout: float = 10.0


class Supervisor:
    """Runs `TritonServer`s one after the other on the same ports until told to stop.

    `on_change` is called for every transition, from the supervisor's thread; it must return soon and not call
    `stop`. An error before the server was ready for the first time is final: no restart mends a broken repository.
    The exception is a lock that failed between tritonserver and its stubs, which happens where many start at once on
    a busy machine: it is started again.
    """

    def __init__(
        self,
        spec: ServerSpec,
        *,
        on_change: Callable[[Transition], None] = lambda transition: None,
        policy: RestartPolicy | None = None,
    ) -> None:
        self._on_change = on_change
        self._policy = policy or RestartPolicy()
        self.server = TritonServer(spec)
        # The frontend keeps the address that it was given: every later server takes the ports of the first.
        self._spec = replace(
            spec,
            http_port=self.server.http_port,
            metrics_port=self.server.metrics_port,
            grpc_port=self.server.grpc_port,
        )
        self._state = State.STARTING
        self._diagnostic: Diagnostic | None = None
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._grace = 10.0
        self._thread = threading.Thread(target=self._run, name="triton-supervisor", daemon=True)

    @property
    def url(self) -> str:
        """`http://HOST:PORT` of Triton's HTTP API, the same over restarts."""
        return self.server.url

    @property
    def state(self) -> State:
        """The present state."""
        return self._state

    def model_memory(self) -> dict[str, int]:
        """Bytes that each loaded model's processes hold now, by Triton model. Any thread may ask."""
        return self.server.model_memory()

    def start(self) -> None:
        """Start the first server, in the background."""
        self._thread.start()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Return once the server is ready.

        Raises `DiagnosticError` with the cause if the supervisor has given up or was stopped, `SIE709` on timeout.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._state in (State.READY, State.FAILED, State.STOPPED), timeout)
            if self._state is State.READY:
                return
            if self._diagnostic and self._state is State.FAILED:
                raise DiagnosticError([self._diagnostic])
            raise DiagnosticError([Diagnostic("SIE709", f"tritonserver is not ready, it is {self._state.value}")])

    def stop(self, grace: float = 10.0) -> None:
        """End the server and the supervision. Idempotent; returns when nothing is left."""
        self._grace = grace
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._supervise()
        except DiagnosticError as error:
            self._become(Transition(State.FAILED, error.diagnostics[0]))
        finally:
            self.server.stop(self._grace)
        if self._stopping.is_set() and self._state is not State.FAILED:
            self._become(Transition(State.STOPPED))

    def _supervise(self) -> None:
        deaths: deque[float] = deque()
        was_ready = False
        while not self._stopping.is_set():
            self._become(Transition(State.STARTING))
            try:
                self.server.start()
                if not self._await_ready():
                    return
                was_ready = True
                self._become(Transition(State.READY))
                cause = self._await_death()
                if cause is None:
                    return
            except DiagnosticError as error:
                cause = error.diagnostics[0]
                if not was_ready:
                    if not self.server.lost_its_locks():
                        raise
                    cause = self._locks_lost(cause, len(deaths) + 1)
            # The warden has removed the shared memory of the dead server; the next one has names of its own.
            self.server.stop(grace=0.0)
            now = time.monotonic()
            deaths.append(now)
            while deaths[0] < now - self._policy.window:
                deaths.popleft()
            if len(deaths) > self._policy.limit:
                raise DiagnosticError([self._given_up(cause)])
            delay = min(self._policy.first_delay * 2 ** (len(deaths) - 1), self._policy.max_delay)
            self._become(Transition(State.WAITING, cause, delay))
            self._stopping.wait(delay)
            self.server = TritonServer(self._spec)

    def _await_ready(self) -> bool:
        """True when ready, False when told to stop. Raises `DiagnosticError` as `TritonServer.wait_ready` does."""
        models = 0 if self._spec.on_demand else sum(1 for _ in self._spec.repository.glob("*/config.pbtxt"))
        deadline = time.monotonic() + self._policy.ready_timeout + self._policy.model_timeout * models
        while not self._stopping.is_set():
            if self.server.is_ready():
                return True
            if self.server.poll() is not None or time.monotonic() >= deadline:
                self.server.wait_ready(timeout=0.0)  # raises, with the cause
            self._stopping.wait(_POLL_SECONDS)
        return False

    def _await_death(self) -> Diagnostic | None:
        """The cause of the server's end, or why it must be ended; None when told to stop before."""
        next_look = time.monotonic() + _LOOK_SECONDS
        while not self._stopping.wait(_POLL_SECONDS):
            if (status := self.server.poll()) is not None:
                return self.server.failure(status)
            if time.monotonic() >= next_look:
                next_look += _LOOK_SECONDS
                if crashed := self.server.crashed_models():
                    return Diagnostic(
                        "SIE711",
                        f"the process of {', '.join(f'model `{name}`' for name in crashed)} ended by itself",
                        hint="the kernel's log tells if memory ran out: load fewer models or lower their "
                        "`instance_group` counts",
                    )
        return None

    def _locks_lost(self, cause: Diagnostic, attempt: int) -> Diagnostic:
        """What is told of a start that is tried again; raises `DiagnosticError` where enough were."""
        starts = self._policy.starts
        if attempt >= starts:
            message = f"tritonserver could not be started in {starts} attempts; the last time: {cause.message}"
            raise DiagnosticError(
                [Diagnostic("SIE715", message, hint="it fails on a busy machine: start fewer models, or wait")]
            )
        message = (
            f"start {attempt} of at most {starts} ended in a lock that failed between tritonserver and the processes "
            f"of its models, as happens on a busy machine; it is tried again. {cause.message}"
        )
        return Diagnostic("SIE715", message, hint=cause.hint)

    def _given_up(self, cause: Diagnostic) -> Diagnostic:
        policy = self._policy
        return Diagnostic(
            "SIE710",
            f"tritonserver ended {policy.limit + 1} times within {policy.window:g} s, so it is not started again; "
            f"the last time: {cause.message}\nthe end of its log:\n{logs.tail(self._spec.log_path)}",
            hint=cause.hint,
        )

    def _become(self, transition: Transition) -> None:
        with self._changed:
            self._state = transition.state
            self._diagnostic = transition.diagnostic
            self._changed.notify_all()
        self._on_change(transition)

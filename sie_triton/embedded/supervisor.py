"""Keeps one tritonserver running: restarts it when it dies, and gives up only where it cannot even start again.

A model whose process ended is no reason for a restart: the `healer` brings it back alone.

A thread, because its user is a command-line process that waits for something else. The server's own parent is the
warden (see `warden`), so that it does not matter which thread starts it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded import logs
from sie_triton.embedded.alarm import Alarm
from sie_triton.embedded.healer import Healer, Tell
from sie_triton.embedded.healing import HealingRules, Trouble
from sie_triton.embedded.server import ServerSpec, TritonServer
from sie_triton.embedded.stuck import StartWatch

_POLL_SECONDS = 0.1
# First starts that went wrong so need not do it again: a process ended as it began, or none of them did anything.
_TRIED_AGAIN = ("SIE711", "SIE722")


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

    A server that was ready for `healthy` seconds starts again from `first_delay`. Of those that were ready none is
    given up, however often they end: their models work in between. A server that was never ready gets `starts`
    attempts, and those only where it is not the repository that fails; a restart gets `restarts` in a row. It
    may take `ready_timeout` seconds to be ready, and `model_timeout` more for each model that it loads. One whose
    processes do nothing for `standstill` seconds is ended before; the next may take twice as long.
    """

    first_delay: float = 0.5
    max_delay: float = 30.0
    healthy: float = 60.0
    starts: int = 4
    restarts: int = 8
    ready_timeout: float = 300.0
    model_timeout: float = 10.0
    standstill: float = 20.0


class Supervisor:
    """Runs `TritonServer`s one after the other on the same ports until told to stop.

    `on_change` is called for every transition, from the supervisor's thread, and `on_trouble` for every death of a
    model's process, from any thread; they must return soon and not call `stop`. An error before the server was ready
    for the first time is final: no restart mends a broken repository. The exceptions are what happens where many
    processes start at once on a busy machine: a lock that failed between tritonserver and its stubs, a stub that ended
    as it began, one that hangs. Then it is started again.
    """

    def __init__(
        self,
        spec: ServerSpec,
        *,
        on_change: Callable[[Transition], None] = lambda transition: None,
        on_trouble: Tell = lambda trouble: None,
        policy: RestartPolicy | None = None,
        healing: HealingRules | None = None,
    ) -> None:
        self._on_change = on_change
        self._policy = policy or RestartPolicy()
        self._healer = Healer(reloads=not spec.on_demand, tell=on_trouble, rules=healing)
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
        self._alarm = Alarm()
        self._grace = 10.0
        self._killed = False
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

    def troubles(self) -> Mapping[str, Trouble]:
        """What is wrong with which Triton model. Any thread may ask."""
        return self._healer.troubles()

    def discharge(self, models: Collection[str]) -> None:
        """Models are unloaded on purpose: they are not brought back. Any thread but the supervisor's may tell."""
        self._healer.discharge(models)

    def suspect(self, model: str, waited_s: float) -> None:
        """Somebody has waited so long for an answer of a Triton model, longer than that takes. Any thread may tell.

        A process of it that did nothing in the meantime is ended, and the model loaded again. A GPU may compute all the
        while, so with one nothing is concluded.
        """
        if not self._spec.gpu:
            self._healer.suspect(model, waited_s)
            self._alarm.ring()

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
        self._grace = 0.0 if self._killed else grace
        self._stopping.set()
        self._alarm.ring()
        if self._thread.ident is not None:
            self._thread.join()

    def kill(self) -> None:
        """Kill the server: a `stop` that waits for it, or comes later, waits no more. Signal handlers may call it."""
        self._killed = True
        self._grace = 0.0
        self._stopping.set()
        self._alarm.ring()
        self.server.kill()

    def _run(self) -> None:
        try:
            self._supervise()
        except DiagnosticError as error:
            self._become(Transition(State.FAILED, error.diagnostics[0]))
        finally:
            self._healer.leave()
            self.server.stop(self._grace)
            self._alarm.close()
        if self._stopping.is_set() and self._state is not State.FAILED:
            self._become(Transition(State.STOPPED))

    def _supervise(self) -> None:
        was_ready, deaths, starts = False, 0, 0
        while not self._stopping.is_set():
            self._become(Transition(State.STARTING))
            ready_at = float("inf")
            try:
                self.server.start()
                if not self._await_ready(starts):
                    return
                ready_at, starts = time.monotonic(), 0
                if was_ready:
                    self._healer.restarted(self.server.control)
                was_ready = True
                self._become(Transition(State.READY))
                cause = self._await_death()
                if cause is None:
                    return
            except DiagnosticError as error:
                cause = error.diagnostics[0]
                starts += 1
                if not was_ready:
                    cause = self._again(cause, starts)
                elif starts >= self._policy.restarts:
                    raise DiagnosticError([self._given_up(cause)]) from None
            self._healer.leave()
            # The warden has removed the shared memory of the dead server; the next one has names of its own.
            self.server.stop(grace=0.0)
            deaths = 1 if time.monotonic() - ready_at >= self._policy.healthy else deaths + 1
            delay = min(self._policy.first_delay * 2.0 ** min(deaths - 1, 60), self._policy.max_delay)
            self._become(Transition(State.WAITING, cause, delay))
            self._stopping.wait(delay)
            # A model that cannot be loaded any more must not keep the others away.
            self.server = TritonServer(replace(self._spec, exit_on_error=not was_ready))

    def _await_ready(self, attempt: int) -> bool:
        """True when ready, False when told to stop. Raises `DiagnosticError` as `TritonServer.wait_ready` does."""
        models = 0 if self._spec.on_demand else sum(1 for _ in self._spec.repository.glob("*/config.pbtxt"))
        deadline = time.monotonic() + self._policy.ready_timeout + self._policy.model_timeout * models
        watch = StartWatch(self.server, self._policy.standstill * 2.0**attempt)
        while not self._stopping.is_set():
            if self.server.is_ready():
                return True
            if cause := watch.look():
                raise DiagnosticError([cause])
            if self.server.poll() is not None or time.monotonic() >= deadline:
                self.server.wait_ready(timeout=0.0)  # raises, with the cause
            self._stopping.wait(_POLL_SECONDS)
        return False

    def _await_death(self) -> Diagnostic | None:
        """The cause of the server's end; None when told to stop before. Meanwhile its models are looked after."""
        control = self.server.control
        while not self._stopping.is_set():
            if (status := self.server.poll()) is not None:
                return self.server.failure(status)
            pid, stubs = self.server.pid, self.server.stubs
            if pid is not None and (cause := self._healer.look(pid, stubs, control)):
                return cause
            self._alarm.sleep(self._pause())
        return None

    def _pause(self) -> float:
        """The seconds until something has to be looked at, unless a process ends before."""
        stubs, now = self.server.stubs, time.monotonic()
        pause = min(stubs.pause(now), self._healer.pause(now))
        told = [self._alarm.watch(pid) for pid in (self.server.guardian, *stubs.alive) if pid is not None]
        return pause if all(told) else min(pause, _POLL_SECONDS)

    def _again(self, cause: Diagnostic, attempt: int) -> Diagnostic:
        """What is told of a first start that is tried again; raises `DiagnosticError` where that would not help."""
        locks = self.server.lost_its_locks()
        if not locks and cause.code not in _TRIED_AGAIN:
            raise DiagnosticError([cause])
        code, starts = "SIE715" if locks else cause.code, self._policy.starts
        if attempt >= starts:
            message = f"tritonserver could not be started in {starts} attempts; the last time: {cause.message}"
            hint = "it fails on a busy machine: start fewer models, or wait" if locks else cause.hint
            raise DiagnosticError([Diagnostic(code, message, hint=hint)])
        why = "would never have ended"
        if locks:
            why = (
                "ended in a lock that failed between tritonserver and the processes of its models, as happens on a "
                "busy machine"
            )
        message = f"start {attempt} of at most {starts} {why}; it is tried again. {cause.message}"
        return Diagnostic(code, message, hint=cause.hint)

    def _given_up(self, cause: Diagnostic) -> Diagnostic:
        policy = self._policy
        return Diagnostic(
            "SIE710",
            f"tritonserver ended {policy.restarts} times in a row before it was ready, so it is not started again; "
            f"the last time: {cause.message}\nthe end of its log:\n{logs.tail(self._spec.log_path)}",
            hint=cause.hint,
        )

    def _become(self, transition: Transition) -> None:
        with self._changed:
            self._state = transition.state
            self._diagnostic = transition.diagnostic
            self._changed.notify_all()
        self._on_change(transition)

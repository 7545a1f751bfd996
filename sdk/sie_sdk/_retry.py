"""When a call is tried again, how long it waits, and what it raises when it gives up.

| What happened | Wait | Until |
|---|---|---|
| no connection, connection lost, write timeout | 5 s, jittered | the budget ends, if `wait_for_capacity` |
| read timeout | | never retried: the server may be at work on the request |
| 503 PROVISIONING | the hint, or 5 s jittered | the budget ends, if `wait_for_capacity` |
| 503 MODEL_LOADING | the hint, or 5 s | the budget ends |
| 503 LORA_LOADING (encode) | the hint, or 1 s | 10 retries |
| 503 RESOURCE_EXHAUSTED | the hint once, then from 5 s doubling, jittered, at most 30 s | `max_oom_retries` |
| 503 QUEUE_FULL, BILLING_CAPACITY_UNAVAILABLE | the hint, or 1 s jittered | the wait would end the budget |
| 503 QUEUE_UNAVAILABLE, transport_failure | the hint; without one not retried | the wait would end the budget |
| 429 | the hint, or 1 s jittered | the wait would end the budget |
| 504 | the hint, or 5 s | the budget ends, if `wait_for_capacity` |
| anything else | | not retried |

The hint is `Retry-After`. The budget is `provision_timeout_s` from the start of the call; it caps every wait and
every attempt, save the one attempt that follows a wait for provisioning or loading to the budget's very end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from sie_sdk._error_replies import ErrorReply, exception_for
from sie_sdk.errors import (
    LoraLoadingError,
    ModelLoadingError,
    ProvisioningError,
    RateLimitError,
    ResourceExhaustedError,
    SIEConnectionError,
    SIEError,
)

BUDGET_S = 900.0
MAX_OOM_RETRIES = 3
_MAX_LORA_RETRIES = 10
_DELAY_S = 5.0
_BRIEF_DELAY_S = 1.0
_MAX_OOM_DELAY_S = 30.0
_JITTER = 0.25


@dataclass(frozen=True, slots=True)
class RetryTiming:
    """A clock in seconds and a source of jitter. Tests pass their own."""

    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform


class TransportFault(Enum):
    """How an exchange ended without a reply."""

    CONNECT = "connect"
    LOST = "lost"
    WRITE_TIMEOUT = "write timeout"
    READ_TIMEOUT = "read timeout"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Failure:
    """An exchange without a reply. `transient` is false if another attempt would fail in the same way."""

    kind: TransportFault
    error: Exception
    transient: bool = True


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the caller of one call chose. `gpu` is `type` or `pool/type`; `budget_s` is in seconds."""

    gpu: str | None = None
    wait_for_capacity: bool = True
    budget_s: float = BUDGET_S
    max_oom_retries: int = MAX_OOM_RETRIES


@dataclass(frozen=True, slots=True)
class Terms:
    """A call's choices with the names that messages need, and whether it waits for LoRAs.

    `detour` names the proxy, if there is one. `repeatable` is false if a request must not be sent again once the
    server may have begun to work on it.
    """

    waiting: Waiting
    model: str
    server: str
    gpu: str | None = None
    lora: str | None = None
    awaits_lora: bool = False
    detour: str = ""
    repeatable: bool = True


@dataclass(slots=True)
class Patience:
    """The retries of one call: how much of the budget and of each kind of retry is left."""

    terms: Terms
    timing: RetryTiming
    started: float = field(init=False)
    lora_retries: int = 0
    oom_retries: int = 0
    last_error: SIEError | None = None
    last_attempt_granted: bool = False

    def __post_init__(self) -> None:
        self.started = self.timing.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the call began."""
        return self.timing.clock() - self.started

    @property
    def remaining(self) -> float:
        """Seconds left of the budget; negative once it is exceeded."""
        return self.terms.waiting.budget_s - self.elapsed

    def attempt_cap(self) -> float:
        """The upper limit of the next attempt's timeouts in seconds; `inf` stands for no limit.

        Raises the previous attempt's error if no budget is left for another.
        """
        remaining, granted = self.remaining, self.last_attempt_granted
        self.last_attempt_granted = False
        if remaining > 0:
            return remaining
        if granted:
            return inf
        if self.last_error is not None:
            raise self.last_error
        raise ProvisioningError(
            f"Provision timeout ({self.terms.waiting.budget_s:.1f}s) exceeded before request could be sent",
            gpu=self.terms.gpu,
        )

    def after_failure(self, failure: Failure) -> float:
        """The seconds to wait before the next attempt. Raises `SIEConnectionError` if there will be none."""
        self.last_error = connection_error(failure, self.terms.server, self.terms.detour)
        self.last_error.__cause__ = failure.error
        begun = failure.kind in (TransportFault.LOST, TransportFault.WRITE_TIMEOUT)
        retried = failure.kind is TransportFault.CONNECT or (begun and self.terms.repeatable)
        if not (retried and failure.transient and self.terms.waiting.wait_for_capacity) or self.remaining <= 0:
            raise self.last_error
        return self._jittered(min(_DELAY_S, self.remaining))

    def after_error(self, error: ErrorReply) -> float:
        """The seconds to wait before the next attempt. Raises the error's exception if there will be none."""
        self.last_error = exception_for(error, self.terms.model)
        rule = _RULES.get((error.status, error.code)) or _RULES_BY_STATUS.get(error.status)
        delay = None if rule is None else rule(self, error)
        if delay is None:
            raise self.last_error
        return delay

    def _provisioning(self, error: ErrorReply) -> float:
        gpu = self.terms.gpu
        if not self.terms.waiting.wait_for_capacity:
            self._give_up_provisioning(error, f"No capacity available for GPU '{gpu}'. Server is provisioning.")
        if self.remaining <= 0:
            self._give_up_provisioning(error, f"Provisioning timeout after {self.elapsed:.1f}s waiting for GPU '{gpu}'")
        self.last_attempt_granted = True
        if error.retry_after is not None:
            return min(error.retry_after, self.remaining)
        return self._jittered(min(_DELAY_S, self.remaining))

    def _give_up_provisioning(self, error: ErrorReply, message: str) -> None:
        raise ProvisioningError(
            message, gpu=self.terms.gpu, retry_after=error.retry_after, param=error.param, request=error.request
        )

    def _model_loading(self, error: ErrorReply) -> float:
        if self.remaining <= 0:
            raise ModelLoadingError(
                f"Model loading timeout after {self.elapsed:.1f}s for '{self.terms.model}'",
                model=self.terms.model,
                request=error.request,
            )
        self.last_attempt_granted = True
        return min(_hint_or(error, _DELAY_S), self.remaining)

    def _lora_loading(self, error: ErrorReply) -> float | None:
        if not self.terms.awaits_lora:
            return None
        self.lora_retries += 1
        self.last_error = LoraLoadingError(
            f"LoRA loading timeout after {self.lora_retries} retries",
            lora=self.terms.lora,
            model=self.terms.model,
            request=error.request,
        )
        if self.lora_retries > _MAX_LORA_RETRIES:
            return None
        return min(_hint_or(error, _BRIEF_DELAY_S), max(self.remaining, 0.0))

    def _resource_exhausted(self, error: ErrorReply) -> float | None:
        self.last_error = ResourceExhaustedError(
            f"Server resource exhausted after {self.oom_retries} retry attempt(s) for model '{self.terms.model}'",
            model=self.terms.model,
            retries=self.oom_retries,
            param=error.param,
            request=error.request,
            retry_after=error.retry_after,
        )
        if self.oom_retries >= self.terms.waiting.max_oom_retries:
            return None
        delay = self._oom_delay(error.retry_after)
        self.oom_retries += 1
        return delay if delay < self.remaining else None

    def _oom_delay(self, hint: float | None) -> float:
        if self.oom_retries == 0 and hint is not None:
            return min(hint, _MAX_OOM_DELAY_S)
        # A hint below our own delay must not keep the waits from growing.
        doubled = max(_DELAY_S, hint or 0.0) * 2.0**self.oom_retries
        return self._jittered(min(doubled, _MAX_OOM_DELAY_S))

    def _hinted_backpressure(self, error: ErrorReply) -> float | None:
        return None if error.retry_after is None else self._backpressure(error)

    def _backpressure(self, error: ErrorReply) -> float | None:
        delay = error.retry_after
        if delay is None:
            delay = self._jittered(min(_BRIEF_DELAY_S, max(self.remaining, 0.0)))
        return delay if delay < self.remaining else None

    def _rate_limit(self, error: ErrorReply) -> float | None:
        self.last_error = RateLimitError(
            f"Rate limited (429); retry budget ({self.terms.waiting.budget_s:.1f}s) exhausted "
            f"after {self.elapsed:.1f}s",
            retry_after=error.retry_after,
            param=error.param,
            request=error.request,
        )
        return self._backpressure(error)

    def _gateway_timeout(self, error: ErrorReply) -> float | None:
        if not (self.terms.waiting.wait_for_capacity and self.terms.repeatable) or self.remaining <= 0:
            return None
        return min(_hint_or(error, _DELAY_S), self.remaining)

    def _jittered(self, delay: float) -> float:
        # Downwards only, so that neither the budget nor a cap is overrun.
        return self.timing.uniform(delay * (1 - _JITTER), delay)


_Rule = Callable[[Patience, ErrorReply], float | None]

_RULES: Mapping[tuple[int, str | None], _Rule] = {
    (503, "PROVISIONING"): Patience._provisioning,
    (503, "MODEL_LOADING"): Patience._model_loading,
    (503, "LORA_LOADING"): Patience._lora_loading,
    (503, "RESOURCE_EXHAUSTED"): Patience._resource_exhausted,
    (503, "QUEUE_FULL"): Patience._backpressure,
    (503, "BILLING_CAPACITY_UNAVAILABLE"): Patience._backpressure,
    (503, "QUEUE_UNAVAILABLE"): Patience._hinted_backpressure,
    (503, "transport_failure"): Patience._hinted_backpressure,
}
_RULES_BY_STATUS: Mapping[int, _Rule] = {
    429: Patience._rate_limit,
    504: Patience._gateway_timeout,
}


def connection_error(failure: Failure, server: str, detour: str = "") -> SIEConnectionError:
    """The exception for an exchange without a reply.

    `server` is the base URL as messages show it, with ` through the proxy …` where there is one; `detour` is those
    words alone.
    """
    error, name = failure.error, type(failure.error).__name__
    if failure.kind is TransportFault.CONNECT:
        return SIEConnectionError(f"Failed to connect to {server}: {error}")
    if failure.kind is TransportFault.LOST:
        return SIEConnectionError(
            f"Connection lost mid-request{detour} ({name}); the peer closed the connection before sending a complete "
            f"response: {error}"
        )
    if failure.kind is TransportFault.READ_TIMEOUT:
        return SIEConnectionError(
            f"Request timed out waiting for the response{detour} (ReadTimeout). Not retried because the server may "
            f"already be processing the request; increase the read timeout for slow calls: {error}"
        )
    if failure.kind is TransportFault.WRITE_TIMEOUT:
        return SIEConnectionError(f"Request timed out{detour}: {error}")
    return SIEConnectionError(f"the exchange with {server} failed ({name}): {error}")


def _hint_or(error: ErrorReply, delay: float) -> float:
    return delay if error.retry_after is None else error.retry_after

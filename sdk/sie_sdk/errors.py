"""Every exception of the SDK.

    SIEError
    ├── SIEConnectionError              no complete answer arrived
    ├── RequestError                    the request is at fault (4xx), or the answer breaks the contract
    │   ├── InputTooLongError           400 INPUT_TOO_LONG
    │   ├── InsufficientCreditsError    402 INSUFFICIENT_CREDITS
    │   ├── SpendLimitError             402 KEY_SPEND_LIMIT_EXCEEDED
    │   ├── AccountInactiveError        403 ACCOUNT_SUSPENDED, ACCOUNT_PENDING_REVIEW
    │   ├── RelayUnavailableError       403 THIRD_PARTY_*
    │   └── RateLimitError              429, retried within the budget first
    ├── ServerError                     the server is at fault (5xx)
    │   ├── ModelLoadFailedError        502 MODEL_LOAD_FAILED
    │   ├── AccountStateUnavailableError  503 ACCOUNT_STATE_UNAVAILABLE
    │   ├── ResourceExhaustedError      503 RESOURCE_EXHAUSTED, retried `max_oom_retries` times first
    │   ├── EstimateUnroutableError     503 of a gateway's price estimate; for `except` clauses only
    │   └── IncompleteBatchError        200 with another number of results than items
    ├── ProvisioningError               503 PROVISIONING, or no budget left for an attempt
    ├── ModelLoadingError               503 MODEL_LOADING until the budget ran out
    ├── LoraLoadingError                503 LORA_LOADING until the retries ran out
    ├── JobFailedError                  a gateway's batch jobs; for `except` clauses only
    └── PoolError                       a gateway's resource pools; for `except` clauses only

`request` on an exception is what `result["request"]` is on a result: metadata from the response headers, or None.
All of them survive `pickle` and `copy`, so they cross process pools.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sie_sdk.types import RequestMetadata


def _rebuild(kind: type[SIEError], args: tuple[object, ...], attributes: dict[str, Any]) -> SIEError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class SIEError(Exception):
    """The root: catch this to catch everything the SDK raises about a call."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls `cls(*args)`, which fails where keywords are required.
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class SIEConnectionError(SIEError):
    """The server could not be reached, the connection broke, or the answer did not come in time."""


class RequestError(SIEError):
    """A request that was refused (4xx), or an answer that breaks the contract (a redirect, a malformed body).

    `code` is the server's error code, `param` the request field it blames; both may be None.
    """

    def __init__(
        self,
        message: str,
        code: str | None = None,
        status_code: int | None = None,
        *,
        param: str | None = None,
        request: RequestMetadata | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status_code = status_code
        self.param = param
        self.request = request


class InputTooLongError(RequestError):
    """400 `INPUT_TOO_LONG`: the model refuses the input instead of truncating it."""

    def __init__(
        self,
        message: str,
        *,
        model: str | None = None,
        param: str | None = None,
        request: RequestMetadata | None = None,
    ) -> None:
        super().__init__(message, "INPUT_TOO_LONG", 400, param=param, request=request)
        self.model = model


class InsufficientCreditsError(RequestError):
    """402 `INSUFFICIENT_CREDITS`; never retried."""

    def __init__(self, message: str, *, param: str | None = None, request: RequestMetadata | None = None) -> None:
        super().__init__(message, "INSUFFICIENT_CREDITS", 402, param=param, request=request)


class SpendLimitError(RequestError):
    """402 `KEY_SPEND_LIMIT_EXCEEDED`; never retried."""

    def __init__(self, message: str, *, param: str | None = None, request: RequestMetadata | None = None) -> None:
        super().__init__(message, "KEY_SPEND_LIMIT_EXCEEDED", 402, param=param, request=request)


class AccountInactiveError(RequestError):
    """403 `ACCOUNT_SUSPENDED` or `ACCOUNT_PENDING_REVIEW`, told apart by `code`; never retried."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        request: RequestMetadata | None = None,
    ) -> None:
        super().__init__(message, code, 403, param=param, request=request)


class RelayUnavailableError(RequestError):
    """403 `THIRD_PARTY_*`: the request may not be served by partner capacity; never retried.

    A refusal about regions names `key_region` and `deployment_region`; both are None otherwise.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        key_region: str | None = None,
        deployment_region: str | None = None,
        param: str | None = None,
        request: RequestMetadata | None = None,
    ) -> None:
        super().__init__(message, code, 403, param=param, request=request)
        self.key_region = key_region
        self.deployment_region = deployment_region


class RateLimitError(RequestError):
    """429 until the budget ran out. `retry_after` is the server's last hint in seconds, or None."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = "RATE_LIMIT",
        retry_after: float | None = None,
        param: str | None = None,
        request: RequestMetadata | None = None,
    ) -> None:
        super().__init__(message, code, 429, param=param, request=request)
        self.retry_after = retry_after


class ServerError(SIEError):
    """A failure of the server (5xx). `retry_after` is its hint in seconds, or None."""

    def __init__(
        self,
        message: str,
        code: str | None = None,
        status_code: int | None = None,
        *,
        param: str | None = None,
        request: RequestMetadata | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status_code = status_code
        self.param = param
        self.request = request
        self.retry_after = retry_after


class ModelLoadFailedError(ServerError):
    """502 `MODEL_LOAD_FAILED`: the server tried `attempts` times to load the model and reports why it failed.

    With `permanent` somebody has to fix the cause; otherwise a later call may succeed. Never retried.
    """

    def __init__(
        self,
        message: str,
        *,
        model: str | None = None,
        error_class: str | None = None,
        permanent: bool = True,
        attempts: int = 1,
        param: str | None = None,
        request: RequestMetadata | None = None,
    ) -> None:
        super().__init__(message, "MODEL_LOAD_FAILED", 502, param=param, request=request)
        self.model = model
        self.error_class = error_class
        self.permanent = permanent
        self.attempts = attempts


class AccountStateUnavailableError(ServerError):
    """503 `ACCOUNT_STATE_UNAVAILABLE`; never retried."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        param: str | None = None,
        request: RequestMetadata | None = None,
    ) -> None:
        super().__init__(
            message, "ACCOUNT_STATE_UNAVAILABLE", 503, param=param, request=request, retry_after=retry_after
        )


class ResourceExhaustedError(ServerError):
    """503 `RESOURCE_EXHAUSTED`, still after `retries` retries: the accelerator's memory stays full."""

    def __init__(
        self,
        message: str,
        *,
        model: str | None = None,
        retries: int = 0,
        param: str | None = None,
        request: RequestMetadata | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, "RESOURCE_EXHAUSTED", 503, param=param, request=request, retry_after=retry_after)
        self.model = model
        self.retries = retries


class EstimateUnroutableError(ServerError):
    """503 of a gateway that cannot price a request. This SDK asks for no estimates and never raises it."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        request: RequestMetadata | None = None,
    ) -> None:
        super().__init__(message, code, 503, param=param, request=request)


class IncompleteBatchError(ServerError):
    """A 200 with `received` results for `expected` items, which cannot be matched by position.

    `results` are those that arrived, in the form that a successful call returns. `missing_ids` are the ids without a
    result if every item and every result has an id, otherwise None. There is no `status_code`: the status was 200.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        expected: int,
        received: int,
        model: str | None = None,
        missing_ids: list[str] | None = None,
        request: RequestMetadata | None = None,
        results: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(message, code, request=request)
        self.expected = expected
        self.received = received
        self.model = model
        self.missing_ids = missing_ids
        self.results: list[Any] = list(results or ())
        self.request_id: str | None = request.get("id") if request else None


class ProvisioningError(SIEError):
    """No capacity: `wait_for_capacity=False` and the server is provisioning, or the budget ran out."""

    def __init__(
        self,
        message: str,
        *,
        gpu: str | None = None,
        retry_after: float | None = None,
        param: str | None = None,
        request: RequestMetadata | None = None,
    ) -> None:
        super().__init__(message)
        self.gpu = gpu
        self.retry_after = retry_after
        self.param = param
        self.request = request


class ModelLoadingError(SIEError):
    """The model was still loading when the budget ran out."""

    def __init__(self, message: str, *, model: str | None = None, request: RequestMetadata | None = None) -> None:
        super().__init__(message)
        self.model = model
        self.request = request


class LoraLoadingError(SIEError):
    """The LoRA was still loading after the last retry."""

    def __init__(
        self,
        message: str,
        *,
        lora: str | None = None,
        model: str | None = None,
        request: RequestMetadata | None = None,
    ) -> None:
        super().__init__(message)
        self.lora = lora
        self.model = model
        self.request = request


class PoolError(SIEError):
    """A gateway's resource pool failed. This SDK manages no pools and never raises it."""

    def __init__(self, message: str, *, pool_name: str | None = None, state: str | None = None) -> None:
        super().__init__(message)
        self.pool_name = pool_name
        self.state = state


class JobFailedError(SIEError):
    """A gateway's batch job ended without success. This SDK submits no jobs and never raises it."""

    def __init__(
        self,
        message: str,
        *,
        job_id: str | None = None,
        state: str | None = None,
        outcome: str | None = None,
        error_code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.state = state
        self.outcome = outcome
        self.error_code = error_code

"""Every refusal the frontend can answer with: one table from kind to status, code, Retry-After and log level.

The envelopes are SIE's: `{"detail": {"code", "message", ...}}` on its own routes, `{"error": {...}}` on those of
OpenAI's shape, and the bare `{"detail": ...}` of an HTTP framework where SIE lets its framework answer. On Cohere's
route the message stands beside OpenAI's envelope, where Cohere's clients look for it.
Bodies are JSON whatever the client accepts.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

import orjson

JSON_TYPE: Final = "application/json"


class ErrorKind(Enum):
    """What went wrong, as the table below knows it."""

    INVALID_INPUT = "invalid_input"
    INPUT_TOO_LONG = "input_too_long"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_SLOW = "body_too_slow"
    REQUEST_TOO_SLOW = "request_too_slow"
    MODEL_NOT_FOUND = "model_not_found"
    ROUTE_NOT_FOUND = "route_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNPROCESSABLE = "unprocessable"
    INFERENCE_ERROR = "inference_error"
    MODEL_LOAD_FAILED = "model_load_failed"
    MODEL_LOADING = "model_loading"
    MODEL_NOT_LOADED = "model_not_loaded"
    LORA_LOADING = "lora_loading"
    QUEUE_FULL = "queue_full"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    SHUTTING_DOWN = "shutting_down"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"


class ErrorRow(NamedTuple):
    """One line of the table. `code` is null where the body is the framework's; `retry_after` is in seconds."""

    status: int
    code: str | None
    retry_after: int | None
    log_level: int
    openai_type: str
    openai_code: str


# From this ratio of `difflib` on, an id is suggested for another.
_ALIKE: Final = 0.6

_CLIENT: Final = "invalid_request_error"
_SERVER: Final = "server_error"

# An SDK retries by status and code together: 503 MODEL_NOT_LOADED is final for it, 503 MODEL_LOADING is not.
ERROR_TABLE: Final[Mapping[ErrorKind, ErrorRow]] = {
    ErrorKind.INVALID_INPUT: ErrorRow(400, "INVALID_INPUT", None, logging.INFO, _CLIENT, "invalid_request"),
    ErrorKind.INPUT_TOO_LONG: ErrorRow(400, "INPUT_TOO_LONG", None, logging.INFO, _CLIENT, "invalid_request"),
    ErrorKind.BODY_TOO_LARGE: ErrorRow(413, "INPUT_TOO_LONG", None, logging.INFO, _CLIENT, "invalid_request"),
    ErrorKind.BODY_TOO_SLOW: ErrorRow(408, "REQUEST_TIMEOUT", None, logging.INFO, _CLIENT, "request_timeout"),
    ErrorKind.REQUEST_TOO_SLOW: ErrorRow(408, "REQUEST_TIMEOUT", None, logging.WARNING, _CLIENT, "request_timeout"),
    ErrorKind.MODEL_NOT_FOUND: ErrorRow(404, "MODEL_NOT_FOUND", None, logging.INFO, _CLIENT, "model_not_found"),
    ErrorKind.ROUTE_NOT_FOUND: ErrorRow(404, None, None, logging.INFO, _CLIENT, "not_found"),
    ErrorKind.METHOD_NOT_ALLOWED: ErrorRow(405, None, None, logging.INFO, _CLIENT, "method_not_allowed"),
    ErrorKind.UNPROCESSABLE: ErrorRow(422, None, None, logging.INFO, _CLIENT, "invalid_request"),
    ErrorKind.INFERENCE_ERROR: ErrorRow(500, "INFERENCE_ERROR", None, logging.ERROR, _SERVER, "INFERENCE_ERROR"),
    ErrorKind.MODEL_LOAD_FAILED: ErrorRow(502, "MODEL_LOAD_FAILED", None, logging.ERROR, _SERVER, "MODEL_LOAD_FAILED"),
    ErrorKind.MODEL_LOADING: ErrorRow(503, "MODEL_LOADING", 5, logging.INFO, _SERVER, "MODEL_LOADING"),
    ErrorKind.MODEL_NOT_LOADED: ErrorRow(503, "MODEL_NOT_LOADED", None, logging.WARNING, _SERVER, "MODEL_NOT_LOADED"),
    ErrorKind.LORA_LOADING: ErrorRow(503, "LORA_LOADING", 1, logging.INFO, _SERVER, "LORA_LOADING"),
    ErrorKind.QUEUE_FULL: ErrorRow(503, "QUEUE_FULL", 1, logging.WARNING, "server_overloaded", "QUEUE_FULL"),
    ErrorKind.RESOURCE_EXHAUSTED: ErrorRow(503, "RESOURCE_EXHAUSTED", 5, logging.ERROR, _SERVER, "RESOURCE_EXHAUSTED"),
    ErrorKind.SHUTTING_DOWN: ErrorRow(503, None, 5, logging.INFO, _SERVER, "SHUTTING_DOWN"),
    ErrorKind.UNAUTHORIZED: ErrorRow(401, "UNAUTHORIZED", None, logging.INFO, _CLIENT, "invalid_api_key"),
    ErrorKind.FORBIDDEN: ErrorRow(403, "FORBIDDEN", None, logging.INFO, _CLIENT, "insufficient_permissions"),
    ErrorKind.RATE_LIMITED: ErrorRow(429, "RATE_LIMIT", 1, logging.INFO, "rate_limit_error", "rate_limit_exceeded"),
}


class WireError(Exception):
    """A refusal on its way to the client.

    `extras` sit beside `code` and `message` in either envelope. `param` and `openai_code` appear in the
    OpenAI envelope only; `detail` replaces the message in a framework body (422: the list of mistakes). `retry_after`,
    in seconds, stands for the table's where the error knows better; `challenge` is the `WWW-Authenticate`.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        extras: Mapping[str, Any] | None = None,
        detail: list[dict[str, Any]] | None = None,
        param: str | None = None,
        openai_code: str | None = None,
        retry_after: int | None = None,
        challenge: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.extras: Mapping[str, Any] = extras or {}
        self.detail = detail
        self.param = param
        self.openai_code = openai_code
        self.retry_after = retry_after
        self.challenge = challenge

    @property
    def row(self) -> ErrorRow:
        """This error's line of the table."""
        return ERROR_TABLE[self.kind]

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.row.status

    @property
    def code(self) -> str | None:
        """The machine-readable code of SIE's envelope; null where the framework's body is used."""
        return self.row.code

    def headers(self) -> dict[str, str]:
        """The response headers: the content type and, where there are any, Retry-After and WWW-Authenticate."""
        headers = {"content-type": JSON_TYPE}
        retry_after = self.row.retry_after if self.retry_after is None else self.retry_after
        if retry_after is not None:
            headers["retry-after"] = str(retry_after)
        if self.challenge is not None:
            headers["www-authenticate"] = self.challenge
        return headers

    def body(self) -> bytes:
        """The JSON body on SIE's own routes."""
        if self.kind is ErrorKind.SHUTTING_DOWN:
            return _dump({"error": "Service shutting down", "detail": self.message})
        if self.code is None:
            return _dump({"detail": self.message if self.detail is None else self.detail})
        return _dump({"detail": {"code": self.code, "message": self.message, **self.extras}})

    def openai_body(self) -> bytes:
        """The JSON body on the OpenAI route; framework bodies (404, 405, 422, shutdown) are the same there."""
        return self.body() if self.code is None else _dump({"error": self._openai_error()})

    def anybodys_body(self, message: str) -> bytes:
        """The JSON body where nobody knows whose client asks: the framework's `detail`, and `message` as OpenAI's."""
        return _dump({"detail": self.message, "error": {**self._openai_error(), "message": message}})

    def cohere_body(self) -> bytes:
        """The JSON body on Cohere's own route."""
        return self.body() if self.code is None else _dump({"message": self.message, "error": self._openai_error()})

    def _openai_error(self) -> dict[str, Any]:
        return {
            "message": self.message,
            "type": self.row.openai_type,
            "param": self.param,
            "code": self.openai_code or self.row.openai_code,
            **self.extras,
        }


def _dump(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        # A request's own value, echoed, can be what orjson refuses: a lone surrogate, an integer beyond 64 bits.
        return json.dumps(body, separators=(",", ":")).encode()


def invalid_input(message: str) -> WireError:
    """400: the request itself is wrong."""
    return WireError(ErrorKind.INVALID_INPUT, message)


def body_too_large(limit: int) -> WireError:
    """413: the body has more than `limit` bytes."""
    return WireError(ErrorKind.BODY_TOO_LARGE, f"request body exceeds the limit of {limit} bytes")


def body_too_slow(limit_s: float) -> WireError:
    """408: the body did not arrive in time."""
    return WireError(ErrorKind.BODY_TOO_SLOW, f"request body did not arrive within {limit_s:g} s")


def request_too_slow(limit_s: float) -> WireError:
    """408: the request was not answered in time. No hint: sent again as it is, it would be late again."""
    message = f"request was not answered within {limit_s:g} s; send its items in several requests"
    return WireError(ErrorKind.REQUEST_TOO_SLOW, message)


def model_not_found(model_id: str, known_ids: Iterable[str]) -> WireError:
    """404: no such id. Up to three known ids are suggested that look alike, whatever their case, and their owner."""
    message = f"Model '{model_id}' not found"
    likeness = _likeness_to(model_id)
    ranked = sorted(((likeness(known), known) for known in known_ids), key=lambda pair: -pair[0])
    if alike := [f"'{known}'" for value, known in ranked[:3] if value >= _ALIKE]:
        message += f" Did you mean {', '.join(alike)}?"
    return WireError(ErrorKind.MODEL_NOT_FOUND, message)


def _likeness_to(model_id: str) -> Callable[[str], float]:
    """How much another id looks like this one: 1 if it is the same but for its case or its owner, 0 for unlike ones."""
    wanted = model_id.lower()
    whole: difflib.SequenceMatcher[str] = difflib.SequenceMatcher(b=wanted)
    name: difflib.SequenceMatcher[str] = difflib.SequenceMatcher(b=wanted.rpartition("/")[2])

    def likeness(other: str) -> float:
        whole.set_seq1(other.lower())
        name.set_seq1(other.lower().rpartition("/")[2])
        return max(map(_ratio, (whole, name)))

    return likeness


def _ratio(matcher: difflib.SequenceMatcher[str]) -> float:
    # The bounds first: anybody may send an id of many kilobytes.
    worth = matcher.real_quick_ratio() >= _ALIKE and matcher.quick_ratio() >= _ALIKE
    return matcher.ratio() if worth else 0.0


def route_not_found(method: str, path: str, served: str) -> WireError:
    """404: no such route. `served` is a sentence that says which there are."""
    return WireError(ErrorKind.ROUTE_NOT_FOUND, f"Not Found: {method} {path[:256]} is not served. {served}")


def method_not_allowed() -> WireError:
    """405: the route has other methods, which `Allow` names."""
    return WireError(ErrorKind.METHOD_NOT_ALLOWED, "Method Not Allowed")


def task_not_served(model_id: str, task: str, served: str, *, known: bool) -> WireError:
    """400 for a model that is served, else 404: this server does no `task`. `served` as for `route_not_found`."""
    if known:
        return invalid_input(f"Model '{model_id}' does not support {task}, and no model here does. {served}")
    return WireError(
        ErrorKind.MODEL_NOT_FOUND, f"Model '{model_id}' not found, and no model here supports {task}. {served}"
    )


def model_loading(model_id: str) -> WireError:
    """503: the model is not ready yet and will be; every SDK retries this."""
    return WireError(ErrorKind.MODEL_LOADING, f"Model '{model_id}' is loading, please retry")


def model_load_failed(model_id: str, cause: str, *, error_class: str, attempts: int, permanent: bool) -> WireError:
    """502: the model could not be loaded; no SDK retries this. `cause` is `ExceptionName: text`."""
    return WireError(
        ErrorKind.MODEL_LOAD_FAILED,
        f"Model '{model_id}' failed to load ({error_class}, attempts={attempts}): {cause}",
        extras={"error_class": error_class, "attempts": attempts, "permanent": permanent},
    )


def queue_full(model_id: str) -> WireError:
    """503: transient back-pressure; the SDK retries after a second."""
    return WireError(ErrorKind.QUEUE_FULL, f"The queue of model '{model_id}' is full, please retry")


def resource_exhausted(message: str) -> WireError:
    """503: out of accelerator memory; the SDK retries a few times, ever slower."""
    return WireError(ErrorKind.RESOURCE_EXHAUSTED, message)


def inference_error(activity: str) -> WireError:
    """500: anything unforeseen. `activity` is `encoding`, `scoring` …; the cause is for the log only."""
    return WireError(ErrorKind.INFERENCE_ERROR, f"internal error during {activity}")


def scoring_unsupported(model_id: str) -> WireError:
    """400: `/v1/score` on a model without the task."""
    return invalid_input(
        f"Model '{model_id}' does not support scoring. "
        "Use an encoder model with /v1/encode instead, or use a reranker model."
    )


def shutting_down() -> WireError:
    """503: the process drains; another instance may answer."""
    return WireError(ErrorKind.SHUTTING_DOWN, "Server is draining requests before shutdown. Retry on another instance.")


def not_finite(model_id: str, activity: str, place: str) -> WireError:
    """500: the model gave NaN or infinity for what is at `place`, such as `items[3]`."""
    what = (
        f"Model '{model_id}' produced non-finite scores"
        if activity == "scoring"
        else f"internal error during {activity}"
    )
    return WireError(
        ErrorKind.INFERENCE_ERROR,
        f"{what}: `{place}` gave numbers that are not finite; leave that text out, or build the model in float32",
    )

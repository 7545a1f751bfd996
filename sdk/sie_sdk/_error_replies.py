"""Turns error replies into the SDK's exceptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sie_sdk import _wire
from sie_sdk._reply import Reply, json_value, request_metadata, retry_after
from sie_sdk._settings import MSGPACK
from sie_sdk.errors import (
    AccountInactiveError,
    AccountStateUnavailableError,
    InputTooLongError,
    InsufficientCreditsError,
    ModelLoadFailedError,
    ProvisioningError,
    RateLimitError,
    RelayUnavailableError,
    RequestError,
    ServerError,
    SIEError,
    SpendLimitError,
)

if TYPE_CHECKING:
    from sie_sdk.types import RequestMetadata


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """What a reply of status 400 and above says, whichever envelope it uses.

    `fields` is the object that held code and message, with whatever else is in it; `retry_after` is in seconds.
    """

    status: int
    code: str | None
    message: str
    param: str | None
    fields: Mapping[str, Any]
    retry_after: float | None
    request: RequestMetadata | None


def read_error(reply: Reply, detour: str = "") -> ErrorReply:
    """The content of a reply of status 400 and above; a body without content is still an error.

    `detour` names the proxy on the way; messages include it if the reply may be the proxy's own.
    """
    fields, message = _error_body(reply)
    if detour and not fields:
        message = f"{message or f'HTTP {reply.status}'} (reached{detour}, which may have answered itself)"
    code = reply.headers.get("x-sie-error-code") or fields.get("code")
    param = fields.get("param")
    return ErrorReply(
        status=reply.status,
        code={"provisioning": "PROVISIONING"}.get(code, code) if isinstance(code, str) else None,
        message=message or f"HTTP {reply.status}",
        param=param if isinstance(param, str) else None,
        fields=fields,
        retry_after=retry_after(reply.headers),
        request=request_metadata(reply.headers),
    )


def exception_for(error: ErrorReply, model: str | None = None) -> SIEError:
    """The exception that an error means once nothing is left to retry."""
    named = _NAMED.get((error.status, error.code))
    if named is not None:
        return named(error, model)
    if error.status == 429:
        return RateLimitError(
            error.message, code=error.code, retry_after=error.retry_after, param=error.param, request=error.request
        )
    if error.status >= 500:
        return ServerError(
            error.message,
            error.code,
            error.status,
            param=error.param,
            request=error.request,
            retry_after=error.retry_after,
        )
    return RequestError(error.message, error.code, error.status, param=error.param, request=error.request)


def _input_too_long(error: ErrorReply, model: str | None) -> SIEError:
    return InputTooLongError(error.message, param=error.param, request=error.request)


def _insufficient_credits(error: ErrorReply, model: str | None) -> SIEError:
    return InsufficientCreditsError(error.message, param=error.param, request=error.request)


def _spend_limit(error: ErrorReply, model: str | None) -> SIEError:
    return SpendLimitError(error.message, param=error.param, request=error.request)


def _account_inactive(error: ErrorReply, model: str | None) -> SIEError:
    return AccountInactiveError(error.message, code=error.code, param=error.param, request=error.request)


def _relay_unavailable(error: ErrorReply, model: str | None) -> SIEError:
    regions = {
        key: value if isinstance(value := error.fields.get(key), str) else None
        for key in ("key_region", "deployment_region")
    }
    return RelayUnavailableError(error.message, code=error.code, **regions, param=error.param, request=error.request)


def _model_load_failed(error: ErrorReply, model: str | None) -> SIEError:
    error_class, attempts = error.fields.get("error_class"), error.fields.get("attempts", 1)
    return ModelLoadFailedError(
        error.message,
        model=model,
        error_class=None if error_class is None else str(error_class),
        permanent=bool(error.fields.get("permanent", True)),
        attempts=max(attempts, 1) if isinstance(attempts, int) else 1,
        param=error.param,
        request=error.request,
    )


def _account_state_unavailable(error: ErrorReply, model: str | None) -> SIEError:
    return AccountStateUnavailableError(
        error.message, retry_after=error.retry_after, param=error.param, request=error.request
    )


def _provisioning(error: ErrorReply, model: str | None) -> SIEError:
    return ProvisioningError(error.message, retry_after=error.retry_after, param=error.param, request=error.request)


_NAMED: Mapping[tuple[int, str | None], Callable[[ErrorReply, str | None], SIEError]] = {
    (400, "INPUT_TOO_LONG"): _input_too_long,
    (402, "INSUFFICIENT_CREDITS"): _insufficient_credits,
    (402, "KEY_SPEND_LIMIT_EXCEEDED"): _spend_limit,
    (403, "ACCOUNT_SUSPENDED"): _account_inactive,
    (403, "ACCOUNT_PENDING_REVIEW"): _account_inactive,
    (403, "THIRD_PARTY_SERVING_DISABLED"): _relay_unavailable,
    (403, "THIRD_PARTY_RUNTIME_UNLISTED"): _relay_unavailable,
    (403, "THIRD_PARTY_REGION_UNAVAILABLE"): _relay_unavailable,
    (502, "MODEL_LOAD_FAILED"): _model_load_failed,
    (503, "ACCOUNT_STATE_UNAVAILABLE"): _account_state_unavailable,
    (503, "PROVISIONING"): _provisioning,
}


def _error_body(reply: Reply) -> tuple[Mapping[str, Any], str]:
    """The object with code and message, and the message; `{"error": …}` goes before `{"detail": …}`."""
    if MSGPACK in reply.headers.get("content-type", ""):
        try:
            body = _wire.unpack_plain(reply.body)
        except _wire.MalformedBody:
            body = None
    else:
        body = json_value(reply.body)
    if not isinstance(body, dict):
        return {}, reply.body.decode("utf-8", "replace")
    content = body["error"] if "error" in body else body.get("detail", "")
    if not isinstance(content, dict):
        return {}, str(content)
    return content, str(content.get("message", content if "error" not in body else ""))

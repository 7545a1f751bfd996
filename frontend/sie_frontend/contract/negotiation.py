"""Which format a request is in, which format its answer takes, and the two routing headers worth refusing."""

from __future__ import annotations

from enum import Enum
from typing import Final

from sie_frontend.contract.errors import ErrorKind, WireError

_MSGPACK_TYPES: Final = ("application/msgpack", "application/x-msgpack")
_JSON_TYPE: Final = "application/json"


class WireFormat(Enum):
    """A body format; its value is the content type that an answer in it carries."""

    MSGPACK = "application/msgpack"
    JSON = "application/json"


def request_format(content_type: str | None) -> WireFormat:
    """The format to parse a body in: msgpack when the header names it, JSON for anything else or nothing."""
    return WireFormat.MSGPACK if _names_msgpack(content_type) else WireFormat.JSON


def response_format(accept: str | None) -> WireFormat:
    """The format of a successful answer; the request's own format and q-values have no say.

    JSON only when `Accept` names `application/json` and no msgpack type. Missing, `*/*` and `text/html` are msgpack.
    Errors are JSON always.
    """
    if accept is None or _names_msgpack(accept) or _JSON_TYPE not in accept.lower():
        return WireFormat.MSGPACK
    return WireFormat.JSON


def check_remote(header: str | None) -> None:
    """Refuse any `X-SIE-Remote` but `forbid` (we never answer remotely, so that one asks for nothing)."""
    if header is not None and header != "forbid":
        raise WireError(ErrorKind.INVALID_INPUT, "X-SIE-Remote accepts only 'forbid'", openai_code="INVALID_INPUT")


def check_machine_profile(requested: str | None, identity: str | None) -> None:
    """Refuse an `X-SIE-Machine-Profile` other than this worker's `identity` (null: none); case does not count."""
    if not requested or (identity and requested.strip().lower() == identity.strip().lower()):
        return
    if identity:
        worker = f"this worker is '{identity}'. Check where the request is routed"
    else:
        worker = "this worker has none: SIE_MACHINE_PROFILE is not set. Route the request to a worker of that profile"
    raise WireError(
        ErrorKind.INVALID_INPUT,
        f"Request targets machine profile '{requested}' but {worker}, or remove the X-SIE-MACHINE-PROFILE header.",
        extras={"requested_profile": requested, "worker_identity": identity},
        openai_code="INVALID_INPUT",
    )


def _names_msgpack(header: str | None) -> bool:
    if header is None:
        return False
    lowered = header.lower()
    return any(name in lowered for name in _MSGPACK_TYPES)

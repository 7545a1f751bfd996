"""A response independent of the HTTP library, and the metadata in its headers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, cast

from sie_sdk._settings import CONTRACT_VERSION

if TYPE_CHECKING:
    from sie_sdk.types import RequestMetadata


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response, read to its end and decompressed. `headers` are looked up by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def json_value(body: bytes) -> object:
    """The decoded JSON, or None if the body is not JSON."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value


def retry_after(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds, from a number or an HTTP date; None if it is absent or invalid."""
    text = headers.get("retry-after")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max((date - datetime.now(timezone.utc)).total_seconds(), 0.0)


def _visible(text: str) -> str | None:
    return text if text.isascii() and text.isprintable() and text == text.strip() and len(text) <= 256 else None


def _count(text: str) -> int | None:
    return int(text) if re.fullmatch(r"0|[1-9][0-9]{0,19}", text) and int(text) < 2**64 else None


def _matching(pattern: str) -> Callable[[str], str | None]:
    compiled = re.compile(pattern)
    return lambda text: text if compiled.fullmatch(text) else None


_METADATA: tuple[tuple[str, str, Callable[[str], str | int | None]], ...] = (
    ("id", "x-sie-request-id", _visible),
    ("credits_debited", "x-sie-credits-debited", _count),
    ("execution_identity_sha256", "x-sie-execution-identity-sha256", _matching("[0-9a-f]{64}")),
    ("execution_binding_sha256", "x-sie-execution-binding-sha256", _matching("[0-9a-f]{64}")),
    ("runtime_instance_id", "x-sie-runtime-instance", _matching("[0-9a-f]{64}")),
    ("served_by", "x-sie-served-by", _matching("local|remote")),
    ("upstream", "x-sie-upstream", _matching("[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")),
    ("fallback_reason", "x-sie-fallback-reason", _matching("provisioning|model_loading|saturated|unhealthy")),
    ("fallback_error", "x-sie-fallback-error", _matching("[A-Za-z][A-Za-z0-9_]{0,63}")),
)
_UNITS = ("input_tokens", "pairs", "content_input_tokens", "images", "pages", "output_tokens", "audio_ms")


def request_metadata(headers: Mapping[str, str]) -> RequestMetadata | None:
    """What the headers say about the request; an invalid header counts as absent, and none at all as None."""
    metadata: dict[str, object] = {}
    for key, header, parse in _METADATA:
        if header in headers and headers[header] and (value := parse(headers[header])) is not None:
            metadata[key] = value
    usage = {unit: _count(headers.get(f"x-sie-units-{unit.replace('_', '-')}", "")) for unit in _UNITS}
    usage = {unit: count for unit, count in usage.items() if count is not None}
    if usage:
        metadata["usage"] = usage
    return cast("RequestMetadata", metadata) if metadata else None


def version_skew(server_version: str | None) -> str | None:
    """A warning if the server speaks another major version of the contract, or is more than one minor away."""
    ours, theirs = _version(CONTRACT_VERSION), _version(server_version or "")
    if ours is None or theirs is None:
        return None
    if ours[0] == theirs[0] and abs(ours[1] - theirs[1]) <= 1:
        return None
    return (
        f"the server's contract version is {server_version} and the SDK's is {CONTRACT_VERSION}; "
        "install versions of the two that are closer"
    )


def _version(text: str) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)(?:\.|$)", text)
    return (int(match[1]), int(match[2])) if match else None

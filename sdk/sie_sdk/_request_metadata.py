"""Metadata from the response headers, as `sie_sdk.types` exports it."""

from __future__ import annotations

from typing import Literal, TypedDict


class RequestUsage(TypedDict, total=False):
    """Metered units of the whole HTTP request, from the response headers."""

    input_tokens: int
    pairs: int
    content_input_tokens: int
    images: int
    pages: int
    output_tokens: int
    audio_ms: int


class RequestMetadata(TypedDict, total=False):
    """What the response headers say about the HTTP request; only valid headers appear."""

    id: str
    usage: RequestUsage
    credits_debited: int
    execution_identity_sha256: str
    execution_binding_sha256: str
    runtime_instance_id: str
    served_by: Literal["local", "remote"]
    upstream: str
    fallback_reason: Literal["provisioning", "model_loading", "saturated", "unhealthy"]
    fallback_error: str

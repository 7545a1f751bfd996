"""The answer of `/admin/status`, as the API's document tells it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class RefusedChange(Struct):
    """A change of an id that was not made, when it was refused in seconds since 1970, and why."""

    change: str
    reason: str
    at: float


class EarlierVersion(Struct):
    """What an id is taken back to."""

    triton_models: list[str]
    revision: str | None


class StatusModel(Struct):
    """One id. One that was refused and never served has no more than its first fields."""

    state: str
    loaded: bool
    triton_models: list[str]
    changing: bool
    refused: RefusedChange | None
    last_error: str | None = None
    revision: str | None = None
    precisions: dict[str, str] = {}
    certificate: dict[str, Any] | None = None
    memory_bytes: int = 0
    requests: int = 0
    previous: EarlierVersion | None = None


class StatusEvent(Struct):
    """Something that happened to an id, in seconds since 1970."""

    at: float
    what: str
    model: str
    detail: str


class StatusAnswer(Struct):
    """How a server stands. `phase` is `current`, `working` or `refused`; `leaving` are Triton models that end."""

    repository: str
    published: int
    phase: str
    unreadable: str | None
    ready: bool
    working: list[str]
    leaving: list[str]
    models: dict[str, StatusModel]
    removed: list[str]
    events: list[StatusEvent]

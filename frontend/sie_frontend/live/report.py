"""What is told of a server that follows its repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Standing(Enum):
    """Whether what is served is what lies there."""

    CURRENT = "current"
    WORKING = "working"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class RefusedStep:
    """A change that was not made: what it would have been, why not, and when, in seconds since 1970."""

    change: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """Something that happened to an id: `added`, `removed`, `replaced`, `changed` or `refused`."""

    at: float
    what: str
    model: str
    detail: str


@dataclass(frozen=True, slots=True)
class RenewalReport:
    """How what is served and the repository stand to each other.

    `working` are the ids whose change is under way, `refusals` those whose change was not made, `leaving` the Triton
    models that answer their last requests. `unreadable`: why the repository cannot be read.
    """

    phase: Standing
    working: tuple[str, ...]
    unreadable: str | None
    refusals: Mapping[str, RefusedStep]
    leaving: tuple[str, ...]
    events: tuple[ChangeEvent, ...]

"""What is told of a server that follows its repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sie_frontend.manifest import Built, Manifest, Model


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


def built_facts(manifest: Manifest, model_id: str, model: Model) -> dict[str, Any]:
    """What a manifest says of an id: its version, its precisions, how close it was when built, what it was before."""
    built, before = manifest.built.get(model.triton_models[0]), manifest.previous.get(model_id)
    return {
        "triton_models": list(model.triton_models),
        "revision": model.revision,
        "precisions": {} if built is None else dict(built.precisions),
        "certificate": None if built is None else _certificate(built),
        "previous": None
        if before is None
        else {"triton_models": list(before.triton_models), "revision": before.revision},
    }


def _certificate(built: Built) -> dict[str, Any]:
    cosines = [d.min_cosine for outputs in built.parity.values() for d in outputs.values() if d.min_cosine is not None]
    return {
        "implementation": built.certificate.implementation,
        "cases": built.certificate.cases,
        "min_cosine": min(cosines, default=None),
    }

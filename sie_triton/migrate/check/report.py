"""What a check found, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["stay", "stay_with_changes", "partly", "embed_again"]
"""`stay_with_changes`: the stored vectors are right for clients that do as the cures say."""


@dataclass(frozen=True)
class Cause:
    """Why vectors differ.

    `cause` is a word for programs. `certain`: an experiment reproduced the stored vectors; otherwise it is likely only.
    `share` is the part of the sample that it is about, from 0 to 1. `keeps`: with the cure those vectors can stay;
    otherwise they must be embedded again. `options` are those of a request that gives the stored vectors, if one
    does.
    """

    cause: str
    message: str
    certain: bool
    share: float
    cure: str
    keeps: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Worst:
    """One stored text and how far its vector is from the server's."""

    key: str
    cosine: float
    text: str


@dataclass(frozen=True)
class Tried:
    """One experiment: what was changed, and the median cosine that it led to. None: the server does not allow it."""

    what: str
    median: float | None


@dataclass(frozen=True)
class IndexReport:
    """The whole finding. Cosines are those of the request as it was asked for, without experiments."""

    verdict: Verdict
    store: str
    model: str
    sampled: int
    same: int
    dims: int
    served_dims: int | None
    cosine: Mapping[str, float]
    length: Mapping[str, float]
    metric: str
    causes: tuple[Cause, ...]
    worst: tuple[Worst, ...]
    tried: tuple[Tried, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

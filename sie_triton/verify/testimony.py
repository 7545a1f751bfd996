"""What another implementation, which read the checkpoint by itself, makes of the cases that a build is compared on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sie_frontend.rows import Array


@dataclass(frozen=True, slots=True)
class Testimony:
    """Outputs per tensor and case, and what they are worth.

    `compared` is what the implementation said by itself, `not_compared` what it was told; `departures` are where SIE's
    contract decides against it. `skipped` are the places of cases that it could not be asked, since nothing is left of
    them, a token has no embedding, or the numbers are not finite: `outputs` has no arrays for those. `vocabulary` is
    how many token ids the model has an embedding for, where it has any.
    """

    implementation: str
    outputs: Mapping[str, tuple[Array, ...]]
    compared: tuple[str, ...]
    not_compared: tuple[str, ...] = ()
    departures: tuple[str, ...] = ()
    skipped: frozenset[int] = field(default_factory=frozenset)
    vocabulary: int | None = None

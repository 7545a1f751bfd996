"""Two orders of the same answers: how many of the first stay among the first, and how many pairs change places."""

from __future__ import annotations

import numpy as np
from sie_frontend.rows import Array

FIRST = 10


def first_of(scores: Array, count: int = FIRST) -> Array:
    """The places of the `count` best of some scores `[n]`, best first; equal scores by their place."""
    return np.argsort(-scores, kind="stable")[:count]


def kept(theirs: Array, ours: Array) -> float:
    """The share of the answers `theirs` `[q, count]` that `ours` has too: the overlap at `count`."""
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(theirs, ours, strict=True)]))


def kendall_tau(theirs: Array, ours: Array) -> float:
    """Kendall's tau-b of two lists of scores `[n]`: 1 is the same order, -1 the reverse, equal scores have none.

    Kendall, "The treatment of ties in ranking problems", Biometrika, 1945. Without equal scores (1 - tau) / 2 is the
    share of pairs that change places. 1 where `theirs` has no order that could be lost.
    """
    a, b = (np.sign(scores[:, None].astype(np.float64) - scores[None, :]) for scores in (theirs, ours))
    ordered = np.sqrt(float(np.abs(a).sum()) * float(np.abs(b).sum()))
    if not np.abs(a).any():
        return 1.0
    return float((a * b).sum() / ordered) if ordered else 0.0

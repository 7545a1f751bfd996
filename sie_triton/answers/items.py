"""What models are asked about, a row for each modality: the one place that names them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sie_triton.answers.corpus import TOLD, documentation
from sie_triton.answers.pictures import TOLD as PICTURES_TOLD
from sie_triton.answers.pictures import pictures


@dataclass(frozen=True, slots=True)
class Items:
    """`made` gives as many different items as it is asked for, the same every time, and `told` says what they are.

    A model is asked about `most` of them, or fewer where it is large, `fewest` at least; the states of a graph are
    sized over `sizing`. Every `query_every`-th is a query too. `queries_apart`: whether a query is another row.
    """

    told: str
    made: Callable[[int], Iterable[Any]]
    most: int
    fewest: int
    sizing: int
    query_every: int
    queries_apart: bool


ITEMS: dict[str, Items] = {
    "text": Items(TOLD, documentation, most=5000, fewest=500, sizing=128, query_every=10, queries_apart=True),
    # A picture is as long as some sentences, and its vector is a query as it is.
    "image": Items(PICTURES_TOLD, pictures, most=1000, fewest=100, sizing=64, query_every=1, queries_apart=False),
}
"""By modality. What is asked of another one is told nowhere, so that nothing coarse is published for it."""

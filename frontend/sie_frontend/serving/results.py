"""What the engine gives: a call's outputs, and where a model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sie_frontend.contract.responses import Timing, Usage
from sie_frontend.outputs.response import ItemOutputs
from sie_frontend.residency.state import LoadFailure
from sie_frontend.rows import Array


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encode call produced, in the order of its items. `usage` is null where no item has tokens."""

    items: list[ItemOutputs]
    timing: Timing
    usage: Usage | None

    @property
    def tokens(self) -> int:
        """The tokens that were read: none of images."""
        return 0 if self.usage is None else self.usage.input_tokens


@dataclass(frozen=True, slots=True)
class Scored:
    """What a score call produced: one float32 score per item, in the order of the items."""

    scores: Array
    timing: Timing
    usage: Usage


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Whether a model can be asked now, the contract's word for its state, and why it failed if it did."""

    loaded: bool
    state: str
    failure: LoadFailure | None = None


@dataclass(frozen=True, slots=True)
class EncodedPart:
    """The items of a call that one input reads: their numbers in the call, and what the input makes of them."""

    numbers: Sequence[int]
    outputs: Sequence[ItemOutputs]
    tokens: int | None
    truncated: int

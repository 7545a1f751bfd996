"""What every kind of output has: its place in the manifest, its tensors, its reading, and its form on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from sie_frontend.contract.dtypes import OutputDtype
from sie_frontend.contract.errors import invalid_input
from sie_frontend.rows import Array, Call, Reader, Row

if TYPE_CHECKING:
    from sie_frontend.outputs.heads import Heads

Tensors: TypeAlias = "Mapping[str, Array]"
"""One row's output tensors by name, without the batch axis."""
Value = TypeVar("Value")


class Shape(Enum):
    """What a comparable output is, which decides how two of them are compared."""

    VECTOR = "vector"
    VECTORS = "a vector for each position"
    NUMBER = "number"
    NUMBERS = "a number for each position"
    WEIGHTS = "numbers and weights"


@dataclass(frozen=True, slots=True)
class Comparable:
    """Something that a build is compared on: one tensor, or the two of `WEIGHTS`. Distances go by its `name`."""

    name: str
    tensors: tuple[str, ...]
    shape: Shape


class HeadEntry(msgspec.Struct, frozen=True):
    """What the manifest's entries of all kinds have. `output_type` is the key that they stand under."""

    output_type: ClassVar[str]

    def joined(self, values: Sequence[Any]) -> Any:
        """The value of an item that has several rows, such as images. Raises `WireError` (400) where there is none."""
        raise invalid_input(f"output type '{self.output_type}' of this model is made of one image, got {len(values)}")

    @property
    def comparables(self) -> tuple[Comparable, ...]:
        """What of its tensors a build is compared on; nothing where they are those of other heads."""
        return ()

    @property
    def files(self) -> tuple[str, ...]:
        """The paths, relative to the repository, of what reading needs besides the tensors."""
        return ()


class EncodedKind(Protocol):
    """The manifest's entry of a kind that encoding gives: which tensors it needs, and what their numbers mean."""

    output_type: ClassVar[str]

    def tensors(self, call: Call, *, is_query: bool) -> tuple[str, ...]:
        """The Triton outputs that it needs; none where it computes without the model."""

    def read(self, tensors: Tensors, row: Row, call: Call, heads: Heads, *, is_query: bool) -> Any:
        """One row's value, in full precision."""

    def joined(self, values: Sequence[Any]) -> Any:
        """The value of an item that has several rows, out of theirs, in full precision."""


class ScoreKind(Protocol):
    """The manifest's entry of a kind of score.

    `pairs`: whether the model reads a query together with each item; else the query's row comes first, then the items'.
    """

    output_type: ClassVar[str]
    pairs: ClassVar[bool]

    def rows(self, reader: Reader, query: Any, given: Sequence[Any], call: Call) -> Sequence[Row]:
        """The rows that the scores need."""

    def tensors(self, call: Call, heads: Heads) -> tuple[str, ...]:
        """The Triton outputs that the scores need."""

    def scores(self, tensors: Sequence[Tensors], rows: Sequence[Row], call: Call, heads: Heads) -> Array:
        """`[items]` float32."""


class Form(Protocol, Generic[Value]):
    """What an output type looks like in an answer. `declared` is the width that the bundle declares, if it does."""

    def narrowed(self, values: Sequence[Value], dtype: OutputDtype) -> Sequence[Value]:
        """The values in the output dtype of a call."""

    def as_json(self, value: Value, declared: int | None) -> dict[str, Any]:
        """The entry of one item in JSON, with arrays as orjson takes them."""

    def as_msgpack(self, value: Value, declared: int | None) -> Iterable[bytes | memoryview]:
        """The entry of one item in msgpack, its key included, in pieces."""

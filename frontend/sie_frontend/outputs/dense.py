"""Dense: one vector an item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np

from sie_frontend.contract.dtypes import OutputDtype, dtype_label, quantize_vectors, widened
from sie_frontend.contract.ndarray import map_fields, pack_array
from sie_frontend.outputs.kind import Comparable, HeadEntry, Shape, Tensors
from sie_frontend.rows import Array, Call, Row

# As torch's `normalize` has it: what is shorter keeps its length.
_EPSILON = 1e-12

if TYPE_CHECKING:
    from sie_frontend.outputs.heads import Heads


class Pooled(msgspec.Struct, frozen=True):
    """The two outputs of a dense head: L2-normalised, and as pooled."""

    normalized: str
    raw: str


class DenseHead(HeadEntry, frozen=True, tag="dense", tag_field="kind"):
    """One vector per item. `pooling` is the profile's own.

    `poolings` maps each pooling that a request may choose to its output tensors; `pooling_names` maps the spellings of
    `options.pooling` to them, "*" standing for any other spelling and for null. It is empty where the adapter ignores
    the option. `unsaid` is the pooling of a call whose options do not name one, if it is not `pooling`.
    `blank_is_zero`: blank text gives a zero vector without running the model. `cuts` are the widths that a vector may
    be cut to, descending: those that the model was trained for (Kusupati et al., 2022, Matryoshka representations).
    """

    output_type: ClassVar[str] = "dense"

    pooling: str
    pooling_names: dict[str, str]
    poolings: dict[str, Pooled]
    normalize: bool
    honours_normalize: bool = True
    blank_is_zero: bool = False
    unsaid: str | None = None
    cuts: tuple[int, ...] = ()

    @property
    def comparables(self) -> tuple[Comparable, ...]:
        """Both tensors of every pooling."""
        names = (name for pooled in self.poolings.values() for name in (pooled.normalized, pooled.raw))
        return tuple(Comparable(name, (name,), Shape.VECTOR) for name in names)

    def tensors(self, call: Call, *, is_query: bool) -> tuple[str, ...]:
        """The pooled tensor that the call's options choose, at unit length or not."""
        return (self._tensor(call.options),)

    def _tensor(self, options: Mapping[str, Any]) -> str:
        pooling = self.pooling
        if self.pooling_names:
            pooling = self.unsaid or pooling
            if "pooling" in options:  # null is said, and one of the other spellings
                pooling = self.pooling_names.get(str(options["pooling"]), self.pooling_names["*"])
        pooled = self.poolings[pooling]
        return pooled.normalized if normalizes(self.normalize, options, honoured=self.honours_normalize) else pooled.raw

    def read(self, tensors: Tensors, row: Row, call: Call, heads: Heads, *, is_query: bool) -> Array:
        """`[dim]` float32."""
        vector = tensors[self._tensor(call.options)].astype(np.float32, copy=False)
        return np.zeros_like(vector) if self.blank_is_zero and row.blank else vector

    def joined(self, values: Sequence[Array]) -> Array:
        """The mean of several vectors `[dim]`. It is not made a unit vector again, which is the contract's word."""
        mean: Array = np.stack(values).mean(axis=0, dtype=np.float32)
        return mean

    def cut(self, vector: Array, width: int, call: Call) -> Array:
        """The first `width` numbers of `[dim]`, at unit length again where the call's vectors have it."""
        kept = vector[:width]
        if not normalizes(self.normalize, call.options, honoured=self.honours_normalize):
            return kept
        length = max(float(np.linalg.norm(kept.astype(np.float64))), _EPSILON)
        return (kept / length).astype(np.float32)


def normalizes(default: bool, options: Mapping[str, Any], *, honoured: bool) -> bool:
    """Whether a call's vectors get length 1: what `options.normalize` says, where an adapter honours it."""
    asked = options.get("normalize") if honoured else None
    return default if asked is None else bool(asked)


def narrowed_vectors(values: Sequence[Array], dtype: OutputDtype) -> list[Array]:
    """Vectors, or matrices of them, in `dtype`; those of one shape together."""
    if len({vector.shape for vector in values}) == 1:
        return list(quantize_vectors(np.stack(values), dtype))
    return [quantize_vectors(vector, dtype) for vector in values]


def width_of(array: Array, declared: int | None) -> int:
    """The width that an answer names: the bundle's, else the array's own."""
    return array.shape[-1] if declared is None else declared


class DenseForm:
    """`{dims, dtype, values}`; a value is `[d]`, where d is ceil(dim / 8) for binary outputs."""

    def narrowed(self, values: Sequence[Array], dtype: OutputDtype) -> list[Array]:
        """In the output dtype of the call."""
        return narrowed_vectors(values, dtype)

    def as_json(self, value: Array, declared: int | None) -> dict[str, Any]:
        """The entry of one item."""
        return {
            "dims": width_of(value, declared),
            "dtype": dtype_label(value, declared),
            "values": widened(value),
        }

    def as_msgpack(self, value: Array, declared: int | None) -> Iterable[bytes | memoryview]:
        """The entry of one item, its key included."""
        return (_head(width_of(value, declared), dtype_label(value, declared)), *pack_array(value))


@lru_cache(maxsize=256)
def _head(dims: int, label: str) -> bytes:
    return b"\xa5dense\x83" + map_fields({"dims": dims, "dtype": label}) + b"\xa6values"


DENSE = DenseForm()

"""Multivector: one vector for each token, or for each position of another modality."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sie_frontend.contract.dtypes import OutputDtype, dtype_label, widened
from sie_frontend.contract.ndarray import map_fields, pack_array
from sie_frontend.outputs.dense import narrowed_vectors, normalizes, width_of
from sie_frontend.outputs.kind import Comparable, HeadEntry, Shape, Tensors
from sie_frontend.rows import Array, Call, Row

if TYPE_CHECKING:
    from sie_frontend.outputs.heads import Heads

# What torch.nn.functional.normalize divides by at least.
NORMALIZE_EPS = np.float32(1e-12)


class MultiVectorHead(HeadEntry, frozen=True, tag="multivector", tag_field="kind"):
    """One vector per kept position: `[rows, sequence, dim]`. The first `skip_first` positions never leave.

    `normalize`: the tensor is as projected, and the frontend gives each vector length 1, unless the adapter
    `honours_normalize` and the call says otherwise.
    """

    output_type: ClassVar[str] = "multivector"

    tensor: str
    skip_first: int = 0
    normalize: bool = False
    honours_normalize: bool = False

    @property
    def comparables(self) -> tuple[Comparable, ...]:
        """The one tensor."""
        return (Comparable(self.tensor, (self.tensor,), Shape.VECTORS),)

    def tensors(self, call: Call, *, is_query: bool) -> tuple[str, ...]:
        """The one tensor."""
        return (self.tensor,)

    def read(self, tensors: Tensors, row: Row, call: Call, heads: Heads, *, is_query: bool) -> Array:
        """`[kept positions, dim]` float32."""
        vectors = tensors[self.tensor][self.skip_first : row.cost].astype(np.float32, copy=False)
        if self.normalize and normalizes(True, call.options, honoured=self.honours_normalize):
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), NORMALIZE_EPS)
        return vectors if row.kept is None else vectors[row.kept[self.skip_first :]]

    def joined(self, values: Sequence[Array]) -> Array:
        """The vectors of several pictures one behind the other, `[all positions, dim]`."""
        joined: Array = np.concatenate(values)
        return joined


class MultivectorForm:
    """`{token_dims, num_tokens, dtype, values}`; a value is `[n, d]`, where d is ceil(dim / 8) for binary outputs."""

    def narrowed(self, values: Sequence[Array], dtype: OutputDtype) -> list[Array]:
        """In the output dtype of the call."""
        return narrowed_vectors(values, dtype)

    def as_json(self, value: Array, declared: int | None) -> dict[str, Any]:
        """The entry of one item."""
        return {
            "token_dims": width_of(value, declared),
            "num_tokens": value.shape[0],
            "dtype": dtype_label(value, declared),
            "values": widened(value),
        }

    def as_msgpack(self, value: Array, declared: int | None) -> Iterable[bytes | memoryview]:
        """The entry of one item, its key included."""
        label = dtype_label(value, declared)
        return (_head(width_of(value, declared), value.shape[0], label), *pack_array(value))


@lru_cache(maxsize=4096)
def _head(dims: int, tokens: int, label: str) -> bytes:
    return (
        b"\xabmultivector\x84" + map_fields({"token_dims": dims, "num_tokens": tokens, "dtype": label}) + b"\xa6values"
    )


MULTIVECTOR = MultivectorForm()

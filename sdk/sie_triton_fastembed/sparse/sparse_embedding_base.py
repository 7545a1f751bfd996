"""`SparseEmbedding`: the weights of some tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class SparseEmbedding:
    """Weights and the ids of their tokens, both of shape `[n]`; from a server float32 and int64, ids ascending."""

    values: NDArray[Any]
    indices: NDArray[np.int64] | NDArray[np.int32]

    def as_object(self) -> dict[str, NDArray[Any]]:
        """`{"values": …, "indices": …}`, the arrays themselves."""
        return {"values": self.values, "indices": self.indices}

    def as_dict(self) -> dict[int, float]:
        """The weight of each id."""
        return dict(zip(self.indices.tolist(), self.values.tolist(), strict=True))

    @classmethod
    def from_dict(cls, data: Mapping[int, float]) -> SparseEmbedding:
        """The other way, in the order of the dictionary; an empty one has float64 values and int64 indices."""
        indices = np.array(list(data), dtype=None if data else np.int64)
        return cls(values=np.array(list(data.values())), indices=indices)

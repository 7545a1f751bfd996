"""A checkpoint's tensors by name, read from safetensors when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sie_triton.checkpoint import weight_paths
from sie_triton.checkpoint.tensors import read_header
from sie_triton.onnx_graphs.declined import Declined

Array: TypeAlias = NDArray[Any]

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# Names of layer norms in checkpoints older than PyTorch's own.
_LEGACY = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


@dataclass(frozen=True, slots=True)
class _Place:
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


class CheckpointTensors:
    """The tensors of the weights that count in `folder`; nothing but headers is read before one is asked for.

    `prefixes` are what may stand before the body's names in a checkpoint that was saved with a head ("bert.").
    """

    def __init__(self, folder: Path, *prefixes: str) -> None:
        self._prefixes = (*prefixes, "")
        self._places: dict[str, _Place] = {}
        for path in weight_paths(folder):
            header = read_header(path)
            for name, entry in header.tensors.items():
                offset = header.data_start + int(entry["data_offsets"][0])
                self._places[name] = _Place(path, str(entry["dtype"]), tuple(map(int, entry["shape"])), offset)

    def has(self, name: str) -> bool:
        """Whether the checkpoint has a tensor, under its own name or behind a prefix."""
        return self._find(name) is not None

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises `Declined` where there is none."""
        return self._place(name).shape

    def read(self, name: str, shape: Sequence[int] | None = None) -> Array:
        """A tensor in float32. Raises `Declined` where there is none, or none of this `shape`."""
        place = self._place(name)
        if shape is not None and place.shape != tuple(shape):
            raise Declined(f"the tensor `{name}` is {list(place.shape)} and should be {list(shape)}")
        if place.dtype not in _TYPES:
            raise Declined(f"the tensor `{name}` has the type {place.dtype}")
        count = int(np.prod(place.shape))
        stored = np.fromfile(place.path, dtype=_TYPES[place.dtype], count=count, offset=place.offset)
        if place.dtype == "BF16":
            stored = (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.float32, copy=False).reshape(place.shape)

    def _place(self, name: str) -> _Place:
        found = self._find(name)
        if found is None:
            raise Declined(f"the checkpoint has no tensor `{name}`")
        return found

    def _find(self, name: str) -> _Place | None:
        legacy = next((name.replace(now, then) for now, then in _LEGACY.items() if name.endswith(now)), name)
        for spelling in (name, legacy):
            for prefix in self._prefixes:
                if prefix + spelling in self._places:
                    return self._places[prefix + spelling]
        return None

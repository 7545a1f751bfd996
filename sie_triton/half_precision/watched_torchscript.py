"""A TorchScript graph in half precision, watched while it runs.

torch's CPU kernels compute in the type of their tensors: sums inside an operator are of float32, as on a GPU, and every
result is rounded to float16 or bfloat16. So the graph runs as it is, and only its operators are looked over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sie_frontend.rows import Array
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from sie_triton.half_precision.ranges import Ranges
from sie_triton.verify.model_runner import Graph, Timed, open_torchscript

HALVES = (torch.float16, torch.bfloat16)
# Operators through which a mask's far numbers reach the scores and stay what they are. softmax ends them.
_CARRIERS = frozenset(
    {
        *("add", "add_", "masked_fill", "masked_fill_", "maximum", "minimum", "sub", "where"),
        *("_to_copy", "cat", "clone", "contiguous", "expand", "permute", "reshape", "select", "slice", "squeeze"),
        *("to", "transpose", "type_as", "unsqueeze", "view"),
    }
)


def open_watched(ranges: Ranges, config: Any, path: Path, timed: Timed | None) -> Graph:
    """Open the graph at `path`; each run notes its tensors' magnitudes in `ranges`."""
    graph, name = open_torchscript(config, path, timed), path.parent.parent.name

    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> Sequence[Array]:
        with _Watch(ranges, name):
            return graph(inputs, outputs)

    return run


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator of one run. Operators are named by their place: equal graphs, equal names.

    A mask is computed from integers and single numbers; whatever has seen a weight or a state is data.
    """

    def __init__(self, ranges: Ranges, graph: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ranges = ranges
        self._graph = graph
        self._places: dict[str, int] = {}
        self._data: Any = WeakTensorKeyDictionary()
        self._far: Any = WeakTensorKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute, then look at what came out."""
        result = func(*args, **(kwargs or {}))
        operator = func.overloadpacket.__name__
        place = self._places[operator] = self._places.get(operator, -1) + 1
        given = list(_tensors((args, kwargs or {})))
        data = any(self._is_data(tensor) for tensor in given)
        numbers = [abs(float(value)) for value in args if isinstance(value, int | float)]
        far = operator in _CARRIERS and (
            any(tensor in self._far for tensor in given)
            or (operator.startswith("masked_fill") and any(self._ranges.far_out(number) for number in numbers))
        )
        for index, tensor in enumerate(_tensors(result)):
            self._data[tensor] = data
            self._look(tensor, f"{operator}_{place}" + (f".{index}" if index else ""), data=data, far=far)
        return result

    def _is_data(self, tensor: Tensor) -> bool:
        """What no operator of this run has made is an input, a weight or a constant."""
        known = self._data.get(tensor)
        return bool(tensor.is_floating_point() and tensor.numel() > 1) if known is None else bool(known)

    def _look(self, tensor: Tensor, name: str, *, data: bool, far: bool) -> None:
        if tensor.dtype not in HALVES or not tensor.numel():
            if far:
                self._far[tensor] = True
            return
        magnitude = float(tensor.float().abs().max())
        peak = self._ranges.watch(self._graph, name, f"`aten::{name.rpartition('_')[0]}`")
        if far or (not data and self._ranges.far_out(magnitude)):
            self._far[tensor] = peak.masking = True
        self._ranges.note(peak, magnitude)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)

"""Many requests, one run: what Triton's backend library does for C++ backends, for arrays of numpy or torch.

Rules as in Triton's `backend_input_collector` and `backend_output_responder`: inputs are concatenated along the
batch axis, ragged ones as one flat sequence; `batch_input` tensors describe how; outputs are split by the rows of
each request, or by an input's shape where `batch_output` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sie_triton.backends.received import ReceivedConfig, targets

# numpy.ndarray or torch.Tensor: what is used here (shape, reshape, slices) they share.
Array = Any
Arrays = dict[str, Array]
Concatenate = Callable[[Sequence[Array]], Array]

_BATCH_INPUT_TYPES: dict[str, type[np.number[Any]]] = {"TYPE_INT32": np.int32, "TYPE_FP32": np.float32}


class RowsError(Exception):
    """The model computed too little for the requests it was given."""


@dataclass(frozen=True, slots=True)
class BatchInput:
    """A graph input that describes how the requests were put together."""

    target: str
    kind: str
    datatype: type[np.number[Any]]
    source: str


@dataclass(frozen=True, slots=True)
class Scatter:
    """An output whose part for each request has the shape of an input; -1 means that input's dimension there."""

    source: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a model's requests become one run and its outputs responses; fixed by the configuration."""

    batched: bool
    first_input: str
    ragged: frozenset[str]
    batch_inputs: tuple[BatchInput, ...]
    scatters: Mapping[str, Scatter]
    output_dims: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, config: ReceivedConfig) -> BatchPlan:
        """Read the plan from a configuration that passed the rules of its backend."""
        batched = config.max_batch_size > 0
        output_dims = {tensor.name: tensor.graph_dims for tensor in config.outputs}
        return cls(
            batched=batched,
            first_input=config.inputs[0].name,
            ragged=frozenset(tensor.name for tensor in config.inputs if tensor.ragged),
            batch_inputs=tuple(
                BatchInput(target, entry.kind, _BATCH_INPUT_TYPES[entry.data_type], entry.sources[0])
                for target, entry in targets(config.batch_inputs).items()
            ),
            scatters={
                target: Scatter(entry.sources[0], (-1,) * batched + output_dims[target])
                for target, entry in targets(config.batch_outputs).items()
            },
            output_dims=output_dims,
        )

    def groups(self, requests: Sequence[Arrays]) -> Iterable[list[int]]:
        """The indices of the requests that can run together: those whose shapes agree but for rows and raggedness."""
        if not self.batched:
            return [[index] for index in range(len(requests))]
        if len(requests) == 1:
            return [[0]]
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, request in enumerate(requests):
            key = tuple((name, tuple(request[name].shape[1:])) for name in sorted(request) if name not in self.ragged)
            groups.setdefault(key, []).append(index)
        return groups.values()

    def gather(self, requests: Sequence[Arrays], concatenate: Concatenate) -> Arrays:
        """The graph's inputs for `requests`, which are one group. Copies only what has to be concatenated."""
        feed: Arrays = {}
        for name in requests[0]:
            parts = [request[name] for request in requests]
            if name in self.ragged:
                parts = [part.reshape(-1) for part in parts]
            feed[name] = parts[0] if len(parts) == 1 else concatenate(parts)
        for batch_input in self.batch_inputs:
            shapes = [tuple(request[batch_input.source].shape) for request in requests]
            feed[batch_input.target] = batch_input_values(batch_input.kind, shapes, batch_input.datatype)
        return feed

    def split(self, name: str, output: Array, requests: Sequence[Arrays]) -> list[Array | RowsError]:
        """The part of `output` for each of `requests`; an error for those that it does not reach.

        What is left over is dropped, as NVIDIA's backends do; `surplus` tells.
        """
        if name in self.scatters:
            return self._scatter(name, output, requests)
        if not self.batched:
            return [output if len(output.shape) else output.reshape(self.output_dims[name])]
        if len(output.shape) == 0:
            return [RowsError(f"output `{name}` is a scalar, not one row per item")] * len(requests)
        parts: list[Array | RowsError] = []
        end = 0
        for request in requests:
            start, end = end, end + request[self.first_input].shape[0]
            if end > output.shape[0]:
                parts.append(RowsError(f"output `{name}` has {output.shape[0]} rows, the batch at least {end}"))
            else:
                parts.append(output if len(requests) == 1 and end == output.shape[0] else output[start:end])
        return parts

    def surplus(self, name: str, output: Array, requests: Sequence[Arrays]) -> int:
        """How many rows of `output` belong to no request."""
        if not self.batched or name in self.scatters or not len(output.shape):
            return 0
        return int(output.shape[0]) - sum(int(request[self.first_input].shape[0]) for request in requests)

    def _scatter(self, name: str, output: Array, requests: Sequence[Arrays]) -> list[Array | RowsError]:
        scatter = self.scatters[name]
        flat = output.reshape(-1)
        parts: list[Array | RowsError] = []
        end = 0
        for request in requests:
            source = request[scatter.source].shape
            shape = tuple(source[axis] if dim == -1 else dim for axis, dim in enumerate(scatter.shape))
            start, end = end, end + prod(shape)
            if end > flat.shape[0]:
                parts.append(
                    RowsError(f"output `{name}` has {flat.shape[0]} elements, its requests need at least {end}")
                )
            else:
                parts.append(flat[start:end].reshape(shape))
        return parts


def batch_input_values(kind: str, shapes: Sequence[tuple[int, ...]], datatype: type[np.number[Any]]) -> NDArray[Any]:
    """The tensor that a `batch_input` of `kind` adds, for requests whose source inputs have `shapes` (with batch)."""
    counts = [prod(shape) for shape in shapes]
    if kind == "BATCH_ELEMENT_COUNT":
        return np.asarray(counts, datatype)
    if kind == "BATCH_ACCUMULATED_ELEMENT_COUNT":
        return np.cumsum(counts).astype(datatype)
    if kind == "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO":
        return np.cumsum([0, *counts]).astype(datatype)
    if kind == "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE":
        return np.zeros(max(counts), datatype)  # only the shape means anything
    items = np.asarray([shape[1:] for shape in shapes for _ in range(shape[0])], datatype)
    return items.reshape(-1) if kind == "BATCH_ITEM_SHAPE_FLATTEN" else items

"""How the ONNX Runtime backend compares a configuration with its graph when it loads a model.

Inputs are counted there, not matched by name: those of the configuration without the `optional` ones, and those that
`batch_input` makes, must be as many as the graph requires. An initializer that is also a graph input (from IR version
4 on callers may override it) is not among these.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sie_triton.backends.received import ConfigTensor, ReceivedConfig, Role, targets


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """An input or output of a graph.

    `kind` is `tensor`, or what the value is instead (`sequence`, ...); only tensors have a type and a shape.
    `data_type` is Triton's name (`TYPE_FP32`), or the graph's own where Triton has none. A dimension of `shape` is a
    number, or a symbol or None where it is dynamic; without a declared shape `shape` is None.
    """

    name: str
    data_type: str
    shape: tuple[int | str | None, ...] | None
    kind: str = "tensor"

    @property
    def dims(self) -> tuple[int, ...] | None:
        """The shape with -1 for every dynamic dimension."""
        return None if self.shape is None else tuple(d if isinstance(d, int) else -1 for d in self.shape)


class Misfit(enum.Enum):
    """Why the dims of a configured tensor do not go with the shape of the graph's."""

    NO_BATCH = enum.auto()
    """The model batches, and the tensor is a scalar or has no shape."""
    FIXED_BATCH = enum.auto()
    """The model batches, and the first dimension is a number."""
    VECTOR = enum.auto()
    """The tensor is `[batch]`: without its batch it has no dimension, and only `reshape` can say that."""
    SCALAR = enum.auto()
    """The tensor is a scalar or has no shape, and the dims are others than ones."""
    RAGGED = enum.auto()
    """The input is ragged, and the graph's is no vector of dynamic size: all requests arrive in one, one by one."""
    DIMS = enum.auto()
    """The dims differ."""


def fed_inputs(config: ReceivedConfig) -> set[str]:
    """Graph inputs that the configuration feeds: inputs, batch inputs, sequence controls and states."""
    return {t.name for t in config.inputs} | targets(config.batch_inputs).keys() | set(config.sequence_inputs)


def unfed_inputs(config: ReceivedConfig, required: Iterable[str]) -> list[str]:
    """Inputs that the graph requires and the configuration does not feed."""
    return sorted(set(required) - fed_inputs(config))


def unknown_inputs(config: ReceivedConfig, known: Iterable[str]) -> list[str]:
    """Inputs that the configuration feeds and the graph does not have."""
    return sorted(fed_inputs(config) - set(known) - {""})


def unknown_outputs(config: ReceivedConfig, known: Collection[str]) -> list[ConfigTensor]:
    """Outputs of the configuration that the graph does not have."""
    return [tensor for tensor in config.outputs if tensor.name not in known]


def pairs(
    tensors: Iterable[ConfigTensor], graph: Mapping[str, GraphTensor]
) -> Iterator[tuple[ConfigTensor, GraphTensor]]:
    """Configured tensors with the graph's tensors of their names; without sequences and the like."""
    for tensor in tensors:
        found = graph.get(tensor.name)
        if found is not None and found.kind == "tensor":
            yield tensor, found


def types_differ(tensor: ConfigTensor, found: GraphTensor) -> bool:
    """Whether the types differ; one that is not written is the graph's."""
    return tensor.data_type not in ("TYPE_INVALID", found.data_type)


def misfit(config: ReceivedConfig, tensor: ConfigTensor, found: GraphTensor) -> Misfit | None:
    """How the dims of `tensor` contradict the shape of `found`; None where the backend takes them.

    Where the graph is dynamic an input may be narrower, while the dims of an output are equal both ways. Dims that are
    not written are the graph's; those of a scattered output are its source's.
    """
    if tensor.ragged:
        return None if found.dims == (-1,) else Misfit.RAGGED
    if not tensor.dims or (tensor.role == "output" and tensor.name in targets(config.batch_outputs)):
        return None
    ours, theirs = tensor.graph_dims, found.dims or ()
    if config.max_batch_size > 0:
        return _batch_misfit(ours, theirs) or _dims_misfit(tensor.role, ours, theirs[1:])
    if not theirs:
        return None if all(d == 1 for d in ours) else Misfit.SCALAR
    return _dims_misfit(tensor.role, ours, theirs)


def _batch_misfit(ours: tuple[int, ...], theirs: tuple[int, ...]) -> Misfit | None:
    if not theirs:
        return Misfit.NO_BATCH
    if theirs[0] != -1:
        return Misfit.FIXED_BATCH
    return Misfit.VECTOR if len(theirs) == 1 and ours else None


def _dims_misfit(role: Role, ours: tuple[int, ...], theirs: tuple[int, ...]) -> Misfit | None:
    fits = len(ours) == len(theirs) and all(
        o == t or (t == -1 and role == "input") for o, t in zip(ours, theirs, strict=True)
    )
    return None if fits else Misfit.DIMS

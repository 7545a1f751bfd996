"""The products of a graph with weights, and where the numbers come from that they multiply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import onnx

Message: TypeAlias = Any  # protobuf's classes carry no types

# A product smaller than this costs nothing that is worth rounding: the last layer of a classifier, a router.
SMALLEST_SIDE = 32
# What hands states on as they are.
_CARRIES: Final = frozenset({"Gather", "Reshape", "Identity"})
VALUE_NAMES: Final = frozenset({"value", "v_proj", "v_lin"})
_NORMS: Final = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})


@dataclass(frozen=True, slots=True)
class Product:
    """A `MatMul` of states with a weight `[inputs, outputs]`. `normed`: its states come out of a normalisation."""

    node: str
    states: str
    weight: str
    inputs: int
    outputs: int
    normed: bool


def products_of(model: onnx.ModelProto) -> list[Product]:
    """The products that are worth 8 bits, in the order of the graph. Nodes are known by their first output."""
    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer if tensor.data_type == 1}
    made_by: dict[str, Message] = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        shape = shapes.get(node.input[1]) if node.op_type == "MatMul" else None
        if shape is None or len(shape) != 2 or min(shape) < SMALLEST_SIDE:
            continue
        states = str(node.input[0])
        normed = _is_normed(states, made_by, set(shapes))
        found.append(Product(str(node.output[0]), states, str(node.input[1]), *shape, normed=normed))
    return found


def _is_normed(name: str, made_by: dict[str, Message], constants: set[str]) -> bool:
    """Whether a value is what a normalisation gives: its node, or the gain that a written-out one ends with."""
    while name in made_by and made_by[name].op_type in _CARRIES:
        name = made_by[name].input[0]
    node = made_by.get(name)
    if node is None:
        return False
    return node.op_type in _NORMS or (node.op_type == "Mul" and any(factor in constants for factor in node.input))


def values_of(products: Sequence[Product]) -> frozenset[str]:
    """The weights that make attention's values, by what checkpoints call them; none where they are called otherwise."""
    return frozenset(p.weight for p in products if any(part in VALUE_NAMES for part in p.weight.split(".")))

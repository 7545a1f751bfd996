"""Rewrites a traced graph so that padding is computed only where tokens meet: the linear layers see real tokens alone.

A padded graph computes every position of `[batch, sequence, width]`. Most of the work there, the products with weight
matrices and what lies between them, treats each token for itself. In a packed graph these nodes work on
`[tokens, width]`, the real tokens of all rows one after the other, and only what mixes tokens (attention, pooling) gets
`[batch, sequence, width]`, its padding filled with copies of other tokens. This is the padding-free evaluation of
ByteTransformer (Zhai et al., 2022), in standard ONNX operators and without knowing any architecture.

It changes nothing that counts if nothing reads padding, which is so for every graph whose outputs do not depend on how
far its rows are padded, and what a build verifies. Where a graph itself blanks the padding of its states, the blanked
states stay padded, since packing would lose the blanks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

Node: TypeAlias = Any  # protobuf's classes carry no types
Shape: TypeAlias = "tuple[int | str, ...]"

# A graph of whose products less is packed than this would pay for the way to and fro and gain too little.
WORTHWHILE_SHARE = 0.75
# What a padded position still costs against a token, times the width of the states over the longest row: scores,
# softmax and the copies. Measured on MiniLM (384 wide), where it is 0.05 in rows of 32 and 0.4 in rows of 256.
PADDING_COST = 0.6

_UNARY: Final = frozenset(
    {
        "Abs",
        "Cast",
        "Erf",
        "Exp",
        "Gelu",
        "Identity",
        "Neg",
        "Reciprocal",
        "Relu",
        "Sigmoid",
        "Softplus",
        "Sqrt",
        "Tanh",
    }
)
_ELEMENTWISE: Final = _UNARY | {"Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"}
_DEFAULT_AXES: Final = {"LayerNormalization": -1, "Split": 0}
_SUFFIX = "_packed"


def pack(model: onnx.ModelProto, ids: str, mask: str) -> float | None:
    """Pack the graph in place; None, and the graph as it was, where that would not pay.

    `ids` and `mask` name the inputs `[batch, sequence]`. The shapes that the tracer inferred must still be there.
    Returns what a padded position costs in the packed graph: this share of a token for each position of its row.
    """
    if any(attribute.type == onnx.AttributeProto.GRAPH for node in model.graph.node for attribute in node.attribute):
        return None  # a graph inside a node may use values of this one by name
    packer = _Packer(model.graph, ids, mask)
    nodes = packer.rewrite()
    if not packer.packed_weight or packer.packed_weight < WORTHWHILE_SHARE * packer.total_weight:
        return None
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(packer.constants)
    return round(PADDING_COST / packer.width, 6)


class _Packer:
    """One pass over the nodes in their order. A value exists padded under its own name, packed under `name_packed`."""

    def __init__(self, graph: onnx.GraphProto, ids: str, mask: str) -> None:
        self._graph = graph
        self._ids = ids
        self._mask = mask
        self._sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self._shapes = dict(_shapes(graph))
        self._rows: Shape = self._shapes[ids]
        self._padded = {*(value.name for value in graph.input), *self._sizes}
        self._packed: dict[str, str] = {}
        # What is computed from the mask alone, and token states that were blanked with it.
        self._of_mask = {mask}
        self._of_ids = {value.name for value in graph.input} - {mask}
        self._blanked: set[str] = set()
        self._nodes: list[Node] = []
        self._begun = False
        self.constants: list[onnx.TensorProto] = []
        self.packed_weight = 0
        self.total_weight = 0
        self.width = 0

    def rewrite(self) -> list[Node]:
        """The nodes of the packed graph."""
        for node in self._graph.node:
            self._follow_mask(node)
            if self._is_product(node):
                self.total_weight += int(np.prod(self._sizes[node.input[1]]))
            if self._can_pack(node):
                self._emit_packed(node)
            else:
                for name in node.input:
                    self._need_padded(name)
                self._nodes.append(node)
                self._padded.update(node.output)
        for value in self._graph.output:
            self._need_padded(value.name)
        return self._nodes

    def _is_tokens(self, name: str) -> bool:
        """Whether a value is `[batch, sequence, width]`."""
        shape = self._shapes.get(name, ())
        return len(shape) == 3 and shape[:2] == self._rows and isinstance(shape[2], int)

    def _is_product(self, node: Node) -> bool:
        """Whether a node multiplies token states with a weight matrix."""
        return (
            node.op_type == "MatMul" and len(self._sizes.get(node.input[1], ())) == 2 and self._is_tokens(node.input[0])
        )

    def _follow_mask(self, node: Node) -> None:
        """Learn what a node's outputs owe to the mask: nothing, everything, or the blanks of their padding."""
        if node.op_type == "Shape":
            return
        of_mask = any(name in self._of_mask for name in node.input)
        of_ids = any(name in self._of_ids for name in node.input)
        if of_ids:
            self._of_ids.update(node.output)
        elif of_mask:
            self._of_mask.update(node.output)
        if (of_mask and of_ids) or any(name in self._blanked for name in node.input):
            self._blanked.update(name for name in node.output if self._is_tokens(name))

    def _can_pack(self, node: Node) -> bool:
        if not all(self._is_tokens(name) for name in node.output if name):
            return False
        if any(name in self._blanked for name in (*node.input, *node.output)):
            return False
        follows = any(name in self._packed for name in node.input)
        return self._is_product(node) or (follows and self._is_tokenwise(node))

    def _is_tokenwise(self, node: Node) -> bool:
        """Whether a node that makes token states treats every token for itself."""
        attributes = _attributes(node)
        if node.op_type in _DEFAULT_AXES:
            return attributes.get("axis", _DEFAULT_AXES[node.op_type]) in (-1, 2)
        if node.op_type == "ReduceMean":
            return self._axes(node) in ([-1], [2]) and attributes.get("keepdims", 1) == 1
        return node.op_type in _ELEMENTWISE and all(
            self._is_tokens(name) or self._is_per_channel(name) for name in node.input
        )

    def _is_per_channel(self, name: str) -> bool:
        """Whether a constant means the same for every token: a number, or a vector as wide as the states."""
        return len(self._sizes.get(name, (0, 0))) <= 1

    def _axes(self, node: Node) -> list[int]:
        """The constant axes of a reduction, an attribute before opset 18 and an input after."""
        attribute = _attributes(node).get("axes")
        if attribute is not None:
            return list(attribute)
        name = node.input[1] if len(node.input) > 1 else ""
        found = next((tensor for tensor in self._graph.initializer if tensor.name == name), None)
        return [] if found is None else numpy_helper.to_array(found).tolist()

    def _emit_packed(self, node: Node) -> None:
        if self._is_product(node):
            rows, columns = self._sizes[node.input[1]]
            self.packed_weight += rows * columns
            self.width = self.width or rows
        inputs = [self._need_packed(name) if self._is_tokens(name) else name for name in node.input]
        packed = type(node)()
        packed.CopyFrom(node)
        packed.input[:] = inputs
        packed.output[:] = [f"{name}{_SUFFIX}" if name else name for name in node.output]
        if node.op_type == "ReduceMean" and len(node.input) > 1:
            packed.input[1] = self._constant("packed_last_axis", np.array([-1]))
        for attribute in packed.attribute:
            if attribute.name == "axis":
                attribute.i = -1
            elif attribute.name == "axes":
                attribute.ints[:] = [-1]
        self._nodes.append(packed)
        self._packed.update(zip(node.output, packed.output, strict=True))

    def _need_packed(self, name: str) -> str:
        if name not in self._packed:
            self._begin()
            width = self._shapes[name][2]
            flat = self._emit(
                "Reshape", [name, self._constant(f"packed_wide_{width}", np.array([-1, width]))], f"{name}_flat"
            )
            self._packed[name] = self._emit("Gather", [flat, "packed_places"], f"{name}{_SUFFIX}", axis=0)
        return self._packed[name]

    def _need_padded(self, name: str) -> None:
        if name in self._padded or name not in self._packed:
            return
        width = self._shapes[name][2]
        spread = self._emit("Gather", [self._packed[name], "packed_sources"], f"{name}_spread", axis=0)
        shape = f"packed_shape_{width}"
        if shape not in self._padded:
            self._emit(
                "Concat", ["packed_rows", self._constant(f"packed_width_{width}", np.array([width]))], shape, axis=0
            )
            self._padded.add(shape)
        self._emit("Reshape", [spread, shape], name)
        self._padded.add(name)

    def _begin(self) -> None:
        """Where the real tokens are among all positions, and for every position a token that it shows."""
        if self._begun:
            return
        self._begun = True
        one, minus_one = self._constant("packed_one", np.array([1])), self._constant("packed_minus_one", np.array([-1]))
        self._emit("Shape", [self._ids], "packed_rows")
        flat = self._emit("Reshape", [self._mask, minus_one], "packed_flat_mask")
        # The first position always counts: a graph without any token has nothing to copy from.
        end = self._constant("packed_end", np.array([np.iinfo(np.int64).max]))
        rest = self._emit("Slice", [flat, one, end], "packed_rest_of_mask")
        kept = self._emit("Concat", [one, rest], "packed_kept", axis=0)
        places = self._emit("NonZero", [kept], "packed_nonzero")
        self._emit("Reshape", [places, minus_one], "packed_places")
        axis = self._constant("packed_axis", np.array(0))
        counted = self._emit("CumSum", [kept, axis], "packed_counted")
        self._emit("Sub", [counted, one], "packed_sources")

    def _emit(self, op_type: str, inputs: list[str], output: str, **attributes: int) -> str:
        self._nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def _constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        if all(tensor.name != name for tensor in self.constants):
            self.constants.append(numpy_helper.from_array(value.astype(np.int64), name))
        return name


def _shapes(graph: onnx.GraphProto) -> Iterator[tuple[str, Shape]]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        yield value.name, tuple(dim.dim_param or dim.dim_value for dim in dims)


def _attributes(node: Node) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

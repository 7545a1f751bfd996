"""A float32 graph -> the same graph with its large weights in 8 bits.

Products become ONNX Runtime's `MatMulNBits`: weights in blocks, and at run time (`accuracy_level` 4) states in 8 bits,
with a scale for each block of each row, so that no row knows of another. Before that, the scale of outliers among the
states is moved into the weights (Xiao et al., 2023, "SmoothQuant"), by powers of two: the float32 product stays what it
was, bit by bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sie_triton.eight_bits.blocks import Array, in_blocks, in_rows
from sie_triton.eight_bits.products import Message, Product, products_of

DOMAIN = "com.microsoft"
INT8_STATES = 4
"""`accuracy_level`: states are rounded to 8 bits at run time."""
# Of an outlier's scale this share, as an exponent, goes into the weights: measured on MiniLM (benchmarks/ladder.py).
MOVED_SHARE = 0.7
# A table smaller than this is not worth a node.
SMALLEST_TABLE = 1_000_000

Ranges8: TypeAlias = "Mapping[str, Array]"
"""For the states of products, the largest magnitude of each input: `[inputs]`."""


@dataclass(frozen=True, slots=True)
class EightBits:
    """How a graph is written in 8 bits: what `build` tries in turn, and the manifest tells.

    `block`: how many inputs share a scale. `moved`: whether outliers' scale moves into the weights. `table`: whether
    the embedding is in 8 bits too. `kept`: weights whose products stay float32.
    """

    block: int
    moved: bool = True
    table: bool = True
    kept: frozenset[str] = frozenset()

    def told(self) -> str:
        """In words."""
        parts = [f"8-bit weights in blocks of {self.block}"]
        parts += ["outliers' scale moved into the weights"] if self.moved else []
        parts += ["embedding table in 8 bits"] if self.table else []
        parts += [f"{len(self.kept)} products kept in float32"] if self.kept else []
        return ", ".join(parts)


def eight_bit_graph(model: onnx.ModelProto, how: EightBits, seen: Ranges8) -> int:
    """Rewrite `model` in place. `seen` tells of the states, by name; states that it lacks are left as they are.

    Returns how many weights left float32.
    """
    return _Rewriter(model, how, seen).rewrite()


class _Rewriter:
    def __init__(self, model: onnx.ModelProto, how: EightBits, seen: Ranges8) -> None:
        self._model = model
        self._how = how
        self._weights: dict[str, Message] = {tensor.name: tensor for tensor in model.graph.initializer}
        self._reads = Counter(name for node in model.graph.node for name in node.input)
        self._products = {p.node: p for p in products_of(model) if p.weight not in how.kept}
        self._scales = self._moved(seen) if how.moved else {}
        self._added: dict[str, Message] = {}
        self._nodes: list[Message] = []
        self._spread: set[str] = set()

    def rewrite(self) -> int:
        graph = self._model.graph
        before = len(self._weights)
        for node in graph.node:
            product = self._products.get(node.output[0]) if node.output else None
            if product is not None:
                self._product(node, product)
            elif self._is_table(node):
                self._look_up(node)
            else:
                self._nodes.append(node)
        used = dict.fromkeys(name for node in self._nodes for name in node.input)
        left = sum(name not in used for name in self._weights)
        every = {**self._weights, **self._added}
        kept = [every[name] for name in used if name in every]
        nodes = [_copied(node) for node in self._nodes]
        tensors = [_copied(tensor) for tensor in kept]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(nodes)
        graph.initializer.extend(tensors)
        if self._products:
            self._model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        assert left <= before
        return left

    def _moved(self, seen: Ranges8) -> dict[str, Array]:
        """By states, what they are divided by, and their weights multiplied with: powers of two around 1."""
        groups: dict[str, list[Product]] = {}
        for product in self._products.values():
            if product.normed and product.states in seen:
                groups.setdefault(product.states, []).append(product)
        found = {}
        for states, products in groups.items():
            weights = [np.abs(numpy_helper.to_array(self._weights[p.weight])).max(axis=1) for p in products]
            largest = np.maximum(seen[states].astype(np.float64), 1e-6)
            theirs = np.maximum(np.max(weights, axis=0).astype(np.float64), 1e-6)
            exponents = MOVED_SHARE * np.log2(largest) - (1 - MOVED_SHARE) * np.log2(theirs)
            scale = np.exp2(np.rint(exponents - exponents.mean()))
            if (scale != 1).any():
                found[states] = scale.astype(np.float32)
        return found

    def _product(self, node: Message, product: Product) -> None:
        weight = numpy_helper.to_array(self._weights[product.weight])
        states = product.states
        if states in self._scales and product.normed:
            weight = weight * self._scales[states][:, None]
            states = self._divided(states)
        blocks = in_blocks(weight, self._how.block)
        name = product.weight
        inputs = [
            states,
            self._add(f"{name}.int8", blocks.codes),
            self._add(f"{name}.scales", blocks.scales.reshape(-1)),
            self._add(f"{name}.zeros", blocks.zeros),
        ]
        self._nodes.append(
            helper.make_node(
                "MatMulNBits",
                inputs,
                list(node.output),
                name=node.name,
                domain=DOMAIN,
                K=product.inputs,
                N=product.outputs,
                bits=8,
                block_size=self._how.block,
                accuracy_level=INT8_STATES,
            )
        )

    def _divided(self, states: str) -> str:
        name = f"{states}.even"
        if name not in self._spread:
            self._spread.add(name)
            inverse = self._add(f"{states}.inverse", (1 / self._scales[states]).astype(np.float32))
            self._nodes.append(helper.make_node("Mul", [states, inverse], [name], name=name))
        return name

    def _is_table(self, node: Message) -> bool:
        if not self._how.table or node.op_type != "Gather" or node.input[0] not in self._weights:
            return False
        # Where a product reads it too, as where words are predicted, it would stay beside the second one.
        if self._reads[node.input[0]] > 1:
            return False
        tensor = self._weights[node.input[0]]
        along = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        large = len(tensor.dims) == 2 and int(np.prod(tensor.dims)) >= SMALLEST_TABLE
        return large and along == 0 and tensor.data_type == onnx.TensorProto.FLOAT

    def _look_up(self, node: Message) -> None:
        """Rows of codes and their scales, in operators that every backend has."""
        name, ids, out = node.input[0], node.input[1], node.output[0]
        codes, scales = in_rows(numpy_helper.to_array(self._weights[name]))
        made: tuple[tuple[str, list[str], str, dict[str, int]], ...] = (
            ("Gather", [self._add(f"{name}.int8", codes), ids], f"{out}.codes", {"axis": 0}),
            ("Cast", [f"{out}.codes"], f"{out}.steps", {"to": onnx.TensorProto.FLOAT}),
            ("Gather", [self._add(f"{name}.scales", scales), ids], f"{out}.scales", {"axis": 0}),
            ("Mul", [f"{out}.steps", f"{out}.scales"], out, {}),
        )
        self._nodes += [helper.make_node(op, takes, [to], name=to, **given) for op, takes, to, given in made]

    def _add(self, name: str, array: Array) -> str:
        if name not in self._added:
            self._added[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name


def _copied(message: Message) -> Message:
    """A message that outlives the list it is in."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def tried(values: frozenset[str]) -> tuple[EightBits, ...]:
    """What is tried in turn, the fastest first. `values`: the weights that make attention's values.

    Blocks of 128 are not among them: on AVX-512 a text alone came out 4.9e-3 from itself in a batch, and with 32 it
    does not. The values are a twelfth of the work, and lose as much as all other products together.
    """
    kept = (EightBits(64, kept=values),) if values else ()
    return (EightBits(64), *kept, EightBits(32), EightBits(32, table=False))

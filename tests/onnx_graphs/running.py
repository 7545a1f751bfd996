"""Writes one graph of a checkpoint and runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import one_thread
import onnx
from sie_frontend.rows import Array
from transformers import AutoConfig

from sie_triton.formats import Precision
from sie_triton.onnx_graphs.attention import Inputs
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Frame
from sie_triton.onnx_graphs.bodies.table import ARCHITECTURES
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.finish import save_onnx
from sie_triton.onnx_graphs.tensors import CheckpointTensors
from sie_triton.planning.modules import Encoder
from sie_triton.planning.plan import GraphPlan
from sie_triton.planning.tensors import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS, Tensor

MAX_LENGTH = 300


class Written:
    """One checkpoint's graph under construction: `states` are its last ones."""

    def __init__(
        self,
        folder: Path,
        *,
        types: bool = False,
        bidirectional: bool = False,
        precision: Precision = "float32",
        max_length: int = MAX_LENGTH,
    ) -> None:
        self.config: Any = AutoConfig.from_pretrained(folder)
        self.architecture: Architecture = ARCHITECTURES[self.config.model_type]
        self.b = GraphBuilder(CheckpointTensors(folder, *self.architecture.prefixes), precision)
        self.names = (INPUT_IDS, ATTENTION_MASK, *([TOKEN_TYPE_IDS] if types else []))
        inputs = Inputs(INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS if types else None)
        self.states = self.architecture.body(self.b, self.config, Frame(inputs, max_length, bidirectional))

    def run(self, value: Value, output: Tensor, path: Path, feeds: dict[str, Array], *, packing: bool) -> Array:
        """The value under the name of `output`, for these inputs. `packing` must take place where it is asked for."""
        inputs = tuple(Tensor(name, "INT64", ("batch", "sequence")) for name in self.names)
        plan = GraphPlan("graph", Encoder(), inputs, (output,))
        model, kept = self.b.finish("graph", inputs, [(self.b.from_body(value), output)])
        cost = save_onnx(model, plan, path, kept=kept, packing=packing)
        assert (cost is not None) == packing
        session = one_thread.session(path)
        found: Array = session.run([output.name], {name: feeds[name] for name in self.names})[0]
        return found


def texts(side: str, lengths: tuple[int, ...] = (1, 9, 290), vocabulary: int = 61) -> dict[str, Array]:
    """Random rows of several lengths, padded on a side. Real tokens are never one of the first five ids."""
    random = np.random.default_rng(len(side))
    width = max(lengths)
    ids = np.zeros((len(lengths), width), np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        place = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, place] = random.integers(5, vocabulary, length)
        mask[row, place] = 1
    types = random.integers(0, 2, ids.shape)
    return {INPUT_IDS: ids, ATTENTION_MASK: mask, TOKEN_TYPE_IDS: types}


def ranks_of_products(path: Path) -> list[int]:
    """Of each product of states with a matrix, how many axes the states have: two if they are packed."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=True).graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info}
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    products = (node.input for node in graph.node if node.op_type == "MatMul")
    return [ranks[left] for left, right in products if right in matrices and left not in matrices]

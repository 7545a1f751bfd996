"""Poolings, and the layers of a pipeline, give what sentence-transformers' own modules give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import one_thread
import pytest
import torch
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize, Pooling
from sie_frontend.rows import Array
from torch import nn
from transformers import AutoModel

from sie_triton.facts import DenseLayer, LayerNormLayer, NormalizeLayer
from sie_triton.facts.pipeline import POOLINGS
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.finish import save_onnx
from sie_triton.onnx_graphs.pooling import layer, pool
from sie_triton.onnx_graphs.tensors import CheckpointTensors
from sie_triton.planning.families import DensePooling
from sie_triton.planning.plan import GraphPlan
from sie_triton.planning.tensors import ATTENTION_MASK, HIDDEN, Tensor

from .checkpoints import make

pytestmark = pytest.mark.export

WIDTH = 32
INPUTS = (Tensor(HIDDEN, "FP32", ("batch", "sequence", WIDTH)), Tensor(ATTENTION_MASK, "INT64", ("batch", "sequence")))
# Rows with padding behind, in front, on both sides, and none.
MASK = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int64)
STATES = np.random.default_rng(3).normal(size=(4, 5, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("poolings")
    make("bert", AutoModel, folder)
    return folder


def run(write: Callable[[GraphBuilder], Value], width: int, checkpoint: Path, path: Path) -> Array:
    """What a graph on given states makes of them."""
    b = GraphBuilder(CheckpointTensors(checkpoint, "bert."))
    output = Tensor("vector", "FP32", ("batch", width))
    graph = GraphPlan("head", DensePooling(("mean",)), INPUTS, (output,))
    model, kept = b.finish("head", INPUTS, [(write(b), output)])
    save_onnx(model, graph, path, kept=kept, packing=False)
    session = one_thread.session(path)
    found: Array = session.run(None, {HIDDEN: STATES, ATTENTION_MASK: MASK})[0]
    return found


def theirs(*modules: Any) -> Array:
    features: dict[str, Any] = {
        "token_embeddings": torch.from_numpy(STATES),
        "attention_mask": torch.from_numpy(MASK),
    }
    with torch.inference_mode():
        for module in modules:
            features = module(features)
    found: Array = features["sentence_embedding"].numpy()
    return found


# sentence-transformers takes the first position for the first token, wherever the padding is: only rows without
# padding in front can be compared.
@pytest.mark.parametrize("mode", POOLINGS)
def test_poolings(mode: str, checkpoint: Path, tmp_path: Path) -> None:
    ours = run(lambda b: pool(b, HIDDEN, ATTENTION_MASK, POOLINGS[mode]), WIDTH, checkpoint, tmp_path / "graph.onnx")
    wanted = theirs(Pooling(WIDTH, mode))
    rows = [0, 3] if mode in ("cls", "weightedmean") else [0, 1, 2, 3]
    np.testing.assert_allclose(ours[rows], wanted[rows], atol=2e-6)


def test_the_first_token_is_found_behind_padding(checkpoint: Path, tmp_path: Path) -> None:
    ours = run(lambda b: pool(b, HIDDEN, ATTENTION_MASK, "cls"), WIDTH, checkpoint, tmp_path / "graph.onnx")
    np.testing.assert_array_equal(ours, STATES[[0, 1, 2, 3], [0, 2, 1, 0]])


@pytest.mark.parametrize("activation", ["Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU"])
@pytest.mark.parametrize("bias", [True, False])
def test_dense_layers(activation: str, bias: bool, checkpoint: Path, tmp_path: Path) -> None:
    dense = Dense(WIDTH, 12, bias=bias, activation_function=getattr(nn, activation)())
    (tmp_path / "2_Dense").mkdir()
    dense.save(str(tmp_path / "2_Dense"), safe_serialization=True)
    described = DenseLayer("2_Dense", WIDTH, 12, bias, activation)
    ours = run(
        lambda b: layer(b, pool(b, HIDDEN, ATTENTION_MASK, "mean"), tmp_path, described),
        12,
        checkpoint,
        tmp_path / "graph.onnx",
    )
    np.testing.assert_allclose(ours, theirs(Pooling(WIDTH, "mean"), dense), atol=2e-6)


def test_layer_norm_and_unit_length(checkpoint: Path, tmp_path: Path) -> None:
    norm = LayerNorm(WIDTH)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(5))
    (tmp_path / "2_LayerNorm").mkdir()
    norm.save(str(tmp_path / "2_LayerNorm"), safe_serialization=True)

    def write(b: GraphBuilder) -> Value:
        vector = layer(b, pool(b, HIDDEN, ATTENTION_MASK, "mean"), tmp_path, LayerNormLayer("2_LayerNorm", WIDTH))
        return layer(b, vector, tmp_path, NormalizeLayer())

    ours = run(write, WIDTH, checkpoint, tmp_path / "graph.onnx")
    np.testing.assert_allclose(ours, theirs(Pooling(WIDTH, "mean"), norm, Normalize()), atol=2e-6)

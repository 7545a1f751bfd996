"""Repositories out of public reports, rebuilt small: each is named right, and what the hint says is clean."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from sie_triton.lint import lint_repository

from .builders import RepositoryBuilder, Shape, model, tensor

INT64, FLOAT = TensorProto.INT64, TensorProto.FLOAT


def copies(shapes: dict[str, Shape], outputs: dict[str, Shape], kind: int = FLOAT) -> onnx.ModelProto:
    """Every output is a copy of the first input."""
    first = next(iter(shapes))
    return model(
        [tensor(name, shape, kind) for name, shape in shapes.items()],
        [tensor(name, shape, kind) for name, shape in outputs.items()],
        [helper.make_node("Identity", [first], [name]) for name in outputs],
    )


def config(inputs: str, outputs: str, rows: int) -> str:
    return (
        f'platform: "onnxruntime_onnx"\nmax_batch_size: {rows}\ninput [ {inputs} ]\noutput [ {outputs} ]\n'
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    )


def ids(name: str, dims: str, data_type: str = "TYPE_INT64") -> str:
    return f'{{ name: "{name}" data_type: {data_type} dims: {dims} }}'


def image(name: str, dims: str, more: str = "", *, formatted: bool = False) -> str:
    layout = "format: FORMAT_NCHW" if formatted else ""
    return f'{{ name: "{name}" data_type: TYPE_FP32 {layout} dims: {dims} {more} }}'


TOKENS = copies({"input_ids": ["b", 128]}, {"y": ["b", 128]}, INT64)
STATIC = copies({"x": [1, 3, 8, 8]}, {"y": [1, 3, 8, 8]})
BATCHED = copies({"x": ["b", 3, 8, 8]}, {"y": ["b", 3, 8, 8]})
OPEN = copies({"x": ["a", "b", "c", "d"]}, {"y": ["a", "b", "c", "d"]})
THREE = copies(
    {name: ["b", "s"] for name in ("input_ids", "attention_mask", "token_type_ids")}, {"y": ["b", "s"]}, INT64
)
ONE = copies({"input_ids": ["b", "s"]}, {"y": ["b", "s"]}, INT64)
WHOLE = "reshape { shape: [ 1, 3, 8, 8 ] }"

# What it is, graph, configuration, the errors.
REPORTS: dict[str, tuple[onnx.ModelProto, str, set[str]]] = {
    "a batch dimension among the dims": (
        TOKENS,
        config(ids("input_ids", "[ -1, 128 ]"), ids("y", "[ 128 ]"), 8),
        {"L208"},
    ),
    "a reshape that changes the number of elements": (
        TOKENS,
        config(
            '{ name: "input_ids" data_type: TYPE_INT64 dims: [ 1, 128 ] reshape { shape: [ -1, 128 ] } }',
            ids("y", "[ 128 ]"),
            8,
        ),
        {"L110", "L208"},
    ),
    "the hint of both": (TOKENS, config(ids("input_ids", "[ 128 ]"), ids("y", "[ 128 ]"), 8), set()),
    "a fixed batch of 1 in a batching model": (
        STATIC,
        config(image("x", "[ 3, 8, 8 ]", WHOLE), image("y", "[ 3, 8, 8 ]", WHOLE), 1),
        {"L212"},
    ),
    "its hint": (STATIC, config(image("x", "[ 3, 8, 8 ]", WHOLE), image("y", "[ 3, 8, 8 ]", WHOLE), 0), set()),
    "an image format with four dims": (
        BATCHED,
        config(image("x", "[ 1, 3, 8, 8 ]", formatted=True), image("y", "[ 3, 8, 8 ]"), 1),
        {"L112", "L208"},
    ),
    "numbers for an output that the graph leaves open": (
        OPEN,
        config(image("x", "[ 1, 3, 8, 8 ]"), image("y", "[ 1, 3, 8, 8 ]"), 0),
        {"L211"},
    ),
    "two of three inputs": (
        THREE,
        config(", ".join(ids(name, "[ -1 ]") for name in ("input_ids", "attention_mask")), ids("y", "[ -1 ]"), 8),
        {"L205"},
    ),
    "ids of 32 bits for a graph that takes 64": (
        ONE,
        config(ids("input_ids", "[ -1 ]", "TYPE_INT32"), ids("y", "[ -1 ]"), 8),
        {"L207"},
    ),
    "an output without a batch dimension": (
        model(
            [tensor("x", ["b", 4])],
            [tensor("y", ["b", 4]), tensor("n", [2], INT64)],
            [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Shape", ["x"], ["n"])],
        ),
        config(image("x", "[ 4 ]"), f"{image('y', '[ 4 ]')}, {ids('n', '[ 2 ]')}", 8),
        {"L212"},
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report(name: str, tmp_path: Path) -> None:
    graph, text, errors = REPORTS[name]
    RepositoryBuilder(tmp_path).add("reported", text, graph)
    assert {f.rule_id for f in lint_repository(tmp_path) if f.severity == "error"} == errors


RAGGED = """\
input [
  { name: "input_ids" data_type: TYPE_INT32 dims: [ -1 ] allow_ragged_batch: true },
  { name: "input_lengths" data_type: TYPE_INT32 dims: [ 1 ] reshape: { shape: [ ] } },
  { name: "draft_input_ids" data_type: TYPE_INT32 dims: [ -1 ] optional: true allow_ragged_batch: true }
]
output [ { name: "output_ids" data_type: TYPE_INT32 dims: [ -1, -1 ] } ]
dynamic_batching { }
"""


@pytest.mark.parametrize("backend", ["tensorrtllm", "python", "vllm"])
def test_ragged_and_optional_is_what_language_models_write(backend: str, tmp_path: Path) -> None:
    """TensorRT-LLM's own `tensorrt_llm` model, whose lengths are an input."""
    text = f'backend: "{backend}"\nmax_batch_size: 8\n{RAGGED}'
    RepositoryBuilder(tmp_path).add("model", text, files={"1/model.py": "", "1/model.json": "{}"})
    found = {f.rule_id for f in lint_repository(tmp_path)}
    assert not found & {"L411", "L412"}
    assert not [f for f in lint_repository(tmp_path) if f.severity == "error"]


def test_lengths_by_another_name_are_lengths(tmp_path: Path) -> None:
    graph = copies({"x": ["t"], "cu_seqlens": ["n"]}, {"y": ["t"]})
    inputs = image("x", "[ -1 ]", "allow_ragged_batch: true")
    for name, silent in (("cu_seqlens", True), ("z", False)):
        text = config(f"{inputs}, {image(name, '[ -1 ]')}", image("y", "[ -1 ]"), 8) + "dynamic_batching { }"
        RepositoryBuilder(tmp_path / name).add("model", text, graph)
        assert ("L411" in {f.rule_id for f in lint_repository(tmp_path / name)}) != silent


@pytest.mark.parametrize("backend", ["vllm", "tensorrtllm"])
def test_language_models_complete_themselves(backend: str, tmp_path: Path) -> None:
    """As in the tutorials: a folder with `model.json` and a configuration without tensors."""
    text = f'backend: "{backend}"\ninstance_group [ {{ count: 1 kind: KIND_MODEL }} ]\nmax_batch_size: 0\n'
    RepositoryBuilder(tmp_path).add("model", text, files={"1/model.json": "{}"})
    assert [f.rule_id for f in lint_repository(tmp_path)] == []

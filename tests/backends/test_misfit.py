"""Dims against a graph's shape: what the ONNX Runtime backend takes, and that both sides say what it does not take."""

from __future__ import annotations

from pathlib import Path

import pytest
from lint.builders import RepositoryBuilder, Shape, identity_config, identity_graph

from sie_triton.backends.onnxruntime.signature import GraphTensor, Misfit, misfit
from sie_triton.backends.received import ConfigTensor, ReceivedConfig, Role
from sie_triton.embedded.backends.onnxruntime.refusals import signature_refusals
from sie_triton.lint import lint_repository
from sie_triton.lint.onnx_graph import OnnxGraph
from sie_triton.lint.repository import RepositoryFolder


def found(
    rows: int, dims: tuple[int, ...], shape: tuple[int | str | None, ...] | None, role: Role = "input", **more: bool
) -> Misfit | None:
    tensor = ConfigTensor(role, 0, "x", "TYPE_FP32", dims, None, **more)
    return misfit(ReceivedConfig.of({"max_batch_size": rows}), tensor, GraphTensor("x", "TYPE_FP32", shape))


@pytest.mark.parametrize(
    ("rows", "dims", "shape"),
    [(8, (4,), ("b", 4)), (8, (4,), (None, "n")), (0, (3, 4), (3, 4)), (0, (1, 1), ()), (8, (), ("b", 4))],
    ids=["equal", "narrower", "without a batch", "a scalar", "left to Triton"],
)
def test_an_input_fits(rows: int, dims: tuple[int, ...], shape: tuple[int | str | None, ...]) -> None:
    assert found(rows, dims, shape) is None


def test_an_output_is_equal_both_ways() -> None:
    assert found(8, (-1,), ("b", "n"), "output") is None
    assert found(8, (4,), ("b", "n"), "output") is Misfit.DIMS
    assert found(8, (-1,), ("b", 4), "output") is Misfit.DIMS


def test_a_ragged_input_is_a_dynamic_vector() -> None:
    assert found(8, (-1,), ("t",), ragged=True) is None
    for shape in (None, (), (7,), ("b", "t")):
        assert found(8, (-1,), shape, ragged=True) is Misfit.RAGGED


def test_no_shape_is_like_a_scalar() -> None:
    assert found(0, (1,), None) is None
    assert found(0, (2,), None) is Misfit.SCALAR
    assert found(8, (1,), None) is Misfit.NO_BATCH


# Rows, dims, the shape of the graph's input and output, what is wrong with both, and the linter's rules.
MISFITS: list[tuple[int, str, Shape, Misfit, set[str]]] = [
    (8, "[ 1 ]", (), Misfit.NO_BATCH, {"L212"}),
    (8, "[ 4 ]", (8, 4), Misfit.FIXED_BATCH, {"L212"}),
    (8, "[ 1 ]", ("b",), Misfit.VECTOR, {"L213"}),
    (0, "[ 2 ]", (), Misfit.SCALAR, {"L208", "L211"}),
    (8, "[ 4, 4 ]", ("b", 4), Misfit.DIMS, {"L208", "L211"}),
]


@pytest.mark.parametrize(("rows", "dims", "shape", "wrong", "rules"), MISFITS)
def test_the_linter_and_the_backend_say_it(
    rows: int, dims: str, shape: Shape, wrong: Misfit, rules: set[str], tmp_path: Path
) -> None:
    config = identity_config(dims=dims, max_batch_size=rows)
    file = RepositoryBuilder(tmp_path).add("copy", config, identity_graph(shape, output=shape)) / "1/model.onnx"
    received, graph = RepositoryFolder.read(tmp_path).models["copy"].configs[0].received, OnnxGraph.open(file)
    assert {misfit(received, t, graph.inputs["x"]) for t in received.inputs} == {wrong}
    assert {misfit(received, t, graph.outputs["y"]) for t in received.outputs} == {wrong}
    assert len(signature_refusals(received, [*graph.inputs.values()], [*graph.outputs.values()])) == 2
    assert {v.rule_id for v in lint_repository(tmp_path) if v.severity == "error"} == rules


def test_every_misfit_is_covered() -> None:
    """A ragged one has pairs of its own on both sides."""
    assert {wrong for _, _, _, wrong, _ in MISFITS} == set(Misfit) - {Misfit.RAGGED}

"""A packed graph that OpenVINO computes for one row: the padded one again, with the same numbers."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from export_onnx.one_layer import MAXIMUM, MEAN, VOCABULARY, graph
from onnx import helper

from sie_triton.embedded.openvino_engine import OpenVinoGraph
from sie_triton.embedded.packed import few, filled, mask_of, unpack, with_more_tokens
from sie_triton.onnx_graphs.packing import pack

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs `openvino`, an extra")

# What is said of each token, as late interaction and term weights have it.
TOKENS = "output = Identity(final)"
# Positions by a running number of the mask, as RoBERTa and some decoders have them.
NUMBERED = """
    axis = Constant<value_int = 1>()
    numbers = CumSum(attention_mask, axis)
    table_of_positions = Gather(table, numbers)
    placed = Add(final, table_of_positions)
    output = Identity(placed)
"""
# As many columns as the largest id says: an axis that is open and not of tokens, as the terms of a sparse vector.
TERMS = (
    MEAN.replace("output =", "pooled =")
    + """
    largest = ReduceMax<keepdims = 0>(input_ids)
    everything = Constant<value_ints = [-1]>()
    columns = Reshape(largest, everything)
    rows = Shape<start = 0, end = 1>(input_ids)
    wanted = Concat<axis = 0>(rows, columns)
    sums = ReduceSum<keepdims = 1>(pooled, along)
    output = Expand(sums, wanted)
"""
)
EACH = "float[batch, sequence, 4] output"
HEADS = {"mean": (MEAN,), "maximum": (MAXIMUM,), "tokens": (TOKENS, EACH), "numbered": (NUMBERED, EACH)}
HEADS["terms"] = (TERMS, "float[batch, terms] output")


def feed(tokens: int, rows: int = 1) -> dict[str, Any]:
    ids = np.random.default_rng(tokens).integers(0, VOCABULARY, (rows, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def read(path: Path) -> Any:
    return importlib.import_module("openvino").Core().read_model(str(path))


@pytest.fixture(params=HEADS)
def padded(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return graph(*HEADS[request.param])


@pytest.fixture
def path(padded: onnx.ModelProto, tmp_path: Path) -> Path:
    model = onnx.ModelProto()
    model.CopyFrom(padded)
    assert pack(model, "input_ids", "attention_mask")
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("widest", [0, 8, 40])
def test_it_gives_what_the_padded_graph_gives(padded: onnx.ModelProto, path: Path, widest: int) -> None:
    theirs = ort.InferenceSession(padded.SerializeToString(), providers=["CPUExecutionProvider"])
    ours = OpenVinoGraph(path, threads=1, alone_threads=1, widest_row=widest)
    ours.run(["output"], feed(3, rows=2))
    for tokens in (1, 2, 5, 8, 3):
        [expected] = theirs.run(["output"], feed(tokens))
        [found] = ours.run_alone(["output"], feed(tokens))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_nothing_of_packing_is_left(path: Path) -> None:
    model = read(path)
    before = [op.get_type_name() for op in model.get_ops()]
    assert unpack(model)
    after = [op.get_type_name() for op in model.get_ops()]
    assert "NonZero" in before and "NonZero" not in after
    assert after.count("CumSum") == before.count("CumSum") - 1
    assert all(str(port.get_partial_shape()) == "[1,?]" for port in model.inputs)
    assert not unpack(model)


def test_a_graph_that_is_not_packed_stays_as_it_is(padded: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(padded, tmp_path / "model.onnx")
    model = read(tmp_path / "model.onnx")
    before = [op.get_friendly_name() for op in model.get_ordered_ops()]
    assert not unpack(model)
    assert [op.get_friendly_name() for op in model.get_ordered_ops()] == before
    assert all(str(port.get_partial_shape()) == "[?,?]" for port in model.inputs)
    alone = OpenVinoGraph(tmp_path / "model.onnx", threads=1, alone_threads=2, widest_row=40)
    alone.run(["output"], feed(3))
    [[found], [expected]] = [run(["output"], feed(5)) for run in (alone.run_alone, alone.run)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_another_graph_with_both_nodes_is_not_taken_for_a_packed_one(tmp_path: Path) -> None:
    """Its places and its running numbers are of different values."""
    nodes = [
        helper.make_node("NonZero", ["mask"], ["at"]),
        helper.make_node("CumSum", ["ids", "axis"], ["number"]),
        helper.make_node("Gather", ["at", "axis"], ["rows"], axis=0),
        helper.make_node("Gather", ["table", "number"], ["taken"], axis=0),
    ]
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["b", "s"]) for name in ("ids", "mask")]
    outputs = [
        helper.make_tensor_value_info("rows", onnx.TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("taken", onnx.TensorProto.FLOAT, ["b", "s", 4]),
    ]
    weights = [
        onnx.numpy_helper.from_array(np.array(0), "axis"),
        onnx.numpy_helper.from_array(np.ones((9, 4), np.float32), "table"),
    ]
    made = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, weights))
    onnx.save(made, tmp_path / "model.onnx")
    assert not unpack(read(tmp_path / "model.onnx"))


def test_where_outputs_have_one_shape_rows_are_filled_up(path: Path, request: pytest.FixtureRequest) -> None:
    """Of an open axis nobody knows whether it is of tokens."""
    graph = OpenVinoGraph(path, threads=1, alone_threads=1, widest_row=40)
    graph.run(["output"], feed(3))
    seen: list[dict[str, Any]] = []
    infer = graph._infer
    graph._infer = lambda *call: seen.append(call[2]) or infer(*call)  # type: ignore[func-returns-value, method-assign]
    for tokens in (3, 8, 39, 40):
        graph.run_alone(["output"], feed(tokens))
    widths = [[array.shape for array in given.values()] for given in seen]
    fixed = request.node.callspec.params["padded"] in ("mean", "maximum")
    assert widths == [[(1, width)] * 2 for width in ((8, 8, 40, 40) if fixed else (3, 8, 39, 40))]


def test_what_is_filled_up_is_no_token() -> None:
    wide = filled(feed(3), 8)
    assert {name: array.shape for name, array in wide.items()} == {"input_ids": (1, 8), "attention_mask": (1, 8)}
    assert wide["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]


def test_a_row_waits_for_no_stream(path: Path) -> None:
    graph = OpenVinoGraph(path, threads=1, alone_threads=1)
    [expected] = graph.run(["output"], feed(5))
    stream = graph._requests.get()
    with ThreadPoolExecutor(2) as threads:
        try:
            rows = threads.submit(graph.run, ["output"], feed(5, rows=2))
            [found] = threads.submit(graph.run, ["output"], feed(5)).result(20)
            np.testing.assert_allclose(found, expected, rtol=5e-4, atol=5e-5)
            assert not rows.done()
        finally:
            graph._requests.put(stream)
        assert len(rows.result(20)[0]) == 2


def test_a_run_is_filled_up_by_rows_that_nobody_gets(
    padded: onnx.ModelProto, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = ort.InferenceSession(padded.SerializeToString(), providers=["CPUExecutionProvider"])
    ours = OpenVinoGraph(path, threads=1)
    counts, infer = set[int](), ours._infer

    def seen(request: Any, outputs: Sequence[str], given: dict[str, Any]) -> Any:
        counts.add(int(given["attention_mask"].sum()))
        return infer(request, outputs, given)

    monkeypatch.setattr(ours, "_infer", seen)
    for rows, width in ((1, 1), (5, 3), (8, 4), (7, 7), (9, 8), (16, 2)):
        asked = feed(width, rows)
        asked["attention_mask"][1:, width // 2 + 1 :] = 0
        [found] = ours.run(["output"], asked)
        [expected] = theirs.run(["output"], asked)
        assert found.shape == expected.shape
        # What a token vector says of padding is nobody's business.
        real = asked["attention_mask"].astype(bool) if expected.ndim == 3 else ...
        np.testing.assert_allclose(found[real], expected[real], rtol=5e-4, atol=5e-5)
    assert counts and all(count % 32 == 0 for count in counts)


def test_what_a_run_is_filled_up_with_comes_last() -> None:
    given = feed(5, rows=3)
    more = with_more_tokens(given, "attention_mask", 32, 16)
    assert {array.shape for array in more.values()} == {(7, 5)}
    assert all((more[name][:3] == array).all() for name, array in given.items())
    assert more["attention_mask"][3:].tolist() == [[1] * 5, [1] * 5, [1] * 5, [1, 1, 0, 0, 0]]
    assert with_more_tokens(feed(8, rows=4), "attention_mask", 32, 16)["input_ids"].shape == (4, 8)
    left = feed(5, rows=3)
    left["attention_mask"][0, :3] = 0
    assert with_more_tokens(left, "attention_mask", 16, 16)["attention_mask"][3:].tolist() == [[1, 1, 1, 0, 0]]
    nothing = {name: np.zeros((0, 4), np.int64) for name in given}
    assert with_more_tokens(nothing, "attention_mask", 32, 16)["input_ids"].shape == (0, 4)


def test_the_mask_of_a_packed_graph_is_found(path: Path, padded: onnx.ModelProto, tmp_path: Path) -> None:
    assert mask_of(read(path)) == "attention_mask"
    onnx.save(padded, tmp_path / "padded.onnx")
    assert mask_of(read(tmp_path / "padded.onnx")) is None


def test_there_are_few_numbers_and_none_is_much_larger() -> None:
    widths = [few(width, 8, 4) for width in range(1, 513)]
    assert widths == sorted(widths) and len(set(widths)) == 20
    assert all(width <= wide < max(width * 1.25, width + 8) for width, wide in enumerate(widths, start=1))
    assert [few(count, 32, 16) for count in (0, 1, 32, 480, 500, 1023, 1025)] == [0, 32, 32, 480, 512, 1024, 1088]

"""A float16 ONNX graph, rounded at every node, gives what torch gives in float16; and no overflow passes unseen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import one_thread
import onnx
import pytest
import torch
from onnx import numpy_helper, parser

from sie_triton.half_precision.ranges import Peak, Ranges
from sie_triton.half_precision.rounded_onnx import open_rounded

pytestmark = pytest.mark.export

SIGNATURE = """<ir_version: 10, opset_import: ["" : 18]>
tiny (float[batch, sequence, 4] states, int64[batch, sequence] attention_mask)
    => (float[batch, sequence, N] output)"""
# Scores between all tokens of a row, masked as transformers masks them with half of float16's minimum.
ATTENTION = """
    half = Cast<to = 10>(states)
    turned = Transpose<perm = [0, 2, 1]>(half)
    scores = MatMul(half, turned)
    seen = Cast<to = 9>(attention_mask)
    middle = Constant<value_ints = [1]>()
    wide = Unsqueeze(seen, middle)
    minimum = CastLike(lowest, half)
    nothing = CastLike(zero, half)
    chosen = Where(wide, nothing, minimum)
    share = CastLike(a_half, half)
    mask = Mul(chosen, share)
    masked = Add(scores, mask)
    shares = Softmax<axis = -1>(masked)
    output = Cast<to = 1>(shares)
"""
NUMBERS = {"lowest": -65504.0, "zero": 0.0, "a_half": 0.5}


def opened(tmp_path: Path, body: str, **weights: Any) -> tuple[Any, Ranges, Path]:
    """The graph of `body` with `weights`, single numbers in float32, all else in float16."""
    path = tmp_path / "tiny" / "1" / "model.float16.onnx"
    path.parent.mkdir(parents=True)
    model = parser.parse_model(f"{SIGNATURE} {{{body}}}")
    kept = {name for node in model.graph.node for name in node.input}
    for name, value in {**NUMBERS, **weights}.items():
        array = np.asarray(value, np.float32)
        if name in kept:
            model.graph.initializer.append(
                numpy_helper.from_array(array if array.ndim == 0 else array.astype(np.float16), name)
            )
    onnx.save(model, path)
    ranges = Ranges("float16")
    return open_rounded(ranges, None, path, None), ranges, path


def run(graph: Any, ranges: Ranges, states: Any, mask: Any = None) -> Any:
    ranges.run += 1
    states = np.asarray(states, np.float32)
    mask = np.ones(states.shape[:2], np.int64) if mask is None else np.asarray(mask)
    return graph({"states": states, "attention_mask": mask}, ["output"])[0]


def served(path: Path, states: Any) -> Any:
    """What ONNX Runtime's CPU provider makes of the graph."""
    inputs = {"states": np.asarray(states, np.float32), "attention_mask": np.ones(np.shape(states)[:2], np.int64)}
    session = one_thread.session(path)
    return session.run(["output"], {i.name: inputs[i.name] for i in session.get_inputs()})[0]


def beyond(ranges: Ranges) -> list[tuple[str, int]]:
    return [(peak.tensor, peak.run) for peak in ranges.beyond()]


def states(scale: float, rows: int = 2, length: int = 5) -> Any:
    return np.random.default_rng(3).normal(size=(rows, length, 4)) * scale


def test_every_node_rounds_as_torch_does_in_float16(tmp_path: Path) -> None:
    body = """
        half = Cast<to = 10>(states)
        first = MatMul(half, one)
        shifted = Add(first, bias)
        curved = Tanh(shifted)
        second = MatMul(curved, two)
        output = Cast<to = 1>(second)
    """
    rng = np.random.default_rng(5)
    weights = {"one": rng.normal(size=(4, 4)), "two": rng.normal(size=(4, 4)), "bias": rng.normal(size=4)}
    graph, ranges, path = opened(tmp_path, body, **weights)
    given = states(1.0, rows=40)
    one, two, bias = (torch.tensor(weights[name], dtype=torch.float16) for name in ("one", "two", "bias"))
    expected = (torch.tanh(torch.tensor(given, dtype=torch.float16) @ one + bias) @ two).float().numpy()
    found = run(graph, ranges, given)
    assert np.mean(found == expected) > 0.98  # a sum in another order may round otherwise
    np.testing.assert_allclose(found, expected, atol=4e-3)
    # What the CPU serves has rounded less: it would not tell how close a GPU comes.
    assert np.mean(served(path, given) == expected) < np.mean(found == expected)
    assert ranges.beyond() == []


@pytest.mark.parametrize(
    "bounded", ["Tanh(large)", "Sigmoid(large)", "Reciprocal(large)", "Softmax<axis = -1>(large)", "Clip(large, , one)"]
)
def test_an_overflow_behind_a_bounded_function_is_found(bounded: str, tmp_path: Path) -> None:
    body = f"""
        half = Cast<to = 10>(states)
        large = Mul(half, weight)
        one = CastLike(a_half, half)
        small = {bounded}
        output = Cast<to = 1>(small)
    """
    graph, ranges, path = opened(tmp_path, body, weight=[3e4, 1.0, 1.0, 1.0])
    run(graph, ranges, states(0.1))
    assert beyond(ranges) == []
    loud = states(0.1)
    loud[1, 4, 0] = -4.0
    assert np.isfinite(served(path, loud)).all()
    run(graph, ranges, loud)
    (peak,) = [peak for peak in ranges.beyond() if peak.tensor == "large"]
    assert (peak.graph, peak.run) == ("tiny", 1)
    assert peak.magnitude == pytest.approx(120000, rel=1e-3)
    assert ranges.beyond()[0] is peak


def test_numbers_without_headroom_are_found_though_they_are_finite(tmp_path: Path) -> None:
    body = "half = Cast<to = 10>(states) large = Mul(half, weight) output = Cast<to = 1>(large)"
    graph, ranges, _ = opened(tmp_path, body, weight=[4e4, 1.0, 1.0, 1.0])
    ones = np.ones((1, 2, 4))
    assert np.isfinite(run(graph, ranges, ones)).all()
    assert beyond(ranges) == [("large", 0)]
    assert ranges.beyond()[0].limit("float16") == 32752


def test_what_overflows_comes_before_what_lacks_room(tmp_path: Path) -> None:
    body = """
        half = Cast<to = 10>(states)
        close = Mul(half, weight)
        over = Mul(close, weight)
        output = Cast<to = 1>(over)
    """
    graph, ranges, _ = opened(tmp_path, body, weight=[4e4, 1.0, 1.0, 1.0])
    run(graph, ranges, np.ones((1, 2, 4)))
    assert beyond(ranges) == [("over", 0), ("close", 0)]


def test_masked_scores_may_be_far_out(tmp_path: Path) -> None:
    graph, ranges, _ = opened(tmp_path, ATTENTION)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    given = states(8.0)
    found = run(graph, ranges, given, mask)
    assert beyond(ranges) == []
    assert max(peak.magnitude for peak in ranges.peaks.values() if peak.tensor == "masked") > 32752
    half = torch.tensor(given, dtype=torch.float16)
    scores = (half @ half.transpose(1, 2)).masked_fill(torch.tensor(mask)[:, None] == 0, float("-inf"))
    np.testing.assert_allclose(found, torch.softmax(scores, -1).float().numpy(), atol=2e-3)


def test_scores_that_overflow_are_found_among_masked_ones(tmp_path: Path) -> None:
    graph, ranges, path = opened(tmp_path, ATTENTION)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    assert np.isfinite(served(path, states(120.0))).all()
    run(graph, ranges, states(8.0), mask)
    run(graph, ranges, states(120.0), mask)
    assert beyond(ranges)[0] == ("scores", 1)


def test_a_large_bias_is_no_mask(tmp_path: Path) -> None:
    body = "half = Cast<to = 10>(states) large = Add(half, weight) output = Cast<to = 1>(large)"
    graph, ranges, _ = opened(tmp_path, body, weight=[-4e4, 1.0, 1.0, 1.0])
    run(graph, ranges, np.ones((1, 2, 4)))
    assert beyond(ranges) == [("large", 0)]


def test_a_weight_that_float16_cannot_hold_is_found_whether_or_not_a_text_meets_it(tmp_path: Path) -> None:
    body = (
        "half = Cast<to = 10>(states) chosen = Gather<axis = 0>(weight, attention_mask) output = Cast<to = 1>(chosen)"
    )
    with np.errstate(over="ignore"):
        graph, ranges, _ = opened(tmp_path, body, weight=[[7e4] * 4, [1.0] * 4])
    run(graph, ranges, np.ones((1, 2, 4)))
    assert beyond(ranges) == [("weight", -1)]


def test_nan_counts_as_infinite() -> None:
    ranges = Ranges("bfloat16", run=0)
    peak = ranges.watch("graph", "tensor", "node")
    ranges.note(peak, 1e30)
    assert ranges.beyond() == []
    ranges.run = 7
    ranges.note(peak, math.nan)
    assert [(p.magnitude, p.run) for p in ranges.beyond()] == [(math.inf, 7)]
    assert not Peak("graph", "tensor", "node", math.inf, masking=True).fits("bfloat16")

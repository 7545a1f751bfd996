"""An overflow in a head's graph alone is found, and the message names graph, tensor, magnitude and text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from sie_frontend.reference import REFERENCE_NAME, Case, StoredReference

from sie_triton.half_precision.measure import HalfRunner, out_of_range
from sie_triton.verify.reference import write_reference

pytestmark = pytest.mark.export

HEADER = '<ir_version: 10, opset_import: ["" : 18]>'
ENCODER = """encoder (int64[batch, sequence] input_ids) => (float[batch, sequence, 2] states) {
    embedded = Gather<axis = 0>(weight, input_ids)
    states = Cast<to = 1>(embedded)
}"""
HEAD = """head (float[batch, sequence, 2] states) => (float[batch, sequence, 1] score) {
    half = Cast<to = 10>(states)
    logits = MatMul(half, weight)
    likely = Sigmoid(logits)
    score = Cast<to = 1>(likely)
}"""
MEMBER = 'name: "{0}" backend: "onnxruntime" default_model_filename: "model.onnx" max_batch_size: 8'
ENSEMBLE = """
name: "tiny" platform: "ensemble" max_batch_size: 8
input [ { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] } ]
output [ { name: "score" data_type: TYPE_FP32 dims: [ -1, 1 ] } ]
ensemble_scheduling { step [
  { model_name: "tiny.encoder" model_version: -1
    input_map { key: "input_ids" value: "input_ids" } output_map { key: "states" value: "states" } },
  { model_name: "tiny.score" model_version: -1
    input_map { key: "states" value: "states" } output_map { key: "score" value: "score" } }
] }
"""


def test_an_overflow_in_a_head_alone_is_found(tmp_path: Path) -> None:
    weights = {
        "tiny.encoder": np.array([[1, 1], [200, 200]], np.float16),
        "tiny.score": np.array([[200], [200]], np.float16),
    }
    for name, text in {"tiny.encoder": ENCODER, "tiny.score": HEAD}.items():
        model = parser.parse_model(f"{HEADER} {text}")
        model.graph.initializer.append(numpy_helper.from_array(weights[name], "weight"))
        (tmp_path / name / "1").mkdir(parents=True)
        onnx.save(model, tmp_path / name / "1" / "model.onnx")
        (tmp_path / name / "config.pbtxt").write_text(MEMBER.format(name))
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    (tmp_path / "tiny" / "config.pbtxt").write_text(ENSEMBLE)
    ids = [np.array([0]), np.array([0, 1])]
    cases = (Case("quiet"), Case("loud " * 40, "asked"))
    outputs = {"score": tuple(np.ones((len(row), 1)) for row in ids)}
    write_reference(tmp_path / "tiny" / "1" / REFERENCE_NAME, StoredReference("nobody", cases, tuple(ids), outputs))

    runner = HalfRunner(tmp_path, "tiny", "", "float16")
    for row in ids:
        assert np.isfinite(runner.run({"input_ids": row[None]}, ["score"])["score"]).all()
    (problem,) = out_of_range(tmp_path, "tiny", runner.ranges)
    assert problem.code == "SIE506"
    assert problem.message.startswith("float16 overflows in `tiny.score`: tensor `logits`, made by `MatMul`")
    assert "reaches 80000 on 'asked' with 'loud loud" in problem.message
    assert "…', and 32752 is its limit" in problem.message

"""A TorchScript graph in half precision is watched operator by operator: no overflow passes unseen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch import Tensor, nn

from sie_triton.formats import Precision
from sie_triton.half_precision.measure import HalfRunner
from sie_triton.lint.config import model_config_pb2

pytestmark = pytest.mark.export

CONFIG = """
name: "tiny" backend: "pytorch" default_model_filename: "model.pt" max_batch_size: 8
input [
  { name: "states__0" data_type: TYPE_FP32 dims: [ -1, 4 ] },
  { name: "attention_mask__1" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [ { name: "output__0" data_type: TYPE_FP32 dims: [ -1, -1 ] } ]
"""


class Calls(nn.Module):
    """A function of states in half precision, the mask and a weight."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor], weight: Tensor) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.function(states.to(self.weight.dtype), mask, self.weight).float()


def opened(
    folder: Path, function: Callable[[Tensor, Tensor, Tensor], Tensor], weight: float, precision: Precision = "float16"
) -> HalfRunner:
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}[precision]
    module = Calls(function, torch.tensor([weight, 1.0, 1.0, 1.0], dtype=dtype)).eval()
    version = folder / "tiny" / "1"
    version.mkdir(parents=True)
    traced: Any = torch.jit.trace(module, (torch.ones(2, 5, 4), torch.ones(2, 5).long()))  # type: ignore[no-untyped-call]
    traced.save(str(version / "model.pt"))
    config = text_format.Parse(CONFIG, model_config_pb2().ModelConfig())
    (folder / "tiny" / "config.pbtxt").write_text(text_format.MessageToString(config))
    return HalfRunner(folder, "tiny", "", precision)


def run(runner: HalfRunner, states: Any, mask: Any = None) -> Any:
    states = np.asarray(states, np.float32)
    mask = np.ones(states.shape[:2], np.int64) if mask is None else np.asarray(mask)
    return runner.run({"states__0": states, "attention_mask__1": mask}, ["output__0"])["output__0"]


def attention(states: Tensor, mask: Tensor, _: Tensor) -> Tensor:
    blocked = (1 - mask[:, None, :]).to(states.dtype) * (torch.finfo(states.dtype).min * 0.5)
    return torch.softmax(states @ states.transpose(1, 2) + blocked, -1)


def filled(states: Tensor, mask: Tensor, _: Tensor) -> Tensor:
    scores = states @ states.transpose(1, 2)
    return torch.softmax(scores.masked_fill(mask[:, None, :] == 0, torch.finfo(states.dtype).min), -1)


def test_an_overflow_behind_a_bounded_function_is_found(tmp_path: Path) -> None:
    runner = opened(tmp_path, lambda states, _, weight: torch.tanh(states * weight), 3e4)
    run(runner, np.full((1, 2, 4), 0.5))
    assert runner.ranges.beyond() == []
    assert np.isfinite(run(runner, np.full((1, 2, 4), 4.0))).all()
    (peak,) = runner.ranges.beyond()
    assert (peak.graph, peak.tensor, peak.made_by, peak.run) == ("tiny", "mul_0", "`aten::mul`", 1)


def test_numbers_without_headroom_are_found(tmp_path: Path) -> None:
    runner = opened(tmp_path, lambda states, _, weight: states + weight, -4e4)
    run(runner, np.zeros((1, 2, 4)))
    assert [peak.magnitude for peak in runner.ranges.beyond()] == [40000.0]


@pytest.mark.parametrize("masking", [attention, filled])
def test_masked_scores_may_be_far_out_and_scores_may_not(masking: Any, tmp_path: Path) -> None:
    runner = opened(tmp_path, masking, 1.0)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    states = np.random.default_rng(3).normal(size=(2, 5, 4))
    run(runner, states * 8, mask)
    assert runner.ranges.beyond() == []
    assert max(peak.magnitude for peak in runner.ranges.peaks.values()) > 32752
    run(runner, states * 120, mask)
    assert runner.ranges.beyond()[0].made_by == "`aten::matmul`"


def test_bfloat16_reaches_as_far_as_float32(tmp_path: Path) -> None:
    runner = opened(tmp_path, lambda states, _, weight: states * weight, 1e30, "bfloat16")
    run(runner, np.full((1, 2, 4), 1e6))
    assert runner.ranges.beyond() == []
    run(runner, np.full((1, 2, 4), 1e9))
    assert runner.ranges.beyond()[0].magnitude == np.inf

"""What the export refuses, the compact sparse output, and warnings: on modules small enough to see through."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sie_triton.export.to_torchscript import export_torchscript
from sie_triton.onnx_graphs.finish import ExportError
from sie_triton.planning.families import SparseMax, TokenVectors
from sie_triton.planning.plan import GraphPlan, Module
from sie_triton.planning.tensors import Tensor as Planned

from .graphs import load, run

pytestmark = pytest.mark.export

STATES = Planned("last_hidden_state", "FP32", ("batch", "sequence", 4))
MASK = Planned("attention_mask", "INT64", ("batch", "sequence"))


def plan(module: Module, *outputs: Planned) -> GraphPlan:
    return GraphPlan("tiny.head", module, (STATES, MASK), outputs)


VECTORS = plan(TokenVectors(dim=4), Planned("vectors", "FP32", ("batch", "sequence", 4)))
SPARSE = plan(
    SparseMax(),
    Planned("sparse_ids", "INT64", ("batch", "terms")),
    Planned("sparse_weights", "FP32", ("batch", "terms")),
)


class Calls(nn.Module):
    """A module of one function."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, last_hidden_state: Tensor, attention_mask: Tensor) -> Any:
        return self.function(last_hidden_state, attention_mask)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda states, mask: states * int(states.shape[1]), "depends on the example's shape"),
        (lambda states, mask: states * float(mask.sum()), "depends on the example's shape or values"),
        (lambda states, mask: states if bool(mask.all()) else states * 2, "depends on the example's shape or values"),
        (lambda states, mask: states[:2], "came out as torch.float32 [2, "),
        (lambda states, mask: states[..., :3], "planned Tensor(name='vectors'"),
        (lambda states, mask: states.double(), "came out as torch.float64"),
        (lambda states, mask: (states * 1, states * 2), "came out with 2 outputs, planned ['vectors']"),
        (lambda states, mask: states @ mask, "torch cannot trace the graph"),
        (lambda states, mask: {1, 2}, "torch cannot trace the graph"),
    ],
    ids=["length", "mask's sum", "branch", "rows", "width", "type", "outputs", "error", "no tensor"],
)
def test_what_is_not_the_module_is_refused_and_leaves_nothing(
    function: Callable[[Tensor, Tensor], Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError) as refused:
        export_torchscript(Calls(function), VECTORS, tmp_path / "1" / "model.pt", max_sequence=64)
    assert "`tiny.head`" in str(refused.value)
    assert words in str(refused.value)
    assert not list(tmp_path.rglob("*.pt"))


def first_token(states: Tensor, mask: Tensor) -> Tensor:
    """The first token's states as weights of a vocabulary of four words."""
    return states[:, 0].relu()


@pytest.mark.parametrize(
    ("weights", "ids", "kept"),
    [
        ([[0.5, -1, 2, 0]], [[2, 0]], [[2, 0.5]]),
        ([[-1, -1, -1, -1]], None, [[0.0]]),
        ([[1, 2, 3, 4], [0, 0, 7, 0]], None, [[4, 3, 2, 1], [7, 0, 0, 0]]),
        ([[0, 3, 0, 0], [-5, -5, -5, -5], [0, 0, 7, 0]], None, [[3.0], [0.0], [7.0]]),
    ],
    ids=["one row", "an empty row", "the fullest row decides", "one word each"],
)
def test_sparse_weights_are_compact(
    weights: list[list[float]], ids: list[list[int]] | None, kept: list[list[float]], tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    export_torchscript(Calls(first_token), SPARSE, path, max_sequence=64)
    states = torch.tensor(weights, dtype=torch.float32)[:, None]
    found, values = run(load(path), (states, torch.ones(len(weights), 1, dtype=torch.long)))
    assert found.dtype == torch.int64
    assert values.tolist() == kept
    assert torch.equal(states[:, 0].relu().gather(1, found), values)
    if ids is not None:
        assert found.tolist() == ids


def test_no_shape_beyond_the_longest_sequence_is_tried(tmp_path: Path) -> None:
    """A position table of as many rows as the longest sequence has tokens."""
    table = torch.randn(9, 4)
    bounded = Calls(lambda states, mask: states + table[torch.arange(states.shape[1])])
    export_torchscript(bounded, VECTORS, tmp_path / "model.pt", max_sequence=9)
    with pytest.raises(ExportError, match=r"`tiny\.head`"):
        export_torchscript(bounded, VECTORS, tmp_path / "model.pt", max_sequence=10)


def test_warnings_are_silenced_inside_only(tmp_path: Path) -> None:
    module = Calls(lambda states, mask: states * len(states.shape) if states.shape[0] else states)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        export_torchscript(module, VECTORS, tmp_path / "model.pt", max_sequence=64)
        assert heard == []
        warnings.warn("still heard", DeprecationWarning, stacklevel=1)
        assert [str(warning.message) for warning in heard] == ["still heard"]


def test_masks_have_room_after_another_graph_was_written() -> None:
    """Both exporters change transformers' eager masks for a while, and neither may leave its own behind."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask

    from sie_triton.export.masks import _roomy_mask, masks_with_room
    from sie_triton.export.to_torchscript import _broadcast_masks

    with _broadcast_masks():
        pass
    with masks_with_room("float16"):
        assert ALL_MASK_ATTENTION_FUNCTIONS["eager"] is _roomy_mask
    assert ALL_MASK_ATTENTION_FUNCTIONS["eager"] is eager_mask

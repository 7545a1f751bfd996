"""Fastembed itself, in this process, on graphs of transformers' own models; no export of ours is used."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

NAMES = ("input_ids", "attention_mask", "token_type_ids")


class _Output(nn.Module):
    """A model of transformers with one output, and a linear layer and a length of 1 behind it where one is wanted."""

    def __init__(self, model: nn.Module, name: str, projection: Tensor | None) -> None:
        super().__init__()
        self.model, self.name = model, name
        self.projection = None if projection is None else nn.Parameter(projection, requires_grad=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        found: Tensor = getattr(self.model(**dict(zip(NAMES, inputs, strict=False))), self.name)
        if self.projection is None:
            return found
        return nn.functional.normalize(nn.functional.linear(found, self.projection), dim=-1)


def export(
    checkpoint: Path,
    folder: Path,
    model: nn.Module,
    output: str,
    *,
    max_length: int,
    file: str = "model.onnx",
    projection: Tensor | None = None,
    inputs: Sequence[str] = NAMES,
) -> Path:
    """What Fastembed reads: the graph, the tokenizer with its limit, and the table of query weights where one is."""
    folder.mkdir(parents=True)
    for path in checkpoint.glob("*.json"):
        shutil.copy(path, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": max_length}), "utf-8")
    ids, mask = torch.full((2, 7), 5), torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0  # a mask that hides nothing would not be traced
    examples = (ids, mask, torch.zeros_like(mask))[: len(inputs)]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # By tracing: torch's newer exporter takes ten times as long.
        torch.onnx.export(
            _Output(model, output, projection).eval(),
            examples,
            str(folder / file),
            dynamo=False,
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in (*inputs, "output")},
            input_names=list(inputs),
            output_names=["output"],
            opset_version=18,
        )
    return folder

"""Fastembed itself, in this process, on graphs of transformers' own models; no export of ours is used."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    examples = (ids, mask, torch.zeros_like(mask))[: len(inputs)]
    axes = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("sequence", min=2, max=max_length)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            _Output(model.eval(), output, projection),
            examples,
            dynamo=True,
            dynamic_shapes=(tuple([axes] * len(inputs)),),
            input_names=list(inputs),
            output_names=["output"],
            opset_version=18,
            verbose=False,
        )
    program.save(str(folder / file))
    return folder

"""Random weights that behave: seeded per parameter, and large enough that different texts come out different.

A model as transformers initialises it (standard deviation 0.02) hardly attends: after two layers the `[CLS]` vectors of
all texts agree to 0.999, and a comparison of two implementations would pass whatever they compute.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

Json = Mapping[str, Any]


def spread(model: nn.Module, seed: str, *, embedding: float = 1.0) -> None:
    """Give every parameter values of its own that depend on its name and `seed` only, in place.

    `embedding` is the standard deviation of word embeddings. Vocabulary-wide biases sit below zero, so that SPLADE's
    relu keeps some of the vocabulary and not all of it.
    """
    rows = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    vocabulary = max((p.shape[0] for p in model.parameters() if id(p) in rows), default=-1)
    width = next((p.shape[1] for p in model.parameters() if id(p) in rows and p.shape[0] == vocabulary), 1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = gaussian(parameter.shape, f"{seed}:{name}")
            if id(parameter) in rows:
                scale = embedding if parameter.shape[0] == vocabulary else 0.4 * embedding
                parameter.copy_(noise * scale)
            elif tuple(parameter.shape) == (vocabulary,):
                parameter.copy_(noise * 0.5 - 2.2 * embedding * math.sqrt(width))
            elif parameter.dim() < 2:
                # Norm weights start at 1 (or 0, where the layer adds 1 itself), biases at 0.
                parameter.copy_(parameter.mean().round() + noise * 0.1)
            else:
                gain = (
                    2.0 if any(part in name for part in ("query", "key", "q_proj", "k_proj", "q_lin", "k_lin")) else 1.3
                )
                parameter.copy_(noise * (gain / math.sqrt(parameter.shape[-1])))


def gaussian(shape: Sequence[int], seed: str) -> Tensor:
    """Standard normal values that depend on `seed` alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
    return torch.randn(tuple(shape), generator=generator)


def linear(rows: int, columns: int, seed: str) -> Tensor:
    """The weight of a linear layer, scaled so that its outputs have the scale of its inputs."""
    return gaussian((rows, columns), seed) / math.sqrt(columns)


def write_model(model: PreTrainedModel, folder: Path) -> None:
    """`config.json` and `model.safetensors`, the weights under the names that published checkpoints use."""
    with _quiet():
        model.save_pretrained(folder)


def write_json(path: Path, content: Json | Sequence[Json]) -> None:
    """One JSON file, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def edit_config(folder: Path, *, drop: Sequence[str] = (), **changes: Any) -> None:
    """Change keys of the checkpoint's `config.json`."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {key: value for key, value in {**config, **changes}.items() if key not in drop})


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers logs each file that it writes and draws a bar; a test's output is no place for that."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)

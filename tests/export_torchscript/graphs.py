"""The graphs of a recipe family as torch modules, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from recipes.made import made
from torch import Tensor, nn

from sie_triton.bundle import expand, load_bundle
from sie_triton.checkpoint import resolve_checkpoint
from sie_triton.compiler.options import select
from sie_triton.export.encoder import load_model
from sie_triton.export.modules import build_module
from sie_triton.facts import read_facts
from sie_triton.formats import Precision
from sie_triton.planning.plan import GraphOptions, GraphPlan
from sie_triton.planning.planner import make_plans
from sie_triton.tokenizer import CheckpointTokenizer

IDS = 300


def graphs(family: str, precision: Precision = "float32") -> Iterator[tuple[GraphPlan, nn.Module, int]]:
    """Every graph of the family, its module and the longest sequence. The encoder first: heads take the model apart."""
    checkpoint = made(family)
    bundle, mistakes = load_bundle(checkpoint.bundle_path)
    assert bundle is not None, mistakes
    target = select(bundle, expand(bundle))
    # As a build opens it: architectures under their authors' names are seen through a view.
    folder = resolve_checkpoint(None, None, weights=checkpoint.folder, bundle_weights_path=None).folder
    tokenizer = CheckpointTokenizer(folder)
    # Each graph alone; the matrix of recipes and formats serves the fused ones.
    options = GraphOptions(format="torchscript", layout="ensemble")
    for plan in make_plans(target.bundle, target.profiles, read_facts(folder), options):
        model = load_model(
            folder, plan.encoder.model_class, attention="eager", trust_remote_code=False, precision=precision
        )
        for graph in plan.graphs:
            module = build_module(graph.module, folder, model, tokenizer.token_id, precision)
            yield graph, module, plan.max_length


def encoder(family: str) -> tuple[GraphPlan, nn.Module, int]:
    """The first graph of the family."""
    return next(graphs(family))


def load(path: Path, device: str = "cpu") -> Callable[..., Any]:
    """The file, as a server loads it."""
    return cast(Callable[..., Any], torch.jit.load(str(path), map_location=device))  # type: ignore[no-untyped-call]


def run(module: Callable[..., Any], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The outputs, always as a tuple."""
    with torch.inference_mode():
        outputs = module(*inputs)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def make_inputs(graph: GraphPlan, lengths: list[int], padded: int, seed: int = 5) -> tuple[Tensor, ...]:
    """Rows of these lengths, padded on the right; a row's values depend on the row alone."""
    made_inputs = []
    for tensor in graph.inputs:
        rows = []
        for row, length in enumerate(lengths):
            generator = torch.Generator().manual_seed(seed + row)
            shape = [padded, *(axis for axis in tensor.axes[2:] if isinstance(axis, int))]
            if tensor.name == "attention_mask":
                rows.append((torch.arange(padded) < length).long())
            elif tensor.name == "token_type_ids":
                rows.append((torch.arange(padded) >= length // 2).long())
            elif tensor.datatype == "INT64":
                rows.append(torch.randint(5, IDS, (512,), generator=generator)[:padded])
            else:
                rows.append(torch.randn([1024, *shape[1:]], generator=generator)[:padded])
        made_inputs.append(torch.stack(rows))
    return tuple(made_inputs)

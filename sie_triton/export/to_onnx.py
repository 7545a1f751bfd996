"""A torch module and its planned signature -> `model.onnx`, traced by torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from sie_triton.onnx_graphs.finish import OPSET, ExportError, raw_outputs, save_onnx
from sie_triton.planning.plan import GraphPlan
from sie_triton.planning.tensors import Tensor

# The tracer specialises axes of length 0 and 1, and axes that are equal by chance: these are neither.
EXAMPLE = {"batch": 2, "sequence": 7}


def export_onnx(
    module: nn.Module, graph: GraphPlan, path: Path, *, max_sequence: int, packing: bool = False
) -> float | None:
    """Trace `module` and write `path`, as `save_onnx` does. Raises `ExportError`."""
    example = tuple(_example(tensor) for tensor in graph.inputs)
    axes = {
        "batch": torch.export.Dim("batch", min=1, max=1 << 20),
        "sequence": torch.export.Dim("sequence", min=1, max=max_sequence),
    }
    dynamic = {
        tensor.name: {i: axes[axis] for i, axis in enumerate(tensor.axes) if isinstance(axis, str) and axis in axes}
        for tensor in graph.inputs
    }
    try:
        with torch.inference_mode(), _quiet():
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=[t.name for t in graph.inputs],
                output_names=[t.name for t in raw_outputs(graph)],
                opset_version=OPSET,
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever its many passes raise
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"torch cannot export the graph `{graph.triton_model}`: {cause[0]}") from error
    assert program is not None
    kept = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    return save_onnx(program.model_proto, graph, path, kept=kept, packing=packing)


def _example(tensor: Tensor) -> torch.Tensor:
    shape = [EXAMPLE[axis] if isinstance(axis, str) else axis for axis in tensor.axes]
    if tensor.datatype == "INT64":
        return torch.ones(shape, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks about itself on stdout and through warnings; nothing of it helps the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

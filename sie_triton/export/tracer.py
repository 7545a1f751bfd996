"""One checkpoint, loaded by torch: the planned graphs that `onnx_graphs` does not write are traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.export.encoder import load_model
from sie_triton.export.masks import masks_with_room
from sie_triton.export.modules import build_module
from sie_triton.export.to_onnx import export_onnx
from sie_triton.export.to_torchscript import export_torchscript
from sie_triton.formats import Format, Precision
from sie_triton.onnx_graphs.finish import ExportError
from sie_triton.planning.plan import GraphPlan, TritonPlan

WRITERS: dict[Format, Callable[..., float | None]] = {"onnx": export_onnx, "torchscript": export_torchscript}


def trace_graphs(
    plan: TritonPlan,
    graphs: Sequence[tuple[GraphPlan, Path]],
    precision: Precision,
    *,
    folder: Path,
    token_id: Callable[[str], int],
    announce: Callable[[str], None],
    trust_remote_code: bool,
) -> float | None:
    """Graphs of the plan, each into its file, in their order: the encoder goes first, heads take the model apart.

    Returns what a padded position costs if the graph with the encoder was packed. Raises `DiagnosticError` for what the
    checkpoint or the exporter cannot do.
    """
    padding_cost: float | None = None
    with masks_with_room(precision):
        model: Any = load_model(
            folder,
            plan.encoder.model_class,
            attention="eager",
            trust_remote_code=trust_remote_code,
            precision=precision,
        )
        for graph, path in graphs:
            announce(f"{graph.triton_model}: exporting the graph in {precision}")
            try:
                module = build_module(graph.module, folder, model, token_id, precision)
                # Behind the encoder there is little to pack, and padding may be blanked already.
                packing = {"packing": True} if plan.packs(precision) and graph.has_encoder else {}
                cost = WRITERS[plan.format](module, graph, path, max_sequence=plan.max_length, **packing)
                padding_cost = padding_cost or cost
            except ExportError as error:
                hint = "try another version of torch, or another `--format`, or report the checkpoint"
                raise DiagnosticError([Diagnostic("SIE402", str(error), Where(folder), hint)]) from error
    return padding_cost

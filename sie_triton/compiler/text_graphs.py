"""The graphs of one text checkpoint: written from its tensors, and what is not written there traced by torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sie_triton.compiler.options import Announce
from sie_triton.compiler.packages import missing_package
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.formats import Precision
from sie_triton.onnx_graphs.declined import Declined
from sie_triton.onnx_graphs.writer import GraphWriter
from sie_triton.planning.plan import GraphPlan, TritonPlan
from sie_triton.tokenizer import CheckpointTokenizer


class TextGraphs:
    """One checkpoint, opened for its graphs. Raises `DiagnosticError` for what can be neither written nor traced."""

    def __init__(self, tokenizer: CheckpointTokenizer, announce: Announce, *, trust_remote_code: bool) -> None:
        self._tokenizer = tokenizer
        self._announce = announce
        self._trust = trust_remote_code
        self._writer: GraphWriter | None = None

    def write(self, plan: TritonPlan, staging: Path, precision: Precision) -> float | None:
        """Every graph of the plan in one precision.

        Returns what a padded position costs if the graph with the encoder was packed.
        """
        padding_cost: float | None = None
        left: list[GraphPlan] = []
        reason = "that is what was asked for" if plan.traced else f"{plan.format} is what torch writes"
        for graph in plan.graphs:
            if plan.traced or not plan.graph_format.written:
                left.append(graph)
                continue
            try:
                padding_cost = self._write(plan, graph, staging, precision) or padding_cost
            except Declined as declined:
                reason = str(declined)
                if not plan.traceable:
                    raise not_written(graph.triton_model, reason) from None
                self._announce(f"{graph.triton_model}: torch traces the graph: {reason}")
                left.append(graph)
        return (self._trace(plan, left, staging, precision, reason) if left else None) or padding_cost

    def _write(self, plan: TritonPlan, graph: GraphPlan, staging: Path, precision: Precision) -> float | None:
        """One graph without torch. Raises `Declined` where that cannot be done."""
        self._writer = self._writer or GraphWriter(
            self._tokenizer.folder, self._tokenizer.token_id, trust_remote_code=self._trust
        )
        self._announce(f"{graph.triton_model}: writing the graph in {precision}")
        return self._writer.write(plan, graph, graph_path(plan, graph, staging, precision), precision)

    def _trace(
        self, plan: TritonPlan, graphs: Sequence[GraphPlan], staging: Path, precision: Precision, reason: str
    ) -> float | None:
        try:
            from sie_triton.export import trace_graphs
        except ModuleNotFoundError as error:
            raise missing_package(error, f"torch has to trace `{graphs[0].triton_model}`: {reason}") from None
        return trace_graphs(
            plan,
            [(graph, graph_path(plan, graph, staging, precision)) for graph in graphs],
            precision,
            folder=self._tokenizer.folder,
            token_id=self._tokenizer.token_id,
            announce=self._announce,
            trust_remote_code=self._trust,
        )


def not_written(triton_model: str, reason: str) -> DiagnosticError:
    """A graph that torch cannot trace cannot be written either."""
    hint = "use a checkpoint of an architecture that docs/formats.md lists, or report it"
    return DiagnosticError([Diagnostic("SIE402", f"`{triton_model}` cannot be written: {reason}", hint=hint)])


def graph_path(plan: TritonPlan, graph: GraphPlan, staging: Path, precision: Precision) -> Path:
    """Where the file of a graph lies."""
    return staging / graph.triton_model / "1" / plan.graph_format.filename(precision)

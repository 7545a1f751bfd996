"""The only place that imports torch, transformers and onnx. It is itself imported late, by `compiler` alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.plan import TritonPlan
from sie_triton.verify import StoredReference

MISSING = "`build` needs torch, transformers, onnx and onnxscript, and {name} is not installed"


def export_plan(
    plan: TritonPlan, folder: Path, staging: Path, announce: Callable[[str], None], *, trust_remote_code: bool = False
) -> tuple[int, StoredReference]:
    """Write every graph of `plan` and its tokenizer into `staging`; returns the padding id and the reference.

    Raises `DiagnosticError` for what the checkpoint or the exporter cannot do.
    """
    try:
        import transformers

        from sie_triton.export.modules import build_module, load_encoder
        from sie_triton.export.reference import compute_reference
        from sie_triton.export.to_onnx import ExportError, export_onnx
        from sie_triton.export.tokenizer import load_tokenizer, pad_id, tokenizer_json
    except ModuleNotFoundError as error:
        raise DiagnosticError(
            [Diagnostic("SIE401", MISSING.format(name=error.name), hint="`pip install 'sie-triton[export,cpu]'`")]
        ) from None

    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    (staging / plan.name / "1" / "tokenizer.json").write_bytes(tokenizer_json(folder, tokenizer))
    encoder = load_encoder(folder, trust_remote_code=trust_remote_code)
    for graph in plan.graphs:
        announce(f"{graph.triton_model}: exporting the graph")
        try:
            export_onnx(
                build_module(graph.module, folder, encoder),
                graph,
                staging / graph.triton_model / "1" / "model.onnx",
                max_sequence=plan.max_length,
            )
        except ExportError as error:
            raise DiagnosticError(
                [
                    Diagnostic(
                        "SIE402", str(error), Where(folder), "try another version of torch, or report the checkpoint"
                    )
                ]
            ) from error
    del encoder
    announce(f"{plan.name}: computing the reference with transformers")
    reference = compute_reference(plan, folder, tokenizer, trust_remote_code=trust_remote_code)
    return pad_id(tokenizer), reference

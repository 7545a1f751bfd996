"""What a build's choices make of graphs: what they compute in on each kind of device, and whether a format has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sie_frontend.outputs.kind import Comparable, Shape

from sie_triton.bundle import ResolvedProfile
from sie_triton.formats import CPU_ONLY, FORMATS, PRECISIONS, Device, Precision
from sie_triton.planning.effects import CPU_PRECISION
from sie_triton.planning.modules import PlannedHead
from sie_triton.planning.need import mistake
from sie_triton.planning.plan import GraphOptions, TritonPlan

ANSWERING: Final[frozenset[Precision]] = frozenset({"int8", "bfloat16"})
"""What a CPU is given only after it was asked what becomes of float32's answers."""
UNMEASURED: Final = (
    "what that does to answers is measured on texts, and on pictures that are compared with pictures; this one reads "
    "pages, or pictures and texts together"
)


def precisions_for(profile: ResolvedProfile, options: GraphOptions) -> dict[Device, Precision]:
    """What the graphs compute in on each device: the build's choice, else the bundle's, else SIE's default.

    The bundle's `compute_precision` is about CUDA; a CPU computes in float32, where SIE's fallbacks do too, unless the
    build, or the bundle's `runtime.cpu_precision`, says otherwise. Raises `DiagnosticError` for a choice of the build
    that the format cannot carry.
    """
    carried = on_cpu = FORMATS[options.format].precisions
    if options.engine != "onnxruntime":
        _check_engine(options)
        # OpenVINO computes a float32 graph in bfloat16, where ONNX Runtime has no kernels for it.
        on_cpu = (*carried, "bfloat16")
    if options.precision and options.precision not in on_cpu:
        able = [f"`--format {row.name}`" for row in FORMATS.values() if options.precision in row.precisions]
        if options.precision == "bfloat16" and options.format == "onnx" and "cpu" in options.devices:
            able.insert(0, "`--engine openvino`")
        raise mistake(
            "SIE215",
            f"{options.format} graphs cannot be verified in {options.precision}: their runtime has no kernels for it "
            "on a CPU",
            f"choose {' or '.join(on_cpu)}, or {' or '.join(able)}",
        )
    chosen: dict[Device, Precision] = {}
    for device in options.devices:
        if device == "cpu":
            chosen[device] = options.precision or _of_bundle(profile, on_cpu)
            continue
        wanted: Precision = profile.compute_precision or "float16"
        if options.precision in carried and options.precision not in CPU_ONLY:
            wanted = options.precision
        # What was trained in bfloat16 runs in float16 where that is close enough: verification decides.
        chosen[device] = wanted if wanted in carried else "float16"
    return chosen


def _of_bundle(profile: ResolvedProfile, carried: Sequence[Precision]) -> Precision:
    """What a profile's `runtime.cpu_precision` asks of a CPU, where the format has it; else float32.

    It stands among the runtime options since SIE ignores those that it does not know. Raises `DiagnosticError`.
    """
    named = profile.runtime.get(CPU_PRECISION, "float32")
    for precision in carried:
        if precision == named:
            return precision
    if named not in PRECISIONS:
        message = f"`{profile.model_id}` has the `runtime.{CPU_PRECISION}` {named!r}, which is no precision"
        raise mistake("SIE217", message, f"write {', '.join(PRECISIONS)}")
    return "float32"


def _check_engine(options: GraphOptions) -> None:
    """Raises `DiagnosticError` (`SIE215`) where an engine for ONNX graphs on a CPU would have nothing to compute."""
    if options.format != "onnx" or "cpu" not in options.devices:
        message = f"{options.engine} computes ONNX graphs on a CPU, and there are none to build"
        raise mistake("SIE215", message, "leave `--engine` out, or add `--format onnx --device cpu`")


def check_format(head: PlannedHead, options: GraphOptions, *, written_only: bool = False) -> None:
    """Raises `DiagnosticError` where a head is only written, and the build asks for what torch traces.

    `written_only`: its encoder is only written too.
    """
    if (head.traceable and not written_only) or (FORMATS[options.format].written and not options.traced):
        return
    written = " or ".join(row.name for row in FORMATS.values() if row.written)
    raise mistake(
        "SIE219",
        f"graphs with the head `{head.kind}` of a model for images are written as {written}, and never traced by torch",
        "leave `--format` and `--trace` out",
    )


def answerable(modality: str, comparables: Iterable[Comparable]) -> bool:
    """Whether what a coarse precision does to the answers of a model is measured.

    There are texts to ask about, and pictures for models that compare pictures by a vector of each. Pages are asked for
    with texts, which another graph reads.
    """
    if modality == "image":
        return all(compared.shape is Shape.VECTOR for compared in comparables)
    return modality == "text"


def check_answerable(plan: TritonPlan) -> None:
    """Raises `DiagnosticError` (`SIE216`) for a precision of a CPU whose answers nothing measures."""
    precision = plan.precisions.get("cpu")
    heads = (head for served in plan.served for head in served.heads.values())
    if precision not in ANSWERING or answerable(plan.modality, (c for head in heads for c in head.comparables)):
        return
    message = f"`{plan.name}` is not built in {precision} for a CPU: {UNMEASURED}"
    raise mistake("SIE216", message, "leave `--precision` out")

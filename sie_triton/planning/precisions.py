"""What a build's choices make of graphs: what they compute in on each kind of device, and whether a format has them."""

from __future__ import annotations

from collections.abc import Sequence

from sie_triton.bundle import ResolvedProfile
from sie_triton.formats import CPU_ONLY, FORMATS, PRECISIONS, Device, Precision
from sie_triton.planning.effects import CPU_PRECISION
from sie_triton.planning.modules import PlannedHead
from sie_triton.planning.need import mistake
from sie_triton.planning.plan import GraphOptions, TritonPlan


def precisions_for(profile: ResolvedProfile, options: GraphOptions) -> dict[Device, Precision]:
    """What the graphs compute in on each device: the build's choice, else the bundle's, else SIE's default.

    The bundle's `compute_precision` is about CUDA; a CPU computes in float32, where SIE's fallbacks do too, unless the
    build, or the bundle's `runtime.cpu_precision`, says otherwise. Raises `DiagnosticError` for a choice of the build
    that the format cannot carry.
    """
    carried = FORMATS[options.format].precisions
    if options.engine != "onnxruntime":
        _check_engine(options)
        # OpenVINO computes a float32 graph in bfloat16, where ONNX Runtime has no kernels for it.
        carried = (*carried, "bfloat16")
    if options.precision and options.precision not in carried:
        able = [row.name for row in FORMATS.values() if options.precision in row.precisions]
        raise mistake(
            "SIE215",
            f"{options.format} graphs cannot be verified in {options.precision}: their runtime has no kernels for it "
            "on a CPU",
            f"choose {' or '.join(carried)}, or {' or '.join(f'`--format {name}`' for name in able)}",
        )
    chosen: dict[Device, Precision] = {}
    for device in options.devices:
        wanted: Precision = _of_bundle(profile, carried) if device == "cpu" else profile.compute_precision or "float16"
        if options.precision and (device == "cpu" or options.precision not in CPU_ONLY):
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


def check_int8(plan: TritonPlan) -> None:
    """Raises `DiagnosticError` (`SIE216`) for int8 of what is computed of pictures: the measure's items are texts."""
    if "int8" not in plan.precisions.values() or plan.modality == "text":
        return
    raise mistake(
        "SIE216",
        f"`{plan.name}` is not built in int8: what that does to answers is measured on texts, and it reads "
        f"{'pictures with them' if plan.modality == 'mixed' else f'{plan.modality}s'}",
        "leave `--precision` out",
    )

"""What a build's choices make of graphs: what they compute in on each kind of device, and whether a format has them."""

from __future__ import annotations

from sie_triton.bundle import ResolvedProfile
from sie_triton.formats import FORMATS, Device, Precision
from sie_triton.planning.modules import PlannedHead
from sie_triton.planning.need import mistake
from sie_triton.planning.plan import GraphOptions


def precisions_for(profile: ResolvedProfile, options: GraphOptions) -> dict[Device, Precision]:
    """What the graphs compute in on each device: the build's choice, else the bundle's, else SIE's default.

    The bundle's choice is about CUDA; a CPU computes in float32, where SIE's fallbacks do too, unless the build says
    otherwise. Raises `DiagnosticError` for a choice of the build that the format cannot carry.
    """
    carried = FORMATS[options.format].precisions
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
        wanted: Precision = "float32" if device == "cpu" else profile.compute_precision or "float16"
        wanted = options.precision or wanted
        # What was trained in bfloat16 runs in float16 where that is close enough: verification decides.
        chosen[device] = wanted if wanted in carried else "float16"
    return chosen


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

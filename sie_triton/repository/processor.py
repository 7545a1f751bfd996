"""What this machine's processor multiplies by instructions of its own, as Linux tells it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sie_triton.planning.plan import TritonPlan

# What precisions gain by -> the flags of `/proc/cpuinfo`, of x86-64 and of ARM, any of which says that it is there.
INSTRUCTIONS = {
    "AVX2": frozenset({"avx2"}),
    "AVX-512": frozenset({"avx512f"}),
    "VNNI": frozenset({"avx512_vnni", "avx_vnni", "asimddp"}),
    "BF16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    "AMX": frozenset({"amx_int8", "amx_bf16"}),
}

NO_BFLOAT16 = (
    "this processor does not multiply bfloat16 (AVX512-BF16 or AMX), and OpenVINO would compute float32 instead: "
    "nothing could be measured"
)


def instructions(cpuinfo: str | None = None) -> tuple[str, ...] | None:
    """Those of `INSTRUCTIONS` that the processor has; None where nothing says so.

    `cpuinfo` is what Linux says in `/proc/cpuinfo`, read if it is not given.
    """
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    lines = (line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    found = next((flags.split() for name, flags in lines if name.strip() in ("flags", "Features")), None)
    if found is None:
        return None
    return tuple(name for name, flags in INSTRUCTIONS.items() if flags & set(found))


def multiplies_bfloat16(cpuinfo: str | None = None) -> bool:
    """Whether it has bfloat16 arithmetic of its own; without it bfloat16 is slower than float32."""
    return "BF16" in (instructions(cpuinfo) or ())


def multiplies_int8(cpuinfo: str | None = None) -> bool:
    """Whether it sums products of 8 bits in one instruction; without it int8 is slower than float32."""
    return "VNNI" in (instructions(cpuinfo) or ())


def notes_here(plans: Sequence[TritonPlan]) -> Iterator[str]:
    """What this machine's processor lacks for the precisions of plans; a build cannot go on after `NO_BFLOAT16`."""
    chosen = {(plan.precisions.get("cpu"), plan.engine) for plan in plans}
    if not multiplies_bfloat16():
        if ("bfloat16", "openvino") in chosen:
            yield NO_BFLOAT16
        if ("bfloat16", "onnxruntime") in chosen:
            yield "this CPU does not multiply bfloat16: float32 would be faster here"
    if any(precision == "int8" for precision, _ in chosen) and not multiplies_int8():
        yield "this CPU has no VNNI: int8 takes less memory here, and float32 is faster"

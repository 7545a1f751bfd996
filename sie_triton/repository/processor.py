"""What this machine's processor multiplies by instructions of its own, as Linux tells it."""

from __future__ import annotations

from pathlib import Path

# What precisions gain by -> the flags of `/proc/cpuinfo`, of x86-64 and of ARM, any of which says that it is there.
INSTRUCTIONS = {
    "AVX2": frozenset({"avx2"}),
    "AVX-512": frozenset({"avx512f"}),
    "VNNI": frozenset({"avx512_vnni", "avx_vnni", "asimddp"}),
    "BF16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    "AMX": frozenset({"amx_int8", "amx_bf16"}),
}


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

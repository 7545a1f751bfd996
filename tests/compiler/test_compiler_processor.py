"""What a plan says of the processor that it would be built on."""

from __future__ import annotations

import pytest

from compiler.command import sie_triton

ID = "colbert-ir/colbertv2.0"
FEW, MANY = ("AVX2",), ("AVX2", "AVX-512", "VNNI", "BF16")


@pytest.mark.parametrize(
    ("options", "note"),
    [
        (("--precision", "int8"), "this CPU has no VNNI: int8 takes less memory here, and float32 is faster"),
        (("--precision", "bfloat16", "--format", "torchscript"), "this CPU does not multiply bfloat16"),
        (("--precision", "bfloat16", "--engine", "openvino"), "OpenVINO would compute float32 instead"),
        ((), ""),
    ],
)
def test_a_plan_names_what_the_processor_lacks(
    options: tuple[str, ...], note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for has, expected in ((FEW, note), (MANY, "")):
        monkeypatch.setattr("sie_triton.repository.processor.instructions", lambda *_, has=has: has)
        done = sie_triton("plan", "-m", ID, "--device", "cpu", *options)
        assert done.code == 0, done.stderr
        assert (expected in done.stderr) and bool(expected) is ("built on this machine" in done.stderr)

"""tritonserver's log: rotated, and read back for its reasons."""

from __future__ import annotations

from pathlib import Path

from sie_triton.embedded.logs import reasons, rotate, tail

# As tritonserver 2.51 writes it, shortened.
REFUSED = r"""Exception: refused:\none; two\n\nAt:\n  /x/model.py(47): initialize\n"""
FAILED = f"""\
I1123 02:18:03.588657 9817 pinned_memory_manager.cc:283] "Pinned memory pool disabled"
E1123 02:18:03.589540 9817 server.cc:241] "CudaDriverHelper has not been initialized."
E1123 02:18:03.591030 9817 backend_model.cc:692] "ERROR: Failed to create instance: {REFUSED}"
E1123 02:18:03.591040 9817 model_lifecycle.cc:642] "failed to load 'a' version 1: Internal: {REFUSED}"
I1123 02:18:03.591051 9817 model_lifecycle.cc:777] "failed to load 'a'"
E1123 02:18:03.591060 9817 model_lifecycle.cc:642] "failed to load 'b' version 1: Not found: no file"
I1123 02:18:03.591268 9817 server.cc:674]
+-------+---------+--------+
| Model | Version | Status |
+-------+---------+--------+
error: creating server: Internal - failed to load all models
"""


def test_reasons_are_the_errors_without_stacks_and_noise(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    log.write_text(FAILED)
    first, second = reasons(log)
    assert first == "failed to load 'a' version 1: Internal: Exception: refused:\none; two"
    assert second == "failed to load 'b' version 1: Not found: no file"


def test_without_errors_the_last_lines_are_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    log.write_text("cannot run `tritonserver`: no such file\n")
    assert reasons(log) == ["cannot run `tritonserver`: no such file"]
    assert reasons(tmp_path / "absent.log") == ["the log is empty"]


def test_three_old_logs_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "triton.log"
    for number in range(6):
        rotate(log)
        log.write_text(f"run {number}")
    kept = {path.name: path.read_text() for path in log.parent.iterdir()}
    assert kept == {f"triton.log{suffix}": f"run {5 - age}" for age, suffix in enumerate(["", ".1", ".2", ".3"])}


def test_the_tail_is_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    log.write_text("\n".join(str(number) for number in range(50)))
    assert tail(log, 3) == "47\n48\n49"

"""examples/two_by_two.py in short: nobody who calls notices that a process goes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from compiler import tiny

from e2e.conftest import TinyBuild

pytestmark = pytest.mark.e2e

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "two_by_two.py"


def test_no_call_fails_while_each_process_goes_and_comes_again(tiny_build: TinyBuild) -> None:
    arguments = ("--repository", tiny_build.repository, "--model", tiny.MODEL_ID, "--seconds", "8", "--threads", "3")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["failures"], result["wrong_vectors"], result["kinds_of_failures"]) == (0, 0, {})
    assert result["calls"] > 100
    for signal, process in (
        ("SIGTERM", "triton-0"),
        ("SIGTERM", "frontend-0"),
        ("SIGKILL", "triton-1"),
        ("SIGKILL", "frontend-1"),
    ):
        assert f"{signal} to {process} after" in done.stderr
    assert "Traceback" not in done.stderr

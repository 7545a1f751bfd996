"""`sie-triton doctor` on the machine that runs the tests, which can build and serve."""

from __future__ import annotations

import socket

from typer.testing import CliRunner

from sie_triton.cli import app
from sie_triton.config import available_cores, multiplies_bfloat16
from sie_triton.doctor import examine


def test_a_machine_that_can_serve_has_no_problems() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    findings = {finding.subject: finding for finding in examine(port)}
    assert [finding for finding in findings.values() if finding.verdict == "problem"] == []
    assert findings["cores"].message.startswith(f"{available_cores()} of ")
    assert "tritonserver" in findings["tritonserver"].message
    assert ("does not" in findings["bfloat16"].message) is not multiplies_bfloat16()


def test_a_taken_port_is_a_problem_with_a_cure_and_a_status() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(app, ["doctor", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "problem port" in result.output
    assert "cure:" in result.output

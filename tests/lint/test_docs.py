"""The page of rules is generated and up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sie_triton.lint import RULES
from sie_triton.lint.docs import DEFAULT_FILE, main, render

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_page_is_up_to_date() -> None:
    assert (ROOT / DEFAULT_FILE).read_text(encoding="utf-8") == render()


def test_every_rule_has_a_section() -> None:
    page = render()
    for rule in RULES.values():
        assert f"\n### {rule.id}\n" in page
        assert f"| [{rule.id}](#{rule.id.lower()}) | {rule.severity} | {rule.title} | {rule.versions} |" in page
        assert f"Hint: {rule.hint}." in page
    assert not any(line.startswith("|") and line.count("|") % 5 for line in page.splitlines())


def test_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rules.md"
    assert main([str(file), "--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert main([str(file)]) == 0
    assert main([str(file), "--check"]) == 0
    file.write_text(file.read_text() + "\n")
    assert main([str(file), "--check"]) == 1


def test_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "sie_triton.lint.docs", "--check", str(ROOT / DEFAULT_FILE)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_the_linter_imports_neither_torch_nor_the_grpc_runtime() -> None:
    """`lint` belongs to the commands that answer without the export extra."""
    code = (
        "import sys; from sie_triton.lint import lint_model_config; lint_model_config('name: \"x\"');"
        "print(sorted({'torch', 'grpc', 'onnx', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"

"""The command line apart from what its commands do: what it imports, and how it prints mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sie_triton.cli import main

HEAVY = {
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "numpy",
    "msgspec",
    "uvicorn",
    "jinja2",
    "yaml",
    "tritonclient",
}


def test_help_imports_nothing_that_only_commands_need() -> None:
    program = (
        "import sys\nfrom sie_triton.cli import main\nsys.argv = ['sie-triton', '--help']\n"
        f"try:\n    main()\nfinally:\n    print(sorted({HEAVY} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Compile SIE model bundles" in done.stdout
    assert done.stderr == "[]\n"


def test_a_path_is_printed_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A console that prints colours reads words in brackets as its own."""
    folder = tmp_path / "[bold]models[/bold]"
    monkeypatch.setattr(sys, "argv", ["sie-triton", "verify", "--repository", str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert f"{folder}: SIE603: " in capsys.readouterr().err

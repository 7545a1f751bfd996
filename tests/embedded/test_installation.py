"""What a machine must have, and what is said when it has not."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded import installation
from sie_triton.embedded.installation import find_installation


def failure() -> Diagnostic:
    with pytest.raises(DiagnosticError) as caught:
        find_installation()
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


def test_every_part_is_a_file_and_pytriton_is_not_imported() -> None:
    program = (
        "import sys; from sie_triton.embedded.installation import find_installation as f; i = f();"
        "assert i.binary.is_file() and i.stub.is_file() and i.libraries.is_dir();"
        "assert (i.python_backend / 'libtriton_python.so').is_file();"
        "print('pytriton' in sys.modules, i.stub.parent.name)"
    )
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).split() == ["False", minor]


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_missing_wheel_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pip.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    diagnostic = failure()
    assert diagnostic.code == "SIE701"
    assert diagnostic.hint == "pip install --no-deps nvidia-pytriton==0.7.0"


def test_an_environment_without_pip_is_told_what_uv_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "pip", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert failure().hint == f"uv pip install --no-deps nvidia-pytriton==0.7.0 --python {sys.executable}"


def test_an_environment_that_uv_made_is_told_what_uv_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pip.py").touch()
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\nuv = 0.9.5\nversion_info = 3.13.0\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert failure().hint == f"uv pip install --no-deps nvidia-pytriton==0.7.0 --python {sys.executable}"


def test_another_processor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    diagnostic = failure()
    assert diagnostic.code == "SIE702"
    assert "linux aarch64" in diagnostic.message


def test_a_python_without_a_stub_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version_tuple", lambda: ("3", "99", "0"))
    diagnostic = failure()
    assert diagnostic.code == "SIE703"
    assert "Python 3.99" in diagnostic.message
    assert "3.9, 3.10, 3.11" in str(diagnostic.hint)


def test_a_missing_libpython_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub = tmp_path / "stub"
    stub.write_bytes(b"\x7fELF...libpython3.98.so.1.0\0")
    with pytest.raises(DiagnosticError) as caught:
        installation._libpython_folder(stub, "3.98")
    assert caught.value.diagnostics[0].code == "SIE704"
    assert installation._libpython_folder(stub, "3.97") is None

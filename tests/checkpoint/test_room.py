"""A disk that is too small is told before anything is written, with the folder and both sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sie_triton.checkpoint.view import make_view
from sie_triton.compiler.space import check_room
from sie_triton.diagnostics import DiagnosticError
from sie_triton.room import free_bytes, shortage

PETABYTES = 10**17


def test_what_fits_is_let_through_and_what_does_not_is_said(tmp_path: Path) -> None:
    free = free_bytes(tmp_path)
    assert free > 0
    assert shortage(tmp_path / "not" / "there", free // 2) is None
    said = shortage(tmp_path / "not" / "there", PETABYTES)
    assert said is not None
    assert said.startswith(f"`{tmp_path}/not/there` needs 100,000,000,000 MB and has ")


def test_a_build_that_cannot_fit_is_refused(tmp_path: Path) -> None:
    check_room(1000, {"float32", "float16"}, tmp_path / "repository")
    for precisions, said in ({"float32"}, "`--repository`"), ({"int8"}, "TMPDIR"):
        with pytest.raises(DiagnosticError) as caught:
            check_room(PETABYTES, precisions, tmp_path / "repository")  # type: ignore[arg-type]
        assert "SIE612: there is no room for what would be built" in str(caught.value)
        assert f"`{tmp_path}` needs " in str(caught.value) and said in str(caught.value)


def test_a_view_that_cannot_fit_is_not_begun(tmp_path: Path) -> None:
    begun: list[Path] = []
    with pytest.raises(DiagnosticError) as caught:
        make_view(tmp_path, "too-large", begun.append, PETABYTES)
    assert "SIE325: there is no room" in str(caught.value) and "TMPDIR" in str(caught.value)
    assert begun == []

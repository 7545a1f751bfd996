"""Every bad bundle prints exactly the diagnostics beside it: all its mistakes, in one run, in line order."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sie_triton.bundle import load_bundle

from .conftest import Load

BAD = Path(__file__).parent / "bad"


@pytest.mark.parametrize("name", sorted(path.name for path in BAD.glob("*.yaml")))
def test_prints_what_is_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BAD)
    bundle, diagnostics = load_bundle(Path(name))
    assert bundle is None
    printed = "".join(f"{diagnostic}\n" for diagnostic in diagnostics)
    assert printed == (BAD / name).with_suffix(".txt").read_text(encoding="utf-8")


def test_every_recording_has_its_bundle() -> None:
    assert {p.stem for p in BAD.glob("*.txt")} == {p.stem for p in BAD.glob("*.yaml")}


def test_a_missing_file_is_a_diagnostic(tmp_path: Path) -> None:
    bundle, [diagnostic] = load_bundle(tmp_path / "absent.yaml")
    assert bundle is None
    assert diagnostic.code == "SIE101"
    assert "no such file" in diagnostic.message


def test_a_folder_is_a_diagnostic(tmp_path: Path) -> None:
    bundle, [diagnostic] = load_bundle(tmp_path)
    assert bundle is None
    assert diagnostic.code == "SIE101"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_a_diagnostic(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("sie_id: a")
    path.chmod(stat.S_IWUSR)
    _, [diagnostic] = load_bundle(path)
    assert (diagnostic.code, diagnostic.message) == ("SIE101", "the bundle cannot be read: permission denied")


def test_a_file_too_large_to_be_a_bundle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * (1 << 20) + b"\nsie_id: a\n")
    _, [diagnostic] = load_bundle(path)
    assert (diagnostic.code, diagnostic.where and diagnostic.where.line) == ("SIE101", 0)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_before_the_stack_ends(load: Load, opening: str) -> None:
    _, [diagnostic] = load(opening * 50_000)
    assert (diagnostic.code, diagnostic.message) == ("SIE104", "nested deeper than 48 levels")


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "marked.yaml"
    path.write_bytes(
        b"\xef\xbb\xbfsie_id: a\nhf_id: b\ntasks: {}\nprofiles: {p: {max_batch_tokens: 1, adapter_path: 'm:C'}}\n"
    )
    bundle, diagnostics = load_bundle(path)
    assert diagnostics == []
    assert bundle is not None and bundle.sie_id == "a"


def test_mistakes_behind_an_alias_are_reported_once(load: Load) -> None:
    text = """
sie_id: a
hf_id: b
tasks: {}
profiles:
  default: &same
    max_batch_tokens: 1
    adapter_path: m:C
    adapter_options:
      runtime: {day: 2026-01-01, day: 2026-01-02}
  other: *same
"""
    _, diagnostics = load(text)
    assert [d.code for d in diagnostics if "given twice" in d.message] == ["SIE103"]

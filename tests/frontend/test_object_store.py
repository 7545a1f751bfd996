"""Whole repositories of object stores, which `serve` and `triton` copy for the embedded server."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import fsspec
import msgspec
import pytest
from compiler import tiny
from sie_frontend.manifest import TritonModel, dump_manifest, parse_manifest, read_manifest

from sie_triton.diagnostics import DiagnosticError
from sie_triton.repository.object_store import fetch_repository, stored_manifest
from sie_triton.repository.publish import MANIFEST_DIGEST_NAME, manifest_digest_line, tree_digests

GRAPH = f"{tiny.TRITON_NAME}/1/model.onnx"


def put(path: str, content: bytes) -> None:
    """Change a file of the repository in fsspec's memory file system."""
    fsspec.filesystem("memory").pipe_file(f"/bucket/models/{path}", content)


def put_manifest(url: str, **files: str) -> None:
    """Give files of the tiny model other digests, or new files theirs."""
    manifest = parse_manifest(fsspec.filesystem("memory").cat_file("/bucket/models/manifest.json"), url)
    old = manifest.triton_models[tiny.TRITON_NAME]
    changed = TritonModel(old.inputs, old.outputs, {**old.files, **files}, old.depends_on)
    put("manifest.json", dump_manifest(msgspec.structs.replace(manifest, triton_models={tiny.TRITON_NAME: changed})))


def refused(url: str, cache: Path, code: str = "SIE611") -> str:
    with pytest.raises(DiagnosticError) as caught:
        fetch_repository(url, print, cache)
    [diagnostic] = caught.value.diagnostics
    assert diagnostic.code == code
    return diagnostic.message


def content(folder: Path) -> dict[str, str]:
    """The digests of a repository without the one file that is made here."""
    return {path: digest for path, digest in tree_digests(folder).items() if path != MANIFEST_DIGEST_NAME}


@pytest.mark.parametrize("store", ["memory", "s3"])
def test_all_of_it_is_fetched_and_the_second_time_nothing(
    store: str, stored: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(store)
    said: list[str] = []
    folder = fetch_repository(url, said.append, tmp_path)
    assert content(folder) == content(stored)
    digest = (folder / MANIFEST_DIGEST_NAME).read_bytes()
    assert digest == manifest_digest_line((stored / "manifest.json").read_bytes())
    assert stored_manifest(f"{url}/") == read_manifest(stored)
    assert said
    again: list[str] = []
    assert fetch_repository(f"{url}/", again.append, tmp_path) == folder
    assert again == []


def test_only_what_changed_is_fetched_and_the_old_copy_is_never_written(memory: str, tmp_path: Path) -> None:
    folder = fetch_repository(memory, print, tmp_path)
    inodes = {path: (folder / path).stat().st_ino for path in tree_digests(folder)}
    with (folder / GRAPH).open("rb") as opened:
        put(GRAPH, b"other weights")
        put(f"{tiny.TRITON_NAME}/1/extra.bin", b"extra")
        digests = {"1/model.onnx": b"other weights", "1/extra.bin": b"extra"}
        put_manifest(memory, **{name: _sha256(data) for name, data in digests.items()})
        assert fetch_repository(memory, print, tmp_path) == folder
        assert (folder / GRAPH).read_bytes() == b"other weights"
        assert opened.read() == b"weights", "whoever served the old copy still has it"
    tokenizer = f"{tiny.TRITON_NAME}/1/tokenizer.json"
    assert (folder / tokenizer).stat().st_ino == inodes[tokenizer], "what is the same is not fetched again"
    assert (folder / tiny.TRITON_NAME / "1" / "extra.bin").is_file()


def test_what_the_manifest_names_no_more_goes(memory: str, stored: Path, tmp_path: Path) -> None:
    folder = fetch_repository(memory, print, tmp_path)
    (folder / tiny.TRITON_NAME / "1" / "left.bin").write_bytes(b"left")
    put_manifest(memory, **{"1/new.bin": _sha256(b"new")})
    put(f"{tiny.TRITON_NAME}/1/new.bin", b"new")
    fetch_repository(memory, print, tmp_path)
    assert not (folder / tiny.TRITON_NAME / "1" / "left.bin").exists()


def test_a_copy_that_was_damaged_is_mended(memory: str, stored: Path, tmp_path: Path) -> None:
    folder = fetch_repository(memory, print, tmp_path)
    (folder / GRAPH).write_bytes(b"x")
    assert content(fetch_repository(memory, print, tmp_path)) == content(stored)


def test_other_bytes_than_the_manifests_are_refused_and_nothing_is_kept(memory: str, tmp_path: Path) -> None:
    put(GRAPH, b"other weights")
    assert f"`{memory}/{GRAPH}` is not what `manifest.json` says" in refused(memory, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_file_that_is_not_there_is_named(memory: str, tmp_path: Path) -> None:
    fsspec.filesystem("memory").rm_file(f"/bucket/models/{GRAPH}")
    assert f"there is no `{memory}/{GRAPH}`" in refused(memory, tmp_path)


@pytest.mark.parametrize("name", ["../../x", "..", "1/../../../x"])
def test_a_path_out_of_the_repository_is_refused(name: str, memory: str, tmp_path: Path) -> None:
    put_manifest(memory, **{name: _sha256(b"x")})
    assert "which is not in the repository" in refused(memory, tmp_path / "cache")
    assert not (tmp_path / "x").exists()


def test_a_store_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "names no kind of storage" in refused("nothing://x", tmp_path)
    with pytest.raises(DiagnosticError, match="SIE611"):
        stored_manifest("nothing://x")


def test_a_cache_that_cannot_be_written_is_told(memory: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be copied to" in refused(memory, tmp_path / "file", "SIE613")


def test_different_urls_have_different_folders(memory: str, tmp_path: Path, stored: Path) -> None:
    first = fetch_repository(memory, print, tmp_path)
    second = fetch_repository(f"file://{stored}", print, tmp_path)
    assert first != second
    assert content(first) == content(second)


def test_who_finds_another_fetching_waits(memory: str, tmp_path: Path) -> None:
    folder = fetch_repository(memory, print, tmp_path)
    (folder / GRAPH).unlink()
    said: list[str] = []
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fetching = threading.Thread(target=fetch_repository, args=(memory, said.append, tmp_path))
        fetching.start()
        fetching.join(0.5)
        assert fetching.is_alive()
        assert not (folder / GRAPH).exists()
    fetching.join(30)
    assert (folder / GRAPH).read_bytes() == b"weights"
    assert sum("another process" in line for line in said) == 1


def test_the_cache_is_where_xdg_says(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert fetch_repository(memory, print).parent == tmp_path / "cache" / "sie-triton" / "repositories"


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_a_repository_that_does_not_fit_is_not_begun(memory: str, tmp_path: Path) -> None:
    path = "/bucket/models/manifest.json"
    manifest = parse_manifest(fsspec.filesystem("memory").cat_file(path), memory)
    model = manifest.triton_models[tiny.TRITON_NAME]
    changed = msgspec.structs.replace(model, sizes={"1/model.onnx": 10**17})
    put("manifest.json", dump_manifest(msgspec.structs.replace(manifest, triton_models={tiny.TRITON_NAME: changed})))
    said = refused(memory, tmp_path, "SIE613")
    assert "there is no room" in said and "needs 100,000,000,000 MB and has" in said
    assert [*tmp_path.iterdir()] == []

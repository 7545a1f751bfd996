"""Repositories in object stores: fsspec's memory and file systems, and S3's protocol from a server on loopback."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fsspec
import httpx
import msgspec
import numpy as np
import pytest
from compiler import tiny
from sie_frontend.manifest import Manifest, ManifestError, TritonModel, dump_manifest, parse_manifest, read_manifest
from sie_frontend.outputs.sparse import SparseHead
from sie_frontend.settings import Settings, SettingsError
from sie_frontend.storage import is_url, open_repository, served_files

from frontend.conftest import Service
from frontend.fake_triton import FakeTriton, expected
from frontend.process import FrontendProcess
from frontend.repository import retokenized, token_ids
from frontend.wire import dense, encode, texts

TOKENIZER = f"{tiny.TRITON_NAME}/1/tokenizer.json"


@pytest.fixture(autouse=True)
def private_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies are made, to see what is left of them."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def change(memory: str, **fields: Any) -> None:
    """Rewrite the stored manifest."""
    files = fsspec.filesystem("memory")
    manifest = parse_manifest(files.cat_file("/bucket/models/manifest.json"), memory)
    files.pipe_file("/bucket/models/manifest.json", dump_manifest(msgspec.structs.replace(manifest, **fields)))


# What is fetched


def test_only_what_serving_needs_is_fetched_and_it_goes_again(memory: str, private_temporary_folder: Path) -> None:
    opened = open_repository(memory)
    files = {path.relative_to(opened.folder).as_posix() for path in opened.folder.rglob("*") if path.is_file()}
    assert files == {TOKENIZER}
    assert opened.folder.stat().st_mode & 0o077 == 0, "others may not look into it"
    assert opened.folder.is_relative_to(private_temporary_folder)
    opened.close()
    opened.close()
    assert list(private_temporary_folder.iterdir()) == []


@pytest.mark.parametrize("end", ["", "/"])
def test_a_file_url_is_fetched_like_any_other(end: str, stored: Path) -> None:
    opened = open_repository(f"file://{stored}{end}")
    assert opened.manifest == read_manifest(stored)
    assert opened.folder != stored
    assert (opened.folder / TOKENIZER).read_bytes() == (stored / TOKENIZER).read_bytes()
    opened.close()


def test_a_folder_is_read_in_place(stored: Path) -> None:
    for location in (stored, str(stored)):
        opened = open_repository(location)
        assert opened.folder == stored
        opened.close()
    assert (stored / "manifest.json").is_file()


def test_urls_and_folders_are_told_apart() -> None:
    for url in ("s3://b/p", "gs://b", "memory://x", "filecache::s3://b/p"):
        assert is_url(url)
    for folder in ("models", "/models", "./s3:/x", "C:/models", "", Path("s3://b/p")):
        assert not is_url(folder)


def test_tables_of_query_weights_are_fetched(memory: str, stored: Path) -> None:
    table = f"{tiny.TRITON_NAME}/1/query_weights.npy"
    fsspec.filesystem("memory").pipe_file(f"/bucket/models/{table}", b"table")
    manifest = read_manifest(stored)
    model = manifest.models[tiny.MODEL_ID]
    sparse = SparseHead("ids", "weights", query_weights=table)
    model = msgspec.structs.replace(model, heads={**model.heads, "sparse": sparse})
    files = {
        **manifest.triton_models[tiny.TRITON_NAME].files,
        "1/query_weights.npy": hashlib.sha256(b"table").hexdigest(),
    }
    change(memory, models={"x": model}, triton_models={tiny.TRITON_NAME: TritonModel((), (), files)})
    opened = open_repository(memory)
    assert (opened.folder / table).read_bytes() == b"table"
    opened.close()


@pytest.mark.asyncio
async def test_vectors_are_the_same_and_nothing_stays(
    memory: str, stored: Path, triton: FakeTriton, private_temporary_folder: Path
) -> None:
    async with Service(Settings(memory, triton_url=triton.url)).open() as client:
        assert len(list(private_temporary_folder.iterdir())) == 1
        (vector,) = dense(await encode(client, texts("the cell")))
    np.testing.assert_array_equal(vector, expected(token_ids(stored, "the cell")))
    assert list(private_temporary_folder.iterdir()) == []


# What can be wrong


def refused(location: str, kind: type[Exception] = ManifestError) -> str:
    with pytest.raises(kind) as caught:
        open_repository(location)
    return str(caught.value)


def test_a_digest_that_differs_is_refused_and_nothing_stays(memory: str, private_temporary_folder: Path) -> None:
    fsspec.filesystem("memory").pipe_file(f"/bucket/models/{TOKENIZER}", b"{}")
    assert f"`{memory}/{TOKENIZER}` is not what `manifest.json` says" in refused(memory)
    assert list(private_temporary_folder.iterdir()) == []


def test_a_file_without_a_digest_is_refused(memory: str) -> None:
    change(memory, triton_models={})
    assert f"no digest for `{TOKENIZER}`" in refused(memory)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "manifest.json", "a\\b/c", "a/\0"])
def test_a_path_out_of_the_repository_is_refused(path: str, memory: str, stored: Path) -> None:
    model = read_manifest(stored).models[tiny.MODEL_ID]
    model = retokenized(model, path=path)
    with pytest.raises(ManifestError, match="which is not in the repository"):
        served_files(Manifest(1, {"x": model}, {}, {}))
    change(memory, models={"x": model})
    assert "which is not in the repository" in refused(memory)


def test_what_is_not_there_is_named(memory: str) -> None:
    assert "there is no `memory://bucket/nothing/manifest.json`" in refused("memory://bucket/nothing")
    fsspec.filesystem("memory").rm_file(f"/bucket/models/{TOKENIZER}")
    assert f"there is no `{memory}/{TOKENIZER}`" in refused(memory)


def test_a_manifest_that_is_none_is_named_by_its_url(memory: str) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/models/manifest.json", b"<html>")
    assert refused(memory).startswith(f"`{memory}/manifest.json` is not a valid manifest")


def test_an_unknown_kind_of_storage_is_a_setting(memory: str) -> None:
    assert "`nothing` in `nothing://x` names no kind of storage" in refused("nothing://x", SettingsError)


@pytest.mark.parametrize(
    ("url", "module"), [("s3://bucket/x", "s3fs"), ("gs://bucket/x", "gcsfs"), ("s3://b", "fsspec")]
)
def test_a_missing_extra_is_told_with_its_cure(url: str, module: str) -> None:
    """In a process of its own, for which the package is not there."""
    program = f"import sys; sys.modules[{module!r}] = None; from sie_frontend.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--repository", url], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert f"error: reading a repository from `{url}` needs" in done.stderr
    assert "pip install 'sie-triton-frontend[storage]'" in done.stderr
    assert "Traceback" not in done.stderr


class Refusing(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Storage whose library raises `error`."""

    protocol = "refusing"
    cachable = False
    error: Exception

    def cat_file(self, *_: object, **__: object) -> bytes:
        raise self.error


@pytest.mark.parametrize(
    ("error", "denied"),
    [
        # As gcsfs 2026.10.1 raises them for 403 and 401, and google-auth without any credentials.
        (OSError("Forbidden: http://127.0.0.1/b/bucket/o/x\nAnonymous caller does not have access."), True),
        (Exception("Anonymous caller does not have storage.objects.get access, 401"), True),
        (type("DefaultCredentialsError", (Exception,), {})("not found"), True),
        (OSError("Connection reset by peer"), False),
        (RuntimeError(), False),
    ],
)
def test_whatever_a_library_raises_is_one_line_with_its_cure(error: Exception, denied: bool) -> None:
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    Refusing.error = error
    said = refused("refusing://bucket/models")
    assert said.startswith(
        "`refusing://bucket/models` may not be read" if denied else "cannot read `refusing://bucket/models`"
    )
    assert type(error).__name__ in said
    assert "\n" not in said
    assert ("credentials that may read the bucket" in said) == denied


# S3's own protocol


@pytest.mark.asyncio
async def test_a_repository_is_served_from_s3(s3: str, stored: Path, triton: FakeTriton) -> None:
    async with Service(Settings(s3, triton_url=triton.url)).open() as client:
        (vector,) = dense(await encode(client, texts("the cell")))
    np.testing.assert_array_equal(vector, expected(token_ids(stored, "the cell")))


def test_s3_says_what_is_missing(s3: str) -> None:
    no_bucket = refused("s3://nobody/models")
    assert "there is no `s3://nobody/models/manifest.json` (The specified bucket does not exist)" in no_bucket
    no_key = refused("s3://bucket/elsewhere")
    assert "there is no `s3://bucket/elsewhere/manifest.json`" in no_key
    assert "check bucket and prefix" in no_key


def test_s3_without_credentials_says_so(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    said = refused(s3)
    assert said.startswith(f"`{s3}` may not be read: NoCredentialsError: Unable to locate credentials")
    assert "AWS_ACCESS_KEY_ID" in said


def test_s3_that_refuses_the_credentials_says_so(s3: str, s3_server: str) -> None:
    httpx.post(f"{s3_server}/moto-api/reset-auth", content=b"0").raise_for_status()
    said = refused(s3)
    assert said.startswith(f"`{s3}` may not be read: PermissionError")
    assert "credentials" in said


def test_s3_that_cannot_be_reached_is_no_traceback(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert "http://127.0.0.1:9" in refused(s3)


def test_the_program_serves_from_s3_and_leaves_nothing(
    s3: str, triton: FakeTriton, private_temporary_folder: Path, tmp_path: Path
) -> None:
    with FrontendProcess(
        tmp_path / "log",
        *("--triton-url", triton.url),
        SIE_TRITON_REPOSITORY=s3,
        TMPDIR=str(private_temporary_folder),
    ) as frontend:
        assert httpx.get(f"{frontend.url}/v1/models").json()["models"][0]["name"] == tiny.MODEL_ID
        assert len(list(private_temporary_folder.iterdir())) == 1
        frontend.terminate()
        assert frontend.wait() == 0
    assert list(private_temporary_folder.iterdir()) == []

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sie_frontend.http.listing import certificate_info
from sie_frontend.manifest import MANIFEST_NAME, Manifest, ManifestError, dump_manifest, read_manifest
from sie_frontend.reference import REFERENCE_NAME, read_reference

from compiler import tiny
from sie_triton.compiler.certificate import texts_digest
from sie_triton.repository import record as manifests
from sie_triton.repository.publish import current_manifest, empty_manifest
from sie_triton.repository.record import Record


def write(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST_NAME).write_bytes(content)
    return folder


def complaint(folder: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder)
    return str(caught.value)


def test_what_is_written_is_read(built: Path, tmp_path: Path) -> None:
    manifest = read_manifest(built)
    written = dump_manifest(manifest)
    assert written == (built / MANIFEST_NAME).read_bytes()
    assert read_manifest(write(tmp_path, written)) == manifest


def test_profiles_keep_the_bundles_order(built: Path, tmp_path: Path) -> None:
    manifest = read_manifest(built)
    model = manifest.models[tiny.MODEL_ID]
    changed = msgspec.structs.replace(model, profiles={"default": {}, "zeta": {}, "alpha": {}})
    written = dump_manifest(msgspec.structs.replace(manifest, models={tiny.MODEL_ID: changed}))
    assert list(read_manifest(write(tmp_path, written)).models[tiny.MODEL_ID].profiles) == ["default", "zeta", "alpha"]


def test_the_tiny_manifest_says_what_was_built(built: Path) -> None:
    manifest = read_manifest(built)
    assert set(manifest.models) == {"acme/tiny", "acme/tiny:raw"}
    assert set(manifest.triton_models) == {"acme__tiny", "acme__tiny.encoder", "acme__tiny.dense"}
    assert manifest.triton_models["acme__tiny"].depends_on == ("acme__tiny.encoder", "acme__tiny.dense")
    (record,) = manifest.built.values()
    assert (record.precisions, record.configs) == ({"cpu": "float32"}, {"cpu": ""})
    assert set(record.parity) == {"float32"}
    assert set(record.parity["float32"]) == {t.name for t in manifest.triton_models["acme__tiny"].outputs}
    assert {"torch", "transformers", "onnx", "sie-triton"} <= set(record.tools)
    default, raw = manifest.models["acme/tiny"], manifest.models["acme/tiny:raw"]
    assert default.text.tokenization == raw.text.tokenization
    assert set(default.profiles) == {"default", "raw"}
    assert set(raw.profiles) == {"default"}
    assert raw.profiles["default"] == default.profiles["raw"]


def test_absent_and_unreadable_manifests(tmp_path: Path) -> None:
    assert current_manifest(tmp_path) is None
    assert "build one with `sie-triton build`" in complaint(tmp_path)
    (tmp_path / MANIFEST_NAME).mkdir()
    assert "cannot read" in complaint(tmp_path)


def test_another_schema_version_is_named(built: Path, tmp_path: Path) -> None:
    content = json.loads((built / MANIFEST_NAME).read_bytes())
    content["schema_version"] = 99
    del content["models"]  # a later schema may look like anything
    message = complaint(write(tmp_path, json.dumps(content).encode()))
    assert "schema version 99, this program reads" in message
    assert "sie-triton build --force -m ID" in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"\xff\xfe",
        b'{"schema_v\xe4rsion": 2}',
        b'{"schema_version": 2}',
        b'{"schema_version": "2"}',
        b'{"schema_version": 2, "models": [], "triton_models": {}, "built": {}}',
        b'{"schema_version": 2, "models": {"m": {}}, "triton_models": {}, "built": {}}',
        b'{"schema_version": 2, "models": {}, "triton_models": {}, "built": {}} trailing',
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_corrupted_manifests_are_told_with_the_cure(content: bytes, tmp_path: Path) -> None:
    message = complaint(write(tmp_path, content))
    assert str(tmp_path / MANIFEST_NAME) in message
    assert "sie-triton build --force -m ID" in message


@given(data=st.data())
def test_a_manifest_that_was_cut_short_is_never_taken_for_a_whole_one(data: st.DataObject, built: Path) -> None:
    whole = (built / MANIFEST_NAME).read_bytes()
    length = data.draw(st.integers(0, len(whole.rstrip()) - 1))
    folder = built.parent / "cut"
    complaint(write(folder, whole[:length]))


def test_merging_replaces_a_model_and_everything_of_it(built: Path) -> None:
    manifest = read_manifest(built)
    emptied = manifests.remove(manifest, tiny.TRITON_NAME)
    assert emptied == empty_manifest()
    assert manifests.remove(emptied, tiny.TRITON_NAME) == emptied
    one = {"acme/tiny": manifest.models["acme/tiny"]}
    record = manifest.built[tiny.TRITON_NAME]
    merged = manifests.merge(manifest, Record(tiny.TRITON_NAME, one, manifest.triton_models, record))
    assert set(merged.models) == {"acme/tiny"}
    assert merged.triton_models == manifest.triton_models


def test_an_id_moves_to_the_model_that_serves_it_now(built: Path) -> None:
    manifest = read_manifest(built)
    model = manifest.models["acme/tiny:raw"]
    entry = msgspec.structs.replace(model.inputs["text"], triton_model="acme__tiny__raw")
    moved = msgspec.structs.replace(model, inputs={"text": entry})
    built_again = {"key": "another", "triton_models": ("acme__tiny__raw",)}
    record = msgspec.structs.replace(manifest.built[tiny.TRITON_NAME], **built_again)
    triton = {"acme__tiny__raw": manifest.triton_models[tiny.TRITON_NAME]}
    merged = manifests.merge(manifest, Record("acme__tiny__raw", {"acme/tiny:raw": moved}, triton, record))
    assert isinstance(merged, Manifest)
    assert merged.models["acme/tiny:raw"].triton_models == ("acme__tiny__raw",)
    assert merged.models["acme/tiny"].triton_models == (tiny.TRITON_NAME,)
    assert set(merged.built) == {tiny.TRITON_NAME, "acme__tiny__raw"}


def test_the_certificate_names_its_witness_and_is_told_in_short(built: Path) -> None:
    (record,) = read_manifest(built).built.values()
    reference = read_reference(built / tiny.TRITON_NAME / "1" / REFERENCE_NAME)
    told = certificate_info(record)
    assert told["implementation"].startswith(f"sentence-transformers {version('sentence-transformers')} ")
    assert told["implementation"] == reference.origin
    assert (told["cases"], told["texts_sha256"]) == (len(reference.cases), texts_digest(reference.cases))
    assert "vectors" in told["compared"]
    assert told["not_compared"]
    assert told["warnings"] == ()
    assert told["distances"]["float32"]["dense"]["min_cosine"] > 0.99999

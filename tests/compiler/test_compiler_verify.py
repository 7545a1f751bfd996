from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper, numpy_helper
from sie_frontend.manifest import (
    MANIFEST_NAME,
    Distance,
    Manifest,
    ManifestError,
    dump_manifest,
    read_manifest,
)
from sie_frontend.outputs.kind import Comparable, Shape
from sie_frontend.reference import REFERENCE_NAME, Case, StoredReference, read_reference

from compiler import tiny
from compiler.command import sie_triton
from sie_triton.repository.publish import MANIFEST_DIGEST_NAME, tree_digests, write_manifest
from sie_triton.verify.checks import check_files, verify_repository
from sie_triton.verify.compare import cosine, max_abs, min_cosine
from sie_triton.verify.parity import _mixed_order, check_parity
from sie_triton.verify.public_model import PublicModel
from sie_triton.verify.reference import write_reference

FILES = (
    "acme__tiny/1/reference.npz",
    "acme__tiny/1/tokenizer.json",
    "acme__tiny/config.pbtxt",
    "acme__tiny/configs/embedded.pbtxt",
    "acme__tiny.dense/1/model.onnx",
    "acme__tiny.dense/config.pbtxt",
    "acme__tiny.dense/configs/embedded.pbtxt",
    "acme__tiny.encoder/1/model.onnx",
    "acme__tiny.encoder/config.pbtxt",
    "acme__tiny.encoder/configs/embedded.pbtxt",
)


def found(repository: Path) -> list[tuple[str, str]]:
    """Code and file of everything that verification says."""
    return [
        (d.code, d.where.path.relative_to(repository).as_posix() if d.where else "")
        for d in verify_repository(repository, read_manifest(repository))
    ]


def codes(repository: Path) -> list[str]:
    return [code for code, _ in found(repository)]


def redigest(repository: Path, change: Callable[[Manifest], Manifest] = lambda manifest: manifest) -> None:
    """Make the manifest agree with the files again, so that only the later checks can object."""
    manifest = read_manifest(repository)
    models = {
        name: msgspec.structs.replace(model, files=tree_digests(repository / name))
        for name, model in manifest.triton_models.items()
    }
    write_manifest(repository, change(msgspec.structs.replace(manifest, triton_models=models)))


def test_a_fresh_build_verifies(repository: Path) -> None:
    assert found(repository) == []
    done = sie_triton("verify", "-r", repository)
    assert done.code == 0
    assert "verified" in done.stderr
    parity, lines = read_parity(repository), done.stdout.splitlines()
    measured, told = lines[: len(parity)], lines[len(parity) :]
    assert [line.split()[1:4] for line in measured] == [[tensor, "in", "float32:"] for tensor in parity]
    assert all("min cosine 1.000000" in line or "min cosine 0.99999" in line for line in measured)
    certificate = read_manifest(repository).built[tiny.TRITON_NAME].certificate
    assert told[0].startswith(f"{tiny.TRITON_NAME} compared with {certificate.implementation}: text to tokens, ")
    assert told[1] == f"{tiny.TRITON_NAME} {certificate.cases} cases, sha256 {certificate.texts}"
    assert told[2].startswith(f"{tiny.TRITON_NAME} not compared: ")


def read_parity(repository: Path) -> dict[str, Distance]:
    return read_manifest(repository).built[tiny.TRITON_NAME].parity["float32"]


# Files


def test_every_file_is_under_test(built: Path) -> None:
    assert set(tree_digests(built)) == {*FILES, MANIFEST_NAME, MANIFEST_DIGEST_NAME}


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_noticed(name: str, repository: Path) -> None:
    manifest = read_manifest(repository)
    path = repository / name
    whole = path.read_bytes()
    generator = random.Random(name)
    for offset in (0, len(whole) - 1, *(generator.randrange(len(whole)) for _ in range(60))):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        assert [(d.code, d.where and d.where.path) for d in check_files(repository, manifest)] == [("SIE511", path)]
    path.write_bytes(whole[:-1])
    done = sie_triton("verify", "-r", repository)
    assert (done.code, done.stdout) == (1, "")
    assert "SIE511" in done.stderr
    assert name in done.stderr
    assert "rebuild with `sie-triton build --force -m ID`" in done.stderr


@pytest.mark.parametrize(("name", "positions"), [(MANIFEST_NAME, 300), (MANIFEST_DIGEST_NAME, 80)])
def test_a_flipped_bit_of_the_manifest_is_noticed(name: str, positions: int, repository: Path) -> None:
    """The manifest holds every digest but its own. A flip that leaves it readable is found by `manifest.sha256`."""
    path = repository / name
    whole = path.read_bytes()
    generator = random.Random(name)
    unreadable = 0
    for offset in generator.sample(range(len(whole)), positions):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            manifest = read_manifest(repository)
        except ManifestError:
            unreadable += 1
            continue
        first, *_ = check_files(repository, manifest)
        assert (first.code, first.where and first.where.path) == ("SIE511", repository / MANIFEST_NAME)
    assert unreadable < positions  # most flips fall into words and numbers, and still make a manifest
    path.write_bytes(whole)
    assert list(check_files(repository, read_manifest(repository))) == []


def test_the_manifest_is_checked_by_sha256sum_too(repository: Path) -> None:
    command = ["sha256sum", "--check", "--strict", MANIFEST_DIGEST_NAME]
    assert subprocess.run(command, cwd=repository, capture_output=True, check=False).returncode == 0
    path = repository / MANIFEST_NAME
    path.write_bytes(path.read_bytes().replace(b"acme", b"acne", 1))
    assert subprocess.run(command, cwd=repository, capture_output=True, check=False).returncode == 1


def test_a_changed_manifest_that_fits_its_files_is_noticed(repository: Path) -> None:
    """Somebody edits a configuration and corrects its digest in the manifest."""
    name = "acme__tiny.encoder"
    config = repository / name / "config.pbtxt"
    config.write_text(config.read_text() + "# faster\n")
    manifest = read_manifest(repository)
    model = msgspec.structs.replace(manifest.triton_models[name], files=tree_digests(repository / name))
    models = {**manifest.triton_models, name: model}
    (repository / MANIFEST_NAME).write_bytes(dump_manifest(msgspec.structs.replace(manifest, triton_models=models)))
    assert codes(repository) == ["SIE511"]
    (repository / MANIFEST_DIGEST_NAME).unlink()
    assert codes(repository) == ["SIE510"]
    done = sie_triton("verify", "-r", repository)
    assert (done.code, "rebuild with `sie-triton build --force -m ID`" in done.stderr) == (1, True)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed(name: str, repository: Path) -> None:
    (repository / name).unlink()
    assert ("SIE510", name) in found(repository)


@pytest.mark.parametrize("name", ["stray", "acme__tiny/stray", "acme__tiny.encoder/2/model.onnx", "extra/config.pbtxt"])
def test_a_file_too_many_is_noticed(name: str, repository: Path) -> None:
    path = repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert ("SIE512", name) in found(repository)


def test_a_link_is_a_file_too_many_even_where_it_leads_nowhere(repository: Path) -> None:
    (repository / "acme__tiny" / "1" / "link").symlink_to("/nowhere")
    assert found(repository) == [("SIE512", "acme__tiny/1/link")]


def test_all_damage_is_reported_at_once(repository: Path) -> None:
    (repository / FILES[0]).unlink()
    (repository / FILES[3]).write_bytes(b"")
    (repository / "stray").touch()
    assert {"SIE510", "SIE511", "SIE512"} <= set(codes(repository))


# Structure


@pytest.mark.parametrize(
    "text",
    ["", "name: ", 'name: "m" colour: "blue"', 'max_batch_size: "many"', "input [ { data_type: TYPE_FP33 } ]", "\x00"],
)
def test_a_configuration_beyond_the_schema_is_refused(text: str, repository: Path) -> None:
    path = repository / "acme__tiny.dense" / "config.pbtxt"
    path.write_text(text)
    redigest(repository)
    expected = "SIE520" if text else "SIE521"  # an empty configuration is one that the schema accepts
    assert (expected, "acme__tiny.dense/config.pbtxt") in found(repository)


@pytest.mark.parametrize(
    ("before", "after"), [("dims: [ 32 ]", "dims: [ 33 ]"), ('name: "input_ids"', 'name: "ids"'), ("[ -1 ]", "[ 7 ]")]
)
def test_a_configuration_of_something_else_is_refused(before: str, after: str, repository: Path) -> None:
    path = repository / "acme__tiny" / "config.pbtxt"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    redigest(repository)
    assert "SIE521" in codes(repository)


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        (
            '_op_thread_count"\n  value: { string_value: "',
            '_op_thread_count"\n  value: { string_value: "x',
            "thread_count",
        ),
        ('default_model_filename: "model.onnx"', 'default_model_filename: "graph.onnx"', "graph.onnx"),
    ],
)
def test_a_configuration_that_triton_would_refuse_is_refused(
    before: str, after: str, rule: str, repository: Path
) -> None:
    """The manifest agrees with it, the schema too; only Triton's own rules do not."""
    path = repository / "acme__tiny.encoder" / "config.pbtxt"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    redigest(repository)
    done = sie_triton("verify", "-r", repository)
    assert done.code == 1
    assert "SIE522" in done.stderr
    assert rule in done.stderr


# Parity


def change_weights(path: Path, change: Callable[[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], object]) -> None:
    """Apply `change` in place to every float weight matrix of a graph."""
    model = onnx.load(path)
    for initializer in model.graph.initializer:
        if initializer.data_type == onnx.TensorProto.FLOAT and len(initializer.dims) == 2:
            values = numpy_helper.to_array(initializer).copy()
            change(values)
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    onnx.save(model, path)


def noise(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    values += np.random.default_rng(0).normal(0, 1e-2, values.shape).astype(np.float32)


def poison(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    values[-1, -1] = np.nan


def test_noise_in_a_graph_misses_the_reference(repository: Path) -> None:
    change_weights(repository / "acme__tiny.encoder" / "1" / "model.onnx", noise)
    redigest(repository)
    done = sie_triton("verify", "-r", repository)
    assert done.code == 1
    assert "SIE501: `dense` of `acme__tiny` in float32 misses the reference: worst cosine 0." in done.stderr
    assert "0.99999 is required" in done.stderr


def test_nan_never_passes(repository: Path) -> None:
    change_weights(repository / "acme__tiny.encoder" / "1" / "model.onnx", poison)
    redigest(repository)
    assert set(codes(repository)) >= {"SIE501", "SIE503"}


def test_a_tokenizer_that_differs_is_noticed(repository: Path) -> None:
    path = repository / "acme__tiny" / "1" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    redigest(repository)
    done = sie_triton("verify", "-r", repository)
    assert done.code == 1
    assert (
        "SIE508: `acme__tiny` tokenises differently from when it was built and compared with sentence-tr" in done.stderr
    )
    assert "SIE501" not in done.stderr


def test_an_output_that_depends_on_its_batch_is_noticed(repository: Path) -> None:
    """As int8 with one scale per tensor would: each row leans towards the mean of its batch."""
    path = repository / "acme__tiny.dense" / "1" / "model.onnx"
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["dense_alone" if name == "dense" else name for name in node.output]
    axes = numpy_helper.from_array(np.asarray([0]), "batch_axis")
    small = numpy_helper.from_array(np.asarray(1e-4, np.float32), "small")
    model.graph.initializer.extend([axes, small])
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["dense_alone", "batch_axis"], ["mean"], keepdims=1),
            helper.make_node("Mul", ["mean", "small"], ["leaning"]),
            helper.make_node("Add", ["dense_alone", "leaning"], ["dense"]),
        ]
    )
    onnx.save(model, path)
    redigest(repository)
    assert found(repository) == [("SIE503", "acme__tiny")]


def test_parity_that_was_never_measured_is_noticed(repository: Path) -> None:
    def forget(manifest: Manifest) -> Manifest:
        record = manifest.built[tiny.TRITON_NAME]
        parity = {name: distance for name, distance in record.parity["float32"].items() if name != "dense_cls"}
        parity["dense"] = msgspec.structs.replace(parity["dense"], cases=3)
        changed = msgspec.structs.replace(record, parity={"float32": parity})
        return msgspec.structs.replace(manifest, built={tiny.TRITON_NAME: changed})

    redigest(repository, forget)
    assert codes(repository) == ["SIE505", "SIE505"]


SHAPES = {
    "dense": Shape.VECTOR,
    "dense_unnormalized": Shape.VECTOR,
    "score": Shape.NUMBER,
    "token_weights": Shape.NUMBERS,
}
DISTANCE = Distance(reference="transformers", cases=3, min_cosine=1.0, max_abs=0.0, batch_max_abs=0.0)


@pytest.mark.parametrize(
    ("tensor", "changes", "expected"),
    [
        ("dense", {}, []),
        ("dense", {"min_cosine": 0.99999}, []),
        ("dense", {"min_cosine": 0.9999899}, ["SIE501"]),
        ("dense", {"min_cosine": float("nan")}, ["SIE501"]),
        ("dense", {"batch_max_abs": 1e-5}, []),
        ("dense", {"batch_max_abs": 1.1e-5}, ["SIE503"]),
        ("dense", {"batch_max_abs": float("nan")}, ["SIE503"]),
        ("dense_unnormalized", {"min_cosine": 0.9}, ["SIE501"]),
        ("score", {"min_cosine": None, "max_abs": 1e-4}, []),
        ("score", {"min_cosine": None, "max_abs": 1.1e-4}, ["SIE501"]),
        ("token_weights", {"min_cosine": None, "max_abs": float("nan")}, ["SIE501"]),
        ("dense", {"min_cosine": 0.5, "batch_max_abs": 1.0}, ["SIE501", "SIE503"]),
        ("dense", {"min_cosine": float("-inf"), "max_abs": float("inf"), "batch_max_abs": 1.0}, ["SIE501"]),
        ("dense_unnormalized", {"max_abs": 1e-4}, []),
        ("dense_unnormalized", {"max_abs": 1.1e-4}, ["SIE501"]),
        ("dense_unnormalized", {"max_abs": 9e-4, "largest": 10.0}, []),
    ],
)
def test_the_tolerances_are_these(
    tensor: str, changes: dict[str, float | None], expected: list[str], tmp_path: Path
) -> None:
    measured = {tensor: msgspec.structs.replace(DISTANCE, **changes)}
    model = PublicModel("m", None, {}, (Comparable(tensor, (tensor,), SHAPES[tensor]),))  # type: ignore[arg-type] # nothing is read
    assert [d.code for d in check_parity(tmp_path, model, measured)] == expected


def test_without_onnxruntime_the_cure_is_named(repository: Path) -> None:
    program = (
        "import sys; sys.modules['onnxruntime'] = None; sys.argv[:1] = ['sie-triton', 'verify', '-r']\n"
        "from sie_triton.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program, str(repository)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "SIE530: checking parity needs onnxruntime" in done.stderr
    assert "pip install 'sie-triton[cpu]'" in done.stderr


def test_without_torch_torchscript_graphs_name_the_cure(tmp_path: Path) -> None:
    """ONNX graphs are verified without torch; these are torch's own."""
    (tmp_path / "m").mkdir()
    config = 'name: "m" backend: "pytorch" default_model_filename: "model.pt"'
    (tmp_path / "m" / "config.pbtxt").write_text(config, encoding="utf-8")
    program = (
        "import sys; sys.modules['torch'] = None\nfrom pathlib import Path\n"
        "from sie_triton.verify.model_runner import ModelRunner; ModelRunner(Path(sys.argv[1]), 'm')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "DiagnosticError: SIE530: checking parity needs torch" in done.stderr
    assert "pip install 'sie-triton[export]'" in done.stderr


def test_verification_needs_neither_torch_nor_transformers(repository: Path) -> None:
    program = (
        "import sys\nfor name in ('torch', 'transformers', 'onnx'): sys.modules[name] = None\n"
        "sys.argv[:1] = ['sie-triton', 'verify', '-r']\nfrom sie_triton.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program, str(repository)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The reference file


def test_a_reference_survives_the_disk(tmp_path: Path) -> None:
    reference = StoredReference(
        "somewhere",
        (Case(""), Case("a", "q"), Case(None, "\u2028 ü 👍")),
        (np.asarray([1, 2]), np.asarray([3]), np.asarray([4, 5, 6])),
        {"dense": tuple(np.arange(4, dtype=np.float32) + i for i in range(3))},
    )
    write_reference(tmp_path / "1" / REFERENCE_NAME, reference)
    read = read_reference(tmp_path / "1" / REFERENCE_NAME)
    assert (read.origin, read.cases) == (reference.origin, reference.cases)
    for before, after in zip(reference.fingerprints, read.fingerprints, strict=True):
        np.testing.assert_array_equal(before, after)
    for before, after in zip(reference.outputs["dense"], read.outputs["dense"], strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_reference_with_pickles_is_not_opened(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, header=np.asarray([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_reference(path)


def test_the_reference_covers_lengths_and_truncation(built: Path) -> None:
    reference = read_reference(built / "acme__tiny" / "1" / REFERENCE_NAME)
    model = read_manifest(built).models[tiny.MODEL_ID]
    lengths = {len(ids) for ids in reference.fingerprints}
    limit = model.text.tokenization.max_length
    assert {limit - 1, limit} <= lengths
    assert max(lengths) == limit
    for bucket in model.text.tokenization.buckets[:-1]:
        assert {bucket - 1, bucket, bucket + 1} <= lengths


@given(st.integers(1, 200))
def test_the_mixed_order_is_a_permutation(count: int) -> None:
    assert sorted(_mixed_order(count)) == list(range(count))


# Distances

FLOATS = arrays.arrays(np.float32, 5, elements=st.floats(-10, 10, width=32))


@given(FLOATS, FLOATS)
def test_cosine_is_symmetric_and_bounded(
    left: np.ndarray[tuple[int, ...], np.dtype[np.float32]], right: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> None:
    assert cosine(left, right) == pytest.approx(cosine(right, left))
    assert -1.0000001 <= cosine(left, right) <= 1.0000001
    assert cosine(left, left) == pytest.approx(1.0)


def test_zero_vectors_and_nan() -> None:
    zero, one, nan = np.zeros(3), np.ones(3), np.asarray([1, np.nan, 0])
    assert cosine(zero, zero) == 1.0
    assert cosine(zero, one) == 0.0
    assert np.isnan(min_cosine([one, nan], [one, one]))
    assert np.isnan(max_abs([one, nan], [one, one]))
    assert max_abs([one], [np.ones(4)]) == float("inf")
    assert max_abs([zero], [one * -3]) == 3.0


def test_a_copy_elsewhere_verifies(repository: Path, tmp_path: Path) -> None:
    assert found(Path(shutil.move(repository, tmp_path / "elsewhere"))) == []

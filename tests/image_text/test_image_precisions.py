"""Pictures below float32: what the manifest says of their answers, counted anew; refused where it is too little."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from answers.few import few
from PIL import Image
from sie_frontend.manifest import Built, Manifest, read_manifest
from sie_frontend.reference import Case
from sie_frontend.rows import Array, Row

from sie_triton.answers.pictures import pictures
from sie_triton.embedded.openvino_engine import OpenVinoGraph, installed
from sie_triton.repository.processor import multiplies_bfloat16
from sie_triton.tuning import alternatives
from sie_triton.tuning.alternatives import Rung, weigh
from sie_triton.tuning.speeds import Samples
from sie_triton.verify.checks import verify_repository
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import public_model

from .builds import NAME, build
from .checkpoints import TINY, write_clip
from .precisions import least_cosine
from .served import Reference

pytestmark = pytest.mark.export

COUNT, FEW_TEXTS = 40, 15
ANYTHING = ("--accept", "cosine=0.5", "--accept", "nearest=0.2", "--accept", "batch=1")
IMAGE = f"{NAME}.image"


@pytest.fixture(autouse=True)
def few_items(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, text=FEW_TEXTS, image=COUNT)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("precise_clip") / "checkpoint"
    # Wide enough that its products are worth 8 bits.
    vision = {**TINY["vision_config"], "hidden_size": 32, "num_attention_heads": 4}
    write_clip(folder, config={**TINY, "vision_config": vision})
    return folder


@pytest.fixture
def root(checkpoint: Path, tmp_path: Path) -> Path:
    (tmp_path / "checkpoint").symlink_to(checkpoint)
    return tmp_path


def kept(theirs: Array, ours: Array, index: Array) -> float:
    """Of the ten pictures nearest to each of `theirs` among them, the share that `ours` find in `index`."""
    shares = []
    for place in range(len(theirs)):
        ten = []
        for documents, query in ((theirs, theirs[place]), (index, ours[place])):
            others = [other for other in range(len(theirs)) if other != place]
            ten.append(sorted(others, key=lambda other: -float(documents[other] @ query))[:10])
        shares.append(len(set(ten[0]) & set(ten[1])) / 10)
    return float(np.mean(shares))


def check(built: Built, precision: str, checkpoint: Path, found: Array, drawn: Sequence[str]) -> None:
    """The recorded figures are those of transformers' vectors and the repository's own."""
    expected = Reference(checkpoint).seen([Image.open(io.BytesIO(base64.b64decode(one))) for one in drawn])
    [nearest] = built.nearest[precision].values()
    assert (nearest.texts, nearest.queries, nearest.comparison) == (COUNT, COUNT, "cosine")
    assert nearest.corpus == "pictures of leaves that cover one another"
    # Places that are as near as rounding may go either way.
    assert nearest.alike == pytest.approx(kept(expected, found, found), abs=0.03)
    assert nearest.mixed == pytest.approx(kept(expected, found, expected), abs=0.03)
    assert nearest.min_cosine == pytest.approx(float((expected * found).sum(1).min()), abs=1e-5)
    assert 0.2 < nearest.alike <= 1 and nearest.min_cosine < 1


def rows_of(repository: Path, manifest: Manifest, drawn: Sequence[str]) -> list[Row]:
    return public_model(repository, manifest, IMAGE).rows([Case(one) for one in drawn])


def vectors(repository: Path, manifest: Manifest, drawn: Sequence[str]) -> Array:
    model = public_model(repository, manifest, IMAGE)
    runner = ModelRunner(repository, IMAGE)
    rows = rows_of(repository, manifest, drawn)
    return np.stack([runner.run(model.reader.batch([row], row.cost), ["dense"])["dense"][0] for row in rows])


@pytest.mark.parametrize(
    ("precision", "engine"), [("bfloat16", "openvino"), ("int8", "onnxruntime"), ("int8", "openvino")]
)
def test_each_side_says_what_becomes_of_its_answers(precision: str, engine: str, root: Path, checkpoint: Path) -> None:
    if engine == "openvino" and not installed():
        pytest.skip("needs `openvino`, an extra")
    if precision == "bfloat16" and not multiplies_bfloat16():
        pytest.skip("this processor does not multiply bfloat16")
    done = build(root, "--device", "cpu", "--precision", precision, "--engine", engine, *ANYTHING)
    assert done.code == 0, done.stderr
    for name in (NAME, IMAGE):
        assert f"built acme/clip (`{name}`)" in " ".join(done.stderr.split())
    repository = root / "repository"
    manifest = read_manifest(repository)
    for name in (NAME, IMAGE):
        built = manifest.built[name]
        assert (built.precisions, built.engine) == ({"cpu": precision}, engine)
        assert set(built.parity) == set(built.nearest) == set(built.written) == {precision}
    drawn = list(pictures(COUNT))
    found = vectors(repository, manifest, drawn)
    check(manifest.built[IMAGE], precision, checkpoint, found, drawn)
    [path] = (repository / IMAGE / "1").glob("*.onnx")
    if engine == "openvino":
        graph = OpenVinoGraph(path, threads=3, streams=3, precision="bf16" if precision == "bfloat16" else "f32")
        feeds = [row.arrays["pixels"][None] for row in rows_of(repository, manifest, drawn)]
        with ThreadPoolExecutor(3) as threads:
            crowd = threads.map(lambda pixels: graph.run(["dense"], {"pixels": pixels})[0][0], feeds)
            assert least_cosine(list(crowd), found) > 0.9999
    assert verify_repository(repository, manifest) == []
    if precision == "int8":
        assert "MatMulNBits" in {node.op_type for node in onnx.load(str(path)).graph.node}


def test_pictures_that_lose_too_many_answers_are_not_published(root: Path) -> None:
    done = build(root, "--device", "cpu", "--precision", "int8", "--accept", "nearest=1.0", "--accept", "cosine=0.5")
    assert done.code == 1 and "SIE513" in done.stderr
    assert not (root / "repository").exists()


def test_alternatives_are_weighed_for_pictures_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coarse, halved = Rung("onnxruntime", "int8"), Rung("openvino", "bfloat16")
    monkeypatch.setattr(alternatives, "RUNGS", (alternatives.SERVED, coarse, halved))
    assert build(root, "--device", "cpu").code == 0
    manifest = read_manifest(root / "repository")
    found = {
        one.triton_model: one
        for one in weigh(root / "repository", manifest, cores=1, samples=Samples(0.02, 1), announce=lambda _: None)
    }
    for name in (NAME, IMAGE):
        rungs = {one.rung: one for one in found[name].rungs}
        assert not rungs[coarse].lacking and rungs[coarse].kept is not None and rungs[coarse].alone_s > 0
        assert bool(rungs[halved].lacking) != (installed() and multiplies_bfloat16())

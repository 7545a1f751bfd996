"""A build in int8: published with what it does to an index, or refused with the figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from answers.few import few
from sie_frontend.http.listing import certificate_info
from sie_frontend.manifest import read_manifest

from sie_triton.compiler.build import compile_models
from sie_triton.diagnostics import DiagnosticError
from sie_triton.lint import lint_repository
from sie_triton.planning.plan import GraphOptions
from sie_triton.verify.checks import verify_repository

from . import tiny
from .conftest import Tiny

pytestmark = pytest.mark.export


def options(**accepted: float) -> GraphOptions:
    return GraphOptions(precision="int8", devices=("cpu",), accepted=tuple(sorted(accepted.items())))


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, text=600)


@pytest.fixture(scope="module")
def eight_bits(tiny_model: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("int8") / "repository"
    with pytest.MonkeyPatch.context() as patch:
        few(patch, text=600)
        graphs = options(cosine=0.95, nearest=0.3)
        compile_models([tiny_model.target("default")], tiny_model.options(repository, graphs=graphs))
    return repository


def test_the_manifest_tells_how_close_it_is_and_how_it_was_made(eight_bits: Path) -> None:
    manifest = read_manifest(eight_bits)
    built = manifest.built[tiny.TRITON_NAME]
    assert built.precisions == {"cpu": "int8"}
    assert set(built.parity) == set(built.nearest) == set(built.written) == {"int8"}
    assert built.accepted == {"cosine": 0.95, "nearest": 0.3}
    assert "blocks of 64" in built.written["int8"]
    for name, distance in built.parity["int8"].items():
        assert distance.min_cosine is not None
        # Rounding that rounds nothing was none.
        assert 0.95 < distance.min_cosine < 1 and distance.max_abs > 1e-6, name
        found = built.nearest["int8"][name]
        assert found.texts == 600 and found.queries == 60 and len(found.digest) == 64
        assert min(found.alike, found.mixed) >= 0.3 and max(found.alike, found.mixed) <= 1
        assert found.min_cosine <= 1
    told = certificate_info(built)
    assert told["precisions"] == {"cpu": "int8"}
    assert set(told["nearest"]["int8"]) == set(built.nearest["int8"])


def test_the_graph_has_its_weights_in_8_bits_and_holds_under_every_check(eight_bits: Path) -> None:
    [path] = eight_bits.rglob("*.onnx")
    assert path.name == "model.int8.onnx"
    graph = onnx.load(str(path)).graph
    kinds = [node.op_type for node in graph.node]
    # Q, K, V, the attention's output, and the two of the layer.
    assert kinds.count("MatMulNBits") == 6
    whole = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2]
    assert all(int(np.prod(t.dims)) < 1_000_000 for t in whole)
    assert verify_repository(eight_bits, read_manifest(eight_bits)) == []
    assert {f.rule_id for f in lint_repository(eight_bits) if f.severity == "error"} == {"L223"}
    assert [f for f in lint_repository(eight_bits, triton="25.06") if f.severity == "error"] == []


def test_what_is_not_close_enough_is_refused_with_the_figures(tiny_model: Tiny, tmp_path: Path) -> None:
    with pytest.raises(DiagnosticError) as caught:
        compile_models([tiny_model.target("default")], tiny_model.options(tmp_path / "r", graphs=options(nearest=1.0)))
    [problem] = caught.value.diagnostics
    assert problem.code == "SIE513"
    for figure in (
        "blocks of 64",
        "blocks of 32",
        "lowest cosine",
        "alone against batched",
        "99.8% of the ten",
        "100% of",
    ):
        assert figure in problem.message
    assert problem.hint is not None and "--accept" in problem.hint
    assert not (tmp_path / "r").exists()


def test_a_float32_build_is_what_it_was(tiny_model: Tiny, tmp_path: Path) -> None:
    """Its key is of the same inputs as before there was anything to accept."""
    from sie_triton.compiler.line import build_key

    plain = tiny_model.options(tmp_path, graphs=GraphOptions())
    named = tiny_model.options(tmp_path, graphs=GraphOptions(accepted=(("cosine", 0.9),)))
    assert build_key(tiny_model.target(), plain, "x") != build_key(tiny_model.target(), named, "x")


def test_an_onnx_runtime_without_weights_of_8_bits_is_named(
    tiny_model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.__version__", "1.21.1")
    with pytest.raises(DiagnosticError, match="int8 needs ONNX Runtime") as caught:
        compile_models([tiny_model.target("default")], tiny_model.options(tmp_path / "r", graphs=options()))
    assert [problem.code for problem in caught.value.diagnostics] == ["SIE530"]

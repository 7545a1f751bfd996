"""A folder of bundles, and finding a model in it by the id that a client would use."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sie_triton.bundle import Bundle, ResolvedProfile, find_model, load_bundles, routable
from sie_triton.diagnostics import Diagnostic

PROFILE = {"max_batch_tokens": 1, "adapter_path": "sie_server.adapters.bert_flash:BertFlashAdapter"}


def _write(folder: Path, name: str, sie_id: str, *profiles: str) -> None:
    values = {
        "sie_id": sie_id,
        "hf_id": sie_id,
        "tasks": {"encode": {"dense": {"dim": 8}}},
        "profiles": dict.fromkeys(profiles or ("default",), PROFILE),
    }
    (folder / name).write_text(yaml.safe_dump(values), encoding="utf-8")


def _ids(folder: Path) -> list[str]:
    bundles, diagnostics = load_bundles(folder)
    assert diagnostics == []
    return list(routable(bundles))


def test_only_yaml_files_directly_in_the_folder_count(tmp_path: Path) -> None:
    _write(tmp_path, "b.yaml", "acme/b")
    _write(tmp_path, "a.yaml", "acme/a", "default", "fast")
    _write(tmp_path, "c.yml", "acme/c")
    (tmp_path / "nested.yaml").mkdir()
    _write(tmp_path / "nested.yaml", "d.yaml", "acme/d")
    assert _ids(tmp_path) == ["acme/a", "acme/a:fast", "acme/b"]


def test_two_files_with_one_id_are_a_mistake_naming_both(tmp_path: Path) -> None:
    _write(tmp_path, "first.yaml", "acme/same")
    _write(tmp_path, "second.yaml", "acme/same", "other")
    bundles, [diagnostic] = load_bundles(tmp_path)
    assert list(bundles["acme/same"].profiles) == ["default"]
    assert diagnostic.code == "SIE110"
    assert diagnostic.message == (
        f"`acme/same` is defined twice: in {tmp_path / 'first.yaml'} and in {tmp_path / 'second.yaml'}"
    )
    assert diagnostic.where is not None and diagnostic.where.path == tmp_path / "second.yaml"
    assert diagnostic.where.line > 0


def test_good_bundles_are_returned_beside_the_mistakes_of_the_others(tmp_path: Path) -> None:
    _write(tmp_path, "good.yaml", "acme/good")
    (tmp_path / "bad.yaml").write_text("sie_id: acme/bad\n", encoding="utf-8")
    (tmp_path / "torn.yaml").write_text("{", encoding="utf-8")
    bundles, diagnostics = load_bundles(tmp_path)
    assert list(bundles) == ["acme/good"]
    assert {d.where.path.name for d in diagnostics if d.where} == {"bad.yaml", "torn.yaml"}


@pytest.mark.parametrize(("name", "message"), [("", "holds no `*.yaml`"), ("absent", "does not exist")])
def test_a_folder_without_bundles_is_a_mistake(name: str, message: str, tmp_path: Path) -> None:
    bundles, [diagnostic] = load_bundles(tmp_path / name)
    assert bundles == {}
    assert (diagnostic.code, diagnostic.message) == ("SIE112", f"the bundle folder {message}")


def test_a_bundle_whose_own_id_reads_like_a_variant_wins(tmp_path: Path) -> None:
    _write(tmp_path, "a.yaml", "acme/a", "default", "fast")
    _write(tmp_path, "b.yaml", "acme/a:fast")
    bundles, _ = load_bundles(tmp_path)
    models = routable(bundles)
    assert list(models) == ["acme/a", "acme/a:fast"]
    assert models["acme/a:fast"][0] is bundles["acme/a:fast"]


@pytest.fixture
def bundles(tmp_path: Path) -> dict[str, Bundle]:
    _write(tmp_path, "m3.yaml", "BAAI/bge-m3", "default", "sparse")
    _write(tmp_path, "small.yaml", "BAAI/bge-small-en-v1.5", "candle")
    _write(tmp_path, "minilm.yaml", "sentence-transformers/all-MiniLM-L6-v2")
    found, diagnostics = load_bundles(tmp_path)
    assert diagnostics == []
    return found


def test_find_by_bare_id_and_by_variant(bundles: dict[str, Bundle]) -> None:
    for model_id, profile in (
        ("BAAI/bge-m3", "default"),
        ("BAAI/bge-m3:sparse", "sparse"),
        ("BAAI/bge-small-en-v1.5:candle", "candle"),
    ):
        found = find_model(bundles, model_id)
        assert not isinstance(found, Diagnostic)
        bundle, resolved = found
        assert isinstance(resolved, ResolvedProfile)
        assert (resolved.model_id, resolved.profile) == (model_id, profile)
        assert bundle is bundles[resolved.sie_id]


@pytest.mark.parametrize(
    ("model_id", "message", "hint"),
    [
        (
            "BAAI/bge-m3:default",
            "unknown model `BAAI/bge-m3:default`",
            "the default profile is addressed as `BAAI/bge-m3`",
        ),
        ("baai/BGE-M3", "unknown model `baai/BGE-M3`", "did you mean `BAAI/bge-m3`, `BAAI/bge-m3:sparse`?"),
        (
            "BAAI/bge-m3:sprase",
            "`BAAI/bge-m3` has no profile `sprase`",
            "did you mean `BAAI/bge-m3:sparse`, `BAAI/bge-m3`?",
        ),
        (
            "BAAI/bge-small-en-v1.5",
            "`BAAI/bge-small-en-v1.5` has no `default` profile, so the bare id names no model",
            "choose `BAAI/bge-small-en-v1.5:candle`",
        ),
        (
            "all-MiniLM-L6-v2",
            "unknown model `all-MiniLM-L6-v2`",
            "did you mean `sentence-transformers/all-MiniLM-L6-v2`?",
        ),
        ("zzz", "unknown model `zzz`", "`sie-triton catalog` lists the ids"),
        ("", "unknown model ``", "`sie-triton catalog` lists the ids"),
    ],
)
def test_an_id_that_names_nothing(model_id: str, message: str, hint: str, bundles: dict[str, Bundle]) -> None:
    found = find_model(bundles, model_id)
    assert isinstance(found, Diagnostic)
    assert (found.code, found.message, found.hint) == ("SIE111", message, hint)


def test_at_most_three_suggestions(tmp_path: Path) -> None:
    for i in range(5):
        _write(tmp_path, f"{i}.yaml", f"acme/model-{i}")
    bundles, _ = load_bundles(tmp_path)
    found = find_model(bundles, "acme/model")
    assert isinstance(found, Diagnostic) and found.hint is not None
    assert found.hint.count("acme/model-") == 3

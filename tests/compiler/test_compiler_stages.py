from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper
from sie_frontend.manifest import read_manifest

from compiler import tiny
from compiler.conftest import Playback, Tiny
from compiler.test_compiler_verify import change_weights, noise
from sie_triton.compiler.build import compile_models
from sie_triton.diagnostics import DiagnosticError
from sie_triton.repository.publish import tree_digests
from sie_triton.resources import available_cores

ENCODER = Path("acme__tiny.encoder") / "1" / "model.onnx"


def refusal(caught: pytest.ExceptionInfo[DiagnosticError]) -> set[str]:
    return {diagnostic.code for diagnostic in caught.value.diagnostics}


def litter(repository: Path) -> set[str]:
    return {path.name for path in repository.parent.iterdir()} - {repository.name, f".{repository.name}.lock"}


@pytest.mark.export
def test_equal_inputs_give_equal_bytes(tiny_model: Tiny, built: Path, tmp_path: Path) -> None:
    """Both builds are real; the paths, times and process differ."""
    again = tmp_path / "elsewhere" / "repository"
    (result,) = compile_models([tiny_model.target()], tiny_model.options(again))
    assert not result.skipped
    assert tree_digests(again) == tree_digests(built)


def test_an_unchanged_build_is_skipped(tiny_model: Tiny, built: Path, repository: Path, playback: Playback) -> None:
    (result,) = compile_models([tiny_model.target()], tiny_model.options(repository))
    assert result.skipped
    assert result.model_ids == ("acme/tiny", "acme/tiny:raw")
    assert playback.exports == 0
    assert tree_digests(repository) == tree_digests(built)


def test_force_builds_again(tiny_model: Tiny, built: Path, repository: Path, playback: Playback) -> None:
    (result,) = compile_models([tiny_model.target()], tiny_model.options(repository, force=True))
    assert (result.skipped, playback.exports) == (False, 1)
    assert tree_digests(repository) == tree_digests(built)
    assert litter(repository) == set()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("max_batch_tokens: 1024", "max_batch_tokens: 2048"),
        ("normalize: true", "normalize: false"),
        ("pooling: cls", "pooling: mean"),
    ],
)
def test_a_changed_bundle_is_built_again(
    before: str, after: str, tiny_model: Tiny, repository: Path, playback: Playback, tmp_path: Path
) -> None:
    bundles = tiny.write_bundle(tmp_path / "changed", tiny.BUNDLE.replace(before, after))
    (result,) = compile_models([tiny_model.target(bundles=bundles)], tiny_model.options(repository))
    assert (result.skipped, playback.exports) == (False, 1)


def test_another_machine_builds_again(tiny_model: Tiny, repository: Path, playback: Playback) -> None:
    (result,) = compile_models([tiny_model.target()], tiny_model.options(repository, cores=available_cores() * 4))
    assert (result.skipped, playback.exports) == (False, 1)


def test_changed_weights_are_noticed_by_their_content(
    tiny_model: Tiny, repository: Path, playback: Playback, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for path in tiny_model.checkpoint.iterdir():
        (checkpoint / path.name).write_bytes(path.read_bytes())
    moved = Tiny(tiny_model.bundles, checkpoint)
    assert compile_models([moved.target()], moved.options(repository))[0].skipped
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert not compile_models([moved.target()], moved.options(repository))[0].skipped
    assert playback.exports == 1


def test_noise_of_a_hundredth_publishes_nothing(
    tiny_model: Tiny, built: Path, repository: Path, playback: Playback
) -> None:
    playback.graphs = lambda staging: change_weights(staging / ENCODER, noise)
    with pytest.raises(DiagnosticError) as caught:
        compile_models([tiny_model.target()], tiny_model.options(repository, force=True))
    assert refusal(caught) == {"SIE501"}
    assert "nothing was published" in str(caught.value)
    assert tree_digests(repository) == tree_digests(built)
    assert litter(repository) == set()


def test_a_first_build_that_fails_leaves_nothing(tiny_model: Tiny, playback: Playback, tmp_path: Path) -> None:
    def blank(staging: Path) -> None:
        model = onnx.load(staging / ENCODER)
        for initializer in model.graph.initializer:
            if initializer.data_type == onnx.TensorProto.FLOAT:
                initializer.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(initializer) * float("nan"), initializer.name)
                )
        onnx.save(model, staging / ENCODER)

    playback.graphs = blank
    repository = tmp_path / "first" / "repository"
    with pytest.raises(DiagnosticError) as caught:
        compile_models([tiny_model.target()], tiny_model.options(repository))
    assert refusal(caught) == {"SIE501", "SIE503"}
    assert not repository.exists()
    assert litter(repository) == set()


def test_another_tokenizer_publishes_nothing(
    tiny_model: Tiny, built: Path, repository: Path, playback: Playback
) -> None:
    def keep_case(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert '"lowercase":true' in text
        path.write_text(text.replace('"lowercase":true', '"lowercase":false'), encoding="utf-8")

    playback.tokenizer = keep_case
    playback.asks = True
    with pytest.raises(DiagnosticError) as caught:
        compile_models([tiny_model.target()], tiny_model.options(repository, force=True))
    assert refusal(caught) == {"SIE502"}
    assert tree_digests(repository) == tree_digests(built)


SECOND = tiny.BUNDLE.replace("acme/tiny", "acme/other")


def both(tiny_model: Tiny, folder: Path) -> list[Any]:
    """The tiny bundle and one like it under another id."""
    from sie_triton.bundle import expand, load_bundles
    from sie_triton.compiler.options import select

    tiny.write_bundle(folder)
    (folder / "other.yaml").write_text(SECOND)
    bundles, mistakes = load_bundles(folder)
    assert not mistakes
    return [select(bundle, expand(bundle)) for bundle in bundles.values()]


@pytest.mark.usefixtures("playback")
def test_a_second_model_joins_the_first(tiny_model: Tiny, built: Path, repository: Path, tmp_path: Path) -> None:
    results = compile_models(both(tiny_model, tmp_path / "bundles"), tiny_model.options(repository))
    assert {(result.triton_model, result.skipped) for result in results} == {
        ("acme__tiny", True),
        ("acme__other", False),
    }
    manifest = read_manifest(repository)
    assert set(manifest.models) == {"acme/tiny", "acme/tiny:raw", "acme/other", "acme/other:raw"}
    before, after = tree_digests(built), tree_digests(repository)
    kept = {name: digest for name, digest in after.items() if name.startswith("acme__tiny")}
    assert kept == {name: digest for name, digest in before.items() if name.startswith("acme__tiny")}


def test_models_are_published_together_or_not_at_all(
    tiny_model: Tiny, built: Path, repository: Path, playback: Playback, tmp_path: Path
) -> None:
    def spoil_the_second(staging: Path) -> None:
        graph = staging / "acme__other.encoder" / "1" / "model.onnx"
        if graph.exists():
            change_weights(graph, noise)

    playback.graphs = spoil_the_second
    targets = sorted(both(tiny_model, tmp_path / "bundles"), key=lambda t: t.bundle.sie_id, reverse=True)
    with pytest.raises(DiagnosticError):
        compile_models(targets, tiny_model.options(repository, force=True))
    assert tree_digests(repository) == tree_digests(built)


@pytest.mark.usefixtures("playback")
def test_models_that_no_profile_needs_any_more_are_dropped(tiny_model: Tiny, repository: Path, tmp_path: Path) -> None:
    text = tiny.BUNDLE.replace("max_batch_tokens: 1024", "max_batch_tokens: 512")
    stray = repository / "left_over" / "1"
    stray.mkdir(parents=True)
    bundles = tiny.write_bundle(tmp_path / "changed", text)
    compile_models([tiny_model.target("default", bundles=bundles)], tiny_model.options(repository))
    manifest = read_manifest(repository)
    assert set(manifest.models) == {"acme/tiny"}
    assert {path.name for path in repository.iterdir() if path.is_dir()} == set(manifest.triton_models)
    kept = {part for model in manifest.previous.values() for part in manifest.parts(model)}
    assert kept == {"acme__tiny", "acme__tiny.encoder", "acme__tiny.dense"}  # to go back to
    suffix = manifest.built[manifest.models["acme/tiny"].triton_models[0]].suffix
    assert set(manifest.served().triton_models) == {f"{name}{suffix}" for name in kept}
    assert set(manifest.triton_models) == kept | set(manifest.served().triton_models)

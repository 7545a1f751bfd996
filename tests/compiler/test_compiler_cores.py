"""A repository that was built for more cores than the server may use: it is told, with the cure."""

from __future__ import annotations

from pathlib import Path

import pytest
from sie_frontend.manifest import read_manifest

from compiler import tiny
from compiler.command import sie_triton
from compiler.conftest import Playback, Tiny
from sie_triton.compiler.build import compile_models
from sie_triton.repository import config
from sie_triton.serving.crowding import crowded


@pytest.mark.parametrize("heavy", [False, True])
def test_more_threads_than_cores_are_told(
    tiny_model: Tiny,
    playback: Playback,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    heavy: bool,
) -> None:
    """Small models have streams of one thread, large ones a stream of several."""
    if heavy:
        monkeypatch.setattr(config, "INSTANCE_WEIGHT_BYTES", 1)
    repository = tmp_path / "repository"
    compile_models([tiny_model.target()], tiny_model.options(repository, cores=4))
    manifest = read_manifest(repository)
    told = crowded(manifest, cores=3)
    assert told is not None
    assert f"`{tiny.TRITON_NAME}` is built for 4 cores, and this process may use 3" in told
    assert "build --cores 3" in told
    assert crowded(manifest, cores=4) is None


def test_build_takes_the_cores_of_another_machine(tiny_model: Tiny, playback: Playback, tmp_path: Path) -> None:
    arguments = ("--bundles", tiny_model.bundles, "--weights", tiny_model.checkpoint, "-r", tmp_path / "r")
    done = sie_triton(
        "build", "-m", tiny.MODEL_ID, *arguments, "--layout", "ensemble", "--device", "cpu", "--cores", "3"
    )
    assert done.code == 0, done.stderr
    assert crowded(read_manifest(tmp_path / "r"), cores=3) is None
    assert "built for 3 cores" in (crowded(read_manifest(tmp_path / "r"), cores=2) or "")

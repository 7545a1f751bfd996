"""Two repositories, each built once a session through the command line: real MiniLM weights, and a tiny model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from compiler import tiny

from e2e.processes import Serving, sie_triton

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
BGE = "BAAI/bge-small-en-v1.5"


@dataclass(frozen=True)
class TinyBuild:
    """The tiny model: how to build it, its repository, and how long a build takes here.

    What it was compared with lies beside its bundle, so that a build after the first one needs no torch.
    """

    arguments: tuple[str | Path, ...]
    repository: Path
    seconds: float


@pytest.fixture(scope="session")
def tiny_build(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyBuild:
    folder = tmp_path_factory.mktemp("tiny_e2e")
    checkpoint = tiny.write_checkpoint(folder / "checkpoint", tokenizer_from=minilm)
    bundles = tiny.write_bundle(folder / "bundles")
    arguments = ("build", "-m", tiny.MODEL_ID, "--bundles", bundles, "--weights", checkpoint, "--device", "cpu")
    done = sie_triton(*arguments, "-r", folder / "repository", "--save-references", bundles)
    assert done.returncode == 0, done.stderr
    begun = time.monotonic()
    done = sie_triton(*arguments, "-r", folder / "repository", "--force")
    assert done.returncode == 0 and "what is carried beside the bundle" in done.stderr, done.stderr
    return TinyBuild(arguments, folder / "repository", time.monotonic() - begun)


@pytest.fixture(scope="session")
def repository(built_repository: Path) -> Path:
    """Both shipped bundles: MiniLM on its real weights, bge-small on the stand-in."""
    return built_repository


@pytest.fixture(scope="session")
def serving(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    server = Serving(repository, tmp_path_factory.mktemp("serving"))
    server.wait_ready()
    yield server
    server.stop()


@pytest.fixture
def url(serving: Serving) -> str:
    """The address of the served repository, ready."""
    serving.wait_ready()
    return serving.url

"""Three builds of tiny models, made once: two versions of one model, and another model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from compiler import tiny
from numpy.typing import NDArray

from sie_triton.bundle import expand, load_bundles
from sie_triton.compiler.build import compile_models
from sie_triton.compiler.options import BuildOptions, select
from sie_triton.planning.plan import GraphOptions

TEXTS = ("retrieval systems embed passages", "the rare words", "near neighbours answer the question that was asked")
OTHER = "acme/other"


@dataclass(frozen=True)
class Versions:
    """The sources: a folder of bundles for each model, and a checkpoint for each version."""

    folder: Path
    built: Path

    def build(self, repository: Path, version: str, model_id: str = tiny.MODEL_ID, *, force: bool = False) -> None:
        """Build a version of a model into a repository, as `sie-triton build` does."""
        bundles, mistakes = load_bundles(self.folder / model_id.replace("/", "-"))
        assert not mistakes
        bundle = bundles[model_id]
        options = BuildOptions(
            repository,
            default_weights=self.folder / version,
            force=force,
            cores=1,
            graphs=GraphOptions(devices=("cpu",)),
        )
        compile_models([select(bundle, expand(bundle))], options)

    def vectors(self, version: str) -> NDArray[np.float32]:
        """What transformers computes of `TEXTS`, pooled and normalised as the bundle says."""
        return _computed(self.folder / version)


@cache
def _computed(folder: Path) -> NDArray[np.float32]:
    import torch
    from transformers import AutoModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    batch = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder)(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"][..., None]
    means = (states * mask).sum(1) / mask.sum(1)
    return np.asarray(torch.nn.functional.normalize(means, dim=-1))


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    folder = tmp_path_factory.mktemp("versions")
    tiny.write_bundle(folder / "acme-tiny")
    tiny.write_bundle(folder / "acme-other", tiny.BUNDLE.replace(tiny.MODEL_ID, OTHER))
    for seed, version in enumerate("abc"):
        tiny.write_checkpoint(folder / version, seed=seed)
    made = Versions(folder, folder / "repository")
    made.build(made.built, "a")
    return made


@pytest.fixture(scope="session")
def replaced(versions: Versions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version `a`, replaced by version `b`. Never written to."""
    repository = Path(shutil.copytree(versions.built, tmp_path_factory.mktemp("replaced") / "repository"))
    versions.build(repository, "b")
    return repository


@pytest.fixture(scope="session")
def joined(replaced: Path, versions: Versions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with another model beside it. Never written to."""
    repository = Path(shutil.copytree(replaced, tmp_path_factory.mktemp("joined") / "repository"))
    versions.build(repository, "c", OTHER)
    return repository


@pytest.fixture
def repository(versions: Versions, tmp_path: Path) -> Iterator[Path]:
    """A repository that holds version `a` of the tiny model, to be written to."""
    yield Path(shutil.copytree(versions.built, tmp_path / "repository"))

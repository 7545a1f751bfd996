"""The tiny model: built for real once a session, and played back where another build would only cost time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sie_frontend.manifest import read_manifest
from sie_frontend.reference import REFERENCE_NAME, read_reference

from compiler import tiny
from compiler.golden_files import Golden
from sie_triton.bundle import expand, load_bundles
from sie_triton.compiler.build import compile_models
from sie_triton.compiler.options import BuildOptions, Target, select
from sie_triton.formats import Precision
from sie_triton.planning.plan import GraphOptions, TritonPlan
from sie_triton.resources import available_cores

# The most files and the least time: what other choices give is tested in test_compiler_machines.py.
ENSEMBLE = GraphOptions(layout="ensemble", devices=("cpu",))


@dataclass(frozen=True)
class Tiny:
    """The tiny model's sources."""

    bundles: Path
    checkpoint: Path

    def target(self, *profiles: str, bundles: Path | None = None) -> Target:
        """The tiny bundle with the named profiles, by default all."""
        loaded, mistakes = load_bundles(bundles or self.bundles)
        assert not mistakes
        bundle = loaded[tiny.MODEL_ID]
        chosen = [profile for profile in expand(bundle) if not profiles or profile.profile in profiles]
        return select(bundle, chosen)

    def options(
        self, repository: Path, *, force: bool = False, cores: int | None = None, graphs: GraphOptions = ENSEMBLE
    ) -> BuildOptions:
        """A build of it into `repository`."""
        cores = cores or available_cores()
        return BuildOptions(repository, default_weights=self.checkpoint, force=force, cores=cores, graphs=graphs)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    return Tiny(tiny.write_bundle(folder / "bundles"), tiny.write_checkpoint(folder / "checkpoint"))


@pytest.fixture(scope="session")
def built(tiny_model: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's repository, built by the real exporter. Never written to."""
    repository = tmp_path_factory.mktemp("built") / "repository"
    compile_models([tiny_model.target()], tiny_model.options(repository))
    return repository


@pytest.fixture
def repository(built: Path, tmp_path: Path) -> Path:
    """A copy of the built repository that a test may damage."""
    return Path(shutil.copytree(built, tmp_path / "repository"))


Change = Callable[[Path], None]


@dataclass
class Playback:
    """What a recorded export is changed by, and how often it was played."""

    graphs: Change = lambda staging: None
    tokenizer: Change = lambda path: None
    exports: int = 0
    # Ask the witness again, as a build does, instead of playing back what it said.
    asks: bool = False


@pytest.fixture
def playback(built: Path, monkeypatch: pytest.MonkeyPatch) -> Playback:
    """Graphs and reference come from the session's build and not from torch; everything else is the real compiler."""
    import sie_triton.compiler.text_graphs
    import sie_triton.tokenizer
    import sie_triton.witness
    from sie_triton.compiler.text_graphs import TextGraphs
    from sie_triton.tokenizer import CheckpointTokenizer
    from sie_triton.verify.testimony import Testimony
    from sie_triton.witness import Subject, testify

    recording = Playback()
    reference = read_reference(built / tiny.TRITON_NAME / "1" / REFERENCE_NAME)
    manifest = read_manifest(built)
    certificate = manifest.built[tiny.TRITON_NAME].certificate
    vocabulary = manifest.models[tiny.MODEL_ID].text.tokenization.vocabulary
    assert vocabulary is not None

    class RecordedTokenizer(CheckpointTokenizer):
        def write(self, path: Path, **changes: Any) -> int:
            largest = super().write(path, **changes)
            recording.tokenizer(path)
            return largest

    class RecordedGraphs(TextGraphs):
        def write(self, plan: TritonPlan, staging: Path, precision: Precision) -> float | None:
            recording.exports += 1
            for graph in plan.graphs:
                file = f"{graph.triton_model}/1/{plan.graph_format.filename(precision)}"
                shutil.copy(built / file.replace(plan.name, tiny.TRITON_NAME), staging / file)
            recording.graphs(staging)
            batching = next(iter(read_manifest(built).models.values())).inputs["text"].batching["cpu"]
            return batching.padding_cost if plan.packs(precision) else None

    def played(subject: Subject) -> Testimony:
        if recording.asks:
            return testify(subject)
        said = (certificate.compared, certificate.not_compared, certificate.departures)
        return Testimony(reference.origin, dict(reference.outputs), *said, vocabulary=vocabulary)

    monkeypatch.setattr(sie_triton.witness, "testify", played)
    monkeypatch.setattr(sie_triton.tokenizer, "CheckpointTokenizer", RecordedTokenizer)
    monkeypatch.setattr(sie_triton.compiler.text_graphs, "TextGraphs", RecordedGraphs)
    return recording


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.config.getoption("--update-golden"))

"""`tune --alternatives`: what other engines and precisions would give, made as a build makes it, and not published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from answers.few import few
from sie_frontend.manifest import read_manifest

from compiler import tiny
from compiler.command import sie_triton
from sie_triton.compiler.build import compile_models
from sie_triton.diagnostics import DiagnosticError
from sie_triton.embedded.openvino_engine import installed
from sie_triton.planning.plan import GraphOptions
from sie_triton.repository.processor import multiplies_bfloat16
from sie_triton.repository.publish import tree_digests
from sie_triton.tuning import alternatives
from sie_triton.tuning.alternatives import RUNGS, SERVED, Alternative, Alternatives, Rung, weigh
from sie_triton.tuning.speeds import Samples

from .conftest import Tiny

there = pytest.mark.skipif(not installed(), reason="needs `openvino`, an extra")
FEW = (SERVED, Rung("openvino", "float32"))


def weighed(repository: Path, said: list[str] | None = None) -> Alternatives:
    announce = (said if said is not None else []).append
    manifest = read_manifest(repository)
    [found] = weigh(repository, manifest, cores=2, samples=Samples(0.02, 1), announce=announce)
    return found


@dataclass(frozen=True)
class Everything:
    """All rungs of the tiny model, what was said meanwhile, and what lay there before and after."""

    rungs: Mapping[Rung, Alternative]
    said: Sequence[str]
    digests: Sequence[Mapping[str, str]]


@pytest.fixture(scope="module")
def everything(built: Path) -> Everything:
    said: list[str] = []
    before = tree_digests(built)
    with pytest.MonkeyPatch.context() as patch:
        few(patch, text=500)
        found = weighed(built, said)
    assert found.triton_model == tiny.TRITON_NAME and not found.nothing
    assert [one.rung for one in found.rungs] == list(RUNGS)
    return Everything({one.rung: one for one in found.rungs}, said, (before, tree_digests(built)))


@pytest.mark.export
def test_every_rung_is_measured_and_nothing_is_written(built: Path, everything: Everything) -> None:
    before, after = everything.digests
    assert before == after
    measured = {rung: one for rung, one in everything.rungs.items() if not one.lacking}
    assert {Rung("onnxruntime", "int8"), SERVED} <= measured.keys()
    for rung, one in measured.items():
        assert one.speeds and min(one.speeds.values()) > 0 and one.alone_s > 0 and one.bytes > 0
        assert one.min_cosine is not None and one.min_cosine > 0.9
        assert (one.kept is None) == (rung.precision == "float32")
    served, coarse = measured[SERVED], measured[Rung("onnxruntime", "int8")]
    stored = read_manifest(built).built[tiny.TRITON_NAME].parity["float32"]
    for name, distance in served.distances.items():
        assert distance.max_abs == pytest.approx(stored[name].max_abs, rel=0.5)
    assert coarse.bytes < served.bytes and coarse.min_cosine != served.min_cosine


@there
@pytest.mark.export
def test_another_engine_computes_the_same_graph(everything: Everything) -> None:
    theirs, ours = everything.rungs[Rung("openvino", "float32")], everything.rungs[SERVED]
    assert theirs.close and theirs.bytes == ours.bytes
    # Not the same sums in the same order: it was another engine, and then another precision.
    assert differences(theirs) != differences(ours)
    halved = everything.rungs[Rung("openvino", "bfloat16")]
    assert bool(halved.lacking) != multiplies_bfloat16()
    if multiplies_bfloat16():
        assert halved.min_cosine is not None and halved.min_cosine > 0.99
        assert max(differences(halved)) > max(differences(theirs))


def differences(one: Alternative) -> list[float]:
    return [distance.max_abs for distance in one.distances.values()]


@pytest.mark.export
def test_8_bits_are_tried_as_a_build_tries_them(everything: Everything, tiny_model: Tiny, tmp_path: Path) -> None:
    assert not everything.rungs[Rung("onnxruntime", "int8")].close
    graphs = GraphOptions(layout="ensemble", devices=("cpu",), precision="int8")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(DiagnosticError) as caught:
        few(patch, text=500)
        compile_models([tiny_model.target("default")], tiny_model.options(tmp_path / "r", graphs=graphs))
    [problem] = caught.value.diagnostics
    tried = [line.removeprefix(f"{tiny.TRITON_NAME}: ") for line in everything.said if "blocks of" in line]
    ours = [line for line in tried if line in problem.message]
    assert len(ours) >= 3 and any("blocks of 32" in line for line in ours)


def test_what_cannot_be_had_is_told_with_the_reason(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alternatives, "installed", lambda: False)
    monkeypatch.setattr(alternatives, "RUNGS", FEW)
    served, other = weighed(repository).rungs
    assert not served.lacking and "sie-triton[openvino]" in other.lacking


def test_of_a_coarse_build_nothing_is_made(repository: Path) -> None:
    manifest = read_manifest(repository)
    [record] = manifest.built.values()
    coarse = msgspec.structs.replace(record, precisions={"cpu": "int8"})
    manifest = msgspec.structs.replace(manifest, built={tiny.TRITON_NAME: coarse})
    [found] = weigh(repository, manifest, cores=1, samples=Samples(0.02, 1), announce=lambda _: None)
    assert "made of float32" in found.nothing and not found.rungs


@there
def test_the_command_prints_what_each_would_give_and_how_to_build_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alternatives, "RUNGS", FEW)
    before = tree_digests(repository)
    done = sie_triton("tune", "-r", repository, "--alternatives", "--seconds", "0.1", "--rounds", "1", "--cores", "1")
    assert done.code == 0
    name, head, *rows = done.stdout.splitlines()
    assert name == tiny.TRITON_NAME and "one ms" in head
    assert [row.rpartition("  ")[2] for row in rows] == ["(served)", "--engine openvino --device cpu"]
    assert tree_digests(repository) == before

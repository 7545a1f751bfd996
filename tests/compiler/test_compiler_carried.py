"""A reference that is carried beside its bundle: what it saves, what it answers for, and what it does not hide."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sie_frontend.manifest import read_manifest
from sie_frontend.reference import REFERENCE_NAME, StoredReference, read_reference

import sie_triton.witness
from compiler import tiny
from compiler.conftest import Playback, Tiny
from sie_triton.compiler.build import compile_models
from sie_triton.compiler.options import BuildOptions, Target
from sie_triton.diagnostics import DiagnosticError
from sie_triton.repository.publish import tree_digests
from sie_triton.verify.carried import carried_name
from sie_triton.verify.reference import write_reference

NAME = carried_name(tiny.TRITON_NAME)


@dataclass
class Carried:
    """A folder of bundles with a reference beside the tiny one, and what a build of it says."""

    folder: Path
    model: Tiny
    root: Path
    asked: int = 0

    @property
    def path(self) -> Path:
        return self.folder / NAME

    def target(self) -> Target:
        return self.model.target(bundles=self.folder)

    def build(self, **changes: Any) -> list[str]:
        """Build into a new repository; returns what was announced."""
        said: list[str] = []
        options: BuildOptions = replace(self.model.options(self.root / "repository"), announce=said.append, **changes)
        compile_models([self.target()], options)
        return said

    def change(self, change: Callable[[StoredReference], StoredReference]) -> None:
        write_reference(self.path, change(read_reference(self.path)))


@pytest.fixture
def carried(
    tiny_model: Tiny, built: Path, playback: Playback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Carried:
    made = Carried(tiny.write_bundle(tmp_path / "bundles"), tiny_model, tmp_path)
    shutil.copy(built / tiny.TRITON_NAME / "1" / REFERENCE_NAME, made.path)
    told = sie_triton.witness.testify

    def counted(subject: Any) -> Any:
        made.asked += 1
        return told(subject)

    monkeypatch.setattr(sie_triton.witness, "testify", counted)
    return made


def test_it_takes_the_place_of_asking(carried: Carried, built: Path) -> None:
    said = carried.build()
    assert carried.asked == 0
    assert any(f"what is carried beside the bundle, `{NAME}`" in line for line in said)
    repository = carried.root / "repository"
    for model in read_manifest(built).triton_models:
        ours, theirs = tree_digests(repository / model), tree_digests(built / model)
        assert ours == theirs
    mine, asked = (read_manifest(place).built[tiny.TRITON_NAME] for place in (repository, built))
    assert mine.certificate == asked.certificate
    assert mine.parity == asked.parity


def test_it_can_be_passed_over(carried: Carried) -> None:
    said = carried.build(carried=False)
    assert carried.asked == 1
    assert not any(NAME in line for line in said)


def _other_checkpoint(reference: StoredReference) -> StoredReference:
    assert reference.account is not None
    question = replace(reference.account.question, checkpoint="hf:acme/tiny@" + 40 * "0")
    return replace(reference, account=replace(reference.account, question=question))


def _fewer_texts(reference: StoredReference) -> StoredReference:
    return replace(
        reference,
        cases=reference.cases[1:],
        fingerprints=reference.fingerprints[1:],
        outputs={name: arrays[1:] for name, arrays in reference.outputs.items()},
    )


def _other_tokens(reference: StoredReference) -> StoredReference:
    first, *rest = reference.fingerprints
    return replace(reference, fingerprints=(np.append(first, 7), *rest))


def _flipped(archive: bytes) -> bytes:
    """Another byte in the compressed data of the first member."""
    return archive[:120] + bytes([archive[120] ^ 0xFF]) + archive[121:]


MISFITS: dict[str, tuple[Callable[[Carried], object], str]] = {
    "of other weights": (lambda it: it.change(_other_checkpoint), "it is of the checkpoint hf:acme/tiny@0000"),
    "of another bundle": (
        lambda it: tiny.write_bundle(it.folder, tiny.BUNDLE.replace("length: 48", "length: 47")),
        "it was made for other settings of the bundle",
    ),
    "of other texts": (lambda it: it.change(_fewer_texts), "it is about other texts"),
    "of other tokens": (lambda it: it.change(_other_tokens), "it has other tokens for "),
    "of arrays alone": (
        lambda it: it.change(lambda reference: replace(reference, account=None)),
        "it does not say what was asked",
    ),
    "no archive": (lambda it: it.path.write_text("nothing"), "it cannot be read"),
    "cut short": (lambda it: it.path.write_bytes(it.path.read_bytes()[:-200]), "it cannot be read"),
    "a wrong byte": (lambda it: it.path.write_bytes(_flipped(it.path.read_bytes())), "it cannot be read"),
    "fewer rows than texts": (
        lambda it: it.change(lambda reference: replace(reference, fingerprints=reference.fingerprints[1:])),
        "not as many arrays as cases",
    ),
    "an archive of something else": (lambda it: np.savez(it.path, a=np.zeros(3)), "it cannot be read"),
    "pickled": (lambda it: np.savez(it.path, header=np.asarray([{"a": 1}], dtype=object)), "it cannot be read"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_one_that_does_not_answer_is_named_and_the_witness_is_asked(
    misfit: str, carried: Carried, playback: Playback
) -> None:
    playback.asks = misfit == "of another bundle"
    change, reason = MISFITS[misfit]
    change(carried)
    said = carried.build()
    assert carried.asked == 1
    assert [line for line in said if "does not answer" in line and NAME in line and reason in line]


def test_graphs_that_differ_from_it_are_not_published(carried: Carried) -> None:
    carried.change(
        lambda reference: replace(
            reference, outputs={name: tuple(array[..., ::-1] for array in a) for name, a in reference.outputs.items()}
        )
    )
    with pytest.raises(DiagnosticError, match="SIE5"):
        carried.build()
    assert not (carried.root / "repository").exists()


@pytest.mark.parametrize("package", ["torch", "sentence_transformers"])
def test_without_a_witness_what_is_carried_is_enough_and_nothing_else(
    package: str, carried: Carried, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("sie_triton.compiler.packages.find_spec", lambda name: None if name == package else found(name))
    carried.build()
    assert carried.asked == 0
    with pytest.raises(DiagnosticError, match="SIE401"):
        carried.build(carried=False)
    carried.path.unlink()
    nowhere = replace(carried.model.options(carried.root / "other"), default_weights=carried.root / "nowhere")
    with pytest.raises(DiagnosticError) as caught:
        # Said before weights are looked for: there are none here.
        compile_models([carried.target()], nowhere)
    [problem] = caught.value.diagnostics
    assert problem.code == "SIE401"
    assert package in problem.message and tiny.MODEL_ID in problem.message
    assert "pip install" in str(problem.hint) and "--save-references" in str(problem.hint)

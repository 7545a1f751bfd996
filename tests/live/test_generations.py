"""A second build of a model beside the first: names, what is kept, and the ways back. Graphs are built for real."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from compiler.tiny import MODEL_ID, TRITON_NAME
from sie_frontend.manifest import Manifest, read_manifest

from live.conftest import OTHER, Versions
from sie_triton.diagnostics import DiagnosticError
from sie_triton.embedded.server import ServerSpec, TritonServer
from sie_triton.lint import lint_repository
from sie_triton.repository.changes import forget, roll_back, take_away
from sie_triton.verify.checks import verify_repository

RAW = f"{MODEL_ID}:raw"


@pytest.fixture
def two(replaced: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(replaced, tmp_path / "repository"))


def names(manifest: Manifest) -> tuple[dict[str, str], dict[str, str]]:
    """Which Triton model answers for each id, and which it can be taken back to."""
    return (
        {i: model.triton_models[0] for i, model in manifest.models.items()},
        {i: model.triton_models[0] for i, model in manifest.previous.items()},
    )


def sound(repository: Path) -> Manifest:
    """The manifest of a repository that every check passes, what is merely kept included."""
    manifest = read_manifest(repository)
    assert verify_repository(repository, manifest) == []
    assert not [finding for finding in lint_repository(repository) if finding.severity == "error"]
    return manifest


def test_a_first_build_has_plain_names_and_nothing_of_generations(versions: Versions) -> None:
    assert names(read_manifest(versions.built)) == ({MODEL_ID: TRITON_NAME, RAW: TRITON_NAME}, {})
    written = json.loads((versions.built / "manifest.json").read_text())
    assert set(written) == {"schema_version", "models", "triton_models", "built"}
    assert "suffix" not in written["built"][TRITON_NAME]


def test_a_build_of_other_weights_gets_names_of_its_own_and_keeps_the_one_before(replaced: Path) -> None:
    now, before = names(sound(replaced))
    [new] = set(now.values())
    assert new.startswith(f"{TRITON_NAME}-") and set(before.values()) == {TRITON_NAME}
    assert set(now) == set(before) == {MODEL_ID, RAW}


def test_equal_bytes_are_no_replacement(versions: Versions, two: Path) -> None:
    before = (two / "manifest.json").read_bytes()
    versions.build(two, "b", force=True)
    assert (two / "manifest.json").read_bytes() == before


def test_going_back_by_building_uses_what_is_there(versions: Versions, two: Path) -> None:
    files = {path: path.stat().st_size for path in (two / TRITON_NAME).rglob("*") if path.is_file()}
    now, _ = names(read_manifest(two))
    versions.build(two, "a")
    back, before = names(sound(two))
    assert set(back.values()) == {TRITON_NAME} and before == now
    assert {path: path.stat().st_size for path in (two / TRITON_NAME).rglob("*") if path.is_file()} == files


def test_roll_back_exchanges_the_two_and_does_so_again(two: Path) -> None:
    now, before = names(read_manifest(two))
    assert sorted(roll_back(two, RAW)) == [MODEL_ID, RAW], "ids of one Triton model go together"
    assert names(sound(two)) == (before, now)
    roll_back(two, MODEL_ID)
    assert names(sound(two)) == (now, before)


def test_only_one_generation_is_kept(versions: Versions, two: Path) -> None:
    second, _ = names(read_manifest(two))
    versions.build(two, "c")
    third, before = names(sound(two))
    assert before == second and set(third.values()).isdisjoint(second.values())
    assert not (two / TRITON_NAME).exists()


def test_what_is_removed_can_come_back(joined: Path, tmp_path: Path) -> None:
    two = Path(shutil.copytree(joined, tmp_path / "joined"))
    assert sorted(take_away(two, MODEL_ID)) == [MODEL_ID, RAW]
    now, before = names(sound(two))
    assert set(now) == {OTHER, f"{OTHER}:raw"} and set(before) == {MODEL_ID, RAW}
    roll_back(two, MODEL_ID)
    assert set(names(sound(two))[0]) == {MODEL_ID, RAW, OTHER, f"{OTHER}:raw"}
    take_away(two, MODEL_ID, purge=True)
    assert [path.name for path in two.iterdir() if path.is_dir()] == ["acme__other"]


def test_one_profile_goes_alone(two: Path) -> None:
    take_away(two, RAW)
    now, before = names(sound(two))
    assert set(now) == {MODEL_ID} and set(before) == {MODEL_ID, RAW}


def test_what_is_kept_can_be_forgotten(two: Path) -> None:
    forget(two, MODEL_ID)
    now, before = names(sound(two))
    assert before == {} and [path.name for path in two.iterdir() if path.is_dir()] == [*set(now.values())]


def test_what_cannot_be_done_names_what_could(two: Path, versions: Versions) -> None:
    published = (two / "manifest.json").stat().st_ino
    cases: list[tuple[Callable[[], object], str, str]] = [
        (lambda: take_away(two, "acme/tinny"), "SIE620", f"did you mean `{MODEL_ID}`"),
        (lambda: roll_back(versions.built, MODEL_ID), "SIE621", "keeps the one before"),
        (lambda: roll_back(two, "acme/nothing-like-it-at-all"), "SIE620", "it holds"),
        (lambda: forget(versions.built, MODEL_ID), "SIE621", ""),
        (lambda: take_away(two / "nowhere", MODEL_ID), "SIE603", "-r"),
    ]
    for call, code, hint in cases:
        with pytest.raises(DiagnosticError) as caught:
            call()
        [diagnostic] = caught.value.diagnostics
        assert diagnostic.code == code and hint in (diagnostic.hint or "")
    assert (two / "manifest.json").stat().st_ino == published


def test_what_is_merely_kept_is_not_loaded_at_the_start(replaced: Path, versions: Versions, tmp_path: Path) -> None:
    """And a server that starts again loads what is served by then, where that is still there."""
    [new] = set(names(read_manifest(replaced))[0].values())

    def loads(repository: Path, *served: str) -> list[str]:
        server = TritonServer(ServerSpec(repository, tmp_path / "log", served=lambda: served))
        return server._model_control()[1:]

    assert loads(replaced) == [f"--load-model={new}"]
    assert loads(versions.built) == ["--load-model=*"]
    assert loads(replaced, TRITON_NAME, "gone") == [f"--load-model={TRITON_NAME}"]

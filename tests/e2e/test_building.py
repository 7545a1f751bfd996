from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import prepared
import pytest
from sie_frontend.manifest import MANIFEST_NAME, read_manifest
from sie_frontend.reference import read_reference

from benchmarks.waiting import eventually
from e2e.conftest import BGE, MINILM, TinyBuild
from e2e.processes import sie_triton
from sie_triton.cli.targets import shipped_bundles
from sie_triton.repository.publish import tree_digests
from sie_triton.verify.carried import carried_name
from sie_triton.verify.checks import verify_repository

pytestmark = pytest.mark.e2e

KILLS = 10


def litter(repository: Path) -> set[str]:
    """What a build left beside the repository, its lock file apart."""
    return {
        path.name
        for path in repository.parent.iterdir()
        if path.name.startswith(f".{repository.name}") and path.name != f".{repository.name}.lock"
    }


def test_the_real_repository_is_as_close_as_promised(repository: Path) -> None:
    manifest = read_manifest(repository)
    assert set(manifest.models) == {MINILM, f"{MINILM}:candle", BGE, f"{BGE}:candle"}
    for record in manifest.built.values():
        assert record.precisions == {"cpu": "float32", "cuda": "float16"}
        for distance in record.parity["float32"].values():
            assert distance.cases > 40
            assert distance.min_cosine is not None
            assert distance.min_cosine >= 0.99999
            assert distance.batch_max_abs <= 1e-5
        for distance in record.parity["float16"].values():
            assert distance.min_cosine is not None
            assert distance.min_cosine >= 0.9999


def test_the_shipped_reference_is_what_sentence_transformers_says(tmp_path: Path) -> None:
    asking = ("build", "-m", MINILM, "--device", "cpu", "--no-carried", "-r", tmp_path / "repository")
    done = sie_triton(*asking, "--save-references", tmp_path)
    assert done.returncode == 0, done.stderr
    name = carried_name("sentence-transformers__all-MiniLM-L6-v2")
    shipped, asked = read_reference(shipped_bundles() / name), read_reference(tmp_path / name)
    assert (shipped.account, shipped.cases) == (asked.account, asked.cases)
    for one, other in zip(shipped.fingerprints, asked.fingerprints, strict=True):
        np.testing.assert_array_equal(one, other)
    assert set(shipped.outputs) == set(asked.outputs)
    for output, arrays in shipped.outputs.items():
        for one, other in zip(arrays, asked.outputs[output], strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6)


def test_an_unchanged_build_is_skipped(tiny_build: TinyBuild) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_build.repository.rglob("*")}
    done = sie_triton(*tiny_build.arguments, "-r", tiny_build.repository)
    assert (done.returncode, done.stdout) == (0, "")
    assert "unchanged acme/tiny, acme/tiny:raw" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in tiny_build.repository.rglob("*")} == before


def test_a_build_that_lost_a_file_is_not_unchanged(tiny_build: TinyBuild, tmp_path: Path) -> None:
    repository = shutil.copytree(tiny_build.repository, tmp_path / "repository")
    shutil.rmtree(next(path for path in repository.iterdir() if path.is_dir()))
    done = sie_triton(*tiny_build.arguments, "-r", repository)
    assert done.returncode == 0, done.stderr
    assert "unchanged" not in done.stderr
    assert tree_digests(repository) == tree_digests(tiny_build.repository)


def start(build: TinyBuild, repository: Path) -> prepared.Begun | subprocess.Popen[bytes]:
    """A forced build. Its moments are those of the build: nothing is left to import."""
    return prepared.begin([*build.arguments, "-r", repository, "--force"], os.environ)


class Killer:
    """Kills builds after a share of the time that one takes.

    The machine may be quicker than when that time was measured: a build that ended before its moment gives the new
    measure, and another is killed in its place.
    """

    def __init__(self, build: TinyBuild) -> None:
        self._build = build
        self._seconds = build.seconds

    def kill_at(self, share: float, repository: Path) -> None:
        """Returns when a build has been killed."""
        for _ in range(5):
            begun = time.monotonic()
            process = start(self._build, repository)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(share * self._seconds)
            process.kill()
            if process.wait() == -signal.SIGKILL:
                return
            assert process.returncode == 0
            self._seconds = time.monotonic() - begun
        raise AssertionError("no build was slow enough to be killed")


def test_a_killed_build_never_harms_the_repository(tiny_build: TinyBuild, tmp_path: Path) -> None:
    """Ten moments over the length of a build, one at random in each tenth; two builds at a time, for speed.

    Both begin without a repository: then a kill leaves none or a whole one. Whatever happened before,
    the build that follows is equal, file for file and byte for byte, to the one that nothing ever disturbed.
    """
    generator = random.Random(7)
    moments = [(i + generator.random()) / KILLS for i in range(KILLS)]
    whole = tree_digests(tiny_build.repository)
    assert MANIFEST_NAME in whole

    def sequence(name: str, shares: list[float], last: tuple[str, ...]) -> None:
        repository = tmp_path / name / "repository"
        killer = Killer(tiny_build)
        for number, share in enumerate(shares):
            killer.kill_at(share, repository)
            if number or repository.exists():
                assert verify_repository(repository, read_manifest(repository)) == []
                assert tree_digests(repository) == whole
            else:
                shutil.copytree(tiny_build.repository, repository)
        # A build that has nothing to do clears away what was left as well as one that has.
        done = sie_triton(*tiny_build.arguments, "-r", repository, *last)
        assert done.returncode == 0, done.stderr
        assert ("unchanged" in done.stderr) == (not last)
        assert tree_digests(repository) == whole
        assert litter(repository) == set()
        assert sie_triton("verify", "-r", repository).returncode == 0

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(sequence, ("forwards", "backwards"), (moments[::2], moments[1::2][::-1]), (("--force",), ())))


def test_an_unchanged_build_clears_away_what_a_killed_one_left(tiny_build: TinyBuild, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(tiny_build.repository, repository)
    process = start(tiny_build, repository)
    assert eventually(lambda: litter(repository))
    process.kill()
    process.wait()
    assert litter(repository)
    done = sie_triton(*tiny_build.arguments, "-r", repository)
    assert "unchanged" in done.stderr
    assert litter(repository) == set()

"""`sie-triton doctor --clean`: our caches and leftovers go, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sie_triton.checkpoint.packaged import TABLE
from sie_triton.cli import app
from sie_triton.diagnostics import DiagnosticError
from sie_triton.embedded import warden
from sie_triton.repository.object_store import _folder_name
from sie_triton.serving import leavings

NAME = _folder_name("s3://bucket/repository")


def write(path: Path, size: int = 1_000_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def touched(path: Path, seconds_ago: float) -> None:
    os.utime(path, times=(time.time() - seconds_ago,) * 2)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of our own, on which no process runs: a home, a temporary folder, and shared memory."""
    for variable, name in (("XDG_CACHE_HOME", "cache"), ("TMPDIR", "tmp"), ("HF_HOME", "cache/huggingface")):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for owner, attribute, name in ((warden, "SHARED_MEMORY", "shm"), (leavings, "PROC", "proc")):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(owner, attribute, tmp_path / name)
    return tmp_path


@pytest.fixture
def ours(home: Path) -> list[Path]:
    """All that is to go."""
    cache = home / "cache" / "sie-triton"
    [weights] = {entry.distribution + "-" + entry.version for entry in TABLE.values()}
    abandoned = home / "tmp" / "sie-triton-abc"
    paths = [
        write(cache / "weights" / weights / "model.safetensors", 3_000_000).parent,
        write(cache / "weights" / ".stage-x" / "wheel").parent,
        write(
            cache / "tritonserver" / "nvidia-pytriton-0.7.0" / "pytriton" / "tritonserver" / "bin", 2_000_000
        ).parents[2],
        write(cache / "repositories" / NAME / "manifest.json").parent,
        write(cache / "repositories" / f".{NAME}.lock", 0),
        write(abandoned / "python" / "stub").parents[1],
        write(home / "shm" / f"{warden.PREFIX}dead.lock", 0),
        write(home / "shm" / f"{warden.PREFIX}deadregion"),
    ]
    touched(abandoned, 7200)
    return paths


@pytest.fixture
def theirs(home: Path) -> list[Path]:
    """What looks like ours and is not, or is in use."""
    cache = home / "cache"
    fresh = home / "tmp" / "sie-triton-view-new"
    fresh.mkdir()
    built = write(home / "model_repository" / "manifest.json")
    (cache / "sie-triton" / "repositories").mkdir(parents=True, exist_ok=True)
    return [
        fresh,
        built,
        write(cache / "sie-triton" / "repositories" / "mine" / "manifest.json"),
        write(cache / "sie-triton" / "my_repository" / "manifest.json"),
        write(cache / "huggingface" / "hub" / "models--a--b" / "blobs" / "x"),
        write(home / "tmp" / "sie-triton-file"),
    ]


def clean(*arguments: str, answer: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(app, ["doctor", "--clean", *arguments], input=answer)
    return done.exit_code, done.output


def test_ours_goes_and_theirs_stays(ours: list[Path], theirs: list[Path], home: Path) -> None:
    code, said = clean("--yes")
    assert code == 0, said
    assert [path for path in ours if path.exists()] == []
    assert [path for path in theirs if not path.exists()] == []
    assert [
        line.split("MB")[0].strip() for line in said.splitlines() if "safetensors" in line or "weights" in line
    ] == [
        "1.0",
        "3.0",
    ]
    assert said.endswith("removed 9.0 MB\n")
    assert all(str(path) in said for path in ours)
    assert not any(str(path) in said for path in theirs)
    assert clean("--yes") == (0, "nothing to remove\n")


def test_nothing_of_ours_is_left_where_nothing_else_lies(ours: list[Path], home: Path) -> None:
    assert clean(answer="y\n")[0] == 0
    assert sorted(path.name for path in (home / "cache").iterdir()) == ["huggingface"]
    assert [*(home / "tmp").iterdir(), *(home / "shm").iterdir()] == []


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_without_a_yes_nothing_is_touched(answer: str, ours: list[Path]) -> None:
    code, said = clean(answer=answer)
    assert code == 1
    assert "Remove 8 of these, 9.0 MB?" in said
    assert all(path.exists() for path in ours)


def test_links_go_and_what_they_lead_to_stays(home: Path) -> None:
    mine = write(home / "mine" / "model.safetensors")
    weights = home / "cache" / "sie-triton" / "weights"
    weights.mkdir(parents=True)
    (weights / "linked").symlink_to(mine.parent)
    assert clean("--yes")[0] == 0
    assert mine.exists() and not weights.exists()
    (home / "cache" / "sie-triton").mkdir()
    weights.symlink_to(mine.parent)
    assert clean("--yes") == (0, "nothing to remove\n")
    assert mine.exists()


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A process that looks like one of ours, as `python -m sie_triton.cli serve` does; the real `/proc` shows it."""
    monkeypatch.setattr(leavings, "PROC", Path("/proc"))
    program = [sys.executable, "-c", "print(flush=True); input()", "-m", "sie_triton.cli"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_what_a_running_process_may_use_stays(ours: list[Path], server: int) -> None:
    assert leavings.running() is not None
    code, said = clean("--yes")
    assert code == 0
    assert [path.exists() for path in ours] == [True] * 6 + [False] * 2
    assert said.count("(stays)\n") == 6
    assert said.count("may use it: stop it first") == 1


def test_a_running_server_is_seen_and_the_process_itself_is_not(
    server: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = home / "proc" / str(server)
    alone.mkdir()
    (alone / "cmdline").write_bytes((Path("/proc") / str(server) / "cmdline").read_bytes())
    monkeypatch.setattr(leavings, "PROC", home / "proc")
    assert leavings.running() == server
    (alone / "cmdline").write_bytes(b"vi\0/home/me/sie-triton/notes.md\0")
    assert leavings.running() is None


@pytest.mark.skipif(os.getuid() == 0, reason="root may remove everything")
def test_what_cannot_be_removed_is_named(ours: list[Path]) -> None:
    ours[0].parent.chmod(0o500)
    try:
        [failed, *_] = leavings.remove(leavings.leavings())
    finally:
        ours[0].parent.chmod(0o700)
    assert failed.code == "SIE614"


def test_a_removal_that_fails_is_a_diagnostic(ours: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    done = CliRunner().invoke(app, ["doctor", "--clean", "--yes"])
    assert isinstance(done.exception, DiagnosticError)
    assert {diagnostic.code for diagnostic in done.exception.diagnostics} == {"SIE614"}
    assert "Permission denied" in done.exception.diagnostics[0].message

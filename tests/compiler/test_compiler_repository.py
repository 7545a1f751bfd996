from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest
from sie_frontend.manifest import MANIFEST_NAME

from sie_triton.diagnostics import DiagnosticError
from sie_triton.repository import publish as repositories
from sie_triton.repository.publish import (
    MANIFEST_DIGEST_NAME,
    clear_leftovers,
    empty_manifest,
    file_digest,
    manifest_to_extend,
    publish,
    staged_repository,
    tree_digests,
    write_manifest,
)


def build(target: Path, **files: str) -> None:
    """Publish a repository that holds exactly these files (`a__b` means `a/b`) and a manifest."""
    with staged_repository(target) as staging:
        for path in [p for p in staging.rglob("*") if p.is_file()]:
            path.unlink()
        for name, content in files.items():
            path = staging / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        write_manifest(staging, empty_manifest())
        publish(staging, target)


def content(target: Path) -> dict[str, str]:
    return {
        path.relative_to(target).as_posix(): path.read_text()
        for path in target.rglob("*")
        if path.is_file() and path.name not in (MANIFEST_NAME, MANIFEST_DIGEST_NAME)
    }


def litter(target: Path) -> set[str]:
    """What lies beside a repository; its lock file stays for good."""
    return {path.name for path in target.parent.iterdir()} - {target.name, f".{target.name}.lock"}


def code_of(caught: pytest.ExceptionInfo[DiagnosticError]) -> str:
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "repository"


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "two renames":
        monkeypatch.setattr(repositories, "_exchange", lambda left, right: False)
    return str(request.param)


@pytest.mark.usefixtures("way")
def test_the_first_and_every_later_repository_is_published(target: Path) -> None:
    build(target, m__config="1", gone="x")
    assert content(target) == {"m/config": "1", "gone": "x"}
    build(target, m__config="2", new="y")
    assert content(target) == {"m/config": "2", "new": "y"}
    assert litter(target) == set()


@pytest.mark.usefixtures("way")
def test_a_failed_build_changes_nothing(target: Path) -> None:
    build(target, m="1")
    with pytest.raises(ValueError, match="disk"), staged_repository(target) as staging:
        (staging / "m").unlink()
        raise ValueError("disk")
    assert content(target) == {"m": "1"}
    assert litter(target) == set()


def test_a_failed_first_build_leaves_no_repository(target: Path) -> None:
    with pytest.raises(ValueError, match="disk"), staged_repository(target):
        raise ValueError("disk")
    assert not target.exists()
    assert litter(target) == set()


def test_unchanged_files_are_stored_once(target: Path) -> None:
    build(target, weights="w", config="1")
    with staged_repository(target) as staging:
        assert (staging / "weights").stat().st_ino == (target / "weights").stat().st_ino
        (staging / "config").unlink()
        (staging / "config").write_text("2")
        assert content(target)["config"] == "1"
        publish(staging, target)
    assert content(target) == {"weights": "w", "config": "2"}
    assert (target / "weights").stat().st_nlink == 1


def test_where_links_are_impossible_files_are_copied(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, destination: str) -> None:
        raise OSError(errno.EPERM, "no links here")

    build(target, weights="w")
    monkeypatch.setattr(os, "link", refuse)
    with staged_repository(target) as staging:
        assert (staging / "weights").read_text() == "w"
        assert (staging / "weights").stat().st_ino != (target / "weights").stat().st_ino


def test_containers_of_another_user_can_read_it(target: Path) -> None:
    before = os.umask(0o077)
    try:
        build(target, m__1__model="x")
    finally:
        os.umask(before)
    assert {oct(p.stat().st_mode & 0o777) for p in target.rglob("*") if p.is_file()} == {"0o644"}
    assert {oct(p.stat().st_mode & 0o777) for p in (target, *target.rglob("*")) if p.is_dir()} == {"0o755"}


def test_a_directory_that_is_not_ours_is_left_alone(target: Path) -> None:
    target.mkdir(parents=True)
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(DiagnosticError) as caught:
        build(target, m="1")
    assert code_of(caught) == "SIE601"
    assert "choose another `--repository`" in str(caught.value)
    assert content(target) == {"thesis.tex": "years of work"}
    assert litter(target) == set()


def test_an_empty_directory_is_taken(target: Path) -> None:
    target.mkdir(parents=True)
    build(target, m="1")
    assert content(target) == {"m": "1"}


def test_a_second_build_is_refused_at_once_and_does_no_harm(target: Path) -> None:
    build(target, m="1")
    with staged_repository(target) as staging:
        (staging / "m").unlink()
        (staging / "m").write_text("2")
        with pytest.raises(DiagnosticError) as caught, staged_repository(target):
            pass
        assert code_of(caught) == "SIE602"
        assert "another build is writing this repository" in str(caught.value)
        publish(staging, target)
    assert content(target) == {"m": "2"}
    build(target, m="3")  # the lock is free again


def test_a_build_that_fails_where_nothing_was_leaves_nothing(target: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged_repository(target) as staging:
        (staging / "m").write_text(str(1 / 0))
    assert list(target.parent.iterdir()) == []
    build(target, m="1")
    with pytest.raises(ZeroDivisionError), staged_repository(target) as staging:
        (staging / "m").write_text(str(1 / 0))
    assert content(target) == {"m": "1"}


def test_a_lock_that_its_last_holder_took_away_is_made_again(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the opening of its file and the lock on it."""
    lock, taken = fcntl.flock, list[Path]()

    def flock(file: IO[str], how: int) -> None:
        lock(file, how)
        if not taken:
            taken.append(Path(file.name))
            taken[0].unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with staged_repository(target) as staging:
        assert taken[0].exists()
        with pytest.raises(DiagnosticError) as caught, staged_repository(target):
            pass
        assert code_of(caught) == "SIE602"
        (staging / "m").write_text("1")
        write_manifest(staging, empty_manifest())
        publish(staging, target)
    assert content(target) == {"m": "1"}


def test_another_process_is_refused_too(target: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from sie_triton.diagnostics import DiagnosticError\n"
        "from sie_triton.repository.publish import staged_repository\n"
        "try:\n"
        "    with staged_repository(Path(sys.argv[1])): pass\n"
        "except DiagnosticError as error: print(error.diagnostics[0].code)\n"
        "else: print('free')\n"
    )
    command = [sys.executable, "-c", program, str(target)]
    with staged_repository(target):
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "SIE602\n"
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "free\n"


def test_what_a_killed_build_left_is_removed(target: Path) -> None:
    build(target, m="1")
    stale = target.parent / f".{target.name}.staging"
    (stale / "half").mkdir(parents=True)
    (stale / "half" / "file").write_text("half")
    build(target, m="2")
    assert content(target) == {"m": "2"}
    assert litter(target) == set()


def test_leftovers_are_cleared_without_a_build(target: Path) -> None:
    build(target, m="1")
    clear_leftovers(target)  # nothing to do
    stale = target.parent / f".{target.name}.staging"
    stale.mkdir()
    clear_leftovers(target)
    assert (litter(target), content(target)) == (set(), {"m": "1"})
    target.rename(target.parent / f".{target.name}.previous")  # a kill between the two renames
    clear_leftovers(target)
    assert (litter(target), content(target)) == (set(), {"m": "1"})


def test_the_staging_directory_of_a_running_build_is_no_leftover(target: Path) -> None:
    with staged_repository(target) as staging:
        clear_leftovers(target)
        assert staging.is_dir()


DIE = """
import os, signal, sys
from pathlib import Path
from sie_triton.repository import publish as repository
moment, target = sys.argv[1], Path(sys.argv[2])
if moment != "exchange":
    repository._exchange = lambda left, right: False
rename, remove, exchange, calls = Path.rename, repository._remove, repository._exchange, []

def counted_rename(path, other):
    calls.append(path)
    if moment == f"before rename {len(calls)}":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(path, other)

def counted_remove(path):
    if moment == "before removal" and len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    remove(path)

def exchange_and_die(left, right):
    assert exchange(left, right)
    os.kill(os.getpid(), signal.SIGKILL)

Path.rename, repository._remove = counted_rename, counted_remove
if moment == "exchange":
    repository._exchange = exchange_and_die
with repository.staged_repository(target) as staging:
    (staging / "m").unlink()
    (staging / "m").write_text("new")
    repository.publish(staging, target)
"""


@pytest.mark.parametrize(
    ("moment", "at_once", "later"),
    [
        ("exchange", "new", "new"),
        ("before rename 1", "old", "old"),
        ("before rename 2", None, "old"),  # only where the file system cannot exchange
        ("before removal", "new", "new"),
    ],
)
def test_a_kill_inside_publication(moment: str, at_once: str | None, later: str, target: Path) -> None:
    build(target, m="old")
    killed = subprocess.run([sys.executable, "-c", DIE, moment, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert content(target) == ({"m": at_once} if at_once else {})
    with staged_repository(target) as staging:
        assert content(staging) == {"m": later}
    assert content(target) == {"m": later}
    assert litter(target) == set()


def test_this_file_system_exchanges(tmp_path: Path) -> None:
    """Else every other test here would have taken the second way without anybody knowing."""
    left, right = tmp_path / "left", tmp_path / "right"
    left.mkdir()
    right.mkdir()
    (left / "l").touch()
    assert repositories._exchange(left, right)
    assert (right / "l").exists()


class OldLibrary:
    """A C library from before `renameat2`."""


def test_an_old_c_library_has_no_exchange(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(target, m="1")
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **keywords: OldLibrary())
    build(target, m="2")
    assert content(target) == {"m": "2"}


@pytest.mark.parametrize(
    ("code", "falls_back"), [(errno.EINVAL, True), (errno.ENOSYS, True), (errno.ENOTSUP, True), (errno.EACCES, False)]
)
def test_a_file_system_without_exchange(
    code: int, falls_back: bool, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        def renameat2(self, *arguments: Any) -> int:
            ctypes.set_errno(code)
            return -1

    build(target, m="1")
    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **keywords: Library())
    if falls_back:
        build(target, m="2")
        assert content(target) == {"m": "2"}
    else:
        with pytest.raises(DiagnosticError, match="SIE612"):
            build(target, m="2")
        assert content(target) == {"m": "1"}
    assert litter(target) == set()


def test_digests_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "large").write_bytes(os.urandom(3 * 1024 * 1024 + 1))
    (tmp_path / "a").write_bytes(b"")
    expected = subprocess.run(
        ["sha256sum", "a", "b/large"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    digests = tree_digests(tmp_path)
    assert list(digests) == ["a", "b/large"]
    assert "".join(f"{digest}  {name}\n" for name, digest in digests.items()) == expected
    assert file_digest(tmp_path / "a") == digests["a"]


def test_a_relative_target_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build(Path("here"), m="1")
    build(Path("here"), m="2")
    assert content(tmp_path / "here") == {"m": "2"}
    assert json.loads((tmp_path / "here" / MANIFEST_NAME).read_bytes())["models"] == {}


def test_a_manifest_that_is_not_published_changes_nothing(target: Path) -> None:
    """The staged files are hard links to the published ones; a build may fail after it wrote its manifest."""
    with staged_repository(target) as staging:
        write_manifest(staging, empty_manifest())
        publish(staging, target)
    before = tree_digests(target)
    with pytest.raises(KeyboardInterrupt), staged_repository(target) as staging:
        assert (staging / MANIFEST_NAME).samefile(target / MANIFEST_NAME)
        write_manifest(staging, msgspec.structs.replace(empty_manifest(), schema_version=99))
        raise KeyboardInterrupt
    assert tree_digests(target) == before


@pytest.mark.parametrize("content", [b'{"schema_version": 99}', b"[1]", b""])
def test_a_manifest_that_cannot_be_read_is_begun_anew_by_force_alone(content: bytes, tmp_path: Path) -> None:
    """`build --force` is the cure that every message about such a manifest names."""
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    said: list[str] = []
    with pytest.raises(DiagnosticError) as caught:
        manifest_to_extend(tmp_path, force=False, announce=said.append)
    assert code_of(caught) == "SIE603"
    assert "sie-triton build --force -m ID" in str(caught.value)
    assert said == []
    assert manifest_to_extend(tmp_path, force=True, announce=said.append) == empty_manifest()
    assert len(said) == 1
    assert "making the repository anew, of these models alone" in said[0]

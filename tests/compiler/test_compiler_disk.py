"""A disk that is full or may not be written: a diagnostic, and what was published stays as it was.

A limit on the size of files stands for a full disk: the kernel fails the write in both cases.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import prepared
import pytest

from sie_triton.diagnostics import DiagnosticError
from sie_triton.repository.publish import current_manifest, disk_mistakes, staged_repository

from .tiny import MODEL_ID, write_bundle, write_checkpoint


def limited(size: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process whose files may not be larger than `size` bytes."""
    return prepared.run(arguments, os.environ, 600, file_bytes=size)


@pytest.mark.parametrize("kind", ["OSError", "RuntimeError"])
def test_a_full_disk_is_said_whoever_writes(tmp_path: Path, kind: str) -> None:
    """Python's writers raise OSError with its number; torch raises a RuntimeError without one."""
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from sie_triton.diagnostics import DiagnosticError\n"
        "from sie_triton.repository.publish import staged_repository\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "target = Path(sys.argv[1])\n"
        "try:\n"
        "    with staged_repository(target) as staging:\n"
        "        try: (staging / 'graph').write_bytes(bytes(200_000))\n"
        "        except OSError as error: raise (error if sys.argv[2] == 'OSError' else RuntimeError('write failed'))\n"
        "except DiagnosticError as error: print(error)\n"
    )
    target = tmp_path / "repository"
    done = subprocess.run([sys.executable, "-c", script, target, kind], capture_output=True, text=True, check=True)
    assert "SIE612" in done.stdout and "File too large" in done.stdout and "free some space" in done.stdout
    assert not target.exists()
    assert {path.name for path in tmp_path.iterdir()} == set()


def test_a_bug_is_not_taken_for_the_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), staged_repository(tmp_path / "repository"):
        raise RuntimeError("a bug")
    with pytest.raises(FileNotFoundError), disk_mistakes(tmp_path):
        (tmp_path / "absent").read_bytes()


@pytest.mark.parametrize("place", ["/sys/sie-triton-test/repository", "/proc/version/repository"])
def test_a_folder_that_may_not_be_written(place: str) -> None:
    """The kernel's own folders take no files, from root neither; the second one's parent is a file."""
    with pytest.raises(DiagnosticError) as caught, staged_repository(Path(place)):
        pass
    (found,) = caught.value.diagnostics
    assert found.code == "SIE612" and found.hint is not None and "--repository" in found.hint


def test_a_repository_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "repository").write_text("not a folder")
    assert current_manifest(tmp_path / "repository") is None
    with pytest.raises(DiagnosticError) as caught, staged_repository(tmp_path / "repository"):
        pass
    assert [found.code for found in caught.value.diagnostics] == ["SIE612"]
    assert (tmp_path / "repository").read_text() == "not a folder"


@pytest.mark.export
@pytest.mark.parametrize("graph_format", ["onnx", "torchscript"])
def test_a_build_on_a_full_disk_ends_with_the_diagnostic(tmp_path: Path, graph_format: str) -> None:
    # Positions make the graph's file too large, and its export no longer.
    checkpoint = write_checkpoint(tmp_path / "checkpoint", positions=1024)
    bundles = write_bundle(tmp_path / "bundles")
    more: list[str | Path] = [
        "--weights",
        checkpoint,
        "-r",
        tmp_path / "repository",
        "--format",
        graph_format,
        "--device",
        "cpu",
    ]
    done = limited(90_000, "build", "-m", MODEL_ID, "--bundles", bundles, *more)
    assert done.returncode == 1
    assert "SIE612" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "repository").exists()

"""What `examples/` says where it cannot do its work: one line with the cause, one with the cure, no traceback."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compiler import tiny
from frontend.repository import write_repository

from sie_triton.embedded.ports import free_port

from .markdown import ROOT

MIGRATION = "fastembed_migration.py"


def run(example: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done


def test_without_a_server_the_migration_says_how_to_start_one() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run(MIGRATION, "--url", url, "--model", "acme/tiny")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: the server at {url} gives no vectors of `acme/tiny`: ")
    assert "hint: start one with `sie-triton up -m acme/tiny`" in done.stderr


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\xfa"])
def test_texts_that_cannot_be_read_are_named(content: bytes | None, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    if content is not None:
        texts.write_bytes(content)
    done = run(MIGRATION, "--texts", texts)
    assert done.returncode == 2
    assert f"`{texts}`" in done.stderr


def test_without_a_repository_the_exercise_says_how_to_build_one(tmp_path: Path) -> None:
    done = run("two_by_two.py", "--repository", tmp_path)
    assert done.returncode == 1
    assert f"error: no `manifest.json` in `{tmp_path}`; build one with `sie-triton build`" in done.stderr


def test_the_exercise_quotes_a_process_that_ended(tmp_path: Path) -> None:
    """Its log is in a temporary folder, which is gone by then."""
    repository = write_repository(tmp_path / "repository")
    shutil.rmtree(repository / tiny.TRITON_NAME)
    done = run("two_by_two.py", "--repository", repository, "--seconds", "1")
    assert done.returncode == 1
    assert "ended; it said:" in done.stderr
    assert "SIE610" in done.stderr

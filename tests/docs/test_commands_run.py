"""Every command of README and `docs/` does what the page says."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .exceptions import ELSEWHERE
from .markdown import Page, pages
from .reader import EXECUTED, Reader, left_out, logical_lines, session

PAGES = [page for page in pages() if any(block.language in EXECUTED for block in page.blocks)]
FOLLOWED = [page for page in PAGES if page.name not in ELSEWHERE]


@pytest.mark.e2e
@pytest.mark.parametrize("page", FOLLOWED, ids=[page.name for page in FOLLOWED])
def test_a_stranger_can_follow(
    page: Page,
    built_repository: Path,
    minilm: Path,
    bge_checkpoint: Path,
    shared_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    reader = Reader(
        tmp_path,
        built_repository,
        weights=_weights_cache(minilm),
        checkpoints={"checkpoints/bge-small-en-v1.5": bge_checkpoint},
        shared=shared_port,
    )
    try:
        reader.read(page)
    finally:
        left = reader.stop()
    assert not left


def _weights_cache(minilm: Path) -> Path:
    return next(parent for parent in minilm.parents if parent.name == "weights")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_what_is_not_run_is_still_shell(page: Page) -> None:
    for block in page.blocks:
        if block.language not in ("sh", "console"):
            continue
        lines = logical_lines(block.text) if block.language == "sh" else [line for line, _ in session(block.text)]
        for line in filter(left_out, lines):
            done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{page.name}: {line}: {done.stderr}"

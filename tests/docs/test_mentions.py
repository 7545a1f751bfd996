"""Every `sie-triton …` within a sentence is a call that the command line takes, and does what it says."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sie_triton.pages.command_line import command_of, commands, parameters

from .exceptions import MENTIONS, PENDING, PLACEHOLDERS
from .markdown import ROOT, pages
from .reader import SERVERS, left_out, not_yet


def _mentions() -> dict[str, str]:
    """Each distinct mention, with the first place of it. One that ends in `…` or is a name only is a mention too."""
    found: dict[str, str] = {}
    for page in pages():
        for line, code in page.spans():
            if code.startswith("sie-triton ") and not code.startswith("sie-triton --"):
                found.setdefault(code, f"{page.name}:{line}")
    return found


MENTIONED = _mentions()


def _is_whole(words: list[str]) -> bool:
    """Whether every argument that the command needs is there; otherwise it is only spoken of."""
    found = command_of(words[1:])
    assert found is not None
    command, rest = found
    needed = [p for p in parameters(commands()[command]) if p.required]
    return all(
        set(p.spellings) & set(rest) if p.spellings[0].startswith("-") else any(not w.startswith("-") for w in rest)
        for p in needed
    )


@pytest.mark.parametrize("mention", MENTIONED)
def test_the_command_line_takes_it(mention: str) -> None:
    words = mention.split()
    assert [word for word in not_yet(words) if word not in PENDING] == [], MENTIONED[mention]


RUNNABLE = [
    mention
    for mention in MENTIONED
    if mention not in MENTIONS
    and not mention.startswith(SERVERS)
    and not left_out(mention)
    and not not_yet(mention.split())
    and _is_whole(mention.split())
    and mention.split()[1] not in ("add", "build", "rollback")  # tests/docs/test_commands_run.py builds, and goes back
]


@pytest.mark.e2e
@pytest.mark.parametrize("mention", RUNNABLE)
def test_it_runs(mention: str, built_repository: Path, tmp_path: Path) -> None:
    # A copy, since commands may write: `remove` does. Files of a repository are only ever replaced, so links will do.
    shutil.copytree(built_repository, tmp_path / "model_repository", copy_function=os.link)
    (tmp_path / "model_bundles").symlink_to(ROOT / "model_bundles")
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(mention)[1:]]
    if words[0] == "deploy":
        words = [str(tmp_path / "manifests") if word == PLACEHOLDERS["DIR"] else word for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "sie_triton.cli", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "sdk", ROOT / "frontend", ROOT)))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{MENTIONED[mention]}: {done.stderr}"


def test_what_is_excused_is_mentioned() -> None:
    assert set(MENTIONS) <= set(MENTIONED)

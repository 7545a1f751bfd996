"""`docs/integrations.md`, followed with each Python that it names and this machine has."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import interpreter

from .markdown import ROOT, Block, read_page

PAGE = read_page(ROOT / "docs" / "integrations.md")
# The Python that every run follows the page with.
EVERY_RUN = "3.11"
VERSION = re.compile(r"sie-(3\.\d+)/bin")


def sections() -> dict[str, list[tuple[Block, str]]]:
    """The shell blocks of each Python, with what they print."""
    found: dict[str, list[tuple[Block, str]]] = {}
    for block, after in zip(PAGE.blocks, (*PAGE.blocks[1:], None), strict=True):
        if block.language == "sh":
            match = VERSION.search(block.text)
            assert match, f"which Python is line {block.line} for?"
            found.setdefault(match[1], []).append((block, after.text if after and after.language == "text" else ""))
    return found


def test_the_page_names_every_python_that_is_supported() -> None:
    assert sorted(sections()) == ["3.10", "3.11", "3.12"]


@pytest.mark.e2e
@pytest.mark.official
@pytest.mark.parametrize("version", sorted(sections()))
def test_what_it_says_to_install_works(version: str, shared_port: Callable[[], int], tmp_path: Path) -> None:
    if version != EVERY_RUN and not os.environ.get("SIE_TRITON_ALL_CLIENTS"):
        pytest.skip("each Python's packages take minutes to install: `SIE_TRITON_ALL_CLIENTS=1 make e2e` does")
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    place, programs = tmp_path / "checkout", tmp_path / "programs"
    for folder in (place, programs):
        folder.mkdir()
    (place / "sdk").symlink_to(ROOT / "sdk")
    (programs / f"python{version}").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    (programs / f"python{version}").chmod(0o755)
    # Who follows one section has made `embed.py` as the page's first one says.
    (made,) = re.findall(r"^cat > embed\.py.*?^END$", "".join(b.text for b in PAGE.blocks), re.MULTILINE | re.DOTALL)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SIE_BASE_URL")}
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    for block, printed in sections()[version]:
        script = f"{made}\n{block.text}".replace("8080", str(shared_port()))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if "No matching distribution found for sie-langchain" in done.stderr:
            pytest.skip("pip reaches no index that has sie-langchain")
        assert done.returncode == 0, f"{PAGE.name}:{block.line}: {done.stderr[-3000:]}"
        for line in filter(str.strip, printed.splitlines()):
            pattern = "^" + ".*".join(re.escape(part) for part in line.split("…")) + "$"
            assert re.search(pattern, done.stdout, re.MULTILINE), f"`{line}` is not in {done.stdout}"

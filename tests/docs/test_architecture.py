"""What can be checked of ARCHITECTURE.md is checked: files, folders, layers, and that no room is left out."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from .markdown import ROOT

PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGES = {"sie_triton": ROOT / "sie_triton", "sie_frontend": ROOT / "frontend" / "sie_frontend"}
# A path in code: with a folder, or with an ending that source has.
_PATH = re.compile(r"`([\w.-]+(?:/[\w.*-]+)*(?:/|\.(?:py|md|txt|yaml|npz)))`")
# Where a path that begins with none of the top folders may be meant from.
_BASES = (ROOT, ROOT / "sie_triton", ROOT / "frontend" / "sie_frontend")
# What is named and lies in a built repository, or is a placeholder.
_NOT_HERE = frozenset({"reference.npz", "__init__.py"})
_PLACEHOLDER = re.compile(r"[A-Z]{4,}")


def named() -> list[tuple[str, str]]:
    """Every path that a page names, with the folder that its line is about."""
    found: set[tuple[str, str]] = set()
    for line in [*PAGE.splitlines(), *CONTRIBUTING.splitlines()]:
        in_line = [path for path in _PATH.findall(line) if path not in _NOT_HERE and not _PLACEHOLDER.search(path)]
        found.update((path, in_line[0]) for path in in_line)
    return sorted(found)


@pytest.mark.parametrize(("path", "home"), named())
def test_what_is_named_exists(path: str, home: str) -> None:
    bases = [*_BASES, *(base / home for base in _BASES)]
    assert any(list(base.glob(path.rstrip("/"))) for base in bases), path


def layers(container: str) -> list[str]:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter", encoding="utf-8")
    (found,) = (
        section["layers"]
        for section in contracts.values()
        if section.get("type") == "layers" and section.get("containers") == container
    )
    return [line.strip() for line in found.splitlines() if line.strip()]


@pytest.mark.parametrize("container", PACKAGES)
def test_the_layers_are_those_of_the_import_contract(container: str) -> None:
    """Named in the same order, and every room of the package is in one of them."""
    written = " > ".join(f"`{layer}`" for layer in layers(container)).replace(" | ", "` and `")
    assert written in re.sub(r"\s+", " ", PAGE)
    named = {part for layer in layers(container) for part in layer.split(" | ")}
    rooms = {path.stem for path in PACKAGES[container].glob("*.py")} | {
        path.parent.name for path in PACKAGES[container].glob("*/__init__.py")
    }
    assert rooms - {"__init__", "templates"} == named


@pytest.mark.parametrize("container", PACKAGES)
def test_every_package_has_a_row_and_says_what_lives_there(container: str) -> None:
    folder = PACKAGES[container]
    for init in folder.glob("*/__init__.py"):
        home = init.parent.relative_to(ROOT).as_posix()
        assert f"`{home}/`" in PAGE, home
        assert init.read_text(encoding="utf-8").startswith('"""'), home


def test_source_files_can_be_read_in_one_go() -> None:
    """About 400 lines: a file that outgrows that has chapters, and each of them wants a name."""
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for folder in (ROOT / "sie_triton", ROOT / "frontend", ROOT / "sdk")
        for path in folder.rglob("*.py")
        if (lines := path.read_text(encoding="utf-8").count("\n")) > 400
    }
    assert long == {}


def test_a_class_name_stands_once() -> None:
    """One meaning for a word, but for what contracts of others fix: SIE's public names, and Triton's."""
    fixed = {"ImageInput", "Item", "ModelInfo", "ProfileInfo", "ScoreEntry", "TritonPythonModel"}
    places: dict[str, set[Path]] = {}
    for folder in (ROOT / "sie_triton", ROOT / "frontend", ROOT / "sdk"):
        for path in folder.rglob("*.py"):
            for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
                places.setdefault(name, set()).add(path)
    assert {name for name, files in places.items() if len(files) > 1} <= fixed

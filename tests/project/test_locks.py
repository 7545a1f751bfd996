"""The locks pin all that is installed by them, within our ranges; the oldest one at the lowest versions of these."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from environments import ENVIRONMENTS, LIGHT, LOCKS, SERVE
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .ranges import ROOT, ranges

NEWEST, OLDEST = ROOT / "constraints.txt", ROOT / "constraints-oldest.txt"
ALL = [NEWEST, OLDEST, SERVE, LIGHT, *(LOCKS / f"{name}.txt" for name in ENVIRONMENTS)]
# Ours, and what of the `export` extra the light tests do without.
NOT_IN_OLDEST = {
    *("onnxscript", "sentence-transformers", "sentencepiece", "torch", "transformers", "pip"),
    *("sie-triton-frontend", "sie-triton-sdk"),
}
# torch pins what its build for CUDA brings.
TORCHS_OWN = re.compile(r"(cuda|nvidia)-.*|triton")


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def pins(path: Path) -> dict[str, list[Requirement]]:
    """The pins of each package, whatever Python they are for."""
    found: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, lines(path)):
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def version(pin: Requirement) -> str:
    [specifier] = pin.specifier
    return specifier.version


def requirements(name: str) -> Iterator[Requirement]:
    """The lines of a file of requirements, those of the files that it names too."""
    for line in lines(ROOT / name):
        if line.startswith("-r "):
            yield from requirements(line.removeprefix("-r "))
        else:
            yield Requirement(line)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_every_line_is_an_exact_version_and_nothing_else(path: Path) -> None:
    written = lines(path)
    assert written
    for line in written:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ; [\w.'\"<>=! ()]+)?", line)
    names = [canonicalize_name(Requirement(line).name) for line in written]
    assert names == sorted(names)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_no_python_is_given_two_versions_of_a_package(path: Path, python: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.0"}
    for name, found in pins(path).items():
        assert sum(pin.marker is None or pin.marker.evaluate(here) for pin in found) <= 1, name


def test_what_the_projects_and_the_tests_ask_for_is_pinned_within_their_ranges() -> None:
    asked = [*requirements("requirements-dev.txt"), *(entry for entries in ranges().values() for entry in entries)]
    for requirement in asked:
        name = canonicalize_name(requirement.name)
        if name in ("sie-triton-frontend", "sie-triton-sdk", "onnxruntime-gpu"):  # ours; instead of `onnxruntime`
            continue
        assert name in pins(NEWEST), name
        for pin in pins(NEWEST)[name]:
            assert requirement.specifier.contains(version(pin)), f"{requirement}, and {NEWEST.name} has {pin}"


def test_what_these_ask_for_in_turn_is_pinned_too() -> None:
    oldest = importlib.metadata.version("numpy") == version(pins(OLDEST)["numpy"][0])
    asked = [
        "sie-triton-sdk",
        "sie-triton-frontend[storage,otel]",
        "sie-triton" if oldest else "sie-triton[export]",
        "onnxruntime",
    ]
    asked += map(str, requirements("requirements-test.txt" if oldest else "requirements-dev.txt"))
    missing = set(_closure(asked)) - pins(OLDEST if oldest else NEWEST).keys()
    assert not {name for name in missing if not name.startswith("sie-triton") and not TORCHS_OWN.fullmatch(name)}


def _closure(roots: Iterable[str]) -> Iterator[str]:
    """The packages that these need, as far as they are installed here."""
    waiting, seen = [Requirement(root) for root in roots], set()
    while waiting:
        wanted = waiting.pop()
        key = (name := canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        yield name
        try:
            further = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, further):
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in (wanted.extras or {""})
            ):
                waiting.append(requirement)


def test_the_oldest_versions_are_the_lowest_that_our_ranges_allow() -> None:
    for name, entries in ranges().items():
        if name in NOT_IN_OLDEST:
            continue
        [pin] = pins(OLDEST)[name]
        lowest = [s.version for requirement in entries for s in requirement.specifier if s.operator in (">=", "==")]
        assert lowest, f"`{name}` has no lowest version"
        assert Version(version(pin)) in map(Version, lowest), name


def test_every_environment_of_the_tests_has_its_lock() -> None:
    assert {path.name.removesuffix(".txt") for path in LOCKS.glob("*.txt")} == {*ENVIRONMENTS, SERVE.stem, LIGHT.stem}
    for name, wanted in ENVIRONMENTS.items():
        pinned = pins(LOCKS / f"{name}.txt")
        for requirement in map(Requirement, (*wanted.requirements, *wanted.beside)):
            for pin in pinned[canonicalize_name(requirement.name)]:
                assert requirement.specifier.contains(version(pin)), f"{name}: {requirement}"
        for beside in wanted.beside:
            newest = {version(pin) for pin in pins(NEWEST)[canonicalize_name(beside)]}
            assert {version(pin) for pin in pinned[canonicalize_name(beside)]} <= newest, f"{name}: {beside}"


@cache
def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock_tool", ROOT / "tools" / "lock.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_what_is_ours_or_torchs_own_or_of_another_system_is_no_pin() -> None:
    lines = [
        "colorama==0.4.6 ; sys_platform == 'win32'",
        "nvidia-cublas==13.1.1.3 ; sys_platform == 'linux'",
        "numpy==2.2.6 ; python_full_version < '3.11'",
        "numpy==2.4.6 ; python_full_version >= '3.11'",
        "sie-triton-frontend==0.1.0",
        "triton==3.8.0",
        "tritonclient==2.73.0",
    ]
    kept = [str(pin) for pin in _tool().kept(map(Requirement, lines), ["3.11"])]
    assert kept == ['numpy==2.4.6; python_full_version >= "3.11"', "tritonclient==2.73.0"]


def test_the_images_have_the_uv_that_resolved_the_locks() -> None:
    assert _tool().UV in (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")


def test_the_tool_takes_the_lowest_versions_out_of_the_ranges() -> None:
    floors = _tool().floors()
    assert floors["numpy"] == "1.26"
    assert "sie-triton-frontend" not in floors

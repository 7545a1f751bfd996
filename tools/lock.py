"""Writes the exact versions that CI installs: every lock is resolved by pip in a fresh environment of each Python.

    python tools/lock.py            # what is newest within the ranges
    python tools/lock.py --keep     # what is pinned stays; only what is missing is added

`constraints.txt` is for `make install`, the images and the documentation; `constraints-oldest.txt` for `make oldest`,
with the lowest versions that our own ranges allow; `tests/locks/` for the environments that tests make.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from environments import ENVIRONMENTS, LOCKS, interpreter  # noqa: E402 - it lies beside the tests

NEWEST, OLDEST = Path("constraints.txt"), Path("constraints-oldest.txt")
PROJECTS = ("pyproject.toml", "frontend/pyproject.toml", "sdk/pyproject.toml")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Installed without what its metadata asks for, which only its own Python code needs.
ALONE = "nvidia-pytriton==0.7.0"
# What torch's build for CUDA brings, torch itself pins; its build for CPUs has none of it.
_TORCHS_OWN = re.compile(r"(cuda|nvidia)-.*|triton")

Pins = Mapping[str, str]
"""Names as their packages spell them -> versions."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One file: what is resolved together, with which Pythons, and within which limits besides."""

    path: Path
    head: str
    pythons: Sequence[str]
    requirements: Sequence[str]
    limits: Sequence[str] = ()
    alone: Sequence[str] = ()


def locks() -> Iterator[Lock]:
    """All of them. The first is written before the others are made: some hold packages in its versions."""
    yield Lock(
        NEWEST,
        "The versions that the Makefile, CI and the images install; the ranges for users are in the pyproject files.",
        PYTHONS,
        ["./sdk", "./frontend[storage,otel]", ".[export,cpu]", "-r", "requirements-dev.txt", "pip"],
        alone=[ALONE],
    )
    yield Lock(
        OLDEST,
        "What `make oldest` installs: the lowest versions that the pyproject files allow, and what goes with them.",
        PYTHONS[:1],
        ["./sdk", "./frontend[storage,otel]", ".[cpu]", "onnx", "safetensors", "-r", "requirements-test.txt"],
        limits=[f"{name}=={version}" for name, version in floors().items()],
    )
    newest = {canonicalize_name(r.name): str(r) for r in pinned(NEWEST)}
    for name, wanted in ENVIRONMENTS.items():
        beside = [newest[canonicalize_name(package)] for package in wanted.beside]
        head = f"The versions of the environment `{name}` of the tests."
        yield Lock(LOCKS / f"{name}.txt", head, wanted.pythons, [*wanted.requirements, *beside])


def floors() -> dict[str, str]:
    """The lowest version that our ranges allow of each package that we ask for, under its canonical name."""
    found = {}
    for project in PROJECTS:
        table = tomllib.loads((ROOT / project).read_text(encoding="utf-8"))["project"]
        extras = chain.from_iterable(table.get("optional-dependencies", {}).values())
        for requirement in map(Requirement, chain(table["dependencies"], extras)):
            lowest = [s.version for s in requirement.specifier if s.operator == ">="]
            if lowest:
                found[canonicalize_name(requirement.name)] = max(lowest, key=Version)
    return found


def pinned(path: Path) -> list[Requirement]:
    """The lines of a lock; none where there is no such file."""
    file = ROOT / path
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def resolve(python: str, lock: Lock, kept: Iterable[Requirement]) -> Pins:
    """What pip would install with an interpreter of this version. Raises `SystemExit` if there is none or pip fails."""
    base = interpreter(python)
    if base is None:
        raise SystemExit(f"`{lock.path}` needs Python {python}, which is not here")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        limits, report = place / "limits.txt", place / "report.json"
        limits.write_text("\n".join([*lock.limits, *map(str, kept)]) + "\n", encoding="utf-8")
        _run([base, "-m", "venv", place / "venv"])
        pip = [place / "venv/bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        _run([*pip, "--upgrade", "pip"])
        _run([*pip, "--dry-run", "--ignore-installed", "--report", report, "-c", limits, *lock.requirements])
        installed: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = {entry["metadata"]["name"]: entry["metadata"]["version"].partition("+")[0] for entry in installed}
    return {name: version for name, version in found.items() if not _belongs_elsewhere(canonicalize_name(name))}


def _belongs_elsewhere(name: str) -> bool:
    return name.startswith("sie-triton") or bool(_TORCHS_OWN.fullmatch(name))


def merged(pins: Mapping[str, Pins]) -> list[str]:
    """A line for each package; where Pythons differ in its version, one for each version with their names."""
    spellings = {canonicalize_name(name): name for found in pins.values() for name in found}
    lines = []
    for canonical in sorted(spellings):
        name, versions = spellings[canonical], dict[str, list[str]]()
        for python, found in pins.items():
            if name in found:
                versions.setdefault(found[name], []).append(python)
        for version, pythons in versions.items():
            which = " or ".join(f'python_version == "{python}"' for python in pythons)
            lines.append(f"{name}=={version}" + (f" ; {which}" if len(versions) > 1 else ""))
    return lines


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write every lock, or those that are named."""
    parser = argparse.ArgumentParser(prog="tools/lock.py", description="write the exact versions that CI installs")
    parser.add_argument("names", nargs="*", metavar="FILE", help="locks to write; default: all")
    parser.add_argument("--keep", action="store_true", help="leave what is pinned as it is, add what is missing")
    options = parser.parse_args(arguments)
    for lock in locks():
        if options.names and lock.path.name not in {Path(name).name for name in options.names}:
            continue
        kept = pinned(lock.path) if options.keep else []
        pins = {python: resolve(python, lock, kept) for python in lock.pythons}
        lines = sorted([*merged(pins), *lock.alone], key=lambda line: canonicalize_name(Requirement(line).name))
        head = f"# {lock.head}\n# Written by `make lock`.\n"
        (ROOT / lock.path).write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
        print(f"{lock.path.name}: {len(lines)} versions")


if __name__ == "__main__":
    main()

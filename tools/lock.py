"""Writes the exact versions that CI installs: every lock is resolved anew, for every Python that we support.

    python tools/lock.py            # the newest within the ranges
    python tools/lock.py --keep     # what is pinned stays; only what is missing is added

`constraints.txt` is for `make install`, the images and the documentation; `constraints-oldest.txt` for `make oldest`,
with the lowest versions that our own ranges allow; `tests/locks/` for the environments that tests make. uv resolves
them, in an environment of its own that is gone afterwards: pip resolves for the Python alone that runs it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from environments import ENVIRONMENTS, LIGHT, LOCKS, SERVE  # noqa: E402 - it lies beside the tests

UV = "uv==0.13.9"
NEWEST, OLDEST = ROOT / "constraints.txt", ROOT / "constraints-oldest.txt"
PROJECTS = ("pyproject.toml", "frontend/pyproject.toml", "sdk/pyproject.toml")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Installed without what its metadata asks for, which only its own Python code needs.
ALONE = "nvidia-pytriton==0.7.0"
# Of the numpy that its metadata asks for there is no wheel here, so that the extras leave it out.
WITHOUT_NUMPY_1 = "python_version >= '3.13'"
ALONE_IN_EXTRAS = f"{ALONE} ; python_full_version < '3.13'"
# Ours, and what torch's build for CUDA brings: torch itself pins that, and its build for CPUs has none of it.
LEFT_OUT = re.compile(r"sie-triton.*|(cuda|nvidia)-.*|triton")


@dataclass(frozen=True, slots=True)
class Lock:
    """One file: what is resolved together, for which Pythons, and within which limits besides."""

    path: Path
    head: str
    pythons: Sequence[str]
    requirements: Sequence[str]
    limits: Sequence[str] = ()
    alone: Sequence[str] = ()


def locks() -> Iterator[Lock]:
    """All of them. The first must be written before the others are asked for: some have packages in its versions."""
    yield Lock(
        NEWEST,
        "The versions that the Makefile, CI and the images install; the ranges for users are in the pyproject files.",
        PYTHONS,
        ["./sdk", "./frontend[storage,otel]", ".[export]", "onnxruntime", *_lines("requirements-dev.txt"), "pip"],
        alone=[ALONE],
    )
    yield Lock(
        OLDEST,
        "What `make oldest` installs: the lowest versions that the pyproject files allow, and what goes with them.",
        PYTHONS[:1],
        [
            "./sdk[socks]",
            "./frontend[storage,otel]",
            ".",
            "onnxruntime",
            "onnx",
            "openvino",
            "safetensors",
            *_lines("requirements-test.txt"),
            "pip",
        ],
        # pip installs the others, and is no part of what is tested.
        limits=[f"{name}=={version}" for name, version in floors().items() if name != "pip"],
        alone=[ALONE],
    )
    yield Lock(
        SERVE,
        "What an installation of `sie-triton[serve]` brings besides our own wheels.",
        PYTHONS,
        ["./sdk", "./frontend", ".[serve]"],
        limits=[f"numpy>=2.1 ; {WITHOUT_NUMPY_1}"],
        alone=[ALONE_IN_EXTRAS],
    )
    yield Lock(
        LIGHT,
        "What an installation of `sie-triton[light]` brings besides our own wheels.",
        PYTHONS,
        ["./sdk", "./frontend", ".[light]"],
        limits=list(map(str, pinned(SERVE))),
        alone=[ALONE_IN_EXTRAS],
    )
    for name, wanted in ENVIRONMENTS.items():
        beside = {canonicalize_name(package) for package in wanted.beside}
        limits = [str(pin) for pin in pinned(NEWEST) if canonicalize_name(pin.name) in beside]
        head = f"The versions of the environment `{name}` of the tests."
        yield Lock(LOCKS / f"{name}.txt", head, wanted.pythons, [*wanted.requirements, *wanted.beside], limits)


def floors() -> dict[str, str]:
    """The lowest version that our ranges allow of each package that we ask for, under its canonical name."""
    found: dict[str, str] = {}
    for project in PROJECTS:
        table = tomllib.loads((ROOT / project).read_text(encoding="utf-8"))["project"]
        extras = chain.from_iterable(table.get("optional-dependencies", {}).values())
        for requirement in map(Requirement, chain(table["dependencies"], extras)):
            name = canonicalize_name(requirement.name)
            lowest = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
            if lowest:
                found[name] = max([*lowest, *([found[name]] if name in found else [])], key=Version)
    return found


def pinned(path: Path) -> list[Requirement]:
    """The pins of a lock; none where there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def kept(pins: Iterable[Requirement], pythons: Sequence[str]) -> list[Requirement]:
    """The pins that belong into a lock: neither ours nor torch's own, and of Linux and one of these Pythons."""
    return [
        pin
        for pin in pins
        if not LEFT_OUT.fullmatch(canonicalize_name(pin.name))
        and (pin.marker is None or any(pin.marker.evaluate(_linux(python)) for python in pythons))
    ]


def _linux(python: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }


def resolve(uv: Path, lock: Lock, limits: Iterable[str]) -> list[Requirement]:
    """What belongs together, within the limits. Raises `SystemExit` with uv's words if nothing does."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, within, found = (Path(folder) / name for name in ("wanted.in", "within.txt", "found.txt"))
        # A path in a file of requirements is taken from where the file lies.
        places = [str(ROOT / entry) if entry.startswith(".") else entry for entry in lock.requirements]
        wanted.write_text("\n".join(places) + "\n", encoding="utf-8")
        within.write_text("\n".join([*lock.limits, *limits]) + "\n", encoding="utf-8")
        command: list[str | Path] = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--upgrade"]
        command += ["--universal"] if len(lock.pythons) > 1 else []
        command += ["--python-version", lock.pythons[0], "--constraint", within, "--output-file", found, wanted]
        _run(command)
        lines = [line for line in found.read_text(encoding="utf-8").splitlines() if "==" in line]
    return kept(map(Requirement, lines), lock.pythons)


def _lines(name: str) -> Iterator[str]:
    """The requirements of a file, those of the files that it names too."""
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            yield from _lines(line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            yield line


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
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _run([sys.executable, "-m", "venv", place])
        _run([place / "bin/python", "-m", "pip", "install", "--quiet", UV])
        for lock in locks():
            if options.names and lock.path.name not in {Path(name).name for name in options.names}:
                continue
            limits = [str(pin) for pin in pinned(lock.path)] if options.keep else []
            pins = [*resolve(place / "bin/uv", lock, limits), *map(Requirement, lock.alone)]
            lines = [str(pin).replace("; ", " ; ") for pin in sorted(pins, key=lambda p: canonicalize_name(p.name))]
            head = f"# {lock.head}\n# Written by `make lock`.\n"
            lock.path.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
            print(f"{lock.path.name}: {len(lines)} versions")


if __name__ == "__main__":
    main()

"""What a release consists of, as CycloneDX 1.6 in JSON: our distributions, and every package of the lock beneath them.

    python tools/sbom.py 0.1.0 > sbom.cdx.json

The versions are those of `constraints.txt`, which the images install. Which packages belong to it, what they need in
turn and their licences is read out of the metadata of the environment that runs this: that of `make install`. A package
that is not installed there is left out, since nothing says that it is needed. The same lock gives the same bytes.
The strict validator of cyclonedx-python-lib 11.12.0 found no error in it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sie_triton.embedded.installation import DISTRIBUTION, find_wheel

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "constraints.txt"
OURS: Mapping[str, tuple[str, ...]] = {
    "sie-triton": ("sie-triton[export]", "onnxruntime", "nvidia-pytriton"),
    "sie-triton-frontend": ("sie-triton-frontend[storage,otel]",),
    "sie-triton-sdk": ("sie-triton-sdk",),
}
"""Each distribution, and what an installation that has all of it is made of."""
ALONE = frozenset({DISTRIBUTION})
"""Installed without what its metadata asks for."""
LICENCE = "Apache-2.0"
_LICENCE_NAME = 60
"""The old field holds a name, or the whole text."""
_SPDX = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")
# RFC 4122's namespace for URLs.
_NAMESPACE = uuid.NAMESPACE_URL


@dataclass(frozen=True, slots=True)
class Pin:
    """A line of the lock: a name, a version, and for which Pythons ("" for all)."""

    name: str
    version: str
    marker: str

    @property
    def purl(self) -> str:
        """The package URL, which is also the reference within the file."""
        return f"pkg:pypi/{self.name}@{self.version}"


def pins(lock: Path) -> Iterator[Pin]:
    """The lines of a lock, sorted."""
    for line in sorted(lock.read_text(encoding="utf-8").splitlines()):
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            [specifier] = requirement.specifier
            marker = str(requirement.marker or "")
            yield Pin(canonicalize_name(requirement.name), specifier.version, marker)


def needs(requirement: Requirement) -> set[str]:
    """The names that an installed distribution needs, with the extras that are asked for; none where it is absent."""
    if canonicalize_name(requirement.name) in ALONE:
        return set()
    try:
        lines = importlib.metadata.requires(requirement.name) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    return {str(wanted) for wanted in map(Requirement, lines) if _applies(wanted, requirement.extras)}


def _applies(wanted: Requirement, extras: set[str]) -> bool:
    return wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras or {""})


def graph(roots: Sequence[str]) -> dict[str, set[str]]:
    """What each package beneath `roots` needs, by its canonical name; an extra counts for its package."""
    found: dict[str, set[str]] = {}
    waiting, seen = list(roots), set[tuple[str, frozenset[str]]]()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        further = needs(requirement)
        found.setdefault(name, set()).update(canonicalize_name(Requirement(line).name) for line in further)
        waiting += further
    return found


def licences(name: str) -> list[dict[str, Any]]:
    """The licence that a package's metadata states: an SPDX expression, or a name."""
    metadata = _metadata(name)
    if metadata is None:
        return []
    stated, older = ((metadata.get_all(field) or [""])[0] for field in ("License-Expression", "License"))
    if stated and _SPDX.fullmatch(stated):
        return [{"expression": stated}]
    classified = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", []) if "License ::" in line]
    if not classified and 0 < len(older) < _LICENCE_NAME and "\n" not in older:
        classified = [older]
    return [{"license": {"name": stated}} for stated in classified]


def _metadata(name: str) -> importlib.metadata.PackageMetadata | None:
    # tritonserver's wheel is no package of the environment.
    beside = (find_wheel() if name == DISTRIBUTION else None,)
    return next((found.metadata for found in (*importlib.metadata.distributions(name=name), *beside) if found), None)


def component(pin: Pin) -> dict[str, Any]:
    """A package of the lock."""
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "purl": pin.purl,
    }
    stated = licences(pin.name)
    if stated:
        found["licenses"] = stated
    if pin.marker:
        found["properties"] = [{"name": "python:marker", "value": pin.marker}]
    return found


def document(version: str, epoch: int, lock: Path = LOCK) -> dict[str, Any]:
    """The whole file, as JSON values. `epoch` is the time that it states, in seconds."""
    ours = {name: Pin(name, version, "") for name in OURS}
    needed = graph([root for roots in OURS.values() for root in roots])
    for name, roots in OURS.items():
        needed[name] |= {canonicalize_name(Requirement(root).name) for root in roots} - {name}
    third = [pin for pin in pins(lock) if pin.name in needed]
    by_name: dict[str, list[Pin]] = {name: [pin] for name, pin in ours.items()}
    for pin in third:
        by_name.setdefault(pin.name, []).append(pin)
    every = [*ours.values(), *third]
    content = {
        "components": [
            *({**component(pin), "licenses": [{"expression": LICENCE}]} for pin in ours.values()),
            *map(component, third),
        ],
        "dependencies": [
            {
                "ref": pin.purl,
                "dependsOn": sorted(p.purl for name in needed[pin.name] for p in by_name.get(name, ())),
            }
            for pin in every
        ],
    }
    serial = uuid.uuid5(_NAMESPACE, json.dumps([version, epoch, content], sort_keys=True))
    moment = datetime.fromtimestamp(epoch, timezone.utc)
    release = {"type": "application", "bom-ref": "release", "name": "sie-triton", "version": version}
    content["dependencies"].append({"ref": "release", "dependsOn": [pin.purl for pin in ours.values()]})
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": release},
        **content,
    }


def render(version: str, epoch: int, lock: Path = LOCK) -> str:
    """The file's text."""
    return json.dumps(document(version, epoch, lock), indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Print the file of a version; the exit code."""
    if len(arguments) != 1:
        print("usage: python tools/sbom.py VERSION", file=sys.stderr)
        return 2
    print(render(arguments[0], int(os.environ.get("SOURCE_DATE_EPOCH", "0"))), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The version of all three distributions: says it, or sets it everywhere.

    python tools/version.py          # prints it; exit code 1 where the places disagree
    python tools/version.py 0.2.0    # writes it into every place

The three distributions are released together. Each wheel takes its version from its package's `__init__.py`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parent.parent
PLACES: Mapping[str, tuple[str, ...]] = {
    "sie_triton/__init__.py": ('__version__ = "{}"',),
    "frontend/sie_frontend/__init__.py": ('__version__ = "{}"',),
    "sdk/sie_sdk/__init__.py": ('__version__ = "{}"',),
    "pyproject.toml": ('"sie-triton-frontend=={}"', '"sie-triton-sdk=={}"'),
    "docker-compose.yml": ("${{SIE_TRITON_VERSION:-{}}}",),
    "docs/docker.md": ("| `SIE_TRITON_VERSION` | `{}` |",),
    "docs/kubernetes.md": ("/sie-triton-frontend:{} ", "/sie-triton-server:{} "),
}
"""Files that say the version, and how; `{}` stands for it."""

_VERSION = r"[0-9][0-9a-z.]*"


def found(root: Path) -> dict[str, set[str]]:
    """The versions that each file says, by `file: form`."""
    return {
        f"{name}: {form}": set(_pattern(form).findall((root / name).read_text(encoding="utf-8")))
        for name, forms in PLACES.items()
        for form in forms
    }


def write(root: Path, version: str) -> None:
    """Put `version` into every place."""
    for name, forms in PLACES.items():
        text = (root / name).read_text(encoding="utf-8")
        for form in forms:
            # A function: a replacement text would be read for signs of its own.
            text = _pattern(form).sub(partial(_said, form.format(version)), text)
        (root / name).write_text(text, encoding="utf-8")


def _said(text: str, _: re.Match[str]) -> str:
    return text


def _pattern(form: str) -> re.Pattern[str]:
    before, after = map(re.escape, form.format("\0").split("\0"))
    return re.compile(f"{before}({_VERSION}){after}")


def main(arguments: Sequence[str]) -> int:
    """Say or set the version; the exit code."""
    if arguments:
        try:
            write(ROOT, str(Version(arguments[0])))
        except InvalidVersion as error:
            print(error, file=sys.stderr)
            return 2
    places = found(ROOT)
    versions = set().union(*places.values())
    if len(versions) == 1 and all(places.values()):
        print(*versions)
        return 0
    for place, said in places.items():
        print(f"{place} says {', '.join(sorted(said)) or 'nothing'}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

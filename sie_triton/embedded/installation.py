"""Finds the tritonserver that the `nvidia-pytriton` wheel carries, without importing the wheel's Python code."""

from __future__ import annotations

import importlib.util
import platform
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from sie_triton.diagnostics import Diagnostic, DiagnosticError

DISTRIBUTION = "nvidia-pytriton"
# The wheel's metadata asks for numpy<2 and six packages that only its own Python code needs.
INSTALL_HINT = "pip install --no-deps nvidia-pytriton==0.7.0"

NO_NUMPY_1 = (3, 13)
"""From this Python on there is no wheel of the numpy that the wheel's metadata asks for."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the parts of one usable tritonserver lie.

    `libpython` is the folder of the running interpreter's shared library, or None where the stub carries its own.
    """

    binary: Path
    python_backend: Path
    stub: Path
    libraries: Path
    libpython: Path | None


def find_installation() -> Installation:
    """Locate the wheel's parts for the running interpreter.

    Raises `DiagnosticError` with `SIE701` (not installed), `SIE702` (platform), `SIE703` (no stub for this Python)
    or `SIE704` (no shared libpython, which the stub links to).
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        _fail(
            "SIE702",
            f"the embedded tritonserver runs on Linux x86-64 only, this is {sys.platform} {platform.machine()}",
            "run NVIDIA's container instead, and point `serve --triton-url` at it",
        )
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        _fail("SIE701", f"`{DISTRIBUTION}`, which carries tritonserver, is not installed{_left_out()}", install_hint())
    root = Path(str(distribution.locate_file("pytriton/tritonserver")))
    libraries = Path(str(distribution.locate_file("nvidia_pytriton.libs")))
    binary, backend = root / "bin" / "tritonserver", root / "backends" / "python"
    for part in (binary, backend / "libtriton_python.so", libraries):
        if not part.exists():
            lacking = f"`{DISTRIBUTION}` {distribution.version} lacks `{part}`"
            _fail("SIE701", lacking, f"{install_hint()} --force-reinstall")
    minor = ".".join(platform.python_version_tuple()[:2])
    stub = root / "python_backend_stubs" / minor / "triton_python_backend_stub"
    if not stub.is_file():
        offered = sorted((p.name for p in stub.parent.parent.glob("3.*")), key=lambda name: int(name.split(".")[1]))
        _fail(
            "SIE703",
            f"`{DISTRIBUTION}` {distribution.version} has no backend stub for Python {minor}",
            f"use one of Python {', '.join(offered)}",
        )
    return Installation(binary, backend, stub, libraries, _libpython_folder(stub, minor))


def install_hint() -> str:
    """What to type for the wheel; by uv where it made the environment, or where that has no pip.

    Where the extras leave the wheel out, another Python is the shorter way for `uvx` and `uv tool`.
    """
    if not _made_by_uv() and importlib.util.find_spec("pip") is not None:
        return INSTALL_HINT
    hint = f"uv {INSTALL_HINT} --python {sys.executable}"
    if sys.version_info < NO_NUMPY_1:
        return hint
    return f"{hint}; for `uvx` and `uv tool install`, add `--python 3.12`, whose extras have it"


def _made_by_uv() -> bool:
    try:
        return "\nuv = " in (Path(sys.prefix) / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return False


def _left_out() -> str:
    if sys.version_info < NO_NUMPY_1:
        return ""
    minor = ".".join(platform.python_version_tuple()[:2])
    return f"; the extras leave it out for Python {minor}: its metadata asks for numpy 1, which has no wheel there"


def _libpython_folder(stub: Path, minor: str) -> Path | None:
    name = f"libpython{minor}.so.1.0"
    if name.encode() not in stub.read_bytes():
        return None
    places = [sysconfig.get_config_var("LIBDIR"), str(Path(sys.base_prefix) / "lib"), sysconfig.get_config_var("LIBPL")]
    places += ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"]
    found = [Path(place) for place in places if place and (Path(place) / name).exists()]
    if not found:
        _fail(
            "SIE704",
            f"`{name}` was not found, and tritonserver's backend stub links to it",
            f"install the system package `libpython{minor}`, or use a Python that was built with a shared library",
        )
    return found[0]


def _fail(code: str, message: str, hint: str) -> NoReturn:
    raise DiagnosticError([Diagnostic(code, message, hint=hint)])

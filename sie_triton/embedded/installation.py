"""Finds the tritonserver that the `nvidia-pytriton` wheel carries, without importing the wheel's Python code.

The wheel may be a package of the environment. Its metadata asks for numpy<2 and for packages that only its own Python
code needs, so that it may also lie beside the packages, where no installer counts it: in the environment's `share`,
where `make install` puts it, or in our cache, where `fetching` puts it.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import platform
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.room import cache_folder

DISTRIBUTION = "nvidia-pytriton"
VERSION = "0.7.0"
INSTALL_HINT = f"pip install --no-deps {DISTRIBUTION}=={VERSION}"
LEAST_GLIBC = (2, 35)
"""What the wheel is made for; pip takes it nowhere else."""
STUBS = tuple((3, minor) for minor in range(8, 14))
"""The Pythons that the wheel has a stub for."""
ELSEWHERE_HINT = "run NVIDIA's container instead, and point `serve --triton-url` at it"
# What of the wheel is used.
_PARTS = ("pytriton/tritonserver/", "nvidia_pytriton.libs/")


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the parts of one usable tritonserver lie, and the `version` of the wheel that they came in.

    `libpython` is the folder of the running interpreter's shared library, or None where the stub carries its own.
    """

    binary: Path
    python_backend: Path
    stub: Path
    libraries: Path
    libpython: Path | None
    version: str


def find_installation() -> Installation:
    """Locate the wheel's parts for the running interpreter.

    Raises `DiagnosticError` with `SIE701` (not there), `SIE702` (platform), `SIE703` (no stub for this Python)
    or `SIE704` (no shared libpython, which the stub links to).
    """
    check_platform()
    distribution = find_wheel()
    if distribution is None:
        fail(
            "SIE701", f"`{DISTRIBUTION}`, which carries tritonserver, is neither installed nor fetched", install_hint()
        )
    root = Path(str(distribution.locate_file("pytriton/tritonserver")))
    libraries = Path(str(distribution.locate_file("nvidia_pytriton.libs")))
    binary, backend = root / "bin" / "tritonserver", root / "backends" / "python"
    for part in (binary, backend / "libtriton_python.so", libraries):
        if not part.exists():
            lacking = f"`{DISTRIBUTION}` {distribution.version} lacks `{part}`"
            fail("SIE701", lacking, f"{install_hint()} --force-reinstall")
    minor = ".".join(platform.python_version_tuple()[:2])
    stub = root / "python_backend_stubs" / minor / "triton_python_backend_stub"
    if not stub.is_file():
        offered = sorted((p.name for p in stub.parent.parent.glob("3.*")), key=lambda name: int(name.split(".")[1]))
        fail(
            "SIE703",
            f"`{DISTRIBUTION}` {distribution.version} has no backend stub for Python {minor}",
            f"use one of Python {', '.join(offered)}",
        )
    return Installation(binary, backend, stub, libraries, _libpython_folder(stub, minor), distribution.version)


def check_platform() -> None:
    """Raise `DiagnosticError` (`SIE702`) where the embedded server does not run."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        fail(
            "SIE702",
            f"the embedded tritonserver runs on Linux x86-64 only, this is {sys.platform} {platform.machine()}",
            ELSEWHERE_HINT,
        )


def find_wheel() -> metadata.Distribution | None:
    """The wheel's own record: of a package of this environment, else of one that lies beside packages and is whole."""
    try:
        return metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        pass
    return next((found for folder in (environment_folder(), fetched_folder()) if (found := whole_wheel(folder))), None)


def environment_folder() -> Path:
    """Where `make install` puts the wheel: in the environment, and no package of it."""
    return Path(sys.prefix) / "share" / "sie-triton" / f"{DISTRIBUTION}-{VERSION}"


def fetched_folder() -> Path:
    """Where a wheel lies that was fetched because the environment has none."""
    return cache_folder() / "tritonserver" / f"{DISTRIBUTION}-{VERSION}"


def whole_wheel(folder: Path) -> metadata.Distribution | None:
    """The record of the wheel that was unpacked there, if all that is used of it is there in its size; else None."""
    found = next(iter(metadata.distributions(name=DISTRIBUTION, path=[str(folder)])), None)
    # From Python 3.12 on, `found.files` has only what is there.
    record = csv.reader(((found and found.read_text("RECORD")) or "").splitlines())
    used = [(name, size) for name, _, size in record if name.startswith(_PARTS)]
    return found if used and all(str(_size(folder / name)) == size for name, size in used) else None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def install_hint() -> str:
    """What to type for the wheel as a package; by uv where it made the environment, or where that has no pip."""
    if not made_by_uv() and importlib.util.find_spec("pip") is not None:
        return INSTALL_HINT
    return f"uv {INSTALL_HINT} --python {sys.executable}"


def made_by_uv() -> bool:
    """Whether uv made this environment."""
    try:
        return "\nuv = " in (Path(sys.prefix) / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return False


def glibc() -> tuple[int, ...]:
    """The version of the system's C library; empty where it is another than glibc."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return tuple(map(int, version.split("."))) if name == "glibc" else ()
    except (AttributeError, OSError, ValueError):
        return ()


def _libpython_folder(stub: Path, minor: str) -> Path | None:
    name = f"libpython{minor}.so.1.0"
    if name.encode() not in stub.read_bytes():
        return None
    places = [sysconfig.get_config_var("LIBDIR"), str(Path(sys.base_prefix) / "lib"), sysconfig.get_config_var("LIBPL")]
    places += ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"]
    found = [Path(place) for place in places if place and (Path(place) / name).exists()]
    if not found:
        fail(
            "SIE704",
            f"`{name}` was not found, and tritonserver's backend stub links to it",
            f"install the system package `libpython{minor}`, or use a Python that was built with a shared library",
        )
    return found[0]


def fail(code: str, message: str, hint: str) -> NoReturn:
    """Raise `DiagnosticError` with one diagnostic."""
    raise DiagnosticError([Diagnostic(code, message, hint=hint)])

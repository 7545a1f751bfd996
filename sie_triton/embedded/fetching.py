"""Fetches the wheel that carries tritonserver, where the environment has none: without what its metadata asks for.

That metadata asks for numpy<2, which has no wheel for Python 3.13, and for packages that nothing here uses. So pip or
uv unpacks the wheel into a folder of ours, outside the environment, where no check of its packages finds it. They
compare its bytes with the digest in `tritonserver.txt`. `python -m sie_triton.embedded.fetching` puts it into the
environment's own `share`, for checkouts and images.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sie_frontend.setting_values import as_switch

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded.installation import (
    DISTRIBUTION,
    ELSEWHERE_HINT,
    INSTALL_HINT,
    LEAST_GLIBC,
    STUBS,
    VERSION,
    Installation,
    check_platform,
    environment_folder,
    fail,
    fetched_folder,
    find_installation,
    find_wheel,
    glibc,
    install_hint,
    made_by_uv,
    whole_wheel,
)
from sie_triton.interrupts import fleeting
from sie_triton.room import shortage

Announce = Callable[[str], None]

VARIABLE = "SIE_TRITON_FETCH_TRITONSERVER"
"""`false` forbids that anything is fetched."""
LOCKED = Path(__file__).with_name("tritonserver.txt")
"""The one requirement, with the digest of its bytes, as pip and uv read it."""
MEGABYTES = 55
_UNPACKED_MEGABYTES = 150
_WAIT_SECONDS = 900
_REPORT_SECONDS = 10.0
_STAGE = ".stage-"
# What an installer reads of its environment and its files that would send the wheel elsewhere, or refuse the folder.
_UNASKED = frozenset(
    f"{tool}_{name}"
    for tool in ("PIP", "UV")
    for name in ("TARGET", "PREFIX", "ROOT", "CONSTRAINT", "REQUIREMENT", "SYSTEM_PYTHON")
)
_PLAIN = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "NO_COLOR": "1"}
_SHOWN_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Installer:
    """A program that unpacks wheels: its name, and the command that takes a folder and a file of requirements."""

    name: str
    command: tuple[str, ...]


def ensure_installation(announce: Announce) -> Installation:
    """The tritonserver of this machine, fetched first where there is none and nothing forbids it.

    `announce` is told when something is fetched, how it goes, and where it lies then. Raises `DiagnosticError` with
    `SIE701` (there is none, and it cannot be fetched), `SIE702` to `SIE704` as `find_installation`, or `SIE712`
    (the variable).
    """
    if find_wheel() is None:
        check_fetchable()
        fetch(fetched_folder(), announce)
    return find_installation()


def check_fetchable() -> None:
    """Raise `DiagnosticError` where no wheel is for this machine, or fetching is forbidden."""
    check_platform()
    if glibc() < LEAST_GLIBC:
        found = ".".join(map(str, glibc()))
        least = ".".join(map(str, LEAST_GLIBC))
        has = f"glibc {found}" if found else "another C library"
        fail("SIE702", f"the embedded tritonserver needs glibc {least} or newer, this system has {has}", ELSEWHERE_HINT)
    if sys.version_info[:2] not in STUBS:
        offered = ", ".join(f"{major}.{minor}" for major, minor in STUBS if minor >= 10)
        message = f"`{DISTRIBUTION}` {VERSION} has no backend stub for Python {platform.python_version()}"
        fail("SIE703", message, f"use one of Python {offered}")
    if not may_fetch():
        message = (
            f"`{DISTRIBUTION}`, which carries tritonserver, is not installed, and `{VARIABLE}` forbids fetching it"
        )
        fail("SIE701", message, f"{install_hint()}, or set `{VARIABLE}=true` once")


def may_fetch() -> bool:
    """What the variable says. Raises `DiagnosticError` (`SIE712`) where it is no switch."""
    value = os.environ.get(VARIABLE) or "true"
    try:
        return as_switch(value)
    except ValueError as error:
        fail("SIE712", f"`{VARIABLE}` must be {error}, not {value!r}", "docs/configuration.md has all variables")


def fetch(folder: Path, announce: Announce, *, locked: Path = LOCKED) -> None:
    """Have the wheel of the requirement `locked` unpacked as `folder`, which is whole afterwards, or as it was.

    Processes that want it at the same time wait for each other. Raises `DiagnosticError` (`SIE701`).
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder, announce):
            if whole_wheel(folder) is not None:
                return
            if short := shortage(folder.parent, 1e6 * (MEGABYTES + 2 * _UNPACKED_MEGABYTES)):
                raise _unavailable(f"there is no room: {short}", "free some space, or set `XDG_CACHE_HOME`")
            _fetch(folder, announce, locked)
    except OSError as error:
        reason = f"`{folder.parent}` cannot be written: {(error.strerror or str(error)).lower()}"
        raise _unavailable(reason, "mend that, or set `XDG_CACHE_HOME`") from error


def _fetch(folder: Path, announce: Announce, locked: Path) -> None:
    begun = time.monotonic()
    announce(
        f"tritonserver is not here: fetching `{DISTRIBUTION}=={VERSION}` without its dependencies, {MEGABYTES} MB, "
        f"into `{folder.parent}`"
    )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_STAGE) as stage, fleeting(Path(stage)):
        unpacked = Path(stage) / "wheel"
        _unpack(unpacked, Path(stage), announce, locked)
        if whole_wheel(unpacked) is None:
            raise _unavailable("what was unpacked is not whole", install_hint())
        size = sum(path.stat().st_size for path in unpacked.rglob("*") if path.is_file())
        _publish(unpacked, folder, Path(stage) / "damaged")
    announce(f"tritonserver is here: {size / 1e6:.0f} MB in `{folder}`, {time.monotonic() - begun:.0f} s")


def _publish(unpacked: Path, folder: Path, damaged: Path) -> None:
    if whole_wheel(folder) is None and folder.exists():
        folder.rename(damaged)
    try:
        unpacked.rename(folder)
    except OSError:
        # Where files cannot be locked, another process may have been first.
        if whole_wheel(folder) is None:
            raise


@contextlib.contextmanager
def _alone(folder: Path, announce: Announce) -> Iterator[None]:
    """No other process fetches within, where files can be locked; what one left that was killed is removed first."""
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        if _locked(lock, announce):
            for left in folder.parent.glob(f"{_STAGE}*"):
                shutil.rmtree(left, ignore_errors=True)
        yield


def _locked(lock: IO[str], announce: Announce) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        announce("tritonserver is being fetched by another process: waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:  # some network file systems have no locks
        return False
    return True


def installers() -> list[Installer]:
    """What can unpack the wheel here, the one first that made this environment."""
    pip = Installer("pip", (sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile"))
    found = [pip] if importlib.util.find_spec("pip") is not None else []
    beside = Path(sys.executable).with_name("uv")
    uv = os.environ.get("UV") or shutil.which("uv") or (str(beside) if beside.is_file() else "")
    if uv:
        command = (uv, "pip", "install", "--quiet", "--python", sys.executable)
        found.insert(0 if made_by_uv() else 1, Installer("uv", command))
    return found


def _unpack(target: Path, stage: Path, announce: Announce, locked: Path) -> None:
    arguments = ("--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", str(target), "-r", str(locked))
    reasons = []
    for installer in installers():
        shutil.rmtree(target, ignore_errors=True)
        status, said = _run((*installer.command, *arguments), stage, announce)
        if status == 0:
            return
        reasons.append(f"{installer.name}: {_reason(said)}")
    if not reasons:
        hint = f"install one of them, or the wheel itself: `{INSTALL_HINT}`"
        raise _unavailable("neither pip is in this environment nor uv on `PATH`", hint)
    raise _unavailable(
        "; ".join(reasons),
        "check the network, the proxy variables, and the index that `PIP_INDEX_URL` or `UV_INDEX_URL` names; where "
        f"there is none, copy `{fetched_folder()}` from another machine",
    )


def _run(command: tuple[str, ...], stage: Path, announce: Announce) -> tuple[int, str]:
    """The status of a command that works in `stage`, and what it wrote; how much there is, said now and then."""
    stage = stage / "temporary"
    stage.mkdir(exist_ok=True)
    begun = time.monotonic()
    processes: list[subprocess.Popen[str]] = []
    try:
        try:
            # A Ctrl-C while a process begins would leave it without anybody who ends it; a thread hears none.
            with ThreadPoolExecutor(1) as apart:
                apart.submit(lambda: processes.append(_begin(command, stage))).result()
        except OSError as error:
            return 1, f"{command[0]}: {error.strerror}"
        while True:
            try:
                said, _ = processes[0].communicate(timeout=_REPORT_SECONDS)
            except subprocess.TimeoutExpired:
                passed = time.monotonic() - begun
                if passed > _WAIT_SECONDS:
                    return 1, f"it did not finish within {_WAIT_SECONDS} seconds"
                announce(f"tritonserver: still fetching after {passed:.0f} s{_held(stage)}")
            else:
                return processes[0].returncode, said
    finally:
        _end(processes)


def _begin(command: tuple[str, ...], stage: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment(stage)
    )


def _end(processes: Sequence[subprocess.Popen[str]]) -> None:
    """At once, and not before they are gone."""
    for process in processes:
        process.kill()
        process.communicate()


def _held(stage: Path) -> str:
    """How much of the wheel lies in pip's temporary folder; "" where that says nothing."""
    sizes = [path.stat().st_size for path in stage.rglob("*.whl*") if path.is_file()]
    return f", {sum(sizes) / 1e6:.0f} of {MEGABYTES} MB" if sizes else ""


def _environment(stage: Path) -> Mapping[str, str]:
    """What pip and uv see: the user's settings of indexes and proxies, and none that moves what they unpack."""
    kept = {name: value for name, value in os.environ.items() if name not in _UNASKED}
    return {**kept, **_PLAIN, "TMPDIR": str(stage)}


def _reason(said: str) -> str:
    """The sentence of what an installer wrote that says why."""
    if re.search(r"hash(es)?\b.*\bmismatch|mismatch.*\bhash|do not match the hashes", said, re.IGNORECASE):
        return f"the index has other bytes under the name `{DISTRIBUTION}` {VERSION} than NVIDIA published"
    lines = [re.sub(r"^[\s×╰─▶│├]+|^ERROR: |^error: ", "", line) for line in said.splitlines()]
    if re.search("connection broken|error sending request", said):
        return "the package index cannot be reached"
    told = [line for line in lines if line and not line.startswith(("WARNING", "warning", "[notice]"))]
    # pip says last what matters; uv begins with it, and its causes follow.
    text = told[-1] if said.lstrip().startswith(("ERROR", "WARNING")) and told else " ".join(told)
    text = re.sub(r" ?\b(Caused by|cause):", ";", text)
    return text[:_SHOWN_CHARACTERS] or "it gave no reason"


def _unavailable(reason: str, hint: str) -> DiagnosticError:
    message = f"tritonserver cannot be fetched: {reason}"
    return DiagnosticError([Diagnostic("SIE701", message, hint=hint)])


def main() -> int:
    """Put the wheel into the environment's `share`; the exit code."""
    try:
        check_platform()
        fetch(environment_folder(), print)
    except DiagnosticError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

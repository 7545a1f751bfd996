"""Virtual environments of their own for tests: made once beside the weights, reused by every later session."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LOCKS = Path(__file__).parent / "locks"
"""A file of exact versions for each environment, of its name; `make lock` writes them."""

SERVE = LOCKS / "serve.txt"
"""The versions of what `sie-triton[serve]` brings, for the test that installs our wheels as a user does."""

LIGHT = LOCKS / "light.txt"
"""The same with what `sie-triton[light]` brings besides."""

_INSTALL_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an environment holds: requirements, and packages in the versions of constraints.txt `beside` them.

    `pythons` are the versions of Python that it is made with; every one has its lines in the lock.
    """

    pythons: tuple[str, ...]
    requirements: tuple[str, ...]
    beside: tuple[str, ...] = ()


SDK_NEEDS = ("aiohttp", "certifi", "msgpack", "numpy", "urllib3")
"""What our SDK asks for."""

ENVIRONMENTS: Mapping[str, Wanted] = {
    "official-0.10.1": Wanted(("3.12",), ("sie-sdk==0.10.1", "openai", "cohere==7.3.1")),
    # These need many packages.
    "rerank-clients": Wanted(("3.12",), ("litellm==1.110.2", "langchain-cohere==0.6.0", "langchain-community==0.4.2")),
    "image-clients": Wanted(("3.12",), ("sie-sdk==0.10.1", "sie-llamaindex==0.10.1", "langchain-openai")),
    # The newest, and the oldest that Fastembed's classes of ours serve, which has `add` and `query`.
    "qdrant-client-1.20.0": Wanted(("3.12",), ("qdrant-client==1.20.0",), SDK_NEEDS),
    "qdrant-client-1.14.3": Wanted(("3.12",), ("qdrant-client==1.14.3",), SDK_NEEDS),
    # What both SDKs import, and what builds ours.
    "sdk-installations": Wanted(
        ("3.12",),
        (
            "aiohttp>=3.12,<4",
            "certifi>=2024.7.4",
            "hatchling>=1.24",
            "httpx>=0.28,<1",
            "msgpack-numpy>=0.4,<1",
            "msgpack>=1.2.1,<2",
            "numpy>=2,<3",
            "pillow>=12.2.0",
            "pyyaml>=6,<7",
            "urllib3>=2.0.7,<3",
            "websockets>=14,<15",
        ),
    ),
    # What verification imports beside the ONNX Runtime of Triton 24.10, which was compiled for numpy 1.
    "onnxruntime-1.19.2": Wanted(
        ("3.10", "3.11", "3.12"),
        ("onnxruntime==1.19.2", "numpy==1.26.4"),
        ("msgspec", "orjson", "pillow", "protobuf", "tokenizers", "tritonclient"),
    ),
}


class Unavailable(Exception):
    """This machine cannot have the environment; the message says why."""


def environment(name: str, base: Path) -> Path:
    """The interpreter of one of `ENVIRONMENTS`, made from the interpreter `base` where it is missing.

    Raises `Unavailable` if pip cannot install what is wanted, at the versions of its lock.
    """
    requirements = (*ENVIRONMENTS[name].requirements, *ENVIRONMENTS[name].beside)
    versions = LOCKS / f"{name}.txt"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sie-triton" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        interpreter, complete = folder / "bin" / "python", folder / "complete"
        wanted = "\n".join((version_of(base), *requirements, versions.read_text(encoding="utf-8")))
        # The interpreter that it was made with may have gone since.
        if not (complete.exists() and complete.read_text() == wanted and version_of(interpreter)):
            _run(name, [base, "-m", "venv", "--clear", folder])
            install(interpreter, "--constraint", versions, *requirements, name=name)
            complete.write_text(wanted)
    return interpreter


def install(interpreter: Path, *arguments: str | Path, name: str) -> None:
    """Install into an environment: by uv, in a fifth of pip's time, or by pip where uv finds no index.

    `name` is what the environment is called where it fails. Raises `Unavailable`.
    """
    try:
        _run(
            name,
            [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", interpreter, *arguments],
        )
    except Unavailable:
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", interpreter)
        _run(name, [*pip, "install", "--quiet", "--no-compile", *arguments])


def interpreter(version: str) -> Path | None:
    """A Python of this version, such as `3.12`: that of the tests, one on the path, or one that pyenv keeps."""
    return next((path for path in _candidates(version) if version_of(path) == version), None)


def _candidates(version: str) -> Iterator[Path]:
    yield Path(sys.executable).resolve()
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    # pyenv's `python3.12` on PATH is a stub that only runs where that version is the chosen one.
    root = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    yield from sorted(root.glob(f"versions/{version}.*/bin/python{version}"))


def version_of(interpreter: Path) -> str:
    """Major and minor version of an interpreter, "" where it does not run."""
    question = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    try:
        done = subprocess.run([interpreter, "-I", "-c", question], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _run(name: str, command: list[str | Path]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    except FileNotFoundError as error:
        raise Unavailable(f"the environment `{name}` cannot be installed: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"the environment `{name}` was not installed after {_INSTALL_SECONDS} s") from error
    if done.returncode:
        raise Unavailable(
            f"the environment `{name}` cannot be installed: {(done.stderr or done.stdout).strip()[-500:]}"
        )

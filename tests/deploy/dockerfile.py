"""docker/Dockerfile as data, and its commands run in a folder that stands for an image's file system."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest

from deploy.conftest import ROOT

dockerfile_parse = pytest.importorskip("dockerfile_parse", reason="development dependency `dockerfile-parse`")

DOCKERFILE = ROOT / "docker" / "Dockerfile"
_MOUNT = re.compile(r"--mount=(\S+)\s*")
# Folders that the Dockerfile makes; everything else in a command is the machine's own.
_PLACES = re.compile(r"(?<![\w./-])/(?=(?:src|deps|opt/sie|models|cache|usr/local/bin)\b)")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, and the rest of it on one line."""

    name: str
    value: str

    @property
    def mounts(self) -> list[dict[str, str]]:
        """The bind mounts of a RUN."""
        return [dict(part.partition("=")[::2] for part in mount.split(",")) for mount in _MOUNT.findall(self.value)]

    @property
    def command(self) -> str:
        """What the shell gets of a RUN."""
        return _MOUNT.sub("", self.value)

    @property
    def words(self) -> list[str]:
        """The arguments, flags left out, or the list of an exec form."""
        if self.value.startswith("["):
            words: list[str] = json.loads(self.value)
            return words
        return [word for word in self.value.split() if not word.startswith("--")]


@dataclass
class Stage:
    """One `FROM ... AS name`."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """Its instructions of one kind."""
        return [instruction for instruction in self.instructions if instruction.name == name]


def read_stages(path: Path = DOCKERFILE) -> dict[str, Stage]:
    """The stages in order, by name."""
    parser = dockerfile_parse.DockerfileParser(fileobj=BytesIO(path.read_bytes()))
    stages: dict[str, Stage] = {}
    for entry in parser.structure:
        name, value = entry["instruction"], entry["value"]
        if name == "FROM":
            base, _, stage = value.partition(" AS ")
            current = stages[stage] = Stage(stage, base)
        elif name != "COMMENT" and stages:
            current.instructions.append(Instruction(name, value))
    return stages


def chain(stages: dict[str, Stage], name: str) -> list[Stage]:
    """A stage and those below it, the lowest first."""
    stage = stages[name]
    return [*(chain(stages, stage.base) if stage.base in stages else []), stage]


def environment(stages: dict[str, Stage], name: str) -> dict[str, str]:
    """What ENV and ARG give a stage."""
    found: dict[str, str] = {}
    for stage in chain(stages, name):
        for instruction in stage.instructions:
            if instruction.name in ("ENV", "ARG"):
                found |= dict(part.partition("=")[::2] for part in instruction.value.split())
    return found


def last(stages: dict[str, Stage], name: str, instruction: str) -> Instruction | None:
    """The instruction that holds in a stage's image: its last, or that of the nearest stage below."""
    found = [i for stage in chain(stages, name) for i in stage.all(instruction)]
    return found[-1] if found else None


class Machine:
    """A folder in place of `/`, in which stages are executed as written, on this machine's Python.

    All stages share it: what one stage leaves is where the next one's mounts would put it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages = read_stages()
        self._tools = root / "tools"
        subprocess.run([sys.executable, "-m", "venv", str(self._tools)], check=True, timeout=120)

    def place(self, path: str) -> Path:
        """Where an absolute path of the image is here."""
        return self.root / path.lstrip("/")

    def environ(self, stage: str) -> dict[str, str]:
        """The stage's environment on this machine."""
        found = {key: _PLACES.sub(f"{self.root}/", value) for key, value in environment(self.stages, stage).items()}
        inherited = ("HOME", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "NO_PROXY")
        found |= {key: os.environ[key] for key in inherited if key in os.environ}
        found |= {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "UV_"))}
        found["PATH"] = f"{self.place('/opt/sie/bin')}:{self._tools}/bin:/usr/bin:/bin"
        return found

    def build(self, name: str) -> Iterator[str]:
        """Execute one stage (not those below it); yields each command when it is done."""
        folder = self.root
        for instruction in self.stages[name].instructions:
            if instruction.name == "WORKDIR":
                folder = self.place(instruction.value)
                folder.mkdir(parents=True, exist_ok=True)
            elif instruction.name == "COPY":
                *sources, target = instruction.words
                place = self.place(target) if target.startswith("/") else folder / target
                for source in sources:
                    _copy(ROOT / source, place / Path(source).name if _is_file_into(source, target) else place)
            elif instruction.name == "RUN":
                for mount in instruction.mounts:
                    if "from" not in mount:
                        _copy(ROOT / mount["source"], self.place(mount["target"]))
                self.run(name, _PLACES.sub(f"{self.root}/", instruction.command), folder)
                yield instruction.command

    def run(self, stage: str, command: str, folder: Path) -> None:
        """One shell command; fails the test with what it said."""
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=folder,
            env=self.environ(stage),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, f"`{command}` in stage {stage}:\n{done.stdout}{done.stderr}"


def _is_file_into(source: str, target: str) -> bool:
    """COPY puts a file *into* a target with a slash at its end, and a folder's content in place of it."""
    return (ROOT / source).is_file() and target.endswith("/")


def _copy(source: Path, target: Path) -> None:
    assert source.exists(), f"docker/Dockerfile needs `{source.relative_to(ROOT)}`"
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)

"""What can be said of the images without an engine."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import pytest

from deploy.conftest import ROOT
from deploy.dockerfile import DOCKERFILE, chain, environment, last, read_stages
from sie_triton.embedded.installation import INSTALL_HINT

STAGES = read_stages()
IMAGES = ("frontend", "server", "builder")


@pytest.mark.parametrize("image", IMAGES)
def test_images_run_as_a_user_without_a_shell_command(image: str) -> None:
    user, entry = last(STAGES, image, "USER"), last(STAGES, image, "ENTRYPOINT")
    assert user is not None
    assert user.value == "1000:1000"
    assert entry is not None
    assert len(entry.words) == 1


def test_images_are_stacked_so_that_nothing_is_stored_twice() -> None:
    names = [[stage.name for stage in chain(STAGES, image)] for image in IMAGES]
    for smaller, larger in itertools.pairwise(names):
        assert larger[: len(smaller) - 1] == smaller[:-1]


def test_the_frontend_has_neither_torch_nor_a_compiler_nor_pip() -> None:
    commands = " ".join(run.command for stage in chain(STAGES, "frontend") for run in stage.all("RUN"))
    assert "--without-pip" in commands
    for word in ("torch", "apt-get", "gcc", "pytriton", "onnx"):
        assert word not in commands


def test_only_images_that_are_named_once_come_from_outside() -> None:
    outside = {stage.base for stage in STAGES.values()} - set(STAGES)
    assert outside == {"${PYTHON_IMAGE}"}
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11-slim-bookworm$", DOCKERFILE.read_text(), re.MULTILINE)


def test_every_dependency_is_locked() -> None:
    for stage in STAGES.values():
        for run in stage.all("RUN"):
            for command in re.split(r"&&", run.command):
                if "install " not in command or "install -d" in command:
                    continue
                exact = re.search(r"[\w-]+==[\d.]+\s*$", command.strip())
                ours = "--no-deps /src/dist/" in command
                assert exact or ours or "--constraint /deps/constraints.txt" in command, command


def test_tritonserver_is_the_one_that_the_code_asks_for() -> None:
    commands = " ".join(run.command for run in STAGES["server-dependencies"].all("RUN"))
    pinned = INSTALL_HINT.rpartition(" ")[2]
    assert f"--no-deps {pinned} " in commands


def test_our_own_packages_are_never_looked_for_in_an_index() -> None:
    """A name that is not ours in a public index must not become our frontend."""
    excluded = (ROOT / "docker" / "ours.txt").read_text().split()
    requirement = re.findall(r'"(sie-triton[\w-]*)', (ROOT / "pyproject.toml").read_text())
    assert set(requirement) - {"sie-triton"} == set(excluded)
    for stage in STAGES.values():
        for run in stage.all("RUN"):
            if "--requirement /deps/pyproject.toml" in run.command:
                assert "--excludes /deps/docker/ours.txt" in run.command


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    needed = {"docker/Dockerfile"}
    for stage in STAGES.values():
        for copy in stage.all("COPY"):
            needed |= set(copy.words[:-1])
        for run in stage.all("RUN"):
            needed |= {mount["source"] for mount in run.mounts if "from" not in mount}
    for path in sorted(needed):
        assert (ROOT / path).exists(), path
        assert not ignored(path.rstrip("/")), path
    for path in (".git", "tests", ".cache", "weights.safetensors", "docs", "benchmarks", "sie_triton/__pycache__"):
        assert ignored(path), path


def ignored(path: str) -> bool:
    """The rules of `.dockerignore` that we use: the last line that matches decides; a folder's line covers it all."""
    verdict = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.lstrip("!").rstrip("/")
        expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{expression}(/.*)?", path):
            verdict = not line.startswith("!")
    return verdict


def test_mounts_from_stages_name_stages() -> None:
    for stage in STAGES.values():
        for run in stage.all("RUN"):
            for mount in run.mounts:
                assert mount["type"] == "bind"
                assert mount.get("from", "wheels") in STAGES


def test_the_image_is_read_only_at_run_time() -> None:
    for image in IMAGES:
        found = environment(STAGES, image)
        assert found["UV_COMPILE_BYTECODE"] == "1"
        assert found["PYTHONDONTWRITEBYTECODE"] == "1"


# The builder's entry point.

SCRIPT = ROOT / "docker" / "build-models.sh"


def build_models(tmp_path: Path, models: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script where `sie-triton` prints its arguments, one a line."""
    program = tmp_path / "bin" / "sie-triton"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    environ = {"PATH": f"{program.parent}:/usr/bin:/bin"} | ({} if models is None else {"MODELS": models})
    return subprocess.run(
        [str(SCRIPT), *arguments], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )


def test_models_become_options(tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    done = build_models(tmp_path, "  BAAI/bge-small-en-v1.5\n\tx/y:fast  * --force $(id) ", "--bundles", "/bundles")
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first == "build"
    assert rest[0] == "--repository=/models/repository"
    assert set(rest[1:-2]) == {
        "--model=BAAI/bge-small-en-v1.5",
        "--model=x/y:fast",
        "--model=*",
        "--model=--force",
        "--model=$(id)",
    }
    assert rest[-2:] == ["--bundles", "/bundles"]


@pytest.mark.parametrize("models", [None, "", " \n "])
def test_without_models_it_says_so(tmp_path: Path, models: str | None) -> None:
    done = build_models(tmp_path, models, "--bundles", "/bundles")
    assert done.returncode == 2
    assert done.stderr.startswith("error: `MODELS` names no model; write for instance MODELS=")

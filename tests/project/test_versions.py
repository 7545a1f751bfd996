"""One version for all three distributions, which one command sets; typed packages in every wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import sie_frontend
import sie_sdk

import sie_triton

from .ranges import PROJECTS, ROOT

TOOL = ROOT / "tools" / "version.py"
# The folder of each distribution -> its package's folder within the wheel.
DISTRIBUTIONS = {".": "sie_triton", "frontend": "sie_frontend", "sdk": "sie_triton_sdk"}


def version(tool: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, tool, *arguments], capture_output=True, text=True, check=False)


def copy(target: Path) -> Path:
    """The places that say the version, and the command, elsewhere."""
    done = version(TOOL)
    assert done.returncode == 0, done.stderr
    for name in (*PROJECTS, "docker-compose.yml", "docs/docker.md", "docs/kubernetes.md", "tools/version.py"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    for package in ("sie_triton", "frontend/sie_frontend", "sdk/sie_sdk"):
        (target / package).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / package / "__init__.py", target / package)
    return target / "tools" / "version.py"


def test_every_place_says_the_same() -> None:
    done = version(TOOL)
    assert (done.returncode, done.stderr) == (0, "")
    assert {sie_triton.__version__, sie_frontend.__version__, sie_sdk.__version__} == {done.stdout.strip()}


def test_no_pyproject_says_it_besides() -> None:
    for project in PROJECTS:
        assert "\nversion = " not in (ROOT / project).read_text(encoding="utf-8"), project


def test_the_command_sets_it_everywhere(tmp_path: Path) -> None:
    tool = copy(tmp_path)
    assert version(tool, "12.3.4rc1").returncode == 0
    assert version(tool).stdout == "12.3.4rc1\n"
    assert '"sie-triton-frontend==12.3.4rc1"' in (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    assert version(tool, sie_triton.__version__).returncode == 0
    for name in ("pyproject.toml", "docker-compose.yml", "docs/kubernetes.md", "sdk/sie_sdk/__init__.py"):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_what_is_no_version_changes_nothing(tmp_path: Path) -> None:
    tool = copy(tmp_path)
    assert version(tool, "next").returncode == 2
    assert version(tool).stdout.strip() == sie_triton.__version__


def test_a_place_that_disagrees_is_named(tmp_path: Path) -> None:
    tool = copy(tmp_path)
    place = tmp_path / "frontend" / "sie_frontend" / "__init__.py"
    place.write_text(place.read_text(encoding="utf-8").replace(sie_triton.__version__, "9.9.9"), encoding="utf-8")
    done = version(tool)
    assert (done.returncode, done.stdout) == (1, "")
    assert "frontend/sie_frontend/__init__.py" in done.stderr and "9.9.9" in done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_a_wheel_out_of_an_sdist_has_the_version_and_is_typed(folder: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "tests", "dist", "build")
    shutil.copytree(ROOT / folder, source, ignore=ignored)
    # Without a choice of one, `build` makes the sdist, and the wheel out of that.
    command: list[str | Path] = [sys.executable, "-m", "build", "--outdir", tmp_path / "dist", source]
    # Its environments are made by uv, in a fraction of pip's time, or by pip where uv finds no index.
    done = subprocess.run([*command, "--installer", "uv"], capture_output=True, text=True, check=False)
    if done.returncode:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    [wheel] = (tmp_path / "dist").glob("*.whl")
    assert wheel.name.split("-")[1] == sie_triton.__version__
    with zipfile.ZipFile(wheel) as archive:
        assert f"{DISTRIBUTIONS[folder]}/py.typed" in archive.namelist()
        assert (folder == "sdk") == ("sie_triton_fastembed/py.typed" in archive.namelist())

"""The wheels, installed as a user installs them: in an environment of its own, used in an empty folder.

`sie-triton[serve]` serves a repository that was built elsewhere, and the SDK's own page gets the vector out of it. With
`sie-triton[light]` on top, the model is built there, without torch, and gives the same vector. The third-party packages
come at the versions of a lock first; then our wheels are resolved with no index at all, so that an extra that asks for
too little or too much cannot be installed or fails to serve. Where the extra leaves tritonserver's wheel out, the first
`serve` fetches it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MINILM_ID
from e2e.processes import Serving
from environments import LIGHT, SERVE, Unavailable, install, interpreter

from sie_triton.embedded.ports import free_port
from sie_triton.room import cache_folder

pytestmark = pytest.mark.official

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_NUMPY_1 = "3.13"
"""Its extras leave tritonserver out, which is fetched: docs/install.md."""
PYTHONS = ("3.10", "3.11", "3.12", WITHOUT_NUMPY_1) if os.environ.get("SIE_TRITON_ALL_PYTHONS") else ("3.12",)
# What sentence-transformers computes of the sentence in the SDK's page: mean pooling, and a norm of 1.
KNOWN = (-0.0478733, 0.0541967, -0.0680890, 0.0471586)
OURS = ("sie-triton", "sie-triton-frontend", "sie-triton-sdk")
PLACES = """
import importlib.util, json, sie_frontend, sie_sdk, sie_triton, sys
print(json.dumps([sie_frontend.__file__, sie_sdk.__file__, sie_triton.__file__]))
print(json.dumps([name for name in ("torch", "transformers", "onnx") if importlib.util.find_spec(name)]))
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make release` fills."""
    out = tmp_path_factory.mktemp("wheels")
    command: list[str | Path] = [sys.executable, ROOT / "tools" / "release.py", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


class Installed:
    """An environment of one Python, and the empty folder in which its programs run."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.folder, self.cwd = folder / "environment", folder / "empty"
        self.cwd.mkdir(parents=True)
        # pip works on it from outside: to install it inside would take as long as all the rest.
        subprocess.run([base, "-m", "venv", "--without-pip", self.folder], check=True, capture_output=True)

    def program(self, name: str) -> Path:
        return self.folder / "bin" / name

    def run(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self._run(self.program(name), *arguments)

    def pip(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.program("python"))
        return self._run(*pip, *arguments)

    def _run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.cwd, capture_output=True, text=True, check=False, timeout=600)

    def left(self) -> list[str]:
        """What of ours lies in it."""
        [packages] = (self.folder / "lib").glob("python3.*/site-packages")
        return sorted(path.name for path in (*packages.glob("sie*"), *(self.folder / "bin").glob("sie*")))

    @property
    def lacks_tritonserver(self) -> bool:
        """Whether the extra brought none."""
        return not list((self.folder / "lib").glob("python3.*/site-packages/nvidia_pytriton.libs"))


def add(to: Installed, lock: Path, wheels: Path, wanted: str) -> None:
    """Other people's packages, then ours, without an index. Skips if a package of the lock cannot be had."""
    try:
        install(to.program("python"), "--no-deps", "--only-binary", ":all:", "-r", lock, name=lock.stem)
    except Unavailable as reason:
        pytest.skip(str(reason))
    before = to.left()
    done = to.pip("install", "--no-index", "--no-compile", "--find-links", wheels, wanted)
    assert done.returncode == 0, done.stderr
    ours = r"Successfully installed sie-triton-\S+ sie-triton-frontend-\S+ sie-triton-sdk-\S+\n"
    assert before or re.search(ours, done.stdout)
    assert not before or "Successfully installed" not in done.stdout


@pytest.fixture(params=PYTHONS)
def installed(
    request: pytest.FixtureRequest, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Installed:
    """Our wheels with the extra `serve`. Skips without that Python."""
    for variable in ("PYTHONPATH", "PYTHONHOME"):
        monkeypatch.delenv(variable, raising=False)
    base = interpreter(request.param)
    if base is None:
        pytest.skip(f"Python {request.param} is not here")
    made = Installed(base, tmp_path)
    add(made, SERVE, wheels, "sie-triton[serve]")
    done = made.pip("check")
    assert done.returncode == 0, done.stdout
    if request.param == WITHOUT_NUMPY_1:
        own_cache(tmp_path / "cache", monkeypatch)
    return made


def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache without tritonserver, and with the weights that this machine has; uv, which fetches it, on `PATH`."""
    weights = cache_folder() / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    (folder / "sie-triton").mkdir(parents=True)
    (folder / "sie-triton" / "weights").symlink_to(weights)
    kept = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    for variable, name in (("HF_HOME", "huggingface"), ("UV_CACHE_DIR", "uv")):
        monkeypatch.setenv(variable, os.environ.get(variable) or str(kept / name))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def vector_from(serving: Serving, installed: Installed) -> tuple[float, ...]:
    """The first numbers of the vector that the SDK's own page gets."""
    page = (ROOT / "sdk" / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "http://localhost:8080" in example and MINILM_ID in example
    example = example.replace("http://localhost:8080", serving.url)
    done = installed.run("python", "-I", "-c", f"{example}print(vec.shape, *map(float, vec[:4]))")
    assert done.returncode == 0, done.stderr
    shape, numbers = done.stdout.strip().split(") ")
    assert shape == "(384,"
    return tuple(map(float, numbers.split()))


def test_a_vector_from_the_wheels(installed: Installed, wheels: Path, built_repository: Path, tmp_path: Path) -> None:
    program = installed.program("sie-triton")
    places, further = installed.run("python", "-I", "-c", PLACES).stdout.splitlines()
    assert places.count(str(installed.folder)) == 3
    assert further == "[]"
    examined = installed.run("sie-triton", "doctor", "--port", str(free_port()))
    assert examined.returncode == 0, examined.stdout
    fetches = "not here yet; `up` and `serve` fetch it" in examined.stdout
    assert fetches is installed.lacks_tritonserver

    serving = Serving(built_repository, tmp_path / "serving", command=[str(program)], cwd=installed.cwd)
    try:
        serving.wait_ready()
        assert vector_from(serving, installed) == pytest.approx(KNOWN, abs=1e-6)
        assert ("tritonserver is here: 150 MB in " in serving.said()) is fetches
    finally:
        serving.stop()
    assert installed.pip("check").returncode == 0

    refused = installed.run("sie-triton", "build", "-m", MINILM_ID)
    assert refused.returncode == 1
    assert "SIE401" in refused.stderr and "pip install 'sie-triton[cpu]'" in refused.stderr

    add(installed, LIGHT, wheels, "sie-triton[light]")
    built = installed.run("sie-triton", "build", "-m", MINILM_ID, "--device", "cpu")
    assert built.returncode == 0, built.stderr
    assert "what is carried beside the bundle" in built.stderr and "torch traces" not in built.stderr
    serving = Serving("model_repository", tmp_path / "light", command=[str(program)], cwd=installed.cwd)
    try:
        serving.wait_ready()
        assert vector_from(serving, installed) == pytest.approx(KNOWN, abs=1e-6)
    finally:
        serving.stop()
    assert installed.run("python", "-I", "-c", PLACES).stdout.splitlines()[1] == '["transformers", "onnx"]'

    assert installed.left()
    assert installed.pip("uninstall", "--yes", *OURS).returncode == 0
    assert installed.left() == []

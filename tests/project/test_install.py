"""`make install` takes PyTorch for the CPU where it can, and says what each step took."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pip
import pytest

from sie_triton.embedded.installation import VERSION

from .ranges import ROOT


@cache
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_tool", ROOT / "tools" / "install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write_wheel(folder: Path, name: str, version: str, *, needs: str = "") -> None:
    """A wheel of one empty module that pip installs."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needed = f"Requires-Dist: {needs}\n" if needs else ""
    files = {
        f"{name}.py": b"",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{path},sha256={digest},{len(content)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,", ""]))


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two package indexes: `cpu/` has torch alone, `usual/` has torch of another build and what it needs."""
    folder = tmp_path_factory.mktemp("indexes")
    write_wheel(folder / "cpu" / "torch", "torch", "2.13.0+cpu", needs="torchs_need")
    write_wheel(folder / "usual" / "torch", "torch", "2.13.0", needs="torchs_need")
    write_wheel(folder / "usual" / "torchs-need", "torchs_need", "1.0")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, capture_output=True)
    [packages] = (folder / "lib").glob("python3.*/site-packages")
    # In a tenth of the time that `ensurepip` takes.
    shutil.copytree(Path(pip.__file__).parent, packages / "pip", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "bin" / "python"


@pytest.fixture
def constraints(indexes: str, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock; pip knows the usual index alone, and has nothing of torch."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", f"{indexes}/usual")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    remove: list[str | Path] = [python, "-m", "pip", "uninstall", "--yes", "torch", "torchs-need"]
    subprocess.run(remove, check=True, capture_output=True)
    path = tmp_path / "constraints.txt"
    path.write_text("torch==2.13.0\ntorchs-need==1.0\n", encoding="utf-8")
    return path


def test_the_build_for_the_cpu_comes_from_its_index(indexes: str, python: Path, constraints: Path) -> None:
    assert tool().install_torch(python, constraints, "cpu", f"{indexes}/cpu") == "2.13.0+cpu"


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("why", ["nobody answers", "no such version"])
def test_the_usual_index_where_that_one_has_it_not(
    why: str, indexes: str, python: Path, constraints: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    index = f"http://127.0.0.1:{closed_port()}" if why == "nobody answers" else f"{indexes}/nothing"
    said = tool().install_torch(python, constraints, "cpu", index)
    assert said == f"2.13.0 of the usual index, since {index} gave none"
    assert capfd.readouterr() == ("", "")


def test_the_usual_index_where_there_is_a_gpu(indexes: str, python: Path, constraints: Path) -> None:
    assert tool().install_torch(python, constraints, "usual", f"{indexes}/cpu") == "2.13.0 of the usual index"


def test_the_rest_comes_by_uv_and_else_by_pip(
    indexes: str, python: Path, constraints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = python.with_name("uv")
    uv.unlink(missing_ok=True)
    wanted = ("--constraint", constraints, "torch")
    # uv knows another index than pip: that has no such version.
    monkeypatch.setenv("UV_INDEX_URL", f"{indexes}/cpu")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    assert tool().install_rest(python, *wanted) == "by pip, since uv could not"
    shutil.copy(Path(sys.executable).with_name("uv"), uv)
    assert tool().install_rest(python, *wanted) == ""
    subprocess.run([python, "-m", "pip", "uninstall", "--yes", "torch", "torchs-need"], check=True, capture_output=True)
    assert tool().install_rest(python, *wanted) == "by pip, since uv could not"
    monkeypatch.setenv("UV_INDEX_URL", f"{indexes}/usual")
    subprocess.run([python, "-m", "pip", "uninstall", "--yes", "torch", "torchs-need"], check=True, capture_output=True)
    assert tool().install_rest(python, *wanted) == ""


def test_a_failure_names_the_command_and_the_reason(
    python: Path, constraints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    constraints.write_text("torch==9.9\n", encoding="utf-8")
    with pytest.raises(tool().StepFailed, match=r"pip install [^\n]*torch\n(.*\n)*.*9\.9"):
        tool().carry_out([tool().Step("PyTorch", lambda: tool().install_torch(python, constraints, "usual"))], tmp_path)
    assert capsys.readouterr().out == "[1/1] PyTorch … failed\n"


def test_each_step_says_its_seconds_and_megabytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def grow() -> str:
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "file").write_bytes(bytes(3_000_000))
        return "a file"

    tool().carry_out([tool().Step("one", grow), tool().Step("two", lambda: "")], tmp_path)
    assert capsys.readouterr().out == "[1/2] one … a file, 0 s, 3 MB\n[2/2] two … 0 s, 0 MB\n"


def test_where_a_gpu_is_seen(tmp_path: Path) -> None:
    (tmp_path / "gpus").mkdir()
    (tmp_path / "device").touch()
    assert not tool().has_gpu([tmp_path / "none", tmp_path / "gpus"])
    assert tool().has_gpu([tmp_path / "none", tmp_path / "device"])
    (tmp_path / "gpus" / "0000:01:00.0").mkdir()
    assert tool().has_gpu([tmp_path / "gpus"])


def test_the_tritonserver_is_that_of_the_extras() -> None:
    wanted = f"{tool().TRITONSERVER}=={VERSION}"
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert extras.count(f'"{wanted}; ') == 2
    assert wanted in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def test_the_tritonserver_is_no_package_of_the_environment(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was installed as a package goes. Ours is fetched beside the packages, and only in NVIDIA's own bytes."""
    write_wheel(tmp_path, "nvidia_pytriton", VERSION, needs="numpy<0.1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    [packages] = (python.parents[1] / "lib").glob("python3.*/site-packages")
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(ROOT / "frontend"))))
    monkeypatch.setenv("PATH", os.defpath)
    python.with_name("uv").unlink(missing_ok=True)
    with pytest.raises(tool().StepFailed, match=f"SIE701.* pip: the index has other bytes under .*{VERSION}"):
        tool().install_tritonserver(python)
    assert list(packages.glob("nvidia_pytriton*")) == []


@pytest.mark.parametrize("torch", ["cpu", "usual"])
def test_a_disk_without_room_is_told_before_the_first_step(
    torch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(tool()._MEGABYTES, torch, 10**11)
    folder = tmp_path / "environment"
    assert tool().main([str(folder), "--torch", torch]) == 1
    said = capsys.readouterr().err
    assert f"`{tmp_path}` needs about 100,000,000,000 MB and has" in said and "free some space" in said
    assert ("--torch cpu" in said) == (torch == "usual")
    assert not folder.exists()

"""tritonserver's wheel, fetched beside the environment: real pip and uv, a small wheel, an index that is a folder."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sie_triton.cli import app
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded import fetching, installation
from sie_triton.embedded.fetching import VARIABLE, ensure_installation, fetch
from sie_triton.embedded.installation import fetched_folder, find_installation, find_wheel, whole_wheel

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
SERVER = "pytriton/tritonserver"
FILES = {
    f"{SERVER}/bin/tritonserver": b"#!/bin/sh\n",
    f"{SERVER}/backends/python/libtriton_python.so": b"library",
    f"{SERVER}/python_backend_stubs/{MINOR}/triton_python_backend_stub": b"stub",
    "nvidia_pytriton.libs/libz.so": b"shared library",
    "pytriton/__init__.py": b"raise SystemExit('executed')\n",
}
UV = Path(sys.executable).with_name("uv")


def write_wheel(folder: Path) -> Path:
    """A wheel of this name and version, which asks for what cannot be had."""
    info = "nvidia_pytriton-0.7.0.dist-info"
    metadata = "Metadata-Version: 2.1\nName: nvidia-pytriton\nVersion: 0.7.0\nRequires-Dist: numpy<0.1\n"
    files = {
        **FILES,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    path = folder / "nvidia_pytriton-0.7.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if "/bin/" in name or "stub" in name else 0o100644) << 16
            archive.writestr(entry, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,", ""]))
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip and uv take for their index; an environment and a cache without tritonserver."""
    folder = tmp_path / "index"
    folder.mkdir()
    for variable in ("PIP_NO_INDEX", "PIP_NO_CACHE_DIR", "UV_OFFLINE", "UV_NO_CACHE"):
        monkeypatch.setenv(variable, "1")
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(folder))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.setattr(fetching, "installers", lambda: [by("uv")])
    found = importlib.metadata.distribution

    def others(name: str) -> importlib.metadata.Distribution:
        if name == installation.DISTRIBUTION:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata, "distribution", others)
    return folder


def by(name: str) -> fetching.Installer:
    command = {"pip": (sys.executable, "-m", "pip"), "uv": (str(UV), "pip")}[name]
    own = ("--no-compile",) if name == "pip" else ("--python", sys.executable)
    return fetching.Installer(name, (*command, "install", "--quiet", *own))


@pytest.fixture
def locked(index: Path, tmp_path: Path) -> Path:
    """The requirement with the digest of the wheel in the index."""
    digest = hashlib.sha256(write_wheel(index).read_bytes()).hexdigest()
    path = tmp_path / "locked.txt"
    path.write_text(f"# One.\nnvidia-pytriton==0.7.0 --hash=sha256:{digest}\n", encoding="utf-8")
    return path


def refusal(locked: Path = fetching.LOCKED) -> Diagnostic:
    with pytest.raises(DiagnosticError) as caught:
        fetch(fetched_folder(), print, locked=locked)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


def in_the_cache() -> list[str]:
    return sorted(path.name for path in fetched_folder().parent.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_it_is_unpacked_alone_and_found(tool: str, index: Path, locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "installers", lambda: [by(tool)])
    monkeypatch.setattr(fetching, "LOCKED", locked)
    # Settings that would send a package elsewhere.
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_TARGET", str(index / "elsewhere"))
    said: list[str] = []
    fetch(fetched_folder(), said.append, locked=locked)
    assert in_the_cache() == ["nvidia-pytriton-0.7.0"]
    found = find_installation()
    assert found.binary == fetched_folder() / SERVER / "bin" / "tritonserver"
    assert found.version == "0.7.0"
    assert found.stub.read_bytes() == b"stub"
    assert os.access(found.binary, os.X_OK) and os.access(found.stub, os.X_OK)
    assert not (index / "elsewhere").exists()
    first, last = said
    assert first.startswith("tritonserver is not here: fetching `nvidia-pytriton==0.7.0` without its ")
    assert re.fullmatch(rf"tritonserver is here: 0 MB in `{re.escape(str(fetched_folder()))}`, \d+ s", last)

    # From now on, nothing is asked for.
    monkeypatch.setattr(fetching, "installers", lambda: [])
    assert ensure_installation(said.append) == found
    assert len(said) == 2


def test_one_that_the_environment_has_comes_first(index: Path, locked: Path) -> None:
    fetch(fetched_folder(), print, locked=locked)
    fetch(installation.environment_folder(), print, locked=locked)
    assert find_installation().binary.is_relative_to(installation.environment_folder())


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_other_bytes_are_refused_and_not_kept(
    tool: str, locked: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "installers", lambda: [by(tool)])
    locked.write_text(re.sub(r"\b[0-9a-f]{64}", "0" * 64, locked.read_text()), encoding="utf-8")
    diagnostic = refusal(locked)
    assert diagnostic.code == "SIE701"
    assert f"{tool}: the index has other bytes under the name `nvidia-pytriton` 0.7.0" in diagnostic.message
    assert in_the_cache() == []


def test_no_index_is_told_by_each_tool(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "installers", lambda: [by("pip"), by("uv")])
    diagnostic = refusal()
    assert "pip: No matching distribution found for nvidia-pytriton==0.7.0" in diagnostic.message
    assert "uv: " in diagnostic.message and "nvidia-pytriton" in diagnostic.message.partition("uv: ")[2]
    assert f"copy `{fetched_folder()}` from another machine" in str(diagnostic.hint)
    assert in_the_cache() == []


def test_neither_pip_nor_uv_is_told(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "installers", lambda: [])
    diagnostic = refusal()
    assert "neither pip is in this environment nor uv on `PATH`" in diagnostic.message


def test_a_damaged_one_is_fetched_again(index: Path, locked: Path) -> None:
    fetch(fetched_folder(), print, locked=locked)
    library = fetched_folder() / "nvidia_pytriton.libs" / "libz.so"
    library.write_bytes(b"")
    assert find_wheel() is None
    fetch(fetched_folder(), print, locked=locked)
    assert library.read_bytes() == FILES["nvidia_pytriton.libs/libz.so"]
    assert in_the_cache() == ["nvidia-pytriton-0.7.0"]


def test_two_at_once_fetch_it_once(index: Path, locked: Path) -> None:
    """And what a process left that was killed goes."""
    (fetched_folder().parent / ".stage-killed" / "wheel").mkdir(parents=True)
    said: list[str] = []
    both = [
        threading.Thread(target=fetch, args=(fetched_folder(), said.append), kwargs={"locked": locked}) for _ in "ab"
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert whole_wheel(fetched_folder()) is not None
    assert in_the_cache() == ["nvidia-pytriton-0.7.0"]
    assert [line.partition(":")[0] for line in said if "another process" not in line] == [
        "tritonserver is not here",
        "tritonserver is here",
    ]


def test_a_disk_without_room_and_a_folder_that_cannot_be_written_are_told(
    index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fetching, "MEGABYTES", 10**11)
    diagnostic = refusal()
    assert "there is no room: " in diagnostic.message and "XDG_CACHE_HOME" in str(diagnostic.hint)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "cannot be written: not a directory" in refusal().message


@pytest.fixture
def silent() -> Iterator[str]:
    """An index that takes calls and answers none."""
    asked, done = threading.Event(), threading.Event()

    class Silent(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            done.wait(60)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    done.set()
    server.shutdown()
    server.server_close()


def test_an_interrupt_leaves_nothing(silent: str, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from sie_triton.embedded.fetching import fetch;"
        "fetch(Path(sys.argv[1]), lambda line: print(line, flush=True))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV"))}
    environment = {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": silent, "PATH": "/usr/bin:/bin"}
    folder = tmp_path / "cache" / "wheel"
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("tritonserver is not here")
        deadline = time.monotonic() + 30
        while not (children := _children(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert [path.name for path in folder.parent.iterdir()] == [".wheel.lock"]


def _children(process: int) -> list[int]:
    """Of all its threads: Linux lists them by the one that began them."""
    found: list[int] = []
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, listed.read_text().split())
    return found


def test_fetching_can_be_forbidden(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "fetch", lambda *_: pytest.fail("it was fetched"))
    monkeypatch.setenv(VARIABLE, "false")
    with pytest.raises(DiagnosticError) as forbidden:
        ensure_installation(print)
    (diagnostic,) = forbidden.value.diagnostics
    assert diagnostic.code == "SIE701" and f"`{VARIABLE}` forbids fetching it" in diagnostic.message
    assert "install --no-deps nvidia-pytriton==0.7.0" in str(diagnostic.hint)
    monkeypatch.setenv(VARIABLE, "perhaps")
    with pytest.raises(DiagnosticError, match=r"SIE712.*`true` or `false`, not 'perhaps'"):
        ensure_installation(print)


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("glibc", (2, 31), "SIE702: the embedded tritonserver needs glibc 2.35 or newer, this system has glibc 2.31"),
        ("glibc", (), "SIE702: .* this system has another C library"),
        ("STUBS", ((3, 8),), f"SIE703: `nvidia-pytriton` 0.7.0 has no backend stub for Python {MINOR}"),
    ],
)
def test_a_machine_for_which_there_is_none_fetches_nothing(
    attribute: str, value: tuple[int, ...], said: str, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "fetch", lambda *_: pytest.fail("it was fetched"))
    found = (lambda: value) if attribute == "glibc" else value
    monkeypatch.setattr(fetching, attribute, found)
    with pytest.raises(DiagnosticError, match=said):
        ensure_installation(print)


def test_doctor_says_that_it_will_be_fetched_or_may_not(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = CliRunner().invoke(app, ["doctor"]).output
    assert f"note    tritonserver: not here yet; `up` and `serve` fetch it, 55 MB, into `{fetched_folder()}`" in said
    monkeypatch.setenv(VARIABLE, "0")
    said = CliRunner().invoke(app, ["doctor"]).output
    assert "problem tritonserver: `nvidia-pytriton`, which carries tritonserver, is not installed, and" in said


def test_what_is_locked_is_what_the_code_names_and_what_is_installed() -> None:
    lines = [line for line in fetching.LOCKED.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    [line] = lines
    assert re.fullmatch(rf"nvidia-pytriton=={installation.VERSION} --hash=sha256:[0-9a-f]{{64}}", line)
    wheel = find_wheel()
    assert wheel is not None and wheel.version == installation.VERSION
    stubs = {path.parts[3] for path in wheel.files or () if path.name == "triton_python_backend_stub"}
    assert stubs == {f"{major}.{minor}" for major, minor in installation.STUBS}
    used = sum(file.size or 0 for file in wheel.files or () if file.as_posix().startswith(installation._PARTS))
    assert abs(used / 1e6 - fetching._UNPACKED_MEGABYTES) < 5

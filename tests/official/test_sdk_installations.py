"""Ours and SIE's own SDK in one environment: after any order of installs and removals the import finds one that works.

The test walks every state that pip can reach, instead of listing orders: from each state every install and every
removal, until nothing new appears. A state is what lies in `site-packages`, byte for byte. (To install again what is
there is a removal and an install.)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from environments import environment

from .environment import Unavailable, official_base

pytestmark = pytest.mark.official

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL = "sie-sdk==0.10.1"
PROGRAM = """
import importlib.metadata, json, pickle
import sie_sdk
from sie_sdk import RequestError, SIEAsyncClient, SIEClient
from sie_sdk.client.async_ import SIEAsyncClient as Async
from sie_sdk.client.errors import RequestError as Refused
from sie_sdk.client.sync import SIEClient as Sync
from sie_sdk.encoding import dense_embedding
from sie_sdk.images import convert_item_images
from sie_sdk.scoring import maxsim
from sie_sdk.types import Item
assert (Sync, Async, Refused) == (SIEClient, SIEAsyncClient, RequestError)
assert SIEClient("http://127.0.0.1:9").base_url == "http://127.0.0.1:9"
assert type(pickle.loads(pickle.dumps(sie_sdk.SIEError("x")))) is sie_sdk.SIEError
print(json.dumps("ours" if "sie_triton_sdk" in sie_sdk.__file__ else "official"))
"""

State = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Place:
    """An environment into which only what the test installs of the SDKs gets; the rest is another's."""

    interpreter: Path
    packages: Path
    wheels: dict[str, Path]

    def pip(self, *arguments: str | Path) -> None:
        command: list[str | Path] = [
            self.interpreter,
            "-m",
            "pip",
            *arguments,
            "--quiet",
            "--disable-pip-version-check",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr

    def install(self, name: str) -> None:
        self.pip("install", "--no-index", "--no-deps", "--no-compile", "--force-reinstall", self.wheels[name])

    def uninstall(self, name: str) -> None:
        self.pip("uninstall", "--yes", "sie-triton-sdk" if name == "ours" else "sie-sdk")

    def python(self, program: str) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [self.interpreter, "-I", "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def files(self) -> Iterator[Path]:
        for entry in sorted(self.packages.glob("sie*")):
            yield from (path for path in [entry, *entry.rglob("*")] if path.is_file() and path.suffix != ".pyc")

    def state(self) -> State:
        return frozenset(
            (str(path.relative_to(self.packages)), hashlib.sha256(path.read_bytes()).hexdigest())
            for path in self.files()
        )

    def save(self, folder: Path) -> None:
        folder.mkdir()
        for entry in self.packages.glob("sie*"):
            copy = shutil.copytree if entry.is_dir() else shutil.copy
            copy(entry, folder / entry.name)

    def restore(self, folder: Path) -> None:
        for entry in self.packages.glob("sie*"):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        shutil.copytree(folder, self.packages, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    try:
        base = official_base()
        tools = environment("sdk-installations", base)
    except Unavailable as reason:
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp("sdk-installations")
    wheels = folder / "wheels"
    building: list[str | Path] = [
        tools,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        wheels,
    ]
    subprocess.run([*building, ROOT / "sdk", ROOT / "sdk" / "stand-in"], check=True, capture_output=True)
    fetching: list[str | Path] = [
        tools,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "-d",
        folder / "official",
        OFFICIAL,
    ]
    if subprocess.run(fetching, capture_output=True, check=False).returncode:
        pytest.skip(f"pip cannot fetch {OFFICIAL}")
    subprocess.run([tools, "-m", "venv", "--without-pip", folder / "venv"], check=True, capture_output=True)
    interpreter = folder / "venv" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = Path(subprocess.check_output([interpreter, "-I", "-c", ask], text=True).strip())
    shared = subprocess.check_output([tools, "-I", "-c", ask], text=True).strip()
    (packages / "what_both_import.pth").write_text(f"{shared}\n")
    return Place(
        interpreter,
        packages,
        {
            "ours": next(wheels.glob("sie_triton_sdk-*.whl")),
            "stand-in": next(wheels.glob("sie_sdk-*.whl")),
            "official": next((folder / "official").glob("sie_sdk-*.whl")),
        },
    )


def installed(state: State) -> frozenset[str]:
    """Which of the three distributions pip has installed."""
    folders = {name.split("/")[0] for name, _ in state}
    return frozenset(
        name
        for name, beginning in {
            "ours": "sie_triton_sdk-",
            "official": "sie_sdk-0.10.1.dist-info",
            "stand-in": "sie_sdk-0.10.1+sie.triton.dist-info",
        }.items()
        if any(folder.startswith(beginning) for folder in folders)
    )


def found(place: Place) -> str:
    """Which SDK the import finds and passes `PROGRAM` with; otherwise what it raised."""
    done = place.python(PROGRAM)
    return str(json.loads(done.stdout)) if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def test_whatever_the_order_one_of_them_works(place: Place, tmp_path: Path) -> None:
    seen: dict[State, tuple[str, ...]] = {place.state(): ()}
    place.save(tmp_path / "0")
    waiting: list[tuple[frozenset[str], tuple[str, ...], Path]] = [(frozenset(), (), tmp_path / "0")]
    while waiting:
        present, order, folder = waiting.pop(0)
        steps = [(place.uninstall if name in present else place.install, name) for name in ("ours", "official")]
        for step, name in steps:
            place.restore(folder)
            step(name)
            state, reached = place.state(), (*order, f"{step.__name__} {name}")
            if state in seen:
                continue
            seen[state] = reached
            now = installed(state)
            expected = "official" if "official" in now else "ours" if "ours" in now else "ModuleNotFoundError: "
            assert found(place).startswith(expected), reached
            place.save(tmp_path / str(len(seen)))
            waiting.append((now, reached, tmp_path / str(len(seen))))
    # Nothing that was removed leaves anything behind: there are as many states as sets of distributions.
    assert len(seen) == len({installed(state) for state in seen}) == 4


def test_files_that_are_gone_are_named_with_the_cure(place: Place) -> None:
    place.install("ours")
    shutil.rmtree(place.packages / "sie_triton_sdk")
    assert found(place).startswith("ImportError: sie-triton-sdk is installed, but its files in ")
    assert "pip install --force-reinstall" in found(place)
    place.install("ours")
    assert found(place) == "ours"


def test_a_folder_without_a_beginning_is_no_obstacle(place: Place) -> None:
    """What an older pip, or somebody's hand, leaves of SIE's own SDK."""
    place.install("official")
    place.install("ours")
    (place.packages / "sie_sdk" / "__init__.py").unlink()
    assert found(place) == "ours"
    place.uninstall("official")
    assert found(place) == "ours"


def test_what_the_environment_says_of_versions(place: Place) -> None:
    ask = "from importlib.metadata import version; print(version('sie-sdk'), version('sie-triton-sdk'))"
    place.install("ours")
    place.install("stand-in")
    assert place.python(ask).stdout.split() == ["0.10.1+sie.triton", "0.1.0"]
    place.install("official")
    assert place.python(ask).stdout.split() == ["0.10.1", "0.1.0"]
    place.uninstall("official")
    assert "PackageNotFoundError" in place.python(ask).stderr


def test_type_checkers_find_ours(place: Place, tmp_path: Path) -> None:
    mypy = pytest.importorskip("mypy.api")
    place.uninstall("official") if "official" in installed(place.state()) else None
    place.install("ours")
    program = tmp_path / "program.py"
    program.write_text(
        "from sie_sdk import SIEClient\n"
        "from sie_sdk.client.errors import RequestError\n"
        "from sie_sdk.types import Item\n"
        "reveal_type(SIEClient('http://a').encode('m', [Item(text='x')]))\n"
        "SIEClient('http://a').encode('m', Item(txt='x'))\n"
    )
    out, _, _ = mypy.run(
        ["--strict", "--python-executable", str(place.interpreter), "--cache-dir", os.devnull, str(program)]
    )
    assert "program.py:4: note: Revealed type is" in out and "EncodeResult" in out.splitlines()[0]
    assert [line.split(":")[1] for line in out.splitlines() if ": error:" in line] == ["5"]

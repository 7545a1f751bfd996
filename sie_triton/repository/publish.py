"""The Triton model repository on disk: staged beside the target, published by one rename.

`RENAME_EXCHANGE` swaps the staged directory with the published one in a single step of the file system. Whoever looks,
at any moment and after any kill, finds the old repository or the new one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from sie_frontend.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest, ManifestError, dump_manifest, read_manifest
from sie_frontend.storage import served_files

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.interrupts import fleeting

MANIFEST_DIGEST_NAME = "manifest.sha256"

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_PROBE_BYTES = 1 << 20
_DISK_ERRORS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EIO, errno.EMLINK, errno.ESTALE),
    }
)
"""What says something about the disk or its owner; anything else is a bug of ours."""


def file_digest(path: Path) -> str:
    """sha256 of a file, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def tree_digests(directory: Path) -> dict[str, str]:
    """Digest of every file under `directory`, by its relative POSIX path, sorted."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): file_digest(path) for path in files}


def tree_sizes(directory: Path) -> dict[str, int]:
    """Bytes of every file under `directory`, by its relative POSIX path, sorted."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in files}


def _sibling(target: Path, what: str) -> Path:
    return target.parent / f".{target.name}.{what}"


@contextlib.contextmanager
def staged_repository(target: Path) -> Iterator[Path]:
    """A staging directory that starts as a copy of `target` (hard links: weights are stored once).

    One build at a time holds the lock; another gets a `DiagnosticError` at once. What an earlier, killed build left
    behind is removed, whatever happens inside the block the staging directory is gone afterwards. A disk that is full
    or cannot be written, here or in the block, is a `DiagnosticError` too: SIE612.
    """
    target = target.absolute()
    staging = _sibling(target, "staging")
    with disk_mistakes(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target), fleeting(staging):
            recover(target)
            _remove(staging)
            try:
                if target.exists():
                    _require_ours(target)
                    shutil.copytree(target, staging, copy_function=_link, symlinks=True)
                else:
                    staging.mkdir()
                with disk_mistakes(target):  # while what filled the disk is still there
                    yield staging
            finally:
                _remove(staging)


@contextlib.contextmanager
def disk_mistakes(target: Path) -> Iterator[None]:
    """Turn what a full disk or a folder that may not be written raises, while `target` is written, into SIE612."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise DiagnosticError([_disk_mistake(target, error)]) from error
    except RuntimeError as error:
        # torch raises this for a write that fails, without an error number: the disk is asked again.
        failed = _probe(target)
        if failed is None:
            raise
        raise DiagnosticError([_disk_mistake(target, failed)]) from error


def _probe(target: Path) -> OSError | None:
    """Why a megabyte cannot be written beside `target`; None if it can."""
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.probe-") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError as error:
        return error
    return None


def _disk_mistake(target: Path, error: OSError) -> Diagnostic:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = (
        "free some space, or choose another `--repository`; what was published is as it was"
        if full
        else "mend its permissions, or choose another `--repository`"
    )
    place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else target
    return Diagnostic(
        "SIE612", f"the repository cannot be written: {os.strerror(error.errno or 0)}", Where(place), hint
    )


def _require_ours(target: Path) -> None:
    """Replacing a directory that we did not write would lose somebody's work."""
    if any(target.iterdir()) and not (target / MANIFEST_NAME).is_file():
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE601",
                    "the directory holds files but no manifest of ours; it is left as it is",
                    Where(target),
                    "choose another `--repository`, or empty this one",
                )
            ]
        )


def _link(source: str, destination: str) -> None:
    # Files of a repository are never modified in place, only replaced: sharing the inode is safe.
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Keep others from writing `target`. The lock's file stays beside a repository, and goes where there is none."""
    path = _sibling(target, "lock")
    with _locked(path, target):
        try:
            yield
        finally:
            if not target.exists():
                path.unlink(missing_ok=True)


def _locked(path: Path, target: Path) -> IO[str]:
    """The open file at `path`, locked. One that its last holder took away meanwhile is made again."""
    while True:
        try:
            file = path.open("w")
        except OSError as error:  # whatever it is: nothing can be written there, as below `/proc`
            raise DiagnosticError([_disk_mistake(target, error)]) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise DiagnosticError(
                [Diagnostic("SIE602", "another build is writing this repository", Where(target), "wait for it to end")]
            ) from None
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def missing_files(repository: Path, manifest: Manifest, names: Iterable[str]) -> dict[str, list[str]]:
    """The files of these Triton models that the manifest names and the disk lacks; whole models are left out."""
    lacking = {
        name: [file for file in manifest.triton_models[name].files if not (repository / name / file).is_file()]
        for name in names
    }
    return {name: files for name, files in lacking.items() if files}


def check_whole(repository: Path, manifest: Manifest, *, graphs: bool = True) -> None:
    """Raise `DiagnosticError` (`SIE610`) for each model of which a file is missing that the manifest names.

    Without `graphs` only those count that the frontend reads: the graphs are in a Triton elsewhere.
    """
    missing = missing_files(repository, manifest, manifest.triton_models) if graphs else {}
    try:
        served = served_files(manifest)
    except ManifestError as error:
        raise DiagnosticError([Diagnostic("SIE603", str(error), Where(repository))]) from None
    for path in served:
        name, _, file = path.partition("/")
        if not (repository / path).is_file() and file not in missing.get(name, ()):
            missing.setdefault(name, []).append(file)
    if missing:
        raise DiagnosticError([_not_whole(repository / name, files) for name, files in missing.items()])


def _not_whole(folder: Path, files: Sequence[str]) -> Diagnostic:
    if folder.is_dir():
        more = " and more" if len(files) > 3 else ""
        what = f"`{folder.name}` lacks {', '.join(f'`{file}`' for file in files[:3])}{more}, which the manifest names"
    else:
        what = f"the folder of model `{folder.name}` is missing"
    hint = "build its model again with `sie-triton build --force -m ID`, or copy the repository again"
    return Diagnostic("SIE610", what, Where(folder), hint)


def manifest_digest_line(content: bytes) -> bytes:
    """What `manifest.sha256` holds for a manifest of these bytes, in the form that `sha256sum --check` reads."""
    return f"{hashlib.sha256(content).hexdigest()}  {MANIFEST_NAME}\n".encode()


def write_manifest(staging: Path, manifest: Manifest) -> None:
    """The last files of a staged repository: a reader that finds them finds everything that they name."""
    content = dump_manifest(manifest)
    for name, written in ((MANIFEST_NAME, content), (MANIFEST_DIGEST_NAME, manifest_digest_line(content))):
        # The staged file may be a hard link to the published one, which must stay as it is until `publish`.
        (staging / name).unlink(missing_ok=True)
        (staging / name).write_bytes(written)


def current_manifest(target: Path) -> Manifest | None:
    """The published manifest, None where there is none. Raises `DiagnosticError` (`SIE603`) if it cannot be read."""
    with disk_mistakes(target):
        if not (target / MANIFEST_NAME).is_file():
            return None
        try:
            return read_manifest(target)
        except ManifestError as error:
            raise DiagnosticError([Diagnostic("SIE603", str(error), Where(target))]) from None


def empty_manifest() -> Manifest:
    """A repository without models."""
    return Manifest(SCHEMA_VERSION, {}, {}, {})


def manifest_to_extend(staging: Path, *, force: bool, announce: Callable[[str], None]) -> Manifest:
    """The staged manifest that a build adds to, or an empty one. With `force`, an unreadable one is begun anew."""
    empty = empty_manifest()
    try:
        return current_manifest(staging) or empty
    except DiagnosticError as error:
        if not force:
            raise
        announce(f"{error.diagnostics[0].message.partition(';')[0]}: making the repository anew, of these models alone")
        return empty


def drop_orphans(staging: Path, manifest: Manifest) -> None:
    """Remove the folders that the manifest does not name: Triton would load every one that it finds."""
    for path in staging.iterdir():
        if path.is_dir() and path.name not in manifest.triton_models:
            shutil.rmtree(path)


def publish(staging: Path, target: Path) -> None:
    """Make `staging` the repository. World-readable, as containers with another user need it."""
    target = target.absolute()
    _make_readable(staging)
    _sync(staging)
    if not target.exists():
        staging.rename(target)
    elif not _exchange(staging, target):
        # No exchange on this file system: `recover` mends a kill between the two renames.
        previous = _sibling(target, "previous")
        _remove(previous)
        target.rename(previous)
        staging.rename(target)
        _remove(previous)
    _sync_directory(target.parent)


def recover(target: Path) -> None:
    """Put the previous repository back if a kill fell between the two renames of the fallback."""
    previous = _sibling(target, "previous")
    if previous.exists() and not target.exists():
        previous.rename(target)
    _remove(previous)


def clear_leftovers(target: Path) -> None:
    """Remove what a killed build left beside `target`; nothing is touched while another build runs."""
    target = target.absolute()
    with disk_mistakes(target):
        left = any(_sibling(target, what).exists() for what in ("staging", "previous"))
    if left:
        with contextlib.suppress(DiagnosticError), disk_mistakes(target), _lock(target):
            recover(target)
            _remove(_sibling(target, "staging"))


def _exchange(left: Path, right: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(right))


def _make_readable(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        wanted = 0o755 if path.is_dir() else 0o644
        if path.stat().st_mode & 0o777 != wanted:
            path.chmod(wanted)


def _sync(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_directory(root)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)

"""A repository in an object store, fetched into a folder: the embedded tritonserver reads no object stores.

The copy stays in the cache. The next start fetches the manifest and what has changed; every file is checked against the
manifest's digest, and the copy is replaced by one rename, as a build does it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from sie_frontend.manifest import MANIFEST_NAME, Manifest, ManifestError, parse_manifest
from sie_frontend.settings import SettingsError
from sie_frontend.storage import Store, is_inside

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.repository.publish import (
    MANIFEST_DIGEST_NAME,
    file_digest,
    manifest_digest_line,
    publish,
    staged_repository,
)
from sie_triton.room import cache_folder, shortage

Announce = Callable[[str], None]

_WAIT_SECONDS = 1.0
_REPORTED_BYTES = 16 * 2**20


def stored_manifest(url: str) -> Manifest:
    """The manifest of a repository in an object store. Raises `DiagnosticError` with `SIE611`."""
    try:
        return parse_manifest(Store(url.rstrip("/")).read(MANIFEST_NAME), f"{url.rstrip('/')}/{MANIFEST_NAME}")
    except (ManifestError, SettingsError) as error:
        raise _failed(str(error)) from None


def fetch_repository(url: str, announce: Announce, cache: Path | None = None) -> Path:
    """The folder with the whole repository of `url`, fetched as far as the cache does not hold it already.

    Waits while another process fetches it. Raises `DiagnosticError`: `SIE611` if it cannot be fetched, `SIE613` if the
    cache does not take it.
    """
    url = url.rstrip("/")
    try:
        target = (cache or _default_cache()) / _folder_name(url)
    except RuntimeError as error:  # the user has no home folder
        raise _not_kept(url, None, str(error)) from None
    copy_repository(url, target, announce)
    return target


def copy_repository(url: str, target: Path, announce: Announce) -> None:
    """Make the folder `target` the repository of `url`: what it holds already is kept, and it is exchanged at once.

    Waits while another process does the same. Raises `DiagnosticError`: `SIE611` if it cannot be fetched, `SIE613` if
    the folder cannot be written.
    """
    url = url.rstrip("/")
    try:
        store = Store(url)
        content = store.read(MANIFEST_NAME)
        manifest = parse_manifest(content, f"{url}/{MANIFEST_NAME}")
        wanted = _digests(manifest)
        _check_room(url, target, manifest)
        waited = False
        while not _holds(target, content, wanted):
            try:
                _fetch(store, url, target, content, wanted, announce)
                break
            except DiagnosticError as error:
                codes = {diagnostic.code for diagnostic in error.diagnostics}
                if codes == {"SIE612"}:
                    raise _not_kept(url, target, error.diagnostics[0].message) from None
                if codes != {"SIE602"}:
                    raise
                if not waited:
                    announce(f"another process is fetching {url}; waiting for it")
                waited = True
                time.sleep(_WAIT_SECONDS)
    except (ManifestError, SettingsError) as error:
        raise _failed(str(error)) from None
    except OSError as error:
        raise _not_kept(url, target, str(error)) from None


def _fetch(
    store: Store, url: str, target: Path, manifest: bytes, wanted: Mapping[str, str], announce: Announce
) -> None:
    begun, size = time.monotonic(), 0
    announce(f"fetching {url} into `{target}`")
    with staged_repository(target) as staging:
        for path in [path for path in staging.rglob("*") if path.is_file()]:
            if path.relative_to(staging).as_posix() not in wanted:
                path.unlink()
        for name, digest in wanted.items():
            path = staging / name
            if path.is_file() and file_digest(path) == digest:
                continue
            # What is staged is a hard link to what is published, which must stay as it is until `publish`.
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            store.fetch(name, path)
            if file_digest(path) != digest:
                raise ManifestError(
                    f"`{url}/{name}` is not what `{MANIFEST_NAME}` says: its digest differs; it is damaged, or the "
                    "repository was being replaced: start again when the upload is complete, or upload it again"
                )
            size += path.stat().st_size
            if path.stat().st_size >= _REPORTED_BYTES:
                announce(f"fetched {name}, {path.stat().st_size / 1e6:,.0f} MB")
        (staging / MANIFEST_NAME).write_bytes(manifest)
        (staging / MANIFEST_DIGEST_NAME).write_bytes(manifest_digest_line(manifest))
        publish(staging, target)
    announce(f"fetched {size / 1e6:,.1f} MB in {time.monotonic() - begun:.1f} s")


def _check_room(url: str, target: Path, manifest: Manifest) -> None:
    """Raise `DiagnosticError` (`SIE613`) where the files that are not there yet do not fit."""
    sizes = {f"{name}/{file}": n for name, model in manifest.triton_models.items() for file, n in model.sizes.items()}
    if short := shortage(target, sum(size for name, size in sizes.items() if not (target / name).is_file())):
        raise _not_kept(url, target, f"there is no room: {short}")


def _digests(manifest: Manifest) -> dict[str, str]:
    """The digest of every file of the repository but the manifest itself, by its path."""
    found = {
        f"{name}/{file}": digest
        for name, model in manifest.triton_models.items()
        for file, digest in model.files.items()
    }
    for path in found:
        if not is_inside(path):
            raise ManifestError(f"the manifest names `{path}`, which is not in the repository")
    return {PurePosixPath(path).as_posix(): digest for path, digest in found.items()}


def _holds(target: Path, manifest: bytes, wanted: Mapping[str, str]) -> bool:
    """Whether the copy is whole and of this manifest."""
    path = target / MANIFEST_NAME
    if not path.is_file() or path.read_bytes() != manifest:
        return False
    return all((target / name).is_file() and file_digest(target / name) == digest for name, digest in wanted.items())


def _default_cache() -> Path:
    return cache_folder() / "repositories"


def _folder_name(url: str) -> str:
    """Readable, and different for different URLs."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', url)[:80].strip('-.')}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def _failed(message: str) -> DiagnosticError:
    return DiagnosticError([Diagnostic("SIE611", message)])


def _not_kept(url: str, target: Path | None, why: str) -> DiagnosticError:
    hint = "free some space, or choose another folder: `--repository` of `fetch`, `XDG_CACHE_HOME` of `serve`"
    where = f"`{target}`" if target else "the cache"
    return DiagnosticError([Diagnostic("SIE613", f"`{url}` cannot be copied to {where}: {why}", hint=hint)])

"""Where the repository lies: a folder, or an object store of which the small files that serving needs are fetched.

Triton reads the graphs from an object store by itself. A frontend needs `manifest.json`, the tokenizers and, for
inference-free retrieval, tables of token weights: it copies these into a private temporary folder, and only if they are
what the manifest says, so that a repository that is replaced while it is read is noticed and not half served.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from sie_frontend.manifest import MANIFEST_NAME, Manifest, ManifestError, parse_manifest, read_manifest
from sie_frontend.modalities import MODALITIES
from sie_frontend.settings import SettingsError

T = TypeVar("T")

log = logging.getLogger("sie_frontend")

_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://.+", re.DOTALL)
# How the stores' libraries say that credentials are missing or too weak.
_DENIED = re.compile(r"credential|permission|forbidden|denied|unauthori[sz]ed|does not have|\b40[13]\b", re.IGNORECASE)
_AGAIN = "build the model again with `sie-triton build --force -m ID`, or copy the repository again"
_CURE = "install the extra: `pip install 'sie-triton-frontend[storage]'`"


class OpenRepository:
    """A repository that can be served: its manifest, and a folder with every file that the manifest's models name.

    `published` is when, in seconds since 1970; of a copy, when it was fetched. `store` is where a copy is of.

    `close` removes the folder if it is a copy; so does the end of the process, unless it is killed.
    """

    def __init__(
        self,
        manifest: Manifest,
        folder: Path,
        copy: tempfile.TemporaryDirectory[str] | None = None,
        store: Store | None = None,
    ) -> None:
        self.manifest = manifest
        self.folder = folder
        self._copy = copy
        self._store = store
        document = folder / MANIFEST_NAME
        self.published = int((document if document.exists() else folder).stat().st_mtime)

    def bring(self, path: str) -> bool:
        """Whether the repository has a file that serving does not need; a copy fetches it. Raises `ManifestError`."""
        if (self.folder / path).is_file():
            return True
        if self._store is None or not is_inside(path) or _digest(self.manifest, path) is None:
            return False
        self._store.copy(self.manifest, path, self.folder)
        return True

    def close(self) -> None:
        """Remove what was copied. May be called twice."""
        if self._copy is not None:
            self._copy.cleanup()


def is_url(location: str | os.PathLike[str]) -> bool:
    """Whether a repository's location is an object store's, rather than a folder's."""
    return isinstance(location, str) and _URL.fullmatch(location) is not None


def open_repository(location: str | os.PathLike[str]) -> OpenRepository:
    """Read a folder in place, or copy what serving needs from a URL that fsspec knows.

    Raises `SettingsError` if the URL cannot be used here, and `ManifestError` if what lies there cannot be read or
    served.
    """
    if not is_url(location):
        return _open_folder(Path(location))
    url = str(location).rstrip("/")
    begun = time.perf_counter()
    store = Store(url)
    manifest = parse_manifest(store.read(MANIFEST_NAME), f"{url}/{MANIFEST_NAME}")
    copy = tempfile.TemporaryDirectory(prefix="sie-frontend-")
    try:
        size = 0
        for path in served_files(manifest):
            size += store.copy(manifest, path, Path(copy.name))
    except BaseException:
        copy.cleanup()
        raise
    log.info("read the repository %s: %d bytes in %.1f s", url, size, time.perf_counter() - begun)
    return OpenRepository(manifest, Path(copy.name), copy, store)


def _open_folder(folder: Path) -> OpenRepository:
    manifest = read_manifest(folder)
    for path in served_files(manifest):
        try:
            found = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        except FileNotFoundError:
            raise ManifestError(f"`{folder / path}` is missing, and `{MANIFEST_NAME}` names it; {_AGAIN}") from None
        except OSError as error:
            raise ManifestError(f"`{folder / path}` cannot be read: {error.strerror}") from None
        name, _, file = path.partition("/")
        model = manifest.triton_models.get(name)
        if model is not None and model.files.get(file, found) != found:
            raise ManifestError(
                f"`{folder / path}` is not what `{MANIFEST_NAME}` says: its digest differs; it was changed or damaged; "
                f"{_AGAIN}"
            )
    return OpenRepository(manifest, folder)


def is_inside(path: str) -> bool:
    """Whether a path that a manifest names is a file of one of the repository's models, and nowhere else."""
    parts = PurePosixPath(path).parts
    return len(parts) >= 2 and ".." not in parts and parts[0] != "/" and "\\" not in path and "\0" not in path


def served_files(manifest: Manifest) -> list[str]:
    """The paths, relative to the repository, of what the frontend reads besides the manifest; each once.

    Raises `ManifestError` for a path that leads out of the repository.
    """
    found: dict[str, None] = {}
    for model_id, model in manifest.models.items():
        tables = (path for head in model.heads.values() for path in head.files)
        files = (path for name, entry in model.inputs.items() for path in MODALITIES[name].files(entry.reads))
        for path in (*files, *tables):
            if not is_inside(path):
                raise ManifestError(f"the manifest's model `{model_id}` names `{path}`, which is not in the repository")
            found[PurePosixPath(path).as_posix()] = None
    return list(found)


def _digest(manifest: Manifest, path: str) -> str | None:
    name, _, file = path.partition("/")
    model = manifest.triton_models.get(name)
    return None if model is None else model.files.get(file)


class Store:
    """The folder of a URL, read through fsspec. Whatever its library raises becomes one of our errors."""

    def __init__(self, url: str) -> None:
        self._url = url
        scheme = url.partition("://")[0]
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise SettingsError(f"reading a repository from `{url}` needs fsspec; {_CURE}") from None
        try:
            self._files, self._root = self._attempt(lambda: url_to_fs(url))
        except ImportError as error:
            raise SettingsError(f"reading a repository from `{url}` needs a package more: {error}; {_CURE}") from None
        except ValueError as error:
            raise SettingsError(f"`{scheme}` in `{url}` names no kind of storage that fsspec knows: {error}") from None

    def read(self, path: str) -> bytes:
        """The content of a file of the folder. Raises `ManifestError`."""
        where = f"{self._url}/{path}"
        try:
            data: bytes = self._attempt(lambda: self._files.cat_file(f"{self._root.rstrip('/')}/{path}"))
        except FileNotFoundError as error:
            said = str(error)
            detail = "" if path in said or not said else f" ({said})"
            raise ManifestError(
                f"there is no `{where}`{detail}; check bucket and prefix, and upload a built repository"
            ) from None
        except ValueError as error:
            raise ManifestError(f"cannot read `{where}`: {error}") from None
        return data

    def copy(self, manifest: Manifest, path: str, folder: Path) -> int:
        """Copy a file that is what the manifest says to its place in a folder; its size. Raises `ManifestError`."""
        digest = _digest(manifest, path)
        if digest is None:
            raise ManifestError(
                f"`{self._url}/{MANIFEST_NAME}` has no digest for `{path}`; rebuild with "
                "`sie-triton build --force -m ID`"
            )
        data = self.read(path)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ManifestError(
                f"`{self._url}/{path}` is not what `{MANIFEST_NAME}` says: its digest differs; it is damaged, or the "
                "repository was being replaced: start again when the upload is complete, or upload it again"
            )
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return len(data)

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file of the folder, however large, to `target`. Raises `ManifestError`; `OSError` for `target`."""
        where = f"{self._url}/{path}"
        with target.open("wb"):
            pass  # a folder that cannot be written is no fault of the store's
        try:
            self._attempt(lambda: self._files.get_file(f"{self._root.rstrip('/')}/{path}", str(target)))
        except FileNotFoundError:
            raise ManifestError(f"there is no `{where}`, which `{MANIFEST_NAME}` names; upload it again") from None
        except ValueError as error:
            raise ManifestError(f"cannot read `{where}`: {error}") from None

    def _attempt(self, call: Callable[[], T]) -> T:
        """Run `call`; only `FileNotFoundError`, `ImportError`, `ValueError`, a full disk and our own errors come out.

        Each store's library has exceptions of its own, and none of them is imported here.
        """
        try:
            return call()
        except (FileNotFoundError, ImportError, ValueError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # this machine's disk, of a copy
            said = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
            if _DENIED.search(said):
                raise ManifestError(
                    f"`{self._url}` may not be read: {said}; give this process credentials that may read the bucket, "
                    "by its environment (`AWS_ACCESS_KEY_ID` and the like, `GOOGLE_APPLICATION_CREDENTIALS`) or its "
                    "service account"
                ) from None
            raise ManifestError(f"cannot read `{self._url}`: {said}") from None

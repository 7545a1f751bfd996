"""Where the served repository comes from, and whether something else lies there now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sie_frontend.manifest import MANIFEST_NAME, ManifestError
from sie_frontend.settings import SettingsError
from sie_frontend.storage import OpenRepository, Store, is_url, open_repository

DIGEST_NAME: Final = "manifest.sha256"
"""What is written last into a repository, and changes with whatever is published."""

FOLDER_S: Final = 1.0
STORE_S: Final = 30.0
"""How often is looked: a folder costs two system calls, an object store a request."""


class RepositoryOrigin:
    """A folder or the URL of an object store. Its methods block: call them in a thread."""

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = location
        self.every_s = STORE_S if is_url(location) else FOLDER_S

    def mark(self) -> bytes | None:
        """What changes when something is published; None where nothing can be read now."""
        if is_url(self.location):
            try:
                return Store(str(self.location).rstrip("/")).read(DIGEST_NAME)
            except (ManifestError, SettingsError):
                return None
        found = []
        for name in (MANIFEST_NAME, DIGEST_NAME):
            try:
                seen = Path(self.location, name).stat()
            except OSError:
                continue
            found.append(f"{name} {seen.st_dev} {seen.st_ino} {seen.st_size} {seen.st_mtime_ns}")
        return "\n".join(found).encode() or None

    def open(self) -> OpenRepository:
        """Read what lies there. Raises `ManifestError`."""
        try:
            return open_repository(self.location)
        except SettingsError as error:
            raise ManifestError(str(error)) from None

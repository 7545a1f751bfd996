"""An object store's repository, followed: what is published there is fetched into the folder that is being served."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from sie_frontend.live.origin import STORE_S
from sie_frontend.manifest import ManifestError
from sie_frontend.settings import SettingsError
from sie_frontend.storage import Store

from sie_triton.diagnostics import DiagnosticError
from sie_triton.repository.object_store import copy_repository
from sie_triton.repository.publish import MANIFEST_DIGEST_NAME


@contextlib.contextmanager
def followed(url: str, folder: Path, announce: Callable[[str], None], every_s: float = STORE_S) -> Iterator[None]:
    """Within, look at the store every `every_s` seconds, and keep `folder` what lies there.

    The folder is exchanged at once, so that whoever serves it follows as it follows a build. What cannot be fetched,
    such as an upload that is not complete, leaves it as it was; it is told once, and tried again.
    """
    over = threading.Event()

    def follow() -> None:
        told = ""
        while not over.wait(every_s):
            try:
                if Store(url.rstrip("/")).read(MANIFEST_DIGEST_NAME) != (folder / MANIFEST_DIGEST_NAME).read_bytes():
                    copy_repository(url, folder, announce)
                told = ""
            except (ManifestError, SettingsError, DiagnosticError, OSError) as error:
                said = error.diagnostics[0].message if isinstance(error, DiagnosticError) else str(error)
                if said != told:
                    announce(f"what lies at {url} is not served yet: {said}")
                told = said

    thread = threading.Thread(target=follow, name="follow-store", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()

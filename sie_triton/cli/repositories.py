"""Which built repository a command reads, and its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sie_triton.cli.printing import say
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

if TYPE_CHECKING:
    from sie_frontend.manifest import Manifest


def built_manifest(repository: Path) -> Manifest:
    """The manifest of a folder; raises `DiagnosticError` (`SIE603`) if there is none or it cannot be read."""
    from sie_frontend.manifest import ManifestError, read_manifest

    try:
        return read_manifest(repository)
    except ManifestError as error:
        raise DiagnosticError([Diagnostic("SIE603", str(error), Where(repository))]) from None


def served_repository(repository: str, *, embedded: bool) -> tuple[str | Path, Manifest]:
    """Where to serve from, and the manifest.

    The embedded server reads folders only: for it, a repository in an object store is fetched into the cache. Raises
    `DiagnosticError` if there is no repository or it cannot be fetched.
    """
    from sie_frontend.storage import is_url

    from sie_triton.repository.object_store import fetch_repository, stored_manifest

    if not is_url(repository):
        return Path(repository), built_manifest(Path(repository))
    if not embedded:
        return repository, stored_manifest(repository)
    folder = fetch_repository(repository, say)
    return folder, built_manifest(folder)

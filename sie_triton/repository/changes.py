"""Changes of a repository that build nothing: a model taken away, or taken back to what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path

from sie_frontend.manifest import Manifest

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.repository.generations import forgotten, ids_of, removed, rolled_back
from sie_triton.repository.publish import (
    current_manifest,
    drop_orphans,
    missing_files,
    publish,
    staged_repository,
    write_manifest,
)


def take_away(repository: Path, model_id: str, *, purge: bool = False) -> list[str]:
    """Publish the repository without an id and its profiles; returns the ids that are gone.

    Their files stay for `roll_back`, unless `purge` is set. Raises `DiagnosticError` (`SIE620`) for an id that the
    repository does not hold.
    """

    def change(manifest: Manifest) -> tuple[Manifest, list[str]]:
        ids = ids_of(manifest, model_id)
        gone = [other for other in ids if other in manifest.models]
        if not (gone or (purge and ids)):
            raise DiagnosticError([_unknown(repository, model_id, manifest.models)])
        return removed(manifest, ids, keep=not purge), gone or ids

    return _changed(repository, change)


def roll_back(repository: Path, model_id: str) -> list[str]:
    """Publish the repository in which an id is what it was before it was replaced or removed; returns the ids.

    Ids that share its Triton models go back too. Raises `DiagnosticError`: `SIE620` for an unknown id, `SIE621` where
    nothing is kept to go back to.
    """

    def change(manifest: Manifest) -> tuple[Manifest, list[str]]:
        if model_id in manifest.previous:
            return rolled_back(manifest, model_id)
        if model_id not in manifest.models:
            raise DiagnosticError([_unknown(repository, model_id, {**manifest.models, **manifest.previous})])
        hint = "a build that replaces a model keeps the one before it, and no older one"
        message = f"`{model_id}` was never replaced here: there is nothing to go back to"
        raise DiagnosticError([Diagnostic("SIE621", message, Where(repository), hint)])

    return _changed(repository, change)


def forget(repository: Path, model_id: str) -> list[str]:
    """Publish the repository without what is kept to take an id back to; returns the ids.

    Raises `DiagnosticError`: `SIE620` for an unknown id, `SIE621` where nothing is kept.
    """

    def change(manifest: Manifest) -> tuple[Manifest, list[str]]:
        ids = [other for other in ids_of(manifest, model_id) if other in manifest.previous]
        if ids:
            return forgotten(manifest, ids), ids
        if model_id not in manifest.models:
            raise DiagnosticError([_unknown(repository, model_id, {**manifest.models, **manifest.previous})])
        raise DiagnosticError(
            [Diagnostic("SIE621", f"nothing is kept to take `{model_id}` back to", Where(repository))]
        )

    return _changed(repository, change)


def _changed(repository: Path, change: Callable[[Manifest], tuple[Manifest, list[str]]]) -> list[str]:
    manifest = current_manifest(repository)
    if manifest is None:
        message = f"there is no repository in `{repository}`"
        raise DiagnosticError([Diagnostic("SIE603", message, Where(repository), "name a built one with `-r`")])
    change(manifest)  # what cannot be done is said before anything is copied
    with staged_repository(repository) as staging:
        changed, ids = change(current_manifest(staging) or manifest)
        if missing := missing_files(staging, changed, changed.served().triton_models):
            names = ", ".join(f"`{name}`" for name in missing)
            message = f"files of {names} are missing, so that nothing can be served by them"
            raise DiagnosticError([Diagnostic("SIE610", message, Where(repository), "build the model again")])
        drop_orphans(staging, changed)
        write_manifest(staging, changed)
        publish(staging, repository)
    return ids


def _unknown(repository: Path, model_id: str, known: Iterable[str]) -> Diagnostic:
    """`SIE620`, with the names that are nearest."""
    names = list(known)
    near = get_close_matches(model_id, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else f"it holds {', '.join(names)}"
    message = f"the repository holds no model `{model_id}`"
    return Diagnostic("SIE620", message, Where(repository), hint if names else "it holds no model at all")

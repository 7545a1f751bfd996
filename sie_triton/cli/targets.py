"""Which bundles and profiles a command is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sie_triton
from sie_triton.diagnostics import Diagnostic, DiagnosticError

if TYPE_CHECKING:
    from sie_triton.bundle import ResolvedProfile
    from sie_triton.compiler.options import Target


def shipped_bundles() -> Path:
    """The bundles that come with the distribution: beside the package in a wheel, at the root of a checkout."""
    package = Path(sie_triton.__file__).resolve().parent
    inside = package / "model_bundles"
    return inside if inside.is_dir() else package.parent / "model_bundles"


def find_targets(models: Sequence[str], folder: Path | None) -> list[Target]:
    """The bundles of the model ids, with the profiles to build: all of them for `id`, one for `id:profile`.

    `folder` is where the bundles are; None stands for the shipped ones. Raises `DiagnosticError` for a bundle that
    is not valid, a model that no bundle has, or a bundle of which no profile compiles.
    """
    from sie_triton.bundle import expand, find_model, load_bundles
    from sie_triton.compiler.options import select

    bundles, mistakes = load_bundles(folder or shipped_bundles())
    if mistakes:
        raise DiagnosticError(mistakes)
    wanted: dict[str, list[ResolvedProfile]] = {}
    problems = []
    for model_id in dict.fromkeys(models):
        found = find_model(bundles, model_id)
        if isinstance(found, Diagnostic):
            problems.append(found)
            continue
        bundle, profile = found
        chosen = wanted.setdefault(bundle.sie_id, [])
        for candidate in expand(bundle) if model_id == bundle.sie_id else [profile]:
            if candidate not in chosen:
                chosen.append(candidate)
    if problems:
        raise DiagnosticError(problems)
    return [select(bundles[sie_id], profiles) for sie_id, profiles in wanted.items()]

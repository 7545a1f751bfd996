"""Bundles on disk: one file, a flat folder of them, and the model ids they make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sie_triton.diagnostics import Diagnostic, Where

from .model import DEFAULT_PROFILE, Bundle, ResolvedProfile, expand
from .schema import read_bundle
from .suggest import did_you_mean


def load_bundle(path: Path) -> tuple[Bundle | None, list[Diagnostic]]:
    """The bundle in a file; or None and all its mistakes, each with its line and column. Never raises on a file."""
    return read_bundle(path)


def parse_bundle(text: str, path: Path) -> tuple[Bundle | None, list[Diagnostic]]:
    """The bundle in a text, or None and all its mistakes; `path` is where messages say that it stands."""
    return read_bundle(path, text)


def load_bundles(folder: Path, *, own: bool = False) -> tuple[dict[str, Bundle], list[Diagnostic]]:
    """Every `*.yaml` directly in a folder, by `sie_id`, in the order of the file names.

    `own`: the folder comes with the distribution, and is read more quickly. Valid bundles are returned beside the
    mistakes of the others. Two files with one `sie_id` are a mistake (`SIE110`); the first is kept.
    """
    paths = sorted(path for path in folder.glob("*.yaml") if path.is_file()) if folder.is_dir() else []
    if not paths:
        there = "is not a folder" if folder.exists() else "does not exist"
        missing = "holds no `*.yaml`" if folder.is_dir() else there
        hint = "`--bundles` wants a folder with one `*.yaml` per model"
        return {}, [Diagnostic("SIE112", f"the bundle folder {missing}", Where(folder), hint)]
    bundles: dict[str, Bundle] = {}
    diagnostics: list[Diagnostic] = []
    for path in paths:
        bundle, mistakes = read_bundle(path, own=own)
        diagnostics.extend(mistakes)
        if bundle is None:
            continue
        first = bundles.setdefault(bundle.sie_id, bundle)
        if first is not bundle:
            message = f"`{bundle.sie_id}` is defined twice: in {first.path} and in {path}"
            hint = "give one of them another `sie_id`, or remove a file"
            diagnostics.append(Diagnostic("SIE110", message, bundle.positions["sie_id"], hint))
    return bundles, diagnostics


def routable(bundles: Mapping[str, Bundle]) -> dict[str, tuple[Bundle, ResolvedProfile]]:
    """Every id that clients can address. A bundle whose own `sie_id` reads `id:profile` wins over that variant."""
    return {
        profile.model_id: (bundle, profile)
        for bundle in bundles.values()
        for profile in expand(bundle)
        if profile.profile == DEFAULT_PROFILE or profile.model_id not in bundles
    }


def find_model(bundles: Mapping[str, Bundle], model_id: str) -> tuple[Bundle, ResolvedProfile] | Diagnostic:
    """The bundle and profile behind an id, matched exactly and case-sensitively; or why there is none (`SIE111`)."""
    models = routable(bundles)
    if model_id in models:
        return models[model_id]
    if model_id in bundles:
        bundle = bundles[model_id]
        message = f"`{model_id}` has no `{DEFAULT_PROFILE}` profile, so the bare id names no model"
        choices = ", ".join(f"`{profile.model_id}`" for profile in expand(bundle))
        return Diagnostic("SIE111", message, Where(bundle.path), f"choose {choices}")
    base, _, profile = model_id.rpartition(":")
    if profile == DEFAULT_PROFILE and base in models:
        return Diagnostic(
            "SIE111", f"unknown model `{model_id}`", None, f"the default profile is addressed as `{base}`"
        )
    if base in bundles:
        bundle = bundles[base]
        ids = [other.model_id for other in expand(bundle)]
        hint = did_you_mean(model_id, ids) or f"choose {', '.join(f'`{i}`' for i in ids)}"
        return Diagnostic("SIE111", f"`{base}` has no profile `{profile}`", Where(bundle.path), hint)
    near = did_you_mean(model_id, models, by=str if "/" in model_id else _without_owner)
    return Diagnostic("SIE111", f"unknown model `{model_id}`", None, near or "`sie-triton catalog` lists the ids")


def _without_owner(model_id: str) -> str:
    return model_id.rpartition("/")[2]

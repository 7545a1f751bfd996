"""Which bundles and profiles a command is about; for a model that no bundle knows, the bundle is derived."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import sie_triton
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

_PAGE = re.compile(r"(?:https?://[^/]+/|hf\.co/)([\w.-]+/[\w.-]+?)(?:/(?:tree|blob|resolve)/.*)?/?$")

if TYPE_CHECKING:
    from sie_triton.bundle import Bundle, ResolvedProfile
    from sie_triton.checkpoint import Checkpoint
    from sie_triton.cli.models import Wanted
    from sie_triton.compiler.options import BuildOptions, Target
    from sie_triton.derive import Derived


def shipped_bundles() -> Path:
    """The bundles that come with the distribution: beside the package in a wheel, at the root of a checkout."""
    package = Path(sie_triton.__file__).resolve().parent
    inside = package / "model_bundles"
    return inside if inside.is_dir() else package.parent / "model_bundles"


def read_bundles(folder: Path | None) -> tuple[Mapping[str, Bundle], Sequence[Diagnostic]]:
    """Every bundle of a folder by `sie_id`, and the mistakes of the others; None stands for the shipped ones."""
    from sie_triton.bundle import load_bundles

    return load_bundles(folder) if folder else _shipped(shipped_bundles())


@cache
def _shipped(folder: Path) -> tuple[Mapping[str, Bundle], Sequence[Diagnostic]]:
    """Read once: nobody changes them while a program runs."""
    from sie_triton.bundle import load_bundles

    bundles, mistakes = load_bundles(folder, own=True)
    return MappingProxyType(bundles), tuple(mistakes)


def load_all(folder: Path | None) -> Mapping[str, Bundle]:
    """The bundles of a folder, None for the shipped ones. Raises `DiagnosticError` if one is not valid."""
    bundles, mistakes = read_bundles(folder)
    if mistakes:
        raise DiagnosticError(mistakes)
    return bundles


def find_targets(
    wanted: Wanted, folder: Path | None, options: BuildOptions, *, allow_hub: bool, save: Path | None = None
) -> list[Target]:
    """The bundles of the wanted models, with the profiles to build: all of them for `id`, one for `id:profile`.

    `folder` is where the bundles are; None stands for the shipped ones. A bundle that is derived is announced, and
    written to the folder `save`. Raises `DiagnosticError` for a bundle that is not valid, a model that no bundle has
    and whose weights are nowhere or say not enough, or a bundle of which no profile compiles.
    """
    from sie_triton.bundle import expand, find_model
    from sie_triton.cli.left_out import check_left_out
    from sie_triton.cli.models import check_all_used
    from sie_triton.compiler.options import select

    bundles = load_all(folder)
    check_left_out(wanted, bundles, trust_remote_code=options.trust_remote_code)
    chosen: dict[str, tuple[Bundle, list[ResolvedProfile]]] = {}
    unwritten: set[str] = set()
    problems: list[Diagnostic] = []
    for model_id in wanted.ids:
        found = find_model(bundles, model_id)
        if model_id in wanted.folders or isinstance(found, Diagnostic):
            try:
                derived = _derived(model_id, wanted, bundles, options, allow_hub=allow_hub)
            except DiagnosticError as error:
                problems += error.diagnostics
                continue
            announce_derived(derived, options, save)
            bundle, profiles = derived.bundle, expand(derived.bundle)
            unwritten.add(bundle.sie_id)
        else:
            bundle, profile = found
            profiles = expand(bundle) if model_id == bundle.sie_id else [profile]
        _, known = chosen.setdefault(bundle.sie_id, (bundle, []))
        known += [profile for profile in profiles if profile not in known]
    if problems:
        raise DiagnosticError(problems)
    adapters = (profile.lora for _, profiles in chosen.values() for profile in profiles if profile.lora)
    folders = (bundle.weights_path for bundle, _ in chosen.values() if bundle.weights_path)
    check_all_used(wanted, adapters, folders)
    return [
        replace(select(bundle, profiles), derived=bundle.sie_id in unwritten) for bundle, profiles in chosen.values()
    ]


def _derived(
    model_id: str, wanted: Wanted, bundles: Mapping[str, Bundle], options: BuildOptions, *, allow_hub: bool
) -> Derived:
    """The bundle of a checkpoint that no bundle names. Raises `DiagnosticError` (`SIE111`) if there is none."""
    from sie_triton.bundle import find_model
    from sie_triton.checkpoint import weight_paths
    from sie_triton.checkpoint.open_clip import is_open_clip
    from sie_triton.derive import Origin, derive_bundle
    from sie_triton.facts import read_facts

    folder = wanted.weights.get(model_id, wanted.default_weights)
    unknown = find_model(bundles, model_id)
    if folder is None and (meant := _no_id(model_id)) is not None:
        raise DiagnosticError([meant])
    if isinstance(unknown, Diagnostic) and folder is None and not _may_be_elsewhere(model_id, unknown, bundles):
        raise DiagnosticError([unknown])
    try:
        checkpoint = _checkpoint(model_id, folder, options, allow_hub=allow_hub)
    except DiagnosticError as error:
        if folder is not None or not isinstance(unknown, Diagnostic):
            raise
        raise DiagnosticError([_nowhere(model_id, unknown, error.diagnostics[0], allow_hub=allow_hub)]) from error
    facts = read_facts(checkpoint.folder, weight_paths(checkpoint.folder))
    named = Origin(folder=folder.expanduser().resolve()) if folder else Origin(checkpoint.hf_id, checkpoint.revision)
    return derive_bundle(
        model_id,
        facts,
        named,
        trust_remote_code=options.trust_remote_code,
        open_clip=is_open_clip(checkpoint.files),
    )


def _no_id(model_id: str) -> Diagnostic | None:
    """What is said of a file on this disk, or of a page's address, that was given for an id; None for an id."""
    from sie_triton.checkpoint.single_file import file_for_folder

    if Path(model_id).is_file():
        return file_for_folder(Path(model_id), "--model")
    if (page := _PAGE.match(model_id)) is None:
        return None
    return Diagnostic("SIE111", f"`{model_id}` is an address, no id", None, f"write `-m {page[1]}`")


def _may_be_elsewhere(model_id: str, unknown: Diagnostic, bundles: Mapping[str, Bundle]) -> bool:
    """Whether an id that no bundle has may be one of the hub's: not a profile, and not a known id in other letters."""
    from sie_triton.bundle import routable

    if ":" in model_id or not model_id.strip():
        return False
    known = {known.casefold() for known in routable(bundles)}
    return model_id.casefold() not in known | {name.rpartition("/")[2] for name in known}


def _checkpoint(model_id: str, folder: Path | None, options: BuildOptions, *, allow_hub: bool) -> Checkpoint:
    from sie_triton.checkpoint import resolve_checkpoint
    from sie_triton.checkpoint.files import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS
    from sie_triton.checkpoint.layouts import is_published_in_open_clip
    from sie_triton.checkpoint.open_clip import needs_open_clip
    from sie_triton.derive import OPTIONAL_FILES

    if folder is None:
        its_own = is_published_in_open_clip(model_id, allow_hub=allow_hub, announce=options.announce)
    else:
        its_own = needs_open_clip(folder.expanduser())
    return resolve_checkpoint(
        None if folder else model_id,
        None,
        weights=folder,
        bundle_weights_path=None,
        allow_hub=allow_hub,
        trust_remote_code=options.trust_remote_code,
        progress=options.progress,
        extra_files=(OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS) if its_own else (),
        optional_files=() if its_own else OPTIONAL_FILES,
        announce=options.announce,
    )


def _nowhere(model_id: str, unknown: Diagnostic, reason: Diagnostic, *, allow_hub: bool) -> Diagnostic:
    """No bundle and no weights: what was looked at, near ids, and what helps whichever was meant."""
    message = f"{unknown.message}: no bundle has it, and its weights were not found: {reason.message} ({reason.code})"
    ways = [unknown.hint or "", f"for a model of your own pass its folder, `--weights {model_id}=FOLDER`"]
    if Path(model_id).is_dir():
        ways = [f"for the folder write `-m ./{model_id}`", *ways]
    if reason.hint and reason.code != "SIE301":
        ways.append(reason.hint.removesuffix("; or pass `--weights FOLDER`"))
    if not allow_hub:
        ways.append("`build` asks the hub for it")
    return Diagnostic(unknown.code, message, None, "; ".join(way for way in ways if way))


def announce_derived(derived: Derived, options: BuildOptions, save: Path | None) -> None:
    """Print the bundle, and write it to a folder of bundles. Raises `DiagnosticError` (`SIE114`)."""
    options.announce(f"{derived.bundle.sie_id}: no bundle names it; this one was derived from its checkpoint:")
    options.announce(derived.text)
    if save is None:
        return
    path = save / derived.file_name
    try:
        save.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_text(encoding="utf-8") != derived.text:
            hint = "remove it or name another folder; without `--save-bundle` nothing is written"
            raise DiagnosticError([Diagnostic("SIE114", "another bundle lies there already", Where(path), hint)])
        path.write_text(derived.text, encoding="utf-8")
    except OSError as error:
        message = f"the bundle cannot be written: {error.strerror or error}"
        raise DiagnosticError([Diagnostic("SIE114", message, Where(path), "name another folder")]) from error
    options.announce(f"{derived.bundle.sie_id}: written to {path}")

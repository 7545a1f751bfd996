"""A build: what is there already, what is compiled, and publishing all of it at once or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from sie_frontend.manifest import Built, Manifest

from sie_triton.compiler.line import build_key, compile_bundle
from sie_triton.compiler.options import BuildOptions, BuiltModel, Target
from sie_triton.compiler.weights import find_checkpoint, named_folder, pinned_identity, read_weights
from sie_triton.diagnostics import DiagnosticError
from sie_triton.planning.plan import TritonPlan
from sie_triton.planning.planner import make_plans
from sie_triton.repository.generations import enter, plain_name, with_previous
from sie_triton.repository.publish import (
    clear_leftovers,
    current_manifest,
    drop_orphans,
    manifest_to_extend,
    missing_files,
    publish,
    staged_repository,
    write_manifest,
)
from sie_triton.verify.checks import check_structure

# The folder of a staged repository in which one build is made, under plain names, before it has a place.
BENCH = ".bench"


def compile_models(targets: Sequence[Target], options: BuildOptions) -> list[BuiltModel]:
    """Build what is not built yet and publish all of it at once; the repository changes only if every check passes.

    Raises `DiagnosticError`; then the published repository is what it was.
    """
    clear_leftovers(options.repository)
    results = []
    missing = []
    for target in chain.from_iterable(named.by_lora() for named in targets):
        found = None if options.force else _already_built(target, options, current_manifest(options.repository))
        results += found or []
        if found is None:
            missing.append(target)
    if missing:
        with staged_repository(options.repository) as staging:
            before = manifest = manifest_to_extend(staging, force=options.force, announce=options.announce)
            bench = staging / BENCH
            for target in missing:
                for made in compile_bundle(target, options, bench):
                    manifest, entered = enter(before, manifest, made, bench, staging)
                    results.append(_built_model(entered.name, entered.models, entered.built, skipped=False))
            manifest = with_previous(before, manifest)
            drop_orphans(staging, manifest)
            write_manifest(staging, manifest)
            if problems := list(check_structure(staging, manifest)):
                raise DiagnosticError(problems)
            publish(staging, options.repository)
    return results


def _already_built(target: Target, options: BuildOptions, manifest: Manifest | None) -> list[BuiltModel] | None:
    """The models that an earlier build of the same inputs left, None if any is missing."""
    if manifest is None:
        return None
    if any(profile.model_id not in manifest.models for profile, _ in target.profiles):
        return None
    pinned = pinned_identity(target, options)
    found = _built_of(target, options, manifest, pinned) if pinned is not None else None
    # What is pinned may be an adapter, whose checkpoint has its base in its name.
    return found or _built_of(target, options, manifest, find_checkpoint(target, options).identity)


def _built_of(target: Target, options: BuildOptions, manifest: Manifest, identity: str) -> list[BuiltModel] | None:
    """The models that an earlier build of these bytes left, None if any is missing."""
    key = build_key(target, options, identity)
    found: dict[str, list[str]] = {}
    for profile, _ in target.profiles:
        model = manifest.models[profile.model_id]
        if any(manifest.built[name].key != key for name in model.triton_models):
            return None
        for name in model.triton_models:
            found.setdefault(name, []).append(profile.model_id)
    if missing_files(options.repository, manifest, (m for name in found for m in manifest.built[name].triton_models)):
        return None
    return [_built_model(name, ids, manifest.built[name], skipped=True) for name, ids in found.items()]


def _built_model(name: str, ids: Iterable[str], built: Built, *, skipped: bool) -> BuiltModel:
    plain = plain_name(name, built)
    return BuiltModel(name, plain, tuple(ids), built.precisions, built.parity, built.checkpoint, skipped)


def plan_models(target: Target, options: BuildOptions) -> tuple[TritonPlan, ...]:
    """What would be built, without building: with the checkpoint's facts if it is at hand, else with named axes."""
    return tuple(plan for part in target.by_lora() for plan in _plan_part(part, options))


def _plan_part(target: Target, options: BuildOptions) -> tuple[TritonPlan, ...]:
    try:
        checkpoint = find_checkpoint(target, options, allow_hub=False)
    except DiagnosticError:
        if named_folder(target.bundle, options) or target.bundle.weights_path:
            raise
        return make_plans(target.bundle, target.profiles, None, options.graphs)
    return make_plans(target.bundle, target.profiles, read_weights(checkpoint).facts, options.graphs)

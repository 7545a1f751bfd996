"""The compiler's stages in order: bundle -> profiles -> checkpoint -> plan -> graphs -> verified repository."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from sie_frontend.manifest import Built, Distance, Manifest, Model, TritonModel
from sie_frontend.text.rows import RowMaker

from sie_triton import __version__
from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.checkpoint import Checkpoint, Progress, resolve_checkpoint, weight_paths
from sie_triton.compiler.certificate import certify, take_reference, tokens_without_rows
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.facts import CheckpointFacts, read_facts
from sie_triton.formats import Precision
from sie_triton.half_precision.measure import OVERFLOW, measure_half
from sie_triton.planning.catalogue import Recipe, Refusal, verdict
from sie_triton.planning.plan import EXPORTER_REVISION, GraphOptions, TritonPlan
from sie_triton.planning.recipes import QUERY_WEIGHTS_NAME, extra_files, make_plans
from sie_triton.repository import record as manifests
from sie_triton.repository.config import (
    CpuShape,
    available_cores,
    cpu_shape,
    machines,
    multiplies_bfloat16,
    triton_configs,
)
from sie_triton.repository.publish import (
    clear_leftovers,
    current_manifest,
    manifest_to_extend,
    missing_files,
    publish,
    staged_repository,
    write_manifest,
)
from sie_triton.repository.render import render
from sie_triton.verify.checks import check_structure
from sie_triton.verify.model_runner import config_path
from sie_triton.verify.parity import check_parity, measure
from sie_triton.verify.reference import REFERENCE_NAME, write_reference

if TYPE_CHECKING:
    from sie_triton.export import Exporter

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the command line decides for all models of one build."""

    repository: Path
    weights: Mapping[str, Path] = field(default_factory=dict)
    default_weights: Path | None = None
    graphs: GraphOptions = field(default_factory=GraphOptions)
    force: bool = False
    trust_remote_code: bool = False
    cores: int = field(default_factory=available_cores)
    announce: Announce = lambda _: None
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One bundle and the profiles of it that were asked for; the refused ones among them, with their reasons."""

    bundle: Bundle
    profiles: tuple[tuple[ResolvedProfile, Recipe], ...]
    refused: tuple[tuple[ResolvedProfile, Refusal], ...] = ()


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """One public Triton model of a finished build: what it computes in on each device, and how close that is."""

    triton_model: str
    model_ids: tuple[str, ...]
    precisions: Mapping[str, str]
    parity: Mapping[str, Mapping[str, Distance]]
    source: str
    skipped: bool


def select(bundle: Bundle, profiles: Sequence[ResolvedProfile]) -> Target:
    """Sort the profiles of a bundle into those that compile and those that do not.

    Raises `DiagnosticError` if none does: asking for a model and getting nothing is a failure.
    """
    judged = [(profile, verdict(profile, bundle)) for profile in profiles]
    recipes = tuple((p, v) for p, v in judged if isinstance(v, Recipe))
    refused = tuple((p, v) for p, v in judged if isinstance(v, Refusal))
    if not recipes:
        raise DiagnosticError(
            Diagnostic("SIE201", f"`{p.model_id}` cannot be compiled: {v.reason}", Where(bundle.path))
            for p, v in refused
        )
    return Target(bundle, recipes, refused)


def compile_models(targets: Sequence[Target], options: BuildOptions) -> list[BuiltModel]:
    """Build what is not built yet and publish all of it at once; the repository changes only if every check passes.

    Raises `DiagnosticError`; then the published repository is what it was.
    """
    clear_leftovers(options.repository)
    results = []
    missing = []
    for target in targets:
        found = None if options.force else _already_built(target, options, current_manifest(options.repository))
        results += found or []
        if found is None:
            missing.append(target)
    if missing:
        with staged_repository(options.repository) as staging:
            manifest = manifest_to_extend(staging, force=options.force, announce=options.announce)
            for target in missing:
                manifest, built = _compile(target, options, staging, manifest)
                results += built
            _drop_orphans(staging, manifest)
            write_manifest(staging, manifest)
            if problems := list(check_structure(staging, manifest)):
                raise DiagnosticError(problems)
            publish(staging, options.repository)
    return results


def _already_built(target: Target, options: BuildOptions, manifest: Manifest | None) -> list[BuiltModel] | None:
    """The models that an earlier build of the same inputs left, None if any is missing."""
    if manifest is None:
        return None
    identity = _pinned_identity(target.bundle, options)
    if identity is None:
        identity = _checkpoint(target, options).identity
    key = _build_key(target, options, identity)
    found: dict[str, list[str]] = {}
    for profile, _ in target.profiles:
        model = manifest.models.get(profile.model_id)
        if model is None or manifest.built[model.triton_model].key != key:
            return None
        found.setdefault(model.triton_model, []).append(profile.model_id)
    if missing_files(options.repository, manifest, (m for name in found for m in manifest.built[name].triton_models)):
        return None
    return [_built_model(name, ids, manifest.built[name], skipped=True) for name, ids in found.items()]


def _built_model(name: str, ids: Iterable[str], built: Built, *, skipped: bool) -> BuiltModel:
    return BuiltModel(name, tuple(ids), built.precisions, built.parity, built.checkpoint, skipped)


def _pinned_identity(bundle: Bundle, options: BuildOptions) -> str | None:
    """What the checkpoint will be called without looking for it: a pinned revision never changes."""
    if _weights(bundle, options) or bundle.weights_path or not bundle.hf_id:
        return None
    revision = bundle.hf_revision or ""
    pinned = len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)
    return f"hf:{bundle.hf_id}@{revision}" if pinned else None


def _build_key(target: Target, options: BuildOptions, identity: str) -> str:
    """Digest of every input that decides the built bytes; equal keys need no second build."""
    inputs = {
        "profiles": [(profile.to_json(), recipe.name) for profile, recipe in target.profiles],
        "checkpoint": identity,
        "cores": options.cores,
        "graphs": asdict(options.graphs),
        "exporter": EXPORTER_REVISION,
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()


def _weights(bundle: Bundle, options: BuildOptions) -> Path | None:
    return options.weights.get(bundle.sie_id, options.default_weights)


def _checkpoint(target: Target, options: BuildOptions, *, allow_hub: bool = True) -> Checkpoint:
    bundle = target.bundle
    return resolve_checkpoint(
        bundle.hf_id,
        bundle.hf_revision,
        weights=_weights(bundle, options),
        bundle_weights_path=bundle.weights_path,
        allow_hub=allow_hub,
        trust_remote_code=options.trust_remote_code,
        progress=options.progress,
        extra_files=tuple(dict.fromkeys(file for _, recipe in target.profiles for file in extra_files(recipe))),
        announce=options.announce,
    )


def _compile(
    target: Target, options: BuildOptions, staging: Path, manifest: Manifest
) -> tuple[Manifest, list[BuiltModel]]:
    """One bundle into the staging directory, and the manifest that describes it."""
    checkpoint = _checkpoint(target, options)
    options.announce(f"{target.bundle.sie_id}: weights from {checkpoint.source} `{checkpoint.folder}`")
    _check_remote_code(target, checkpoint, options)
    plans = make_plans(target.bundle, target.profiles, _facts(checkpoint), options.graphs)
    key = _build_key(target, options, checkpoint.identity)
    options.announce(f"{target.bundle.sie_id}: loading torch and transformers")
    site = _Site(
        exporter=_exporter(checkpoint, options),
        checkpoint=checkpoint,
        cpu=cpu_shape(options.cores, _weight_bytes(checkpoint.folder)),
        staging=staging,
        tag=key[:12],
        options=options,
    )
    if any(plan.precisions.get("cpu") == "bfloat16" for plan in plans) and not multiplies_bfloat16():
        options.announce("this CPU does not multiply bfloat16: float32 would be faster here")
    built = []
    for plan in plans:
        models, triton, entry = _compile_plan(target.bundle, plan, site, key)
        manifest = manifests.merge(manifest, plan.name, models, triton, entry)
        built.append(_built_model(plan.name, models, entry, skipped=False))
    return manifest, built


@dataclass(frozen=True, slots=True)
class _Site:
    """Where and with what the plans of one bundle are built."""

    exporter: Exporter
    checkpoint: Checkpoint
    cpu: CpuShape
    staging: Path
    tag: str
    options: BuildOptions


def _compile_plan(
    bundle: Bundle, plan: TritonPlan, site: _Site, key: str
) -> tuple[dict[str, Model], dict[str, TritonModel], Built]:
    """One public Triton model into the staging directory, measured. Raises `DiagnosticError` if it misses."""
    exporter, staging, options = site.exporter, site.staging, site.options
    for name in dict.fromkeys((*(graph.triton_model for graph in plan.graphs), plan.name)):
        _replace_directory(staging / name)
    home = staging / plan.name / "1"
    largest_id = exporter.write_tokenizer(home / manifests.TOKENIZER_NAME, lowercase=plan.lowercase)
    if plan.query_weights:
        exporter.write_query_weights(home / QUERY_WEIGHTS_NAME, plan.query_weights)
    vocabulary = manifests.Vocabulary(exporter.pad_id, exporter.special_ids, exporter.all_special_ids)
    models = manifests.model_entries(bundle, plan, site.cpu, vocabulary, site.checkpoint.revision)
    model = next(iter(models.values()))
    options.announce(f"{plan.name}: asking an implementation that reads the checkpoint itself")
    reference, testimony = take_reference(
        plan,
        RowMaker(model, staging),
        exporter.folder,
        exporter.token_id,
        exporter.added_tokens,
        trust_remote_code=options.trust_remote_code,
    )
    write_reference(home / REFERENCE_NAME, reference)
    vocabulary = replace(vocabulary, embedding_rows=testimony.vocabulary)
    options.announce(f"{plan.name}: comparing {len(reference.cases)} texts with {reference.origin}")
    plan, parity, padding_cost = _write_verified_graphs(plan, site, model)
    revision = site.checkpoint.revision
    models = manifests.model_entries(bundle, plan, site.cpu, vocabulary, revision, padding_cost)
    warnings = (*plan.warnings, *tokens_without_rows(largest_id, testimony.vocabulary))
    certificate = certify(reference, testimony, warnings)
    for text in (*certificate.departures, *warnings):
        options.announce(f"{plan.name}: {text}")
    entry = manifests.built_entry(plan, key, site.checkpoint.identity, parity, certificate)
    default, *_ = triton_configs(plan, site.cpu, site.tag).values()
    return models, manifests.triton_entries(staging, default), entry


def _write_verified_graphs(
    plan: TritonPlan, site: _Site, model: Model
) -> tuple[TritonPlan, dict[Precision, dict[str, Distance]], float | None]:
    """Configurations and graphs, one precision after the other, each measured before the next.

    What is not close enough gives way: a packed graph to the padded one, a precision that nobody insisted on to
    float32; then the plan that comes back says so. Last comes what a padded position costs in packed graphs. Raises
    `DiagnosticError` for any other miss.
    """
    options = site.options
    padding_cost: float | None = None
    parity: dict[Precision, dict[str, Distance]] = {}
    # A graph that CUDA falls back to must not be the one that was packed for CPUs alone.
    written: set[tuple[Precision, bool]] = set()
    while True:
        _write_configs(plan, site)
        wanted = [(precision, plan.packs(precision)) for precision in dict.fromkeys(plan.precisions.values())]
        missing = [precision for precision, packed in wanted if (precision, packed) not in written]
        if not missing:
            return plan, parity, padding_cost
        precision = missing[0]
        written.add((precision, plan.packs(precision)))
        cost = site.exporter.write_graphs(plan, site.staging, precision)
        if plan.precisions.get("cpu") == precision:
            padding_cost = cost
        if cost is not None:
            options.announce(f"{plan.name}: on CPUs, padding is computed only where tokens meet")
        machine = next(device for device, chosen in plan.precisions.items() if chosen == precision)
        measured, problems = _measure(site.staging, model, machines(plan)[machine], precision)
        if not problems:
            parity[precision] = measured
            continue
        # What overflows packed overflows padded too.
        if cost is not None and problems[0].code != OVERFLOW:
            options.announce(
                f"{plan.name}: packed it is not close enough, padded takes its place: {problems[0].message}"
            )
            plan = replace(plan, packing=False)
            continue
        if options.graphs.precision or precision == "float32":
            raise DiagnosticError(problems)
        options.announce(
            f"{plan.name}: {precision} is not close enough, float32 takes its place: {problems[0].message}"
        )
        for graph in plan.graphs:
            _remove_graph(site.staging / graph.triton_model / "1" / plan.graph_format.filename(precision))
        plan = replace(plan, precisions={d: "float32" if p == precision else p for d, p in plan.precisions.items()})


def _measure(
    staging: Path, model: Model, config_name: str, precision: Precision
) -> tuple[dict[str, Distance], list[Diagnostic]]:
    """How far the graphs in a precision are from the reference, and what speaks against publishing them."""
    if precision != "float32":
        return measure_half(staging, model, config_name, precision)
    measured = measure(staging, model, config_name)
    return measured, list(check_parity(staging, model.triton_model, measured, precision))


def _write_configs(plan: TritonPlan, site: _Site) -> None:
    for config_name, configs in triton_configs(plan, site.cpu, site.tag).items():
        for config in configs:
            path = config_path(site.staging / config.name)
            if config_name:
                path = path.parent / "configs" / f"{config_name}.pbtxt"
                path.parent.mkdir(exist_ok=True)
            path.write_text(render(config), encoding="utf-8")


def _remove_graph(path: Path) -> None:
    """A graph and the weights beside it."""
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def _check_remote_code(target: Target, checkpoint: Checkpoint, options: BuildOptions) -> None:
    """The checkpoint's own Python runs only if its bundle and the user both say so."""
    if not checkpoint.needs_remote_code:
        return
    allowed = all(recipe.needs_remote_code for _, recipe in target.profiles)
    if options.trust_remote_code and allowed:
        return
    if allowed:
        hint = "read the code, then pass `--trust-remote-code`"
    elif all(recipe.loads_remote_code for _, recipe in target.profiles):
        hint = "its bundle does not set `trust_remote_code: true`; add it there if you have read the code"
    else:
        hint = "this adapter never runs a checkpoint's code: pick another checkpoint"
    message = f"the architecture of `{target.bundle.sie_id}` lives only in the checkpoint's own code: "
    raise DiagnosticError(
        [Diagnostic("SIE407", message + str(checkpoint.remote_code_reason), Where(checkpoint.origin), hint)]
    )


def _exporter(checkpoint: Checkpoint, options: BuildOptions) -> Exporter:
    """torch and transformers are imported here and not before."""
    try:
        import_module("sentence_transformers")
        from sie_triton.export import Exporter
    except ModuleNotFoundError as error:
        message = (
            f"`build` needs torch, transformers, sentence-transformers and onnx, and {error.name} is not installed"
        )
        raise DiagnosticError([Diagnostic("SIE401", message, hint="`pip install 'sie-triton[export,cpu]'`")]) from None
    return Exporter(checkpoint.folder, options.announce, trust_remote_code=options.trust_remote_code)


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in weight_paths(folder))


def _replace_directory(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
    (directory / "1").mkdir(parents=True)


def _drop_orphans(staging: Path, manifest: Manifest) -> None:
    """Triton loads every directory that it finds: those of replaced models must not stay."""
    for path in staging.iterdir():
        if path.is_dir() and path.name not in manifest.triton_models:
            shutil.rmtree(path)


def plan_models(target: Target, options: BuildOptions) -> tuple[TritonPlan, ...]:
    """What would be built, without building: with the checkpoint's facts if it is at hand, else with named axes."""
    try:
        checkpoint = _checkpoint(target, options, allow_hub=False)
    except DiagnosticError:
        if _weights(target.bundle, options) or target.bundle.weights_path:
            raise
        return make_plans(target.bundle, target.profiles, None, options.graphs)
    return make_plans(target.bundle, target.profiles, _facts(checkpoint), options.graphs)


def _facts(checkpoint: Checkpoint) -> CheckpointFacts:
    return read_facts(checkpoint.folder, weight_paths(checkpoint.folder))

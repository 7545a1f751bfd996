"""`plan`, `build` and `verify`: what would be built, the build itself, and the check of a built repository."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from sie_triton.cli.models import Wanted, wanted_models
from sie_triton.cli.options import (
    BOTH_DEVICES,
    DEFAULT_FORMAT_NAME,
    DEFAULT_REPOSITORY,
    Accept,
    AsJson,
    Bundles,
    Carried,
    Cores,
    DeviceName,
    Devices,
    EngineName,
    EngineOption,
    Format,
    FormatName,
    Layout,
    LayoutName,
    Models,
    Packing,
    Precision,
    PrecisionName,
    Repository,
    SaveBundle,
    SaveReferences,
    Trace,
    TrustRemoteCode,
    Weights,
)
from sie_triton.cli.printing import answer_lines, err, out, parity_lines, plan_json, print_certificate, print_plan, say
from sie_triton.cli.repositories import built_manifest
from sie_triton.cli.targets import find_targets
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

# What int8 is asked for, by name: docs/cpu-precisions.md.
ACCEPTABLE = ("cosine", "nearest", "batch", "tau")

if TYPE_CHECKING:
    from sie_triton.compiler.options import BuildOptions, BuiltModel
    from sie_triton.planning.plan import GraphOptions


def plan(
    model: Models,
    bundles: Bundles = None,
    weights: Weights = [],  # noqa: B006 - typer copies the default
    graph_format: Format = DEFAULT_FORMAT_NAME,
    layout: Layout = LayoutName.auto,
    packing: Packing = True,
    trace: Trace = False,
    precision: Precision = PrecisionName.auto,
    engine: EngineOption = EngineName.onnxruntime,
    device: Devices = BOTH_DEVICES,
    save_bundle: SaveBundle = None,
    as_json: AsJson = False,
) -> None:
    """Print what would be built: graphs, tensors with their axes, ensemble steps. Needs no torch.

    Where the checkpoint is not at hand, widths that only it knows appear by name.
    """
    from sie_triton.compiler.build import plan_models
    from sie_triton.repository.processor import notes_here

    graphs = graph_options(graph_format, layout, packing, precision, device, trace=trace, engine=engine)
    wanted = wanted_models(model, weights)
    options = build_options(DEFAULT_REPOSITORY, wanted, graphs)
    targets = find_targets(wanted, bundles, options, allow_hub=False, save=save_bundle)
    quiet = replace(options, announce=lambda _: None)
    plans = [made for target in targets for made in plan_models(target, quiet)]
    for note in notes_here(plans):
        say(f"built on this machine: {note}")
    if as_json:
        out.print_json(json.dumps([plan_json(made) for made in plans]))
        return
    for made in plans:
        print_plan(made)


def build(
    model: Models,
    bundles: Bundles = None,
    weights: Weights = [],  # noqa: B006 - typer copies the default
    repository: Repository = DEFAULT_REPOSITORY,
    graph_format: Format = DEFAULT_FORMAT_NAME,
    layout: Layout = LayoutName.auto,
    packing: Packing = True,
    trace: Trace = False,
    precision: Precision = PrecisionName.auto,
    accept: Accept = [],  # noqa: B006 - typer copies the default
    engine: EngineOption = EngineName.onnxruntime,
    device: Devices = BOTH_DEVICES,
    cores: Cores = None,
    force: Annotated[bool, typer.Option("--force", help="Build even if nothing changed.")] = False,
    save_bundle: SaveBundle = None,
    carried: Carried = True,
    save_references: SaveReferences = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Compile bundles into a verified Triton model repository.

    A model that no bundle names gets one out of its checkpoint's files, which is printed. Nothing is published unless
    every output matches the reference; an unchanged model is not built again.
    """
    graphs = graph_options(graph_format, layout, packing, precision, device, trace=trace, accept=accept, engine=engine)
    wanted = wanted_models(model, weights)
    options = build_options(repository, wanted, graphs)
    options = replace(options, force=force, trust_remote_code=trust_remote_code, carried=carried)
    options = replace(options, cores=cores or options.cores)
    built = run_build(wanted, bundles, options, save_bundle=save_bundle)
    if save_references is not None:
        _save_references(built, repository, save_references)


def verify(repository: Repository = DEFAULT_REPOSITORY) -> None:
    """Check a built repository again: digests, structure, Triton's rules, parity.

    Needs no network, and torch only for TorchScript graphs.
    """
    from sie_triton.verify.checks import verify_repository

    manifest = built_manifest(repository)
    problems = verify_repository(repository, manifest)
    if problems:
        raise DiagnosticError(problems)
    for name, built in manifest.built.items():
        for line in parity_lines(built.parity):
            out.print(f"{name} {line}", markup=False)
        for line in answer_lines(built):
            out.print(f"{name} {line}", markup=False)
        print_certificate(name, built.certificate)
    count = len(manifest.triton_models)
    err.print(f"[green]verified[/] {escape(str(repository))}: {count} Triton models, all files intact")


def run_build(
    wanted: Wanted, bundles: Path | None, options: BuildOptions, *, save_bundle: Path | None = None
) -> list[BuiltModel]:
    """Build the models, and print on stderr what was built, what was unchanged and what cannot be built."""
    from sie_triton.checkpoint import asked_once, rich_progress
    from sie_triton.compiler.build import compile_models

    with asked_once(), rich_progress() if err.is_terminal else nullcontext() as progress:
        options = replace(options, progress=progress)
        targets = find_targets(wanted, bundles, options, allow_hub=True, save=save_bundle)
        for target in targets:
            for profile, refusal in target.refused:
                say(f"not built: `{profile.model_id}`: {refusal.reason}")
        built = compile_models(targets, options)
    _print_built(built)
    return built


def _save_references(built: Iterable[BuiltModel], repository: Path, folder: Path) -> None:
    """Copy what models were compared with to `folder`. Raises `DiagnosticError` (`SIE115`)."""
    from sie_frontend.reference import REFERENCE_NAME

    from sie_triton.verify.carried import carried_name

    for name, plain in {result.triton_model: result.plain_name for result in built}.items():
        path = folder / carried_name(plain)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repository / name / "1" / REFERENCE_NAME, path)
        except OSError as error:
            message = f"the reference cannot be written: {error.strerror or error}"
            raise DiagnosticError([Diagnostic("SIE115", message, Where(path), "name another folder")]) from error
        say(f"{name}: what it was compared with is written to {path}; put it beside the bundle")


def _print_built(built: Iterable[BuiltModel]) -> None:
    results = list(built)
    often = Counter(result.model_ids for result in results)
    for result in results:
        ids = ", ".join(result.model_ids)
        # An id with several inputs is a Triton model for each of them.
        if often[result.model_ids] > 1:
            ids += f" (`{result.triton_model}`)"
        if result.skipped:
            err.print(f"[green]unchanged[/] {ids}")
            continue
        devices = ", ".join(f"{device} in {precision}" for device, precision in result.precisions.items())
        err.print(f"[green]built[/] {ids} from {escape(result.source)}, for {devices}")
        for line in parity_lines(result.parity):
            say(f"  {line}")


def graph_options(
    graph_format: FormatName,
    layout: LayoutName,
    packing: bool,
    precision: PrecisionName,
    devices: Sequence[DeviceName],
    *,
    trace: bool = False,
    accept: Sequence[str] = (),
    engine: EngineName = EngineName.onnxruntime,
) -> GraphOptions:
    """The options of the graphs, in the compiler's terms; raises `DiagnosticError` (`SIE220`) for `accept`."""
    from sie_triton.planning.plan import GraphOptions

    return GraphOptions(
        format=graph_format.value,
        layout=None if layout is LayoutName.auto else layout.value,
        precision=None if precision is PrecisionName.auto else precision.value,
        devices=tuple(dict.fromkeys(device.value for device in devices)),
        packing=packing,
        traced=trace,
        accepted=accepted(accept),
        engine=engine.value,
    )


def accepted(written: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """`NAME=NUMBER` of each `--accept`, sorted. Raises `DiagnosticError` (`SIE220`)."""
    found: dict[str, float] = {}
    for text in written:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name not in ACCEPTABLE or not 0 <= value <= 1:
            hint = f"name one of {', '.join(ACCEPTABLE)} and a number from 0 to 1, as in `--accept cosine=0.995`"
            raise DiagnosticError([Diagnostic("SIE220", f"`--accept {text}` accepts nothing that is known", hint=hint)])
        found[name] = value
    return tuple(sorted(found.items()))


def build_options(repository: Path, wanted: Wanted, graphs: GraphOptions) -> BuildOptions:
    """The options of a build, with the checkpoint folders by model id."""
    from sie_triton.compiler.options import BuildOptions

    return BuildOptions(
        repository=repository,
        weights=wanted.weights,
        default_weights=wanted.default_weights,
        graphs=graphs,
        announce=say,
    )

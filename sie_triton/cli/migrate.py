"""`migrate`: what of a code base can move to sie-triton, and whether a stored index can stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sie_triton.cli.app import ExitCode
from sie_triton.cli.options import AsJson, Bundles
from sie_triton.cli.printing import out, say
from sie_triton.cli.targets import read_bundles

if TYPE_CHECKING:
    from sie_triton.migrate.check.report import IndexReport
    from sie_triton.migrate.check.server import EncodingServer
    from sie_triton.migrate.scan import Scan
    from sie_triton.migrate.stores import VectorStore

app = typer.Typer(
    name="migrate",
    no_args_is_help=True,
    help="Say what of a code base can move here, and whether a stored index can stay.",
)


class MetricName(str, Enum):
    """How an index compares vectors, where the store does not say."""

    cosine = "cosine"
    dot = "dot"
    euclid = "euclid"


def scan(
    path: Annotated[Path, typer.Argument(help="A folder of programs and notebooks, or one file.")],
    bundles: Bundles = None,
    as_json: AsJson = False,
) -> None:
    """Find the calls of other embedders in Python programs and notebooks, and say of each model whether it can move.

    Fastembed, sentence-transformers, TEI, infinity and OpenAI are known, with their wrappers in LangChain, LlamaIndex
    and others. Nothing is executed. Exits 1 if something cannot move, or cannot be told.
    """
    from sie_triton.diagnostics import Diagnostic, DiagnosticError
    from sie_triton.migrate.scan import scan as scan_programs

    if not path.exists():
        raise DiagnosticError([Diagnostic("SIE901", f"`{path}` does not exist", None, "name a folder or a file")])
    found, mistakes = read_bundles(bundles)
    if not found:
        raise DiagnosticError(mistakes)
    scanned = scan_programs(path, found)
    if as_json:
        out.print_json(json.dumps(_scan_json(scanned)))
    else:
        _print_scan(scanned)
    if not scanned.all_can_move:
        raise typer.Exit(ExitCode.FAILED)


def check(
    model: Annotated[str, typer.Option("--model", "-m", help="Model id, as the server has it.")],
    url: Annotated[str, typer.Option(help="The running server.")] = "http://localhost:8080",
    qdrant: Annotated[
        str | None, typer.Option(help="URL of a Qdrant server; `QDRANT_API_KEY` is sent.", show_default=False)
    ] = None,
    qdrant_path: Annotated[
        Path | None,
        typer.Option(
            help="A folder of qdrant-client's local mode: prints the program that exports it.", show_default=False
        ),
    ] = None,
    pgvector: Annotated[
        str | None, typer.Option(help="PostgreSQL with pgvector, as `postgresql://…`.", show_default=False)
    ] = None,
    chroma: Annotated[str | None, typer.Option(help="Folder or URL of Chroma.", show_default=False)] = None,
    lancedb: Annotated[str | None, typer.Option(help="Folder or URI of LanceDB.", show_default=False)] = None,
    file: Annotated[
        Path | None, typer.Option(help="JSONL with a text and a vector on each line, or `.npz`.", show_default=False)
    ] = None,
    collection: Annotated[str | None, typer.Option(help="Collection of Qdrant or Chroma.", show_default=False)] = None,
    table: Annotated[str | None, typer.Option(help="Table of PostgreSQL or LanceDB.", show_default=False)] = None,
    vector: Annotated[
        str | None,
        typer.Option(
            "--vector",
            "--vector-column",
            help="Name, column or field of the vectors. Default: the only one, or one of a usual name.",
            show_default=False,
        ),
    ] = None,
    text_field: Annotated[
        str | None,
        typer.Option(
            "--text-field",
            "--text-column",
            help="Field or column of the texts; dots lead into maps. Default: one of a usual name.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        MetricName | None, typer.Option(help="How the index compares. Default: what the store says.")
    ] = None,
    options: Annotated[
        str,
        typer.Option(help='Options that clients will send, as JSON: `{"is_query": true}`.', show_default=False),
    ] = "{}",
    sample: Annotated[int, typer.Option(help="Entries to compare.", min=1, max=10_000)] = 200,
    seed: Annotated[int, typer.Option(help="Which entries; the same for the same number.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Embed a sample of a stored index again with a running server, and say whether the index can stay.

    Says what differs, and why where that can be told. Writes nothing to the store. Exits 0 if the index can stay, and 1
    if it must be embedded again, all of it or in part, or if clients must do something else than they would.
    """
    from sie_triton.migrate.check.run import check as run_check
    from sie_triton.migrate.check.server import EncodingServer
    from sie_triton.migrate.stores.qdrant_local import refuse_local_mode

    sources = {
        "--qdrant": qdrant,
        "--qdrant-path": qdrant_path,
        "--pgvector": pgvector,
        "--chroma": chroma,
        "--lancedb": lancedb,
        "--file": file,
    }
    given = {option: value for option, value in sources.items() if value is not None}
    if len(given) != 1:
        raise typer.BadParameter(f"name one store, by one of {', '.join(sources)}", param_hint="STORE")
    ((source, place),) = given.items()
    if qdrant_path is not None:
        raise refuse_local_mode(qdrant_path, collection, model=model, url=url, vector=vector)
    name, asked = _needed(source, collection, table), _options(options)
    chosen = {"vector": vector, "text_field": text_field}
    server = EncodingServer(url, model, asked)
    store = _OPENERS[source](place, name, server, chosen, metric.value if metric else None)
    report = run_check(store, server, sample=sample, seed=seed)
    if as_json:
        out.print_json(json.dumps(report.to_json()))
    else:
        _print_report(report)
    if report.verdict != "stay":
        raise typer.Exit(ExitCode.FAILED)


def _options(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"no JSON: {error}", param_hint="--options") from None
    if not isinstance(parsed, dict):
        raise typer.BadParameter("write an object, such as `{}`", param_hint="--options")
    return parsed


def _needed(source: str, collection: str | None, table: str | None) -> str:
    """The collection or table that a store is read from; "" for a file."""
    option = {"--qdrant": "--collection", "--chroma": "--collection", "--pgvector": "--table", "--lancedb": "--table"}
    name = {"--collection": collection, "--table": table}.get(option.get(source, ""), "")
    if name is None:
        raise typer.BadParameter(f"`{source}` needs it", param_hint=option[source])
    return name


def _open_qdrant(
    place: Any, name: str, server: EncodingServer, chosen: dict[str, Any], metric: str | None
) -> VectorStore:
    from sie_triton.migrate.stores.qdrant import QdrantStore

    return QdrantStore(place, name, model=server.model, dims=server.dims, **chosen)


def _open_pgvector(place: Any, name: str, server: EncodingServer, chosen: dict[str, Any], metric: Any) -> VectorStore:
    from sie_triton.migrate.stores.pgvector import PgvectorStore

    return PgvectorStore(place, name, metric=metric or "unknown", **chosen)


def _open_chroma(place: Any, name: str, server: EncodingServer, chosen: dict[str, Any], metric: Any) -> VectorStore:
    from sie_triton.migrate.stores.chroma import ChromaStore

    return ChromaStore(place, name, metric=metric or "unknown")


def _open_lance(place: Any, name: str, server: EncodingServer, chosen: dict[str, Any], metric: Any) -> VectorStore:
    from sie_triton.migrate.stores.lance import LanceStore

    return LanceStore(place, name, metric=metric or "unknown", **chosen)


def _open_file(place: Any, name: str, server: EncodingServer, chosen: dict[str, Any], metric: Any) -> VectorStore:
    from sie_triton.migrate.stores.files import JsonLines, NumpyFile

    kind = NumpyFile if place.suffix == ".npz" else JsonLines
    return kind(place, metric=metric or "unknown", **chosen)


_OPENERS: dict[str, Callable[[Any, str, Any, dict[str, Any], Any], VectorStore]] = {
    "--qdrant": _open_qdrant,
    "--pgvector": _open_pgvector,
    "--chroma": _open_chroma,
    "--lancedb": _open_lance,
    "--file": _open_file,
}


def _scan_json(scanned: Scan) -> dict[str, Any]:
    return {
        "all_can_move": scanned.all_can_move,
        "files": scanned.files,
        "calls": [
            {**asdict(move.call), **{k: v for k, v in asdict(move).items() if k != "call"}} for move in scanned.moves
        ],
        "not_read": [{"path": str(entry.path), "reason": entry.reason} for entry in scanned.unread],
    }


def _print_scan(scanned: Scan) -> None:
    from sie_triton.migrate.scan.moves import grouped

    for move, places in grouped(scanned.moves):
        model = move.call.model or "(cannot be told)"
        out.print(f"{move.status:8}  {model}  ({move.call.library}, {move.call.task})", markup=False)
        reason = [move.reason] if move.reason else []
        serves = [f"served as `{move.serves}`"] if move.serves and move.serves != move.call.model else []
        for line in (
            f"at {', '.join(places)}",
            *reason,
            *serves,
            *move.differences,
            *(f"note: {n}" for n in move.notes),
        ):
            out.print(f"          {line}", markup=False)
        if move.change:
            out.print(f"          change: {move.change}", markup=False)
    for entry in scanned.unread:
        out.print(f"not read  {entry.path}: {entry.reason}", markup=False)
    moving = sum(move.serves is not None for move in scanned.moves)
    said = (
        f"{len(scanned.moves)} calls in {scanned.files} files: {moving} can move, {len(scanned.moves) - moving} cannot"
    )
    say(said + (f"; {len(scanned.unread)} files were not read" if scanned.unread else ""))


_VERDICTS = {
    "stay": "the index can stay",
    "stay_with_changes": "the index can stay if its clients do as said above",
    "partly": "a part must be embedded again",
    "embed_again": "everything must be embedded again",
}


def _print_report(report: IndexReport) -> None:
    numbers = ", ".join(f"{name} {value:.6f}" for name, value in report.cosine.items())
    out.print(f"{report.store}: {report.sampled} entries, {report.same} of them the same", markup=False)
    out.print(f"cosine to {report.model}: {numbers}", markup=False)
    for note in report.notes:
        out.print(f"note: {note}", markup=False)
    for cause in report.causes:
        out.print(f"{'cause' if cause.certain else 'likely'}: {cause.message}", markup=False)
        out.print(f"       {cause.share:.0%} of the sample; {cause.cure}", markup=False)
    for worst in report.worst:
        out.print(f"worst: {worst.cosine:.6f}  {worst.key}  {worst.text[:80]!r}", markup=False)
    out.print(_VERDICTS[report.verdict], markup=False)
    options = {key: value for cause in report.causes for key, value in cause.options.items()}
    if options and report.verdict == "stay_with_changes":
        out.print(f"options: {json.dumps(options)}", markup=False)


COMMANDS: tuple[Callable[..., None], ...] = (scan, check)
for _command in COMMANDS:
    app.command()(_command)

"""Decides whether a repository may be published or served: digests, structure, Triton's rules, numeric parity.

The reference outputs are stored in the repository, so that it can be checked again without torch, hub or network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from sie_frontend.errors import WireError
from sie_frontend.manifest import (
    MANIFEST_NAME,
    Built,
    CausalHead,
    CrossEncoderHead,
    Distance,
    Manifest,
    Model,
    MultiVectorHead,
)
from sie_frontend.rows import RowMaker
from sie_frontend.tokenization import Row, make_batch

from sie_triton.compare import max_abs, min_cosine
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.formats import Precision
from sie_triton.lint import lint_repository
from sie_triton.model_runner import ModelRunner, read_model_config
from sie_triton.reference_texts import QUERIES, added_token_texts, reference_pairs, reference_texts
from sie_triton.repository import MANIFEST_DIGEST_NAME, file_digest, manifest_digest_line

Array = np.ndarray[Any, np.dtype[Any]]

REFERENCE_NAME = "reference.npz"
BATCH_ROWS = 8


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest accepted distances: cosine, absolute (for scores and token weights), alone against batched."""

    min_cosine: float
    max_abs: float
    batch_max_abs: float


# Reduced precision keeps the promise that nobody has to re-embed: a cosine of 0.999. What it rounds depends on the
# shape of a batch, since that decides the order of sums.
TOLERANCES: Mapping[Precision, Tolerance] = {
    "float32": Tolerance(min_cosine=0.99999, max_abs=1e-4, batch_max_abs=1e-5),
    "float16": Tolerance(min_cosine=0.999, max_abs=2e-2, batch_max_abs=1e-2),
    "bfloat16": Tolerance(min_cosine=0.999, max_abs=1e-1, batch_max_abs=5e-2),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to compare on: a document, a query, or a query with a document."""

    document: str | None
    query: str | None = None


@dataclass(frozen=True, slots=True)
class StoredReference:
    """What `reference.npz` holds: cases, their token ids, and one array per case and output tensor."""

    origin: str
    cases: tuple[Case, ...]
    token_ids: tuple[Array, ...]
    outputs: dict[str, tuple[Array, ...]]


def write_reference(path: Path, reference: StoredReference) -> None:
    """Store a reference as plain arrays: ragged ones flattened beside their shapes. No pickling."""
    header = {"origin": reference.origin, "cases": [[case.document, case.query] for case in reference.cases]}
    arrays: dict[str, Array] = {
        "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
        "ids": np.concatenate(reference.token_ids),
        "lengths": np.asarray([len(ids) for ids in reference.token_ids]),
    }
    for name, rows in reference.outputs.items():
        arrays[f"out:{name}"] = np.concatenate([row.ravel() for row in rows])
        arrays[f"shape:{name}"] = np.asarray([row.shape for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read_reference(path: Path) -> StoredReference:
    """The inverse of `write_reference`."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    outputs = {}
    for key, flat in arrays.items():
        if key.startswith("out:"):
            shapes = arrays["shape:" + key[4:]]
            pieces = np.split(flat, np.cumsum(np.prod(shapes, axis=1))[:-1])
            outputs[key[4:]] = tuple(p.reshape(s) for p, s in zip(pieces, shapes, strict=True))
    ids = np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1])
    return StoredReference(header["origin"], tuple(Case(*case) for case in header["cases"]), tuple(ids), outputs)


def make_cases(maker: RowMaker, specials: int, added_tokens: Sequence[str]) -> tuple[Case, ...]:
    """What a model is compared on: pairs for rerankers, documents and, where they are read differently, queries.

    `added_tokens` are the checkpoint's own, as transformers reads them.
    Cases that the model refuses (a pair too long for a reranker that never truncates) are left out.
    """
    own = added_token_texts(added_tokens)
    return tuple(case for case in _all_cases(maker.model, specials, own) if _accepted(maker, case))


def _accepted(maker: RowMaker, case: Case) -> bool:
    try:
        case_rows(maker, [case])
    except WireError:
        return False
    return True


def _all_cases(model: Model, specials: int, own: Sequence[str]) -> tuple[Case, ...]:
    spec = model.tokenization
    texts = (*reference_texts(specials, spec.max_length, spec.buckets), *own)
    if isinstance(model.heads.get("score"), CrossEncoderHead | CausalHead):
        return tuple(Case(document, query) for query, document in reference_pairs(texts))
    return (*(Case(text) for text in texts), *(Case(None, query) for query in QUERIES if _reads_sides(model)))


def _reads_sides(model: Model) -> bool:
    """Whether queries are read differently from documents."""
    head = model.heads.get("multivector")
    if isinstance(head, MultiVectorHead) and head.query is not None:
        return True
    prompting, options = model.prompting, model.profiles["default"]
    named = (options.get(key) for key in ("query_template", "doc_template", "default_instruction"))
    return bool(prompting.query_template or prompting.doc_template or prompting.prompts or any(named))


def case_rows(maker: RowMaker, cases: Sequence[Case]) -> list[Row]:
    """The token rows of each case, as the frontend makes them."""
    options = maker.model.profiles["default"]
    rows = []
    for case in cases:
        if case.document is not None and case.query is not None:
            rows += maker.pair_rows(case.query, [case.document], {}, None)
        elif case.document is not None:
            rows += maker.text_rows([case.document], options, None, is_query=False)
        else:
            rows += maker.text_rows([case.query or ""], options, None, is_query=True)
    return rows


def verify_repository(repository: Path, manifest: Manifest) -> list[Diagnostic]:
    """Every check, cheap ones first; parity only if all files are what the manifest says."""
    problems = [*check_files(repository, manifest), *check_structure(repository, manifest)]
    if problems:
        return problems
    for name, built in manifest.built.items():
        for precision, config_name in configs_by_precision(built).items():
            try:
                measured = measure(repository, served_by(manifest, name), config_name)
            except DiagnosticError as error:
                problems += error.diagnostics
                continue
            problems += check_parity(repository, name, measured, precision)
            for tensor, distance in measured.items():
                recorded = built.parity.get(precision, {}).get(tensor)
                if recorded is None or recorded.cases != distance.cases:
                    problems.append(
                        Diagnostic(
                            "SIE505",
                            f"the manifest records no parity for `{tensor}` of `{name}` in {precision}",
                            Where(repository),
                        )
                    )
    return problems


def configs_by_precision(built: Built) -> dict[Precision, str]:
    """Each precision that a public model computes in, with the name of a configuration that does."""
    found: dict[Any, str] = {}
    for device, precision in built.precisions.items():
        found.setdefault(precision, built.configs[device])
    return found


def served_by(manifest: Manifest, triton_model: str) -> Model:
    """Any of the models that a public Triton model serves: they share its tokenizer and graphs."""
    return next(model for model in manifest.models.values() if model.triton_model == triton_model)


def check_files(repository: Path, manifest: Manifest) -> Iterator[Diagnostic]:
    """Digest by digest, the manifest's own first, and nothing more than the manifest names."""
    yield from _check_manifest_digest(repository)
    expected = {
        f"{name}/{file}": digest
        for name, model in manifest.triton_models.items()
        for file, digest in model.files.items()
    }
    for relative, digest in sorted(expected.items()):
        path = repository / relative
        if not path.is_file():
            yield _damaged("SIE510", f"`{relative}` is missing", path)
        elif file_digest(path) != digest:
            yield _damaged("SIE511", f"`{relative}` is not what was built: its digest differs", path)
    present = {p.relative_to(repository).as_posix() for p in repository.rglob("*") if p.is_file() or p.is_symlink()}
    for relative in sorted(present - set(expected) - {MANIFEST_NAME, MANIFEST_DIGEST_NAME}):
        text = f"`{relative}` is not named in the manifest"
        yield Diagnostic("SIE512", text, Where(repository / relative), "remove it")


def _check_manifest_digest(repository: Path) -> Iterator[Diagnostic]:
    """The manifest names every file's digest but its own, which lies beside it."""
    path = repository / MANIFEST_DIGEST_NAME
    if not path.is_file():
        yield _damaged("SIE510", f"`{MANIFEST_DIGEST_NAME}` is missing", path)
    elif path.read_bytes() != manifest_digest_line((repository / MANIFEST_NAME).read_bytes()):
        text = f"`{MANIFEST_NAME}` is not what was built: `{MANIFEST_DIGEST_NAME}` holds another digest"
        yield _damaged("SIE511", text, repository / MANIFEST_NAME)


def _damaged(code: str, message: str, path: Path) -> Diagnostic:
    return Diagnostic(code, message, Where(path), "rebuild with `sie-triton build --force -m ID`")


def check_structure(repository: Path, manifest: Manifest) -> Iterator[Diagnostic]:
    """Every configuration states what the manifest says, and breaks none of Triton's rules that the linter knows."""
    for name, model in manifest.triton_models.items():
        directory = repository / name
        for path in (*directory.glob("config.pbtxt"), *directory.glob("configs/*.pbtxt")):
            try:
                config = read_model_config(path)
            except text_format.ParseError as error:
                yield Diagnostic("SIE520", f"Triton's schema refuses the configuration: {error}", Where(path))
                continue
            for field, specs in (("input", model.inputs), ("output", model.outputs)):
                written = [(t.name, tuple(t.dims)) for t in getattr(config, field)]
                if written != [(t.name, t.dims) for t in specs]:
                    yield _damaged("SIE521", f"the {field}s of `{name}` are not those of the manifest", path)
    for finding in lint_repository(repository):
        if finding.severity == "error":
            where = Where(finding.path, finding.line or 0)
            yield Diagnostic("SIE522", f"{finding.rule_id}: {finding.message}", where, finding.cure)


def measure(
    repository: Path, model: Model, config_name: str = "", runner: ModelRunner | None = None
) -> dict[str, Distance]:
    """Run a public model over its stored reference: each case alone in its bucket, then in mixed batches.

    `config_name` chooses the graphs, as `--model-config-name` does; they run on this machine's CPU in any case.
    `runner` has opened the model in another way; it sees the cases alone, in their order, before it sees batches.
    Returns one `Distance` per output. Raises `DiagnosticError` if the repository's tokenizer does not make the
    reference's token ids: then nothing can be compared.
    """
    reference = read_reference(repository / model.triton_model / "1" / REFERENCE_NAME)
    rows = case_rows(RowMaker(model, repository), reference.cases)
    if not all(np.array_equal(row.ids, ids) for row, ids in zip(rows, reference.token_ids, strict=True)):
        where = Where(repository / model.tokenization.path)
        raise DiagnosticError([tokenizes_differently(model.triton_model, reference.origin, where)])
    runner = runner or ModelRunner(repository, model.triton_model, config_name)
    names = list(reference.outputs)
    alone = [_run(runner, model, [row], names)[0] for row in rows]
    order = _mixed_order(len(rows))
    batched: list[dict[str, Array]] = [{} for _ in rows]
    for start in range(0, len(rows), BATCH_ROWS):
        chunk = order[start : start + BATCH_ROWS]
        for index, outputs in zip(chunk, _run(runner, model, [rows[i] for i in chunk], names), strict=True):
            batched[index] = outputs
    expected = [{name: reference.outputs[name][i] for name in names} for i in range(len(rows))]
    distances = {}
    for name in _comparable(names):
        ours, theirs, together = (
            [_canonical(outputs, name, row) for outputs, row in zip(side, rows, strict=True)]
            for side in (alone, expected, batched)
        )
        ours, together = _equally_wide(ours, theirs), _equally_wide(together, theirs)
        scale = max(1.0, *(float(np.max(np.abs(array), initial=0.0)) for array in theirs))
        distances[name] = Distance(
            reference=reference.origin,
            cases=len(rows),
            min_cosine=None if name in SCALARS else min_cosine(ours, theirs),
            max_abs=max_abs(ours, theirs),
            batch_max_abs=max_abs(ours, together) / scale,
            largest=scale,
        )
    return distances


# Outputs that are numbers and not directions: judged by their absolute difference alone.
SCALARS = frozenset({"score", "token_weights"})


def _comparable(names: Sequence[str]) -> list[str]:
    """What is compared: the two tensors of a sparse vector are one thing."""
    return list(dict.fromkeys("sparse" if n.startswith("sparse_") else n for n in names))


def _canonical(outputs: Mapping[str, Array], name: str, row: Row) -> Array:
    """One case's output without padding; a sparse vector spread over the vocabulary."""
    if name == "sparse":
        # Behind a row's own weights are zeros, whose ids are whatever the runtime chose.
        positive = outputs["sparse_weights"] > 0
        ids = outputs["sparse_ids"][positive]
        spread = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.float32)
        spread[ids] = outputs["sparse_weights"][positive]
        return spread
    array = outputs[name]
    return array[: len(row)] if name in ("multivector", "token_weights") else array


def _equally_wide(ours: list[Array], theirs: list[Array]) -> list[Array]:
    """Spread sparse vectors end at their largest id: lengthen both sides of a pair to the same."""
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.ndim == b.ndim == 1 and a.shape != b.shape:
            width = max(a.size, b.size)
            ours[index] = np.pad(a, (0, width - a.size))
            theirs[index] = np.pad(b, (0, width - b.size))
    return ours


def _mixed_order(count: int) -> list[int]:
    """Short texts next to long ones: the worst case for padding."""
    half = (count + 1) // 2
    return [i for pair in zip(range(half), reversed(range(half, count)), strict=False) for i in pair] + (
        [half - 1] if count % 2 else []
    )


def _run(runner: ModelRunner, model: Model, rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, Array]]:
    arrays = runner.run(make_batch(rows, model.tokenization, model.tokenization.buckets).arrays, names)
    return [{name: array[index] for name, array in arrays.items()} for index in range(len(rows))]


def check_parity(
    repository: Path, name: str, measured: Mapping[str, Distance], precision: Precision = "float32"
) -> Iterator[Diagnostic]:
    """The comparisons are written so that NaN fails."""
    where, tolerance = Where(repository / name), TOLERANCES[precision]
    hint = "nothing was published; report the checkpoint, or try another version of torch or transformers"
    for tensor, distance in measured.items():
        if distance.max_abs == float("inf"):
            yield Diagnostic(
                "SIE501",
                f"`{tensor}` of `{name}` in {precision} has another shape than the reference, or an infinite number",
                where,
                hint,
            )
            continue
        if distance.min_cosine is not None and not distance.min_cosine >= tolerance.min_cosine:
            yield Diagnostic(
                "SIE501",
                f"`{tensor}` of `{name}` in {precision} misses the reference: worst cosine {distance.min_cosine:.7f} "
                f"over {distance.cases} texts, {tolerance.min_cosine} is required; worst difference "
                f"{distance.max_abs:.2e}",
                where,
                hint,
            )
        # In float32 numbers must agree one by one, so that a vector that is not normalised has the right length too;
        # with less, the direction of a vector is the promise.
        absolute = tensor in SCALARS or precision == "float32"
        allowed = tolerance.max_abs * (1.0 if tensor in SCALARS or tensor == "sparse" else distance.largest)
        if absolute and not distance.max_abs <= allowed:
            yield Diagnostic(
                "SIE501",
                f"`{tensor}` of `{name}` in {precision} misses the reference by {distance.max_abs:.2e} over "
                f"{distance.cases} texts, {allowed:.0e} is allowed",
                where,
                hint,
            )
        if not distance.batch_max_abs <= tolerance.batch_max_abs:
            yield Diagnostic(
                "SIE503",
                f"`{tensor}` of `{name}` in {precision} depends on its batch: alone and batched differ by "
                f"{distance.batch_max_abs:.2e}, {tolerance.batch_max_abs:.0e} is allowed",
                where,
                "nothing was published; report the checkpoint",
            )


def tokenizes_differently(name: str, reference: str, where: Where) -> Diagnostic:
    """The repository's tokenizer does not make the token ids of the reference that lies beside it."""
    return Diagnostic(
        "SIE502",
        f"`{name}` tokenises differently from when it was built and compared with {reference}",
        where,
        "rebuild with `sie-triton build --force`; if that does not help, another version of `tokenizers` reads the "
        "file differently",
    )

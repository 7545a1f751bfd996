"""Decides whether a repository may be published or served: digests, structure, Triton's rules, numeric parity.

The reference outputs are stored in the repository, so that it can be checked again without torch, hub or network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from sie_frontend.manifest import MANIFEST_NAME, Distance, Manifest, Model
from sie_frontend.tokenization import TextTokenizer, make_batch

from sie_triton.compare import max_abs, min_cosine
from sie_triton.diagnostics import Diagnostic, Where
from sie_triton.ensemble_runner import EnsembleRunner, read_model_config
from sie_triton.repository import file_digest

Array = np.ndarray[Any, np.dtype[Any]]

REFERENCE_NAME = "reference.npz"
BATCH_ROWS = 8


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest accepted distance: worst cosine to the reference, worst difference alone against batched."""

    min_cosine: float
    batch_max_abs: float


FLOAT32 = Tolerance(min_cosine=0.99999, batch_max_abs=1e-5)


@dataclass(frozen=True, slots=True)
class StoredReference:
    """What `reference.npz` holds: texts, their token ids and one array per text and output tensor."""

    origin: str
    texts: tuple[str, ...]
    token_ids: tuple[Array, ...]
    outputs: dict[str, tuple[Array, ...]]


def write_reference(path: Path, reference: StoredReference) -> None:
    """Store a reference as plain arrays: ragged ones flattened beside their lengths. No pickling."""
    arrays: dict[str, Array] = {
        "header": np.frombuffer(
            json.dumps({"origin": reference.origin, "texts": reference.texts}).encode(), dtype=np.uint8
        ),
        "ids": np.concatenate(reference.token_ids),
        "lengths": np.asarray([len(ids) for ids in reference.token_ids]),
    }
    for name, rows in reference.outputs.items():
        arrays[f"out:{name}"] = np.concatenate([row.ravel() for row in rows])
        arrays[f"shape:{name}"] = np.asarray([row.shape for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)  # type: ignore[arg-type]


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
    return StoredReference(header["origin"], tuple(header["texts"]), tuple(ids), outputs)


def verify_repository(repository: Path, manifest: Manifest) -> list[Diagnostic]:
    """Every check, cheap ones first; parity only if all files are what the manifest says."""
    problems = [*check_files(repository, manifest), *check_structure(repository, manifest)]
    if problems:
        return problems
    for name, built in manifest.built.items():
        measured = measure(repository, served_by(manifest, name))
        problems += check_parity(repository, name, measured)
        for tensor, distance in measured.items():
            recorded = built.parity.get(tensor)
            if recorded is None or recorded.cases != distance.cases:
                problems.append(
                    Diagnostic(
                        "SIE505", f"the manifest records no parity for `{tensor}` of `{name}`", Where(repository)
                    )
                )
    return problems


def served_by(manifest: Manifest, triton_model: str) -> Model:
    """Any of the models that a public Triton model serves: they share its tokenizer and graphs."""
    return next(model for model in manifest.models.values() if model.triton_model == triton_model)


def check_files(repository: Path, manifest: Manifest) -> Iterator[Diagnostic]:
    """Digest by digest, and nothing more than the manifest names."""
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
    for relative in sorted(present - set(expected) - {MANIFEST_NAME}):
        yield _damaged("SIE512", f"`{relative}` is not named in the manifest", repository / relative)


def _damaged(code: str, message: str, path: Path) -> Diagnostic:
    return Diagnostic(code, message, Where(path), "rebuild with `sie-triton build --force`")


def check_structure(repository: Path, manifest: Manifest) -> Iterator[Diagnostic]:
    """Every configuration is one that Triton's schema accepts, and states what the manifest says."""
    for name, model in manifest.triton_models.items():
        path = repository / name / "config.pbtxt"
        if not path.is_file():
            continue  # reported by check_files
        try:
            config = read_model_config(path.parent)
        except text_format.ParseError as error:
            yield Diagnostic("SIE520", f"Triton's schema refuses the configuration: {error}", Where(path))
            continue
        for field, specs in (("input", model.inputs), ("output", model.outputs)):
            written = [(t.name, tuple(t.dims)) for t in getattr(config, field)]
            if written != [(t.name, t.dims) for t in specs]:
                yield _damaged("SIE521", f"the {field}s of `{name}` are not those of the manifest", path)


def measure(repository: Path, model: Model) -> dict[str, Distance]:
    """Run a public model over its stored reference: each item alone in its bucket, then in mixed batches.

    Returns one `Distance` per output tensor. Token ids that differ from the reference's count as infinitely far.
    """
    reference = read_reference(repository / model.triton_model / "1" / REFERENCE_NAME)
    rows = TextTokenizer(model.tokenization, repository).encode(reference.texts)
    runner = EnsembleRunner(repository, model.triton_model)
    names = list(reference.outputs)
    alone: dict[str, list[Array]] = {name: [] for name in names}
    for row in rows:
        for name, array in _run(runner, model, [row], names).items():
            alone[name].append(array[0])
    batched: dict[str, list[Array]] = {name: [] for name in names}
    order = _mixed_order(len(rows))
    for start in range(0, len(rows), BATCH_ROWS):
        chunk = [rows[i] for i in order[start : start + BATCH_ROWS]]
        for name, array in _run(runner, model, chunk, names).items():
            batched[name].extend(array)
    same_tokens = all(np.array_equal(a, b) for a, b in zip(rows, reference.token_ids, strict=True))
    return {
        name: Distance(
            reference=reference.origin,
            cases=len(rows),
            min_cosine=min_cosine(alone[name], reference.outputs[name]) if same_tokens else float("-inf"),
            max_abs=max_abs(alone[name], reference.outputs[name]) if same_tokens else float("inf"),
            batch_max_abs=max_abs([alone[name][i] for i in order], batched[name]),
        )
        for name in names
    }


def _mixed_order(count: int) -> list[int]:
    """Short texts next to long ones: the worst case for padding."""
    half = (count + 1) // 2
    return [i for pair in zip(range(half), reversed(range(half, count)), strict=False) for i in pair] + (
        [half - 1] if count % 2 else []
    )


def _run(runner: EnsembleRunner, model: Model, rows: Sequence[Array], names: Sequence[str]) -> dict[str, Array]:
    batch = make_batch(rows, model.tokenization)
    return runner.run({"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}, names)


def check_parity(
    repository: Path, name: str, measured: dict[str, Distance], tolerance: Tolerance = FLOAT32
) -> Iterator[Diagnostic]:
    """The comparisons are written so that NaN fails."""
    where = Where(repository / name)
    for tensor, distance in measured.items():
        if distance.min_cosine == float("-inf"):
            yield Diagnostic(
                "SIE502",
                f"`{name}` tokenises differently from {distance.reference}",
                where,
                "the checkpoint's `tokenizer.json` does not agree with its other tokenizer files; report it",
            )
            return
        if not distance.min_cosine >= tolerance.min_cosine:
            yield Diagnostic(
                "SIE501",
                f"`{tensor}` of `{name}` misses the reference: worst cosine {distance.min_cosine:.7f} over "
                f"{distance.cases} texts, {tolerance.min_cosine} is required; worst difference {distance.max_abs:.2e}",
                where,
                "nothing was published; report the checkpoint, or try another version of torch or transformers",
            )
        # Unnormalised vectors have no natural scale: theirs is judged by what it does to the normalised ones.
        if not tensor.endswith("_unnormalized") and not distance.batch_max_abs <= tolerance.batch_max_abs:
            yield Diagnostic(
                "SIE503",
                f"`{tensor}` of `{name}` depends on its batch: alone and batched differ by "
                f"{distance.batch_max_abs:.2e}, {tolerance.batch_max_abs:.0e} is allowed",
                where,
                "nothing was published; report the checkpoint",
            )

"""The reference that a build is compared with: its cases, their token ids and outputs, stored as plain arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sie_frontend.contract.errors import WireError
from sie_frontend.manifest import (
    CausalHead,
    CrossEncoderHead,
    Model,
    MultiVectorHead,
)
from sie_frontend.text.rows import RowMaker
from sie_frontend.text.tokenization import Row

from sie_triton.verify.reference_texts import QUERIES, added_token_texts, reference_pairs, reference_texts

Array = np.ndarray[Any, np.dtype[Any]]

REFERENCE_NAME = "reference.npz"


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

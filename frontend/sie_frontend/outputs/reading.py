"""What stands between a call and its heads: its texts, and the answer out of its rows' tensors. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from sie_frontend.contract import errors
from sie_frontend.contract.options import ResolvedCall, ResolvedScore
from sie_frontend.contract.requests import Item
from sie_frontend.contract.responses import ItemOutputs, SparseVector
from sie_frontend.manifest import BgeM3Score, DenseHead, MaxSimScore, Model
from sie_frontend.outputs import scoring
from sie_frontend.outputs.heads import Heads, narrow, narrow_sparse
from sie_frontend.text.rows import RowMaker
from sie_frontend.text.tokenization import Row

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

# Adapters of SIE that load a LoRA when a call names one.
LORA_ADAPTERS = frozenset({"BGEM3Adapter", "BGEM3FlashAdapter", "PyTorchEmbeddingAdapter", "SGLangEmbeddingAdapter"})


def refuse_lora(model_id: str, model: Model, options: Mapping[str, Any]) -> None:
    """LoRA by option, or by a profile's: a graph has one set of weights. Final, so that no client tries again."""
    lora = options.get("lora_id")
    if lora is None or lora == "":
        return
    if model.adapter not in LORA_ADAPTERS:
        raise errors.invalid_input(f"Model '{model_id}' does not support LoRA")
    raise errors.invalid_input(
        f"Model '{model_id}' does not support LoRA here: it was built without {lora!r}, and a graph has one set of "
        "weights; merge the adapter into a checkpoint of its own and build that"
    )


def texts_of(items: Sequence[Item], message: str) -> list[str]:
    """Every item's text; raises `WireError` (400) with `message` where there is none."""
    texts = []
    for item in items:
        if item.text is None:
            raise errors.invalid_input(message)
        texts.append(item.text)
    return texts


def read_outputs(
    heads: Heads,
    rows: Sequence[Row],
    results: Sequence[tuple[Array, ...]],
    names: Sequence[str],
    texts: Sequence[str],
    call: ResolvedCall,
    *,
    from_table: bool,
) -> list[ItemOutputs]:
    """The wanted outputs of each row, in the output dtype of the call."""
    tensors = [dict(zip(names, arrays, strict=True)) for arrays in results]
    dense: Sequence[Array | None] = [None] * len(rows)
    sparse: Sequence[SparseVector | None] = [None] * len(rows)
    tokens: Sequence[Array | None] = [None] * len(rows)
    vectors = []
    if "multivector" in call.adapter_outputs:
        vectors = [
            heads.multivector(t, row, call.options, is_query=call.is_query)
            for t, row in zip(tensors, rows, strict=True)
        ]
    if "dense" in call.output_types:
        if call.muvera:
            full = [heads.as_fixed(vector, is_query=call.is_query) for vector in vectors]
        else:
            full = [heads.dense(t, call.options) for t in tensors]
            head = heads.model.heads["dense"]
            if isinstance(head, DenseHead) and head.blank_is_zero:
                full = [v if text.strip() else np.zeros_like(v) for v, text in zip(full, texts, strict=True)]
        dense = narrow(full, call)
    if "sparse" in call.output_types:
        if call.smve:
            found = [heads.as_sparse(vector, is_query=call.is_query) for vector in vectors]
        elif from_table:
            found = [heads.weigh_query(row) for row in rows]
        else:
            found = [heads.sparse(t, row) for t, row in zip(tensors, rows, strict=True)]
        sparse = [narrow_sparse(vector, call) for vector in found]
    if "multivector" in call.output_types:
        tokens = narrow(vectors, call)
    return [ItemOutputs(None, d, s, m) for d, s, m in zip(dense, sparse, tokens, strict=True)]


def score_parts(model: Model, call: ResolvedScore) -> tuple[str, ...]:
    """The heads whose tensors a score needs."""
    head = model.heads["score"]
    if isinstance(head, BgeM3Score):
        return scoring.bge_m3_outputs(call.options)
    return ("multivector",) if isinstance(head, MaxSimScore) else ("score",)


def late_rows(
    maker: RowMaker, query: str, documents: Sequence[str], options: Mapping[str, Any], instruction: str | None
) -> list[Row]:
    """The query's row and each document's. BGE-M3 reads the instruction with both, late interaction with the query."""
    for_documents = instruction if isinstance(maker.model.heads["score"], BgeM3Score) else None
    return [
        *maker.text_rows([query], options, instruction, is_query=True, places=("query",)),
        *maker.text_rows(documents, options, for_documents, is_query=False),
    ]


def late_scores(
    heads: Heads, rows: Sequence[Row], tensors: Sequence[dict[str, Array]], parts: Sequence[str], call: ResolvedScore
) -> Array:
    """Scores out of the query's outputs, which come first, and the documents'."""
    encoded = [
        scoring.Encoded(
            dense=heads.dense(t, call.options) if "dense" in parts else None,
            sparse=heads.sparse(t, row) if "sparse" in parts else None,
            multivector=(
                heads.multivector(t, row, call.options, is_query=index == 0) if "multivector" in parts else None
            ),
        )
        for index, (t, row) in enumerate(zip(tensors, rows, strict=True))
    ]
    query, documents = encoded[0], encoded[1:]
    if isinstance(heads.model.heads["score"], BgeM3Score):
        scores = scoring.bge_m3_scores(query, documents, call.options)
    else:
        assert query.multivector is not None
        scores = [
            scoring.maxsim(query.multivector, document.multivector)
            for document in documents
            if document.multivector is not None
        ]
    return np.asarray(scores, dtype=np.float32)

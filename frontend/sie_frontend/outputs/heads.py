"""Output tensors -> per-item outputs: what each head's numbers mean, and which tensors a call needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from sie_frontend.contract.errors import invalid_input
from sie_frontend.contract.options import ResolvedCall
from sie_frontend.contract.quantize import quantize_vectors, quantize_weights
from sie_frontend.contract.responses import SparseVector
from sie_frontend.manifest import (
    BgeM3Score,
    CausalHead,
    CrossEncoderHead,
    DenseHead,
    MaxSimScore,
    Model,
    MultiVectorHead,
    SparseHead,
    TextSide,
    TokenWeightsHead,
)
from sie_frontend.outputs import muvera, smve
from sie_frontend.text.rows import RowMaker
from sie_frontend.text.tokenization import Row

# What torch.nn.functional.normalize divides by at least.
NORMALIZE_EPS = np.float32(1e-12)

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Tensors: TypeAlias = "Mapping[str, Array]"


class Heads:
    """Reads the outputs of one model. `tensors` is always one row's named arrays, without the batch axis."""

    def __init__(self, model: Model, rows: RowMaker, repository: Path) -> None:
        self.model = model
        self._rows = rows
        self._repository = repository
        self._muvera = muvera.MuveraConfig.from_mapping(model.loadtime.get("muvera_config"))
        self._smve = smve.SmveConfig.from_mapping(model.loadtime.get("smve_config"))

    def tensors_for(self, output: str, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The Triton outputs that an output type needs. Raises `WireError` (400) if the model was built without it."""
        head = self.model.heads.get(output)  # type: ignore[call-overload]
        if isinstance(head, DenseHead):
            return (self._dense_tensor(head, options),)
        if isinstance(head, SparseHead):
            return (head.ids, head.weights)
        if isinstance(head, TokenWeightsHead | MultiVectorHead | CrossEncoderHead | CausalHead):
            return (head.tensor,)
        if isinstance(head, MaxSimScore):
            return self.tensors_for("multivector", options)
        if isinstance(head, BgeM3Score):
            return tuple(t for output in ("dense", "sparse", "multivector") for t in self.tensors_for(output, options))
        raise invalid_input(f"output type '{output}' of this model was not built")

    def _dense_tensor(self, head: DenseHead, options: Mapping[str, Any]) -> str:
        pooling = head.pooling
        if head.pooling_names:
            pooling = head.unsaid or pooling
            if "pooling" in options:  # null is said, and one of the other spellings
                pooling = head.pooling_names.get(str(options["pooling"]), head.pooling_names["*"])
        pooled = head.poolings[pooling]
        normalizes = _normalizes(head.normalize, options, honoured=head.honours_normalize)
        return pooled.normalized if normalizes else pooled.raw

    def dense(self, tensors: Tensors, options: Mapping[str, Any]) -> Array:
        """`[dim]` float32."""
        head = self.model.heads["dense"]
        assert isinstance(head, DenseHead)
        return tensors[self._dense_tensor(head, options)].astype(np.float32, copy=False)

    def sparse(self, tensors: Tensors, row: Row) -> SparseVector:
        """Token ids and their positive weights."""
        head = self.model.heads["sparse"]
        if isinstance(head, TokenWeightsHead):
            return self._token_weights(head, tensors[head.tensor], row)
        assert isinstance(head, SparseHead)
        ids, weights = tensors[head.ids], tensors[head.weights].astype(np.float32, copy=False)
        keep = weights > 0
        if head.drop_special:
            keep &= ~np.isin(ids, self._special_ids)
        ids, weights = ids[keep], weights[keep]
        order = np.argsort(ids)
        return SparseVector(ids[order].astype(np.int32), weights[order])

    def _token_weights(self, head: TokenWeightsHead, weights: Array, row: Row) -> SparseVector:
        """The maximum weight per id, in the order of first occurrence (BGE-M3)."""
        weights = weights[: len(row)].astype(np.float32, copy=False)
        keep = (weights > 0) & ~np.isin(row.ids, self._rows.special_ids(head.drop))
        ids, first, inverse = np.unique(row.ids[keep], return_index=True, return_inverse=True)
        best = np.zeros(len(ids), dtype=np.float32)
        np.maximum.at(best, inverse, weights[keep])
        order = np.argsort(first)
        return SparseVector(ids[order].astype(np.int32), best[order])

    @cached_property
    def _special_ids(self) -> Array:
        return np.asarray(self.model.tokenization.all_special_ids, dtype=np.int64)

    @cached_property
    def query_weights(self) -> Array | None:
        """The weight of every token id, for models whose queries need no inference; None for all others."""
        head = self.model.heads.get("sparse")
        if not isinstance(head, SparseHead) or head.query_weights is None:
            return None
        weights: Array = np.load(self._repository / head.query_weights, allow_pickle=False)
        if head.drop_special:
            weights[self._special_ids[self._special_ids < len(weights)]] = 0.0
        return weights

    def weigh_query(self, row: Row) -> SparseVector:
        """A query's sparse vector out of the weight table: unique ids, ascending, positive weights only.

        An id that the table lacks has no weight.
        """
        table = self.query_weights
        assert table is not None
        ids = np.unique(row.ids)
        ids = ids[ids < len(table)]
        weights = table[ids]
        keep = weights > 0
        return SparseVector(ids[keep].astype(np.int32), weights[keep].astype(np.float32))

    def multivector(self, tensors: Tensors, row: Row, options: Mapping[str, Any], *, is_query: bool) -> Array:
        """`[kept tokens, dim]` float32."""
        head = self.model.heads["multivector"]
        assert isinstance(head, MultiVectorHead)
        vectors = tensors[head.tensor][head.skip_first : len(row)].astype(np.float32, copy=False)
        if head.normalize and _normalizes(True, options, honoured=head.honours_normalize):
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), NORMALIZE_EPS)
        side = head.query if is_query else head.document
        return vectors[self._kept(row, side)[head.skip_first :]] if side is not None else vectors

    def _kept(self, row: Row, side: TextSide) -> Array:
        keep = ~np.isin(row.ids, self._rows.special_ids(side.drop))
        if side.drop_punctuation:
            keep &= ~np.isin(row.ids, self._rows.punctuation_ids)
        return keep

    def as_fixed(self, vectors: Array, *, is_query: bool) -> Array:
        """A multivector as one dense vector (MUVERA)."""
        return muvera.encode_tokens(vectors, self._muvera, is_query=is_query)

    def as_sparse(self, vectors: Array, *, is_query: bool) -> SparseVector:
        """A multivector as one sparse vector (SMVE)."""
        return SparseVector(*smve.encode_tokens(vectors, self._smve, is_query=is_query))


def _normalizes(default: bool, options: Mapping[str, Any], *, honoured: bool) -> bool:
    """Whether a call's vectors get length 1: what `options.normalize` says, where an adapter honours it."""
    asked = options.get("normalize") if honoured else None
    return default if asked is None else bool(asked)


def narrow(vectors: Sequence[Array], call: ResolvedCall) -> list[Array]:
    """Vectors in the output dtype of the call; those of one length together."""
    if len({vector.shape for vector in vectors}) == 1:
        return list(quantize_vectors(np.stack(vectors), call.output_dtype))
    return [quantize_vectors(vector, call.output_dtype) for vector in vectors]


def narrow_sparse(vector: SparseVector, call: ResolvedCall) -> SparseVector:
    """A sparse vector's weights in the output dtype of the call."""
    return SparseVector(vector.indices, quantize_weights(vector.values, call.output_dtype))

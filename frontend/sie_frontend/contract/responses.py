"""Success bodies and headers of `/v1/encode` and `/v1/score`, with the keys in the order that SIE emits them.

An encode body in msgpack is pieced together from cached headers and views of the arrays, so that its cost is
one copy of the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from sie_frontend.contract.errors import ErrorKind, WireError
from sie_frontend.contract.ndarray import pack_array
from sie_frontend.contract.negotiation import WireFormat

# The version of the contract spoken, which SDKs compare with their own; not this distribution's version.
CONTRACT_VERSION: Final = "0.10.1"

_LABELS: Final = {"float32": "float32", "float16": "float16", "int8": "int8", "uint8": "uint8"}


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Ascending int32 token numbers [nnz] and their weights [nnz], float32 or float16."""

    indices: NDArray[np.int32]
    values: NDArray[Any]


@dataclass(frozen=True, slots=True)
class ItemOutputs:
    """What one item was encoded to, already narrowed to the output dtype; null is "not asked for".

    `dense` is [d] and `multivector` [n, d], where d is ceil(dim / 8) for binary outputs.
    """

    id: str | None = None
    dense: NDArray[Any] | None = None
    sparse: SparseVector | None = None
    multivector: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds a request spent per stage; `postprocessing_ms` is null where there was nothing to do."""

    total_ms: float
    queue_ms: float
    tokenization_ms: float
    inference_ms: float
    postprocessing_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What was processed: token ids (specials included, after truncation), pictures, tokens without the template."""

    input_tokens: int
    images: int | None = None
    content_tokens: int | None = None

    def as_map(self) -> dict[str, Any]:
        """The body's `usage` map; unknown counts are left out."""
        usage: dict[str, Any] = {"input_tokens": self.input_tokens}
        if self.images is not None:
            usage["images"] = self.images
        if self.content_tokens is not None:
            usage["input_tokens_details"] = {"content_tokens": self.content_tokens}
        return usage


class ScoreEntry(msgspec.Struct, frozen=True, gc=False):
    """One line of a ranking; `rank` counts from 0."""

    item_id: str
    score: float
    rank: int


def encode_body(
    model_id: str,
    items: Sequence[ItemOutputs],
    *,
    declared_dims: Mapping[str, int],
    timing: Timing,
    usage: Usage | None,
    wire_format: WireFormat,
) -> bytes:
    """The body of a successful encode call.

    `model_id` is echoed as requested. `declared_dims` holds the bundle's dims by output type; an output it lacks
    (a vector made by MUVERA, say) is described by its array's length, or by null for sparse.
    """
    if wire_format is WireFormat.MSGPACK:
        return _encode_msgpack(model_id, items, declared_dims, timing, usage)
    body: dict[str, Any] = {
        "model": model_id,
        "items": [_item_json(item, declared_dims) for item in items],
        "timing": timing,
    }
    if usage is not None:
        body["usage"] = usage.as_map()
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def score_body(
    model_id: str,
    query_id: str | None,
    ranking: Sequence[ScoreEntry],
    *,
    usage: Usage | None,
    wire_format: WireFormat,
) -> bytes:
    """The body of a successful score call, best first; `query_id` is there even when it is null."""
    body: dict[str, Any] = {"model": model_id, "query_id": query_id, "scores": ranking}
    if usage is not None:
        body["usage"] = usage.as_map()
    return msgspec.msgpack.encode(body) if wire_format is WireFormat.MSGPACK else msgspec.json.encode(body)


def rank_scores(scores: NDArray[Any], item_ids: Sequence[str | None], model_id: str) -> list[ScoreEntry]:
    """Rank the candidates: highest first, equal scores in the order of the request.

    `scores` [n] are taken as float32. An item without an id is called `item-{index}`; empty and repeated ids stay
    as they are. Raises `WireError` (500) when a score is not finite.
    """
    values = np.asarray(scores, dtype=np.float32)
    if not np.isfinite(values).all():
        raise WireError(ErrorKind.INFERENCE_ERROR, f"Model '{model_id}' produced non-finite scores")
    order = np.argsort(-values, kind="stable").tolist()
    widened = values.tolist()
    return [ScoreEntry(_item_id(item_ids[index], index), widened[index], rank) for rank, index in enumerate(order)]


def success_headers(timing: Timing, *, wire_format: WireFormat, runtime_instance: str) -> dict[str, str]:
    """The headers of a successful encode or score call; times in milliseconds with two decimals.

    `runtime_instance` is 64 hexadecimal digits, the same for the life of the process.
    """
    headers = {
        "x-sie-server-version": CONTRACT_VERSION,
        "x-queue-time": f"{timing.queue_ms:.2f}",
        "x-tokenization-time": f"{timing.tokenization_ms:.2f}",
        "x-inference-time": f"{timing.inference_ms:.2f}",
        "x-total-time": f"{timing.total_ms:.2f}",
    }
    if timing.postprocessing_ms:
        headers["x-postprocessing-time"] = f"{timing.postprocessing_ms:.2f}"
    headers["x-sie-served-by"] = "local"
    headers["x-sie-runtime-instance"] = runtime_instance
    headers["content-type"] = wire_format.value
    return headers


def dtype_label(array: NDArray[Any], declared_dim: int | None) -> str:
    """The body's name of an array's dtype; packed bits are told from `uint8` only by a longer declared dim."""
    if array.dtype == np.uint8 and declared_dim is not None and array.shape[-1] < declared_dim:
        return "binary"
    return _LABELS.get(array.dtype.name, "float32")


def _item_id(item_id: str | None, index: int) -> str:
    return f"item-{index}" if item_id is None else item_id


def _encode_msgpack(
    model_id: str, items: Sequence[ItemOutputs], dims: Mapping[str, int], timing: Timing, usage: Usage | None
) -> bytes:
    pack = msgspec.msgpack.encode
    chunks: list[bytes | memoryview] = [
        b"\x83\xa5model" if usage is None else b"\x84\xa5model",
        pack(model_id),
        b"\xa5items",
        _array_length(len(items)),
    ]
    dense_dim, sparse_dim, token_dim = dims.get("dense"), dims.get("sparse"), dims.get("multivector")
    for item in items:
        dense, sparse, tokens = item.dense, item.sparse, item.multivector
        pairs = (item.id is not None) + (dense is not None) + (sparse is not None) + (tokens is not None)
        chunks.append(bytes((0x80 | pairs,)))
        if item.id is not None:
            chunks += b"\xa2id", pack(item.id)
        if dense is not None:
            chunks.append(_dense_head(_dims(dense, dense_dim), dtype_label(dense, dense_dim)))
            chunks += pack_array(dense)
        if sparse is not None:
            chunks.append(_sparse_head(sparse_dim, dtype_label(sparse.values, sparse_dim)))
            chunks += pack_array(sparse.indices)
            chunks.append(b"\xa6values")
            chunks += pack_array(sparse.values)
        if tokens is not None:
            label = dtype_label(tokens, token_dim)
            chunks.append(_multivector_head(_dims(tokens, token_dim), tokens.shape[0], label))
            chunks += pack_array(tokens)
    chunks += b"\xa6timing", pack(timing)
    if usage is not None:
        chunks += b"\xa5usage", pack(usage.as_map())
    return b"".join(chunks)


def _dims(array: NDArray[Any], declared_dim: int | None) -> int:
    return array.shape[-1] if declared_dim is None else declared_dim


def _array_length(length: int) -> bytes:
    if length < 16:
        return bytes((0x90 | length,))
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


@lru_cache(maxsize=256)
def _dense_head(dims: int, label: str) -> bytes:
    return b"\xa5dense\x83" + _fields({"dims": dims, "dtype": label}) + b"\xa6values"


@lru_cache(maxsize=256)
def _sparse_head(dims: int | None, label: str) -> bytes:
    return b"\xa6sparse\x84" + _fields({"dims": dims, "dtype": label}) + b"\xa7indices"


@lru_cache(maxsize=4096)
def _multivector_head(dims: int, tokens: int, label: str) -> bytes:
    return b"\xabmultivector\x84" + _fields({"token_dims": dims, "num_tokens": tokens, "dtype": label}) + b"\xa6values"


def _fields(pairs: Mapping[str, Any]) -> bytes:
    """The pairs of a short map without its header, for a map that goes on behind them."""
    return msgspec.msgpack.encode(pairs)[1:]


def _item_json(item: ItemOutputs, dims: Mapping[str, int]) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if item.id is not None:
        entry["id"] = item.id
    if item.dense is not None:
        dim = dims.get("dense")
        entry["dense"] = {
            "dims": _dims(item.dense, dim),
            "dtype": dtype_label(item.dense, dim),
            "values": widened(item.dense),
        }
    if item.sparse is not None:
        dim = dims.get("sparse")
        entry["sparse"] = {
            "dims": dim,
            "dtype": dtype_label(item.sparse.values, dim),
            "indices": widened(item.sparse.indices),
            "values": widened(item.sparse.values),
        }
    if item.multivector is not None:
        dim = dims.get("multivector")
        entry["multivector"] = {
            "token_dims": _dims(item.multivector, dim),
            "num_tokens": item.multivector.shape[0],
            "dtype": dtype_label(item.multivector, dim),
            "values": widened(item.multivector),
        }
    return entry


def widened(array: NDArray[Any]) -> NDArray[Any]:
    """`array` as JSON prints it: floats as float64, so that every digit of the stored value is written."""
    return np.ascontiguousarray(array, dtype=np.float64 if array.dtype.kind == "f" else None)

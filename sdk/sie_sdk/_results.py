"""Turns the bodies of successful replies into the results that the clients return."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from sie_sdk import _wire
from sie_sdk._reply import Reply, json_value, request_metadata
from sie_sdk._settings import MSGPACK
from sie_sdk.errors import IncompleteBatchError, RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sie_sdk.types import (
        CapacityInfo,
        EncodeResult,
        ExtractResult,
        GenerateResult,
        ModelInfo,
        RequestMetadata,
        ScoreResult,
        SparseResult,
    )

T = TypeVar("T")


def read_encode(reply: Reply, model: str, items: Sequence[object], *, names_model: bool) -> list[EncodeResult]:
    """The results of an encode call, one per item and in their order.

    Raises `RequestError` for a body that breaks the contract, `IncompleteBatchError` for another number of results.
    """
    return _read_msgpack(reply, "encode", lambda body: _encode_results(body, reply, model, items, names_model))


def read_score(reply: Reply) -> ScoreResult:
    """The result of a score call. Raises `RequestError` for a body that breaks the contract."""
    return _read_msgpack(reply, "score", lambda body: _score_result(body, reply))


def read_extract(reply: Reply, model: str, items: Sequence[object]) -> list[ExtractResult]:
    """The results of an extract call, one per item and in their order. Raises as `read_encode` does."""
    return _read_msgpack(reply, "extract", lambda body: _extract_results(body, reply, model, items))


def read_generate(reply: Reply) -> GenerateResult:
    """The result of a generate call. Raises `RequestError` for a body that breaks the contract."""
    body, metadata = _read_json(reply, "generate"), request_metadata(reply.headers)
    if not (isinstance(body.get("model"), str) and isinstance(body.get("text"), str)):
        raise _malformed(reply, "generate", "JSON")
    result = cast("GenerateResult", {key: body[key] for key in _GENERATED if body.get(key) is not None})
    _attach(result, metadata)
    return result


_GENERATED = ("model", "text", "finish_reason", "usage", "attempt_id", "ttft_ms", "tpot_ms")
_EXTRACTED = ("entities", "relations", "classifications", "objects")


def read_models(reply: Reply) -> list[ModelInfo]:
    """The list of `GET /v1/models`. Raises `RequestError` for a body that breaks the contract."""
    models = _read_json(reply, "models").get("models")
    if not isinstance(models, list):
        raise _malformed(reply, "models", "JSON")
    return models


def read_model(reply: Reply) -> ModelInfo:
    """The body of `GET /v1/models/{model}`. Raises `RequestError` for a body that breaks the contract."""
    return cast("ModelInfo", _read_json(reply, "model"))


def read_capacity(reply: Reply, gpu: str | None) -> CapacityInfo:
    """The body of `GET /health`, filtered to one GPU type if `gpu` names it.

    Raises `RequestError`, with code `not_gateway` if something else than a gateway answered.
    """
    body = _read_json(reply, "health")
    if body.get("type") != "gateway":
        raise RequestError(
            "get_capacity() requires a gateway endpoint. This appears to be a worker.", "not_gateway", 400
        )
    cluster, listed = body.get("cluster", {}), body.get("workers", [])
    if not (isinstance(cluster, dict) and isinstance(listed, list) and all(isinstance(w, dict) for w in listed)):
        raise _malformed(reply, "health", "JSON")
    workers = [_worker(worker) for worker in listed]
    if gpu:
        workers = [worker for worker in workers if str(worker["gpu"]).lower() == gpu.lower()]
    return cast(
        "CapacityInfo",
        {
            "status": body.get("status", "unknown"),
            "worker_count": len(workers) if gpu else cluster.get("worker_count", 0),
            "gpu_count": cluster.get("gpu_count", 0),
            "models_loaded": cluster.get("models_loaded", 0),
            "configured_gpu_types": body.get("configured_gpu_types", []),
            "live_gpu_types": body.get("live_gpu_types", []),
            "workers": workers,
        },
    )


def _encode_results(
    body: dict[str, Any], reply: Reply, model: str, items: Sequence[object], names_model: bool
) -> list[EncodeResult]:
    entries, timing, served = _list(body, "items"), body.get("timing"), body.get("model")
    if timing is not None and not isinstance(timing, dict):
        raise _wire.MalformedBody("`timing` is not a map")
    metadata = request_metadata(reply.headers)
    results = []
    for entry in entries:
        result = _encode_result(entry)
        if names_model and isinstance(served, str) and served:
            result["model"] = served
        if timing:
            result["timing"] = cast("Any", dict(timing))
        _attach(result, metadata)
        results.append(result)
    if len(results) != len(items):
        raise _incomplete(results, items, model, metadata)
    return results


def _encode_result(entry: object) -> EncodeResult:
    if not isinstance(entry, dict):
        raise _wire.MalformedBody("an entry of `items` is not a map")
    result: EncodeResult = {}
    if "id" in entry:
        result["id"] = entry["id"]
    if entry.get("dense") is not None:
        result["dense"] = _array(entry["dense"], "values")
    if entry.get("sparse") is not None:
        sparse = entry["sparse"]
        vector: SparseResult = {"indices": _array(sparse, "indices"), "values": _array(sparse, "values")}
        result["sparse"] = vector
    if entry.get("multivector") is not None:
        result["multivector"] = _array(entry["multivector"], "values")
    return result


def _score_result(body: dict[str, Any], reply: Reply) -> ScoreResult:
    scores = _list(body, "scores")
    if not isinstance(body.get("model"), str):
        raise _wire.MalformedBody("`model` is missing")
    if not all(isinstance(entry, dict) and {"item_id", "score", "rank"} <= entry.keys() for entry in scores):
        raise _wire.MalformedBody("an entry of `scores` lacks `item_id`, `score` or `rank`")
    result: ScoreResult = {
        "model": body["model"],
        "scores": [{"item_id": s["item_id"], "score": s["score"], "rank": s["rank"]} for s in scores],
    }
    if body.get("query_id") is not None:
        result["query_id"] = body["query_id"]
    if body.get("usage") is not None:
        result["usage"] = body["usage"]
    _attach(result, request_metadata(reply.headers))
    return result


def _extract_results(body: dict[str, Any], reply: Reply, model: str, items: Sequence[object]) -> list[ExtractResult]:
    metadata, results = request_metadata(reply.headers), []
    for entry in _list(body, "items"):
        if not isinstance(entry, dict):
            raise _wire.MalformedBody("an entry of `items` is not a map")
        found = {key: list(entry.get(key) or ()) for key in _EXTRACTED}
        found.update({key: entry[key] for key in ("id", "data", "error") if entry.get(key) is not None})
        if isinstance(body.get("model"), str) and body["model"]:
            found["model"] = body["model"]
        result = cast("ExtractResult", found)
        _attach(result, metadata)
        results.append(result)
    if len(results) != len(items):
        raise _incomplete(results, items, model, metadata, "extract")
    return results


def _attach(
    result: EncodeResult | ScoreResult | ExtractResult | GenerateResult, metadata: RequestMetadata | None
) -> None:
    if metadata is None:
        return
    own = metadata.copy()
    if "usage" in own:
        own["usage"] = own["usage"].copy()
    result["request"] = own


def _array(output: object, key: str) -> NDArray[Any]:
    values = output.get(key) if isinstance(output, dict) else None
    if not isinstance(values, np.ndarray):
        raise _wire.MalformedBody(f"`{key}` of an output is not an array")
    return values


def _list(body: dict[str, Any], key: str) -> list[Any]:
    value = body.get(key)
    if not isinstance(value, list):
        raise _wire.MalformedBody(f"`{key}` is not a list")
    return value


def _incomplete(
    results: Sequence[EncodeResult | ExtractResult],
    items: Sequence[object],
    model: str,
    metadata: RequestMetadata | None,
    task: str = "encode",
) -> IncompleteBatchError:
    sent = [item.get("id") if isinstance(item, Mapping) else None for item in items]
    came = [result.get("id") for result in results]
    missing = None
    # Ids tell who is missing only if everybody has one.
    if all(isinstance(name, str) for name in [*sent, *came]):
        missing = [str(name) for name in sent if name not in came] or None
    return IncompleteBatchError(
        f"{task.capitalize()} response desync for model {model!r}: server returned {len(results)} "
        f"{'embedding' if task == 'encode' else 'result'}(s) for {len(items)} "
        "input item(s); expected exactly one per input. An input may have failed server-side (e.g. exceeding the "
        "model's max_sequence_length) and been dropped from the batch."
        + (f" Missing item id(s): {', '.join(missing)}." if missing else ""),
        code=f"{task.upper()}_RESULT_COUNT_MISMATCH",
        expected=len(items),
        received=len(results),
        model=model,
        missing_ids=missing,
        request=metadata,
        results=results,
    )


_WORKER_DEFAULTS: Mapping[str, object] = {
    "name": "",
    "url": "",
    "gpu": "",
    "gpu_count": 0,
    "ready_gpu_slots": 0,
    "healthy": False,
    "queue_depth": 0,
    "pending_cost": 0,
    "inflight_batches": 0,
    "loaded_models": (),
    "memory_used_bytes": 0,
    "memory_total_bytes": 0,
    "bundle": "",
    "bundle_config_hash": "",
}


def _worker(listed: dict[str, Any]) -> Any:
    # Older gateways do not count slots: a healthy worker then has as many as GPUs, and at least one.
    slots = listed.get("gpu_count", 1 if listed.get("healthy", False) else 0)
    worker = {key: listed.get(key, default) for key, default in _WORKER_DEFAULTS.items()}
    return worker | {
        "ready_gpu_slots": listed.get("ready_gpu_slots", slots),
        "loaded_models": list(listed.get("loaded_models", ())),
    }


def _read_msgpack(reply: Reply, owner: str, read: Callable[[dict[str, Any]], T]) -> T:
    _refuse_unexpected_status(reply, owner)
    try:
        body = _wire.unpack(reply.body)
        if isinstance(body, dict):
            return read(body)
    except _wire.MalformedBody as error:
        raise _malformed(reply, owner, "MessagePack") from error
    raise RequestError(
        f"Unexpected {owner} response shape: {type(body).__name__} ({_outline(reply)})",
        status_code=reply.status,
        request=request_metadata(reply.headers),
    )


def _read_json(reply: Reply, owner: str) -> dict[str, Any]:
    _refuse_unexpected_status(reply, owner)
    body = json_value(reply.body)
    if not isinstance(body, dict):
        raise _malformed(reply, owner, "JSON")
    return body


def _refuse_unexpected_status(reply: Reply, owner: str) -> None:
    if not 200 <= reply.status < 300:
        raise RequestError(
            f"Unexpected {owner} HTTP response ({_outline(reply)})",
            status_code=reply.status,
            request=request_metadata(reply.headers),
        )


def _malformed(reply: Reply, owner: str, form: str) -> RequestError:
    return RequestError(
        f"Malformed {owner} {form} response ({_outline(reply)})",
        status_code=reply.status,
        request=request_metadata(reply.headers),
    )


_NAMED_MEDIA_TYPES = frozenset({"application/json", MSGPACK, "application/problem+json", "text/html"})


def _outline(reply: Reply) -> str:
    """The reply, stripped of anything with which a sender could forge log lines."""
    media_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _NAMED_MEDIA_TYPES:
        media_type = "other" if "/" in media_type else "unknown"
    return f"status={reply.status}, content_type={media_type}, body_bytes={len(reply.body)}"

"""A recorded exchange through the wire layer, with the recorded vectors standing in for a model.

The order of the checks is the contract's; everything but the vectors, the scores and the times is ours.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgpack
import numpy as np
import orjson
from contract.recorded import Exchange
from numpy.typing import NDArray
from recordings import CATALOGUE, SCORE_CATALOGUE, FakeModel
from sie_frontend.contract.errors import WireError, model_not_found, scoring_unsupported
from sie_frontend.contract.negotiation import check_machine_profile, check_remote, response_format
from sie_frontend.contract.requests import EncodeRequest, check_item_count, parse_encode, parse_score
from sie_frontend.contract.responses import Timing, Usage, rank_scores, score_body, success_headers
from sie_frontend.http.dialects import openai
from sie_frontend.outputs.options import ResolvedCall, resolve_encode, resolve_score
from sie_frontend.outputs.response import ItemOutputs, encode_body
from sie_frontend.outputs.sparse import SparseVector
from sie_frontend.outputs.table import EncodedType


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


def replay_encode(exchange: Exchange) -> Reply:
    try:
        return _encode(exchange)
    except WireError as error:
        return Reply(error.status, error.headers(), error.body())


def replay_score(exchange: Exchange) -> Reply:
    try:
        return _score(exchange)
    except WireError as error:
        return Reply(error.status, error.headers(), error.body())


def replay_embeddings(exchange: Exchange) -> Reply:
    try:
        return _embeddings(exchange)
    except WireError as error:
        return Reply(error.status, error.headers(), error.openai_body())


def _encode(exchange: Exchange) -> Reply:
    sent = exchange.request_headers
    check_machine_profile(sent.get("x-sie-machine-profile"), None)
    check_remote(sent.get("x-sie-remote"))
    request = parse_encode(exchange.request_body, sent.get("content-type"))
    model_id = unquote(exchange.path.removeprefix("/v1/encode/"))
    model = _model(model_id, CATALOGUE)
    call = resolve_encode(
        request.params, profiles=model.profiles, declared_outputs=tuple(model.dims), model_id=model_id
    )
    check_item_count(request.items, model_id)
    recorded = decoded_answer(exchange)
    timing = Timing(**recorded["timing"])
    wire_format = response_format(sent.get("accept"))
    body = encode_body(
        model_id,
        _item_outputs(recorded["items"], request, call),
        declared_dims=model.dims,
        timing=timing,
        usage=_usage(recorded.get("usage")),
        wire_format=wire_format,
    )
    headers = success_headers(
        timing, wire_format=wire_format, runtime_instance=exchange.response_headers["x-sie-runtime-instance"]
    )
    return Reply(200, headers, body)


def _score(exchange: Exchange) -> Reply:
    sent = exchange.request_headers
    request = parse_score(exchange.request_body, sent.get("content-type"))
    model_id = unquote(exchange.path.removeprefix("/v1/score/"))
    model = _model(model_id, SCORE_CATALOGUE if model_id in SCORE_CATALOGUE else CATALOGUE)
    if not model.scores:
        raise scoring_unsupported(model_id)
    resolve_score(request, profiles=model.profiles)
    check_item_count(request.items, model_id)
    recorded = decoded_answer(exchange)
    item_ids = [item.id for item in request.items]
    ranking = rank_scores(_scores_by_index(recorded["scores"], item_ids), item_ids, model_id)
    wire_format = response_format(sent.get("accept"))
    received = exchange.response_headers
    stages = ("x-total-time", "x-queue-time", "x-tokenization-time", "x-inference-time")
    return Reply(
        200,
        success_headers(
            Timing(*(float(received[stage]) for stage in stages)),
            wire_format=wire_format,
            runtime_instance=received["x-sie-runtime-instance"],
        ),
        score_body(model_id, request.query.id, ranking, usage=_usage(recorded.get("usage")), wire_format=wire_format),
    )


def _embeddings(exchange: Exchange) -> Reply:
    request = openai.parse_embeddings(exchange.request_body, exchange.request_headers.get("content-type"))
    model = _model(request.model, CATALOGUE)
    call = openai.resolve_embeddings(request, profiles=model.profiles, declared_dims=model.dims)
    assert (call.output_types, call.output_dtype, call.is_query) == (("dense",), "float32", False)
    recorded = orjson.loads(exchange.response_body)
    vectors = [_openai_vector(entry["embedding"]) for entry in recorded["data"]]
    assert len(vectors) == len(request.texts)
    body = openai.embeddings_body(request, vectors, input_tokens=recorded["usage"]["prompt_tokens"])
    return Reply(200, openai.SUCCESS_HEADERS, body)


def _model(model_id: str, catalogue: Mapping[str, FakeModel]) -> FakeModel:
    if model_id not in catalogue:
        raise model_not_found(model_id, catalogue)
    return catalogue[model_id]


def decoded_answer(exchange: Exchange) -> dict[str, Any]:
    """The recorded answer, read by codecs that are not ours."""
    decoded: dict[str, Any]
    if "msgpack" in exchange.response_headers["content-type"]:
        decoded = msgpack.unpackb(exchange.response_body, strict_map_key=False)
    else:
        decoded = orjson.loads(exchange.response_body)
    return decoded


def _item_outputs(recorded: list[dict[str, Any]], request: EncodeRequest, call: ResolvedCall) -> list[ItemOutputs]:
    """The recorded vectors of the outputs that *we* resolved, under the ids that we read."""
    assert len(recorded) == len(request.items)
    return [
        item_outputs(
            item.id,
            dense=_values(entry, "dense", call),
            sparse=_sparse(entry, call),
            multivector=_values(entry, "multivector", call),
        )
        for item, entry in zip(request.items, recorded, strict=True)
    ]


def item_outputs(
    id: str | None = None,
    *,
    dense: NDArray[Any] | None = None,
    sparse: SparseVector | None = None,
    multivector: NDArray[Any] | None = None,
) -> ItemOutputs:
    """An item's outputs without those that are None."""
    values: dict[EncodedType, Any] = {"dense": dense, "sparse": sparse, "multivector": multivector}
    return ItemOutputs(id, {output: value for output, value in values.items() if value is not None})


_STORED_AS = {"int8": "|i1", "uint8": "|u1", "binary": "|u1", "ubinary": "|u1", "float16": "<f2", "float32": "<f4"}


def _values(entry: dict[str, Any], output: EncodedType, call: ResolvedCall) -> NDArray[Any] | None:
    if output not in call.output_types:
        return None
    values = array(entry[output]["values"])
    assert values.dtype.str == _STORED_AS[call.output_dtype]
    return values


def _sparse(entry: dict[str, Any], call: ResolvedCall) -> SparseVector | None:
    if "sparse" not in call.output_types:
        return None
    sparse = entry["sparse"]
    return SparseVector(array(sparse["indices"]), array(sparse["values"]))


def array(value: Any) -> NDArray[Any]:
    """A recorded array: numpy's five pairs, or a JSON list of float32."""
    if isinstance(value, list):
        return np.array(value, dtype=np.float32)
    shaped: NDArray[Any] = np.frombuffer(value[b"data"], dtype=value[b"type"]).reshape(value[b"shape"])
    return shaped


def _usage(recorded: dict[str, Any] | None) -> Usage | None:
    if recorded is None:
        return None
    return Usage(recorded["input_tokens"], recorded.get("images"))


def _scores_by_index(ranking: list[dict[str, Any]], item_ids: list[str | None]) -> NDArray[np.float32]:
    """The recorded scores in the request's order; equal ids are told apart by their rank."""
    by_id: dict[str, list[float]] = {}
    for entry in ranking:
        by_id.setdefault(entry["item_id"], []).append(entry["score"])
    wire_ids = [f"item-{index}" if item_id is None else item_id for index, item_id in enumerate(item_ids)]
    return np.array([by_id[wire_id].pop(0) for wire_id in wire_ids], dtype=np.float32)


def _openai_vector(embedding: list[float] | str) -> NDArray[np.float32]:
    if isinstance(embedding, list):
        return np.array(embedding, dtype=np.float32)

    return np.frombuffer(b64decode(embedding), dtype="<f4")

"""What each route does: parse, resolve, ask the engine, render. The order of the checks is the contract's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sie_frontend.contract import errors
from sie_frontend.contract.negotiation import check_machine_profile, check_remote, response_format
from sie_frontend.contract.requests import Item, check_body_size, parse_encode, parse_score
from sie_frontend.contract.responses import ScoreEntry, Usage, rank_scores, score_body, success_headers
from sie_frontend.http.deadlines import within
from sie_frontend.http.dialects.openai import (
    SUCCESS_HEADERS,
    embeddings_body,
    embeddings_items,
    embeddings_pieces,
    parse_embeddings,
    resolve_embeddings,
)
from sie_frontend.http.dialects.rerank import (
    Dialect,
    RerankRequest,
    dialect_of,
    parse_rerank,
    rerank_body,
    rerank_v2_body,
    reranking_unsupported,
)
from sie_frontend.http.frontend import Frontend
from sie_frontend.manifest import Model
from sie_frontend.modalities import IMAGES
from sie_frontend.outputs.dense import DenseHead
from sie_frontend.outputs.options import resolve_encode, resolve_score
from sie_frontend.outputs.response import encode_body
from sie_frontend.serving.bulk import in_parts, total_timing
from sie_frontend.serving.engine import Encoded, Scored
from sie_frontend.watch.observation import Exchange

# SIE's tasks that nothing here does.
TASKS_NOT_SERVED: Final = {"extract": "extraction", "generate": "generation"}


async def read_body(request: Request, limit: int, limit_s: float = 120.0) -> bytes:
    """The whole body; refused as soon as it is known to be over the limit, before it is held, or when it is late."""
    with within(limit_s, errors.body_too_slow):
        return await _read(request, limit)


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal():
        check_body_size(int(declared), limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        check_body_size(size, limit)
        chunks.append(chunk)
    return b"".join(chunks)


async def encode(frontend: Frontend, request: Request, exchange: Exchange) -> Response:
    """`POST /v1/encode/{model}`. The order of the checks is the contract's."""
    model_id = exchange.model_id
    # The body is let go of: it would be held beside its images for as long as the request waits.
    parsed = parse_encode(await _checked_body(frontend, request), request.headers.get("content-type"))
    exchange.body_read()
    model = frontend.model(model_id, exchange.grant)
    call = resolve_encode(
        parsed.params, profiles=model.profiles, declared_outputs=_encode_outputs(model), model_id=model_id
    )
    frontend.check_weights(model_id, call.options, exchange.grant)
    exchange.headers.update(frontend.version_headers(model_id, model))
    encoded = await frontend.engine.encode(model_id, model, parsed.items, call, spend=exchange.spend)
    exchange.computed(len(parsed.items), encoded.tokens, encoded.timing)
    wire_format = response_format(request.headers.get("accept"))
    content = encode_body(
        model_id,
        encoded.items,
        declared_dims=_declared_dims(model),
        timing=encoded.timing,
        usage=encoded.usage,
        wire_format=wire_format,
    )
    headers = success_headers(encoded.timing, wire_format=wire_format, runtime_instance=frontend.runtime_instance)
    return Response(content, headers=headers)


async def score(frontend: Frontend, request: Request, exchange: Exchange) -> Response:
    """`POST /v1/score/{model}`."""
    model_id = exchange.model_id
    body = await _checked_body(frontend, request)
    parsed = parse_score(body, request.headers.get("content-type"))
    exchange.body_read()
    model = frontend.model(model_id, exchange.grant)
    if "score" not in model.outputs:
        raise errors.scoring_unsupported(model_id)
    call = resolve_score(parsed, profiles=model.profiles)
    frontend.check_weights(model_id, call.options, exchange.grant)
    exchange.headers.update(frontend.version_headers(model_id, model))
    scored = await frontend.engine.score(model_id, model, parsed.query, parsed.items, call, spend=exchange.spend)
    exchange.computed(len(parsed.items), scored.usage.input_tokens, scored.timing)
    ranking = rank_scores(scored.scores, [item.id for item in parsed.items], model_id)
    wire_format = response_format(request.headers.get("accept"))
    content = score_body(model_id, parsed.query.id, ranking, usage=scored.usage, wire_format=wire_format)
    headers = success_headers(scored.timing, wire_format=wire_format, runtime_instance=frontend.runtime_instance)
    return Response(content, headers=headers)


async def embeddings(frontend: Frontend, request: Request, exchange: Exchange) -> Response:
    """`POST /v1/embeddings`, as OpenAI's clients call it. The model is named in the body."""
    parsed = parse_embeddings(await _checked_body(frontend, request), request.headers.get("content-type"))
    exchange.model_id = parsed.model
    exchange.body_read()
    model = frontend.model(parsed.model, exchange.grant)
    head = model.heads.get("dense")
    cuts = head.cuts if isinstance(head, DenseHead) else ()
    call = resolve_embeddings(parsed, profiles=model.profiles, declared_dims=_declared_dims(model), cuts=cuts)
    frontend.check_weights(parsed.model, call.options, exchange.grant)
    exchange.headers.update(frontend.version_headers(parsed.model, model))
    items = embeddings_items(parsed, reads_images=not IMAGES.isdisjoint(model.inputs))

    spend = exchange.spend

    async def part(some: Sequence[Item]) -> Encoded:
        return await frontend.engine.encode(parsed.model, model, some, call, spend=spend)

    with frontend.engine.hold(parsed.model, call.options):
        if spend is not None and len(items) > frontend.settings.max_items:
            spend(await frontend.engine.tokens(parsed.model, items, call))
            spend = None
        encoded = await in_parts(items, frontend.settings.max_items, part, request.is_disconnected)
    tokens = sum(one.tokens for one in encoded)
    exchange.computed(len(parsed.texts), tokens, total_timing([one.timing for one in encoded]))
    vectors = [item.values["dense"] for one in encoded for item in one.items]
    if isinstance(head, DenseHead) and parsed.dimensions in cuts:
        vectors = [head.cut(vector, parsed.dimensions, call) for vector in vectors]
    if len(encoded) > 1:
        pieces = embeddings_pieces(parsed, vectors, input_tokens=tokens)
        return StreamingResponse(pieces, headers=SUCCESS_HEADERS)
    return Response(embeddings_body(parsed, vectors, input_tokens=tokens), headers=SUCCESS_HEADERS)


async def rerank(frontend: Frontend, request: Request, exchange: Exchange) -> Response:
    """`POST /v1/rerank`, as Jina's clients and Cohere's first ones call it."""
    parsed, ranking, usage = await _ranked(frontend, request, exchange, dialect_of(request.headers))
    return Response(rerank_body(parsed, ranking, usage), headers=SUCCESS_HEADERS)


async def rerank_v2(frontend: Frontend, request: Request, exchange: Exchange) -> Response:
    """`POST /v2/rerank`, as Cohere's newer clients call it."""
    parsed, ranking, usage = await _ranked(frontend, request, exchange, Dialect.COHERE_V2)
    return Response(rerank_v2_body(parsed, ranking, usage), headers=SUCCESS_HEADERS)


async def _ranked(
    frontend: Frontend, request: Request, exchange: Exchange, dialect: Dialect
) -> tuple[RerankRequest, list[ScoreEntry], Usage]:
    """What was asked, and the documents' indexes with their scores, best first."""
    parsed = parse_rerank(await _checked_body(frontend, request), dialect)
    model_id = exchange.model_id = parsed.model
    exchange.body_read()
    model = frontend.model(model_id, exchange.grant)
    if "score" not in model.outputs:
        raise reranking_unsupported(model_id)
    asked = parsed.as_score()
    call = resolve_score(asked, profiles=model.profiles)
    frontend.check_weights(model_id, call.options, exchange.grant)
    exchange.headers.update(frontend.version_headers(model_id, model))
    texts = parsed.texts
    spend = exchange.spend

    async def part(some: Sequence[Item]) -> Scored:
        return await frontend.engine.score(model_id, model, asked.query, some, call, spend=spend)

    with frontend.engine.hold(model_id, call.options):
        if parsed.max_tokens is not None:
            texts = await frontend.engine.cut(model_id, texts, parsed.max_tokens)
        items = [Item(text=text) for text in texts]
        if spend is not None and len(items) > frontend.settings.max_items:
            spend(await frontend.engine.tokens(model_id, items, call, asked.query))
            spend = None
        scored = await in_parts(items, frontend.settings.max_items, part, request.is_disconnected)
    usage = Usage(input_tokens=sum(one.usage.input_tokens for one in scored))
    exchange.computed(len(texts), usage.input_tokens, total_timing([one.timing for one in scored]))
    names = [str(index) for index in range(len(texts))]
    return parsed, rank_scores(np.concatenate([one.scores for one in scored]), names, model_id), usage


async def not_served(frontend: Frontend, request: Request, exchange: Exchange) -> Response:
    """SIE's routes for tasks that nothing here does: an answer that says so, and what is served."""
    await _checked_body(frontend, request)
    model_id = exchange.model_id
    known = model_id in frontend.manifest.models
    raise errors.task_not_served(model_id, TASKS_NOT_SERVED[exchange.route], frontend.served, known=known)


async def _checked_body(frontend: Frontend, request: Request) -> bytes:
    """The body of a request whose headers ask for nothing that this worker is not."""
    check_machine_profile(request.headers.get("x-sie-machine-profile"), frontend.settings.machine_profile)
    check_remote(request.headers.get("x-sie-remote"))
    return await read_body(request, frontend.settings.max_body_bytes, frontend.settings.body_timeout_s)


def _encode_outputs(model: Model) -> list[str]:
    return [output for output in model.outputs if output != "score"]


def _declared_dims(model: Model) -> dict[str, int]:
    return {output: dim for output, dim in model.dims.items() if dim is not None}

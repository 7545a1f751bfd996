"""The ASGI application: routes, negotiation and error rendering; no logic of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from sie_frontend.contract import errors
from sie_frontend.contract.errors import WireError
from sie_frontend.contract.negotiation import check_machine_profile, check_remote, response_format
from sie_frontend.contract.requests import Item, check_body_size, parse_encode, parse_score
from sie_frontend.contract.responses import ScoreEntry, Usage, rank_scores, score_body, success_headers
from sie_frontend.http.api_reference.document import document
from sie_frontend.http.api_reference.page import page
from sie_frontend.http.dialects.openai import (
    SUCCESS_HEADERS,
    embeddings_body,
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
from sie_frontend.http.drain import Drain, DrainMiddleware, Phase
from sie_frontend.http.listing import list_models, one_model
from sie_frontend.manifest import MANIFEST_NAME, Model
from sie_frontend.outputs.options import resolve_encode, resolve_score
from sie_frontend.outputs.response import encode_body
from sie_frontend.serving.bulk import in_parts, total_timing
from sie_frontend.serving.engine import Encoded, Engine, Scored
from sie_frontend.settings import Settings, SettingsError
from sie_frontend.storage import open_repository
from sie_frontend.watch.metrics import CONTENT_TYPE, Metrics
from sie_frontend.watch.observation import UNKNOWN_ROUTE, Exchange, Observer
from sie_frontend.watch.tracing import Tracing, make_tracing

log = logging.getLogger("sie_frontend")

Handler = Callable[["Frontend", Request, Exchange], Awaitable[Response]]


class Envelope(Enum):
    """In whose shape a route's errors are."""

    SIE = "sie"
    OPENAI = "openai"
    COHERE = "cohere"


# What a route does, where something unforeseen happens while it does it.
_ACTIVITIES: Final = {"score": "scoring", "rerank": "reranking"}

# SIE's tasks that nothing here does.
_TASKS_NOT_SERVED: Final = {"extract": "extraction", "generate": "generation"}


class Frontend:
    """One process's state: the repository, the engine, what watches it, and the identity that responses carry."""

    def __init__(self, settings: Settings, tracing: Tracing | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.drain = Drain()
        self.repository = open_repository(settings.repository)
        self.manifest = self.repository.manifest
        for model_id in settings.ready_model_ids:
            if model_id not in self.manifest.models:
                raise SettingsError(f"`SIE_TRITON_READY_MODELS` names {model_id!r}, which the repository does not hold")
        self.tracing = tracing or make_tracing()
        self.observer = Observer(self.metrics, self.tracing, self.manifest.models, access_log=settings.access_log)
        self.runtime_instance = secrets.token_hex(32)
        self.built = _built(self.repository.folder)
        self.served = ""
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine; it exists while the application's lifespan is open."""
        assert self._engine is not None
        return self._engine

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Open the engine inside the event loop and close it when the last request is answered."""
        self._engine = Engine(self.manifest, self.repository.folder, self.settings, self.metrics, self.tracing)
        try:
            yield
        finally:
            await self._engine.close()
            await asyncio.to_thread(self.tracing.close)
            self.repository.close()

    @property
    def ready(self) -> bool:
        """What `/readyz` says: the models that must answer do, and this process stays."""
        return self.drain.phase is Phase.SERVING and self.engine.ready

    def model(self, model_id: str) -> Model:
        """The model of a routable id; raises `WireError` (404) with suggestions."""
        model = self.manifest.models.get(model_id)
        if model is None:
            raise errors.model_not_found(model_id, self.manifest.models)
        return model


def _built(repository: Path) -> int:
    """When a repository was published, in seconds since 1970; of a copy from an object store, when it was fetched."""
    document = repository / MANIFEST_NAME
    return int((document if document.exists() else repository).stat().st_mtime)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body; refused as soon as it is known to be over the limit, before it is held."""
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
    body = await _checked_body(frontend, request)
    parsed = parse_encode(body, request.headers.get("content-type"))
    exchange.body_read()
    model = frontend.model(model_id)
    call = resolve_encode(
        parsed.params, profiles=model.profiles, declared_outputs=_encode_outputs(model), model_id=model_id
    )
    encoded = await frontend.engine.encode(model_id, model, parsed.items, call)
    exchange.computed(len(parsed.items), encoded.usage.input_tokens, encoded.timing)
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
    model = frontend.model(model_id)
    if "score" not in model.outputs:
        raise errors.scoring_unsupported(model_id)
    call = resolve_score(parsed, profiles=model.profiles)
    scored = await frontend.engine.score(model_id, model, parsed.query, parsed.items, call)
    exchange.computed(len(parsed.items), scored.usage.input_tokens, scored.timing)
    ranking = rank_scores(scored.scores, [item.id for item in parsed.items], model_id)
    wire_format = response_format(request.headers.get("accept"))
    content = score_body(model_id, parsed.query.id, ranking, usage=scored.usage, wire_format=wire_format)
    headers = success_headers(scored.timing, wire_format=wire_format, runtime_instance=frontend.runtime_instance)
    return Response(content, headers=headers)


async def embeddings(frontend: Frontend, request: Request, exchange: Exchange) -> Response:
    """`POST /v1/embeddings`, as OpenAI's clients call it. The model is named in the body."""
    body = await _checked_body(frontend, request)
    parsed = parse_embeddings(body, request.headers.get("content-type"))
    exchange.model_id = parsed.model
    exchange.body_read()
    model = frontend.model(parsed.model)
    call = resolve_embeddings(parsed, profiles=model.profiles, declared_dims=_declared_dims(model))

    async def part(texts: Sequence[str]) -> Encoded:
        return await frontend.engine.encode(parsed.model, model, [Item(text=text) for text in texts], call)

    encoded = await in_parts(parsed.texts, frontend.settings.max_items, part, request.is_disconnected)
    tokens = sum(one.usage.input_tokens for one in encoded)
    exchange.computed(len(parsed.texts), tokens, total_timing([one.timing for one in encoded]))
    vectors = [item.values["dense"] for one in encoded for item in one.items]
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
    model = frontend.model(model_id)
    if "score" not in model.outputs:
        raise reranking_unsupported(model_id)
    asked = parsed.as_score()
    call = resolve_score(asked, profiles=model.profiles)
    texts = parsed.texts
    if parsed.max_tokens is not None:
        texts = await frontend.engine.cut(model_id, texts, parsed.max_tokens)

    async def part(documents: Sequence[str]) -> Scored:
        items = [Item(text=document) for document in documents]
        return await frontend.engine.score(model_id, model, asked.query, items, call)

    scored = await in_parts(texts, frontend.settings.max_items, part, request.is_disconnected)
    usage = Usage(input_tokens=sum(one.usage.input_tokens for one in scored))
    exchange.computed(len(texts), usage.input_tokens, total_timing([one.timing for one in scored]))
    names = [str(index) for index in range(len(texts))]
    return parsed, rank_scores(np.concatenate([one.scores for one in scored]), names, model_id), usage


async def not_served(frontend: Frontend, request: Request, exchange: Exchange) -> Response:
    """SIE's routes for tasks that nothing here does: an answer that says so, and what is served."""
    await _checked_body(frontend, request)
    model_id = exchange.model_id
    known = model_id in frontend.manifest.models
    raise errors.task_not_served(model_id, _TASKS_NOT_SERVED[exchange.route], frontend.served, known=known)


async def _checked_body(frontend: Frontend, request: Request) -> bytes:
    """The body of a request whose headers ask for nothing that this worker is not."""
    check_machine_profile(request.headers.get("x-sie-machine-profile"), frontend.settings.machine_profile)
    check_remote(request.headers.get("x-sie-remote"))
    return await read_body(request, frontend.settings.max_body_bytes)


def _encode_outputs(model: Model) -> list[str]:
    return [output for output in model.outputs if output != "score"]


def _declared_dims(model: Model) -> dict[str, int]:
    return {output: dim for output, dim in model.dims.items() if dim is not None}


def create_app(settings: Settings, tracing: Tracing | None = None) -> Starlette:
    """The application of one repository; `tracing` is by default what the environment says.

    Raises `ManifestError` if the repository cannot be served, `SettingsError` if the settings do not fit it.
    """
    frontend = Frontend(settings, tracing)

    async def readyz(_: Request) -> Response:
        ready = frontend.ready
        return Response("ok" if ready else "not ready", 200 if ready else 503, media_type="text/plain")

    async def livez(_: Request) -> Response:
        return Response("ok", media_type="text/plain")

    async def metrics(_: Request) -> Response:
        frontend.metrics.ready.set(frontend.ready)
        return Response(frontend.metrics.render(), headers={"content-type": CONTENT_TYPE})

    async def models(_: Request) -> Response:
        return _json(list_models(frontend.engine, frontend.runtime_instance, frontend.built))

    async def model_detail(request: Request) -> Response:
        model_id = request.path_params["model"]
        try:
            model = frontend.model(model_id)
            return _json(one_model(frontend.engine, frontend.runtime_instance, model_id, model))
        except WireError as error:
            return _refusal(frontend, error)

    async def root(_: Request) -> Response:
        return RedirectResponse("/docs", status_code=307)

    @cache  # making it takes longer than a short text, and nothing else is answered meanwhile
    def described() -> dict[str, Any]:
        return document(settings)

    async def openapi(_: Request) -> Response:
        return _json(described())

    async def docs(_: Request) -> Response:
        return Response(page(described()), media_type="text/html")

    def post(path: str, route: str, handler: Handler, envelope: Envelope = Envelope.SIE) -> Route:
        return Route(path, _guarded(frontend, route, handler, envelope), methods=["POST"])

    routes: list[BaseRoute] = [  # starlette tries them one after the other
        post("/v1/encode/{model:path}", "encode", encode),
        post("/v1/score/{model:path}", "score", score),
        post("/v1/embeddings", "embeddings", embeddings, Envelope.OPENAI),
        post("/v1/rerank", "rerank", rerank, Envelope.OPENAI),
        post("/v2/rerank", "rerank", rerank_v2, Envelope.COHERE),
        Route("/v1/models", models),
        Route("/v1/models/{model:path}", model_detail),
        Route("/livez", livez),
        Route("/healthz", readyz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route("/", root),
    ]
    frontend.served = _sentence_of(routes)
    for route in _TASKS_NOT_SERVED:
        routes.append(post(f"/v1/{route}/{{model:path}}", route, not_served))

    async def framework_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _unknown_route(frontend, request, error)

    app = Starlette(
        routes=routes,
        middleware=[Middleware(DrainMiddleware, frontend.drain)],
        lifespan=frontend.lifespan,
        exception_handlers={HTTPException: framework_error},
    )
    app.state.frontend = frontend
    return app


def _sentence_of(routes: Iterable[BaseRoute]) -> str:
    """What this server serves, in a sentence."""
    found = (route for route in routes if isinstance(route, Route))
    named = [f"{'POST' if 'POST' in (route.methods or ()) else 'GET'} {route.path_format}" for route in found]
    return f"This server serves {', '.join(named[:-1])} and {named[-1]}."


def _guarded(
    frontend: Frontend, route: str, handler: Handler, envelope: Envelope
) -> Callable[[Request], Awaitable[Response]]:
    """Answer every failure in the contract's envelope and tell of every request."""

    async def answer(request: Request) -> Response:
        with frontend.observer.exchange(route, request.path_params.get("model", ""), request.headers) as exchange:
            try:
                response = await handler(frontend, request, exchange)
            except WireError as error:
                response = _refusal(frontend, error, envelope)
            except ClientDisconnect:
                response = Response(status_code=499)
            except Exception:
                log.exception("unexpected failure in %s of %r", route, exchange.model_id)
                failed = errors.inference_error(_ACTIVITIES.get(route, "encoding"))
                response = _refusal(frontend, failed, envelope)
            exchange.status = response.status_code
            response.headers.update(exchange.headers)
        return response

    return answer


def _refusal(frontend: Frontend, error: WireError, envelope: Envelope = Envelope.SIE) -> Response:
    frontend.metrics.errors.labels(error.kind.value).inc()
    if error.row.log_level >= logging.WARNING:
        log.log(error.row.log_level, "%s: %s", error.code, error.message)
    headers = error.headers()
    if envelope is not Envelope.SIE:
        body = error.openai_body() if envelope is Envelope.OPENAI else error.cohere_body()
        return Response(body, status_code=error.status, headers=headers)
    headers["x-sie-runtime-instance"] = frontend.runtime_instance
    return Response(error.body(), status_code=error.status, headers=headers)


def _unknown_route(frontend: Frontend, request: Request, error: HTTPException) -> Response:
    """The answer to a path or a method that is not served; it is counted, under a label that nobody can make up."""
    with frontend.observer.exchange(UNKNOWN_ROUTE, "", request.headers) as exchange:
        if error.status_code == 405:
            refusal = errors.method_not_allowed()
        else:
            refusal = errors.route_not_found(request.method, request.url.path, frontend.served)
        frontend.metrics.errors.labels(refusal.kind.value).inc()
        headers = refusal.headers()
        if allowed := (error.headers or {}).get("Allow"):
            headers["allow"] = ", ".join(sorted(allowed.split(", ")))
        exchange.status = refusal.status
        return Response(refusal.body(), refusal.status, {**headers, **exchange.headers})


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")

"""The ASGI application: routes, negotiation and error rendering; no logic of its own."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from sie_frontend import errors
from sie_frontend.engine import Engine
from sie_frontend.errors import WireError
from sie_frontend.listing import list_models, model_info
from sie_frontend.manifest import Model, read_manifest
from sie_frontend.metrics import CONTENT_TYPE, Metrics
from sie_frontend.negotiation import check_machine_profile, check_remote, response_format
from sie_frontend.openai import SUCCESS_HEADERS, embeddings_body, parse_embeddings, resolve_embeddings
from sie_frontend.options import resolve_encode, resolve_score
from sie_frontend.requests import Item, check_body_size, parse_encode, parse_score
from sie_frontend.responses import encode_body, rank_scores, score_body, success_headers
from sie_frontend.settings import Settings

log = logging.getLogger("sie_frontend")

Handler = Callable[["Frontend", Request, str], Awaitable[Response]]


class Frontend:
    """One process's state: the engine, the metrics and the identity that responses carry."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.manifest = read_manifest(settings.repository)
        self.runtime_instance = secrets.token_hex(32)
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine; it exists while the application's lifespan is open."""
        assert self._engine is not None
        return self._engine

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Open the engine inside the event loop and close it when the last request is answered."""
        self._engine = Engine(self.manifest, self.settings, self.metrics)
        try:
            yield
        finally:
            await self._engine.close()

    def model(self, model_id: str) -> Model:
        """The model of a routable id; raises `WireError` (404) with suggestions."""
        model = self.manifest.models.get(model_id)
        if model is None:
            raise errors.model_not_found(model_id, self.manifest.models)
        return model


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


async def encode(frontend: Frontend, request: Request, model_id: str) -> Response:
    """`POST /v1/encode/{model}`. The order of the checks is the contract's."""
    check_machine_profile(request.headers.get("x-sie-machine-profile"), frontend.settings.machine_profile)
    check_remote(request.headers.get("x-sie-remote"))
    body = await read_body(request, frontend.settings.max_body_bytes)
    parsed = parse_encode(body, request.headers.get("content-type"))
    model = frontend.model(model_id)
    call = resolve_encode(
        parsed.params, profiles=model.profiles, declared_outputs=_encode_outputs(model), model_id=model_id
    )
    encoded = await frontend.engine.encode(model_id, model, parsed.items, call)
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


async def score(frontend: Frontend, request: Request, model_id: str) -> Response:
    """`POST /v1/score/{model}`."""
    check_machine_profile(request.headers.get("x-sie-machine-profile"), frontend.settings.machine_profile)
    check_remote(request.headers.get("x-sie-remote"))
    body = await read_body(request, frontend.settings.max_body_bytes)
    parsed = parse_score(body, request.headers.get("content-type"))
    model = frontend.model(model_id)
    if "score" not in model.outputs:
        raise errors.scoring_unsupported(model_id)
    call = resolve_score(parsed, profiles=model.profiles)
    scored = await frontend.engine.score(model_id, model, parsed.query, parsed.items, call)
    ranking = rank_scores(scored.scores, [item.id for item in parsed.items], model_id)
    wire_format = response_format(request.headers.get("accept"))
    content = score_body(model_id, parsed.query.id, ranking, usage=scored.usage, wire_format=wire_format)
    headers = success_headers(scored.timing, wire_format=wire_format, runtime_instance=frontend.runtime_instance)
    return Response(content, headers=headers)


async def embeddings(frontend: Frontend, request: Request, _: str) -> Response:
    """`POST /v1/embeddings`, as OpenAI's clients call it. The model is named in the body."""
    body = await read_body(request, frontend.settings.max_body_bytes)
    parsed = parse_embeddings(body, request.headers.get("content-type"))
    model = frontend.model(parsed.model)
    call = resolve_embeddings(parsed, profiles=model.profiles, declared_dims=_declared_dims(model))
    items = [Item(text=text) for text in parsed.texts]
    encoded = await frontend.engine.encode(parsed.model, model, items, call)
    vectors = [item.dense for item in encoded.items if item.dense is not None]
    content = embeddings_body(parsed, vectors, input_tokens=encoded.usage.input_tokens)
    return Response(content, headers=SUCCESS_HEADERS)


def _encode_outputs(model: Model) -> list[str]:
    return [output for output in model.outputs if output != "score"]


def _declared_dims(model: Model) -> dict[str, int]:
    return {output: dim for output, dim in model.dims.items() if dim is not None}


def create_app(settings: Settings) -> Starlette:
    """The application of one repository. Raises `ManifestError` if the repository cannot be served."""
    frontend = Frontend(settings)

    async def readyz(_: Request) -> Response:
        ready = frontend.engine.ready
        return Response("ok" if ready else "not ready", 200 if ready else 503, media_type="text/plain")

    async def livez(_: Request) -> Response:
        return Response("ok", media_type="text/plain")

    async def metrics(_: Request) -> Response:
        return Response(frontend.metrics.render(), headers={"content-type": CONTENT_TYPE})

    async def models(_: Request) -> Response:
        return _json(list_models(frontend.engine, frontend.runtime_instance))

    async def one_model(request: Request) -> Response:
        model_id = request.path_params["model"]
        try:
            model = frontend.model(model_id)
            return _json(model_info(frontend.engine, frontend.runtime_instance, model_id, model))
        except WireError as error:
            return _refusal(frontend, error)

    async def root(_: Request) -> Response:
        return RedirectResponse("/v1/models", status_code=307)

    app = Starlette(
        routes=[  # starlette tries them one after the other
            Route("/v1/encode/{model:path}", _guarded(frontend, "encode", encode), methods=["POST"]),
            Route("/v1/score/{model:path}", _guarded(frontend, "score", score), methods=["POST"]),
            Route("/v1/embeddings", _guarded(frontend, "embeddings", embeddings), methods=["POST"]),
            Route("/", root),
            Route("/livez", livez),
            Route("/healthz", readyz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/v1/models", models),
            Route("/v1/models/{model:path}", one_model),
        ],
        lifespan=frontend.lifespan,
        exception_handlers={HTTPException: _framework_error},
    )
    app.state.frontend = frontend
    return app


def _guarded(frontend: Frontend, route: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Answer every failure in the contract's envelope and count every request."""

    async def answer(request: Request) -> Response:
        begun = time.perf_counter()
        model_id = request.path_params.get("model", "")
        openai = route == "embeddings"
        try:
            response = await handler(frontend, request, model_id)
        except WireError as error:
            response = _refusal(frontend, error, openai=openai)
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception:
            log.exception("unexpected failure in %s of %s", route, model_id)
            failed = errors.inference_error("scoring" if route == "score" else "encoding")
            response = _refusal(frontend, failed, openai=openai)
        # An unknown id must not become a label: anybody could fill the registry with them.
        label = model_id if model_id in frontend.manifest.models else ""
        frontend.metrics.requests.labels(route, label, str(response.status_code)).inc()
        frontend.metrics.request_seconds.labels(route, label).observe(time.perf_counter() - begun)
        return response

    return answer


def _refusal(frontend: Frontend, error: WireError, *, openai: bool = False) -> Response:
    frontend.metrics.errors.labels(error.kind.value).inc()
    if error.row.log_level >= logging.WARNING:
        log.log(error.row.log_level, "%s: %s", error.code, error.message)
    headers = error.headers()
    if openai:
        return Response(error.openai_body(), status_code=error.status, headers=headers)
    headers["x-sie-runtime-instance"] = frontend.runtime_instance
    return Response(error.body(), status_code=error.status, headers=headers)


async def _framework_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"detail": error.detail}, status=error.status_code)


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")

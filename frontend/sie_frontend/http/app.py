"""The ASGI application: one list of routes, one of middleware."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sie_frontend.access.keyring import Grant
from sie_frontend.http.admin import health_routes, metrics_route
from sie_frontend.http.answers import Envelope, Handler, guarded, json_answer, keyed, unknown_route
from sie_frontend.http.api_reference.document import REQUEST_HEADERS, RESPONSE_HEADERS, document
from sie_frontend.http.api_reference.page import page
from sie_frontend.http.drain import DrainMiddleware
from sie_frontend.http.frontend import Frontend
from sie_frontend.http.handlers import (
    TASKS_NOT_SERVED,
    embeddings,
    encode,
    not_served,
    rerank,
    rerank_v2,
    score,
)
from sie_frontend.http.listing import list_models, one_model
from sie_frontend.http.operating import operating_routes
from sie_frontend.http.status.gathered import GatheringRoom
from sie_frontend.http.status.routes import status_routes
from sie_frontend.residency.carrier import Discharge, Memory
from sie_frontend.serving.ailments import Ailments
from sie_frontend.settings import Settings
from sie_frontend.watch.tracing import Tracing


class _IdConvertor(Convertor[str]):
    """Any id; of a path that would match nothing, such as one with a line break, no route would answer."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _IdConvertor())


def create_app(
    settings: Settings,
    tracing: Tracing | None = None,
    memory: Memory | None = None,
    ailments: Ailments | None = None,
    discharge: Discharge | None = None,
) -> Starlette:
    """The application of one repository; `tracing` is by default what the environment says.

    `memory` tells what loaded Triton models take and `ailments` which of them went down, where they run on this
    machine; `discharge` is told of what is unloaded.

    Raises `ManifestError` if the repository cannot be served, `SettingsError` if the settings do not fit it.
    """
    frontend = Frontend(settings, tracing, memory, ailments, discharge)
    room = GatheringRoom(frontend)

    async def models(_: Request, grant: Grant | None) -> Response:
        ids = frontend.model_ids(grant)
        return json_answer(list_models(frontend.engine, frontend.runtime_instance, frontend.built, ids))

    async def model_detail(request: Request, grant: Grant | None) -> Response:
        model_id = request.path_params["model"]
        model = frontend.model(model_id, grant)
        return json_answer(one_model(frontend.engine, frontend.runtime_instance, model_id, model))

    @cache  # making it takes longer than a short text, and nothing else is answered meanwhile
    def described() -> dict[str, Any]:
        return document(settings)

    async def openapi(_: Request) -> Response:
        return json_answer(described())

    async def docs(_: Request) -> Response:
        return Response(page(described()), media_type="text/html")

    def post(path: str, route: str, handler: Handler, envelope: Envelope = Envelope.SIE) -> Route:
        return Route(path, guarded(frontend, route, handler, envelope), methods=["POST"])

    routes: list[BaseRoute] = [  # starlette tries them one after the other
        post("/v1/encode/{model:id}", "encode", encode),
        post("/v1/score/{model:id}", "score", score),
        post("/v1/embeddings", "embeddings", embeddings, Envelope.OPENAI),
        post("/v1/rerank", "rerank", rerank, Envelope.OPENAI),
        post("/v2/rerank", "rerank", rerank_v2, Envelope.COHERE),
        Route("/v1/models", keyed(frontend, "models", models)),
        Route("/v1/models/{model:id}", keyed(frontend, "models", model_detail)),
        *health_routes(frontend),
        *([metrics_route(frontend, open_to_all=False)] if settings.admin_port is None else []),
        *(operating_routes(frontend, room, open_to_all=False) if settings.admin_port is None else []),
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        *status_routes(frontend, room, open_to_all=False),
    ]
    frontend.served = _sentence_of(routes)
    for route in TASKS_NOT_SERVED:
        routes.append(post(f"/v1/{route}/{{model:id}}", route, not_served))

    async def framework_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return unknown_route(frontend, request, error)

    app = Starlette(
        routes=routes,
        middleware=[*_cors(settings), Middleware(DrainMiddleware, frontend.drain)],
        lifespan=frontend.lifespan,
        exception_handlers={HTTPException: framework_error},
    )
    app.state.frontend = frontend
    return app


def _cors(settings: Settings) -> list[Middleware]:
    """What tells browsers whose pages may ask. A key travels in a header that pages set: no cookie counts."""
    if not settings.allowed_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("authorization", "content-type", "x-sie-sdk-version", *REQUEST_HEADERS),
            expose_headers=(*RESPONSE_HEADERS, "retry-after", "www-authenticate"),
        )
    ]


def _sentence_of(routes: Iterable[BaseRoute]) -> str:
    """What this server serves, in a sentence."""
    found = (route for route in routes if isinstance(route, Route))
    named = [f"{'POST' if 'POST' in (route.methods or ()) else 'GET'} {route.path_format}" for route in found]
    return f"This server serves {', '.join(named[:-1])} and {named[-1]}."

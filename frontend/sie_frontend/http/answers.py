"""Handlers as ASGI answers: every failure in the contract's envelope, every request told of."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Final, TypeAlias

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from sie_frontend.access.keyring import Denial, Grant
from sie_frontend.contract import errors
from sie_frontend.contract.errors import WireError
from sie_frontend.contract.near_routes import near_route
from sie_frontend.http.deadlines import within
from sie_frontend.http.frontend import Frontend
from sie_frontend.http.gate import NO_GATE, tell_of
from sie_frontend.watch.observation import UNKNOWN_ROUTE, Exchange

log = logging.getLogger("sie_frontend")

Handler: TypeAlias = Callable[[Frontend, Request, Exchange], Awaitable[Response]]


class Envelope(Enum):
    """In whose shape a route's errors are."""

    SIE = "sie"
    OPENAI = "openai"
    COHERE = "cohere"


# What a route does, where something unforeseen happens while it does it.
_ACTIVITIES: Final = {"score": "scoring", "rerank": "reranking"}


def guarded(
    frontend: Frontend, route: str, handler: Handler, envelope: Envelope
) -> Callable[[Request], Awaitable[Response]]:
    """Answer every failure in the contract's envelope and tell of every request."""

    async def answer(request: Request) -> Response:
        with frontend.observer.exchange(route, request.path_params.get("model", ""), request.headers) as exchange:
            try:
                with (
                    frontend.gate.let_in(request, exchange) if frontend.gate else NO_GATE,
                    within(frontend.settings.request_timeout_s, errors.request_too_slow),
                ):
                    response = await handler(frontend, request, exchange)
            except WireError as error:
                if isinstance(error, Denial):
                    tell_of(error, request, route, exchange.model_id)
                response = refusal(frontend, error, envelope)
            except ClientDisconnect:
                response = Response(status_code=499)
            except Exception:
                log.exception("unexpected failure in %s of %r", route, exchange.model_id)
                failed = errors.inference_error(_ACTIVITIES.get(route, "encoding"))
                response = refusal(frontend, failed, envelope)
            exchange.status = response.status_code
            response.headers.update(exchange.headers)
        return response

    return answer


def keyed(
    frontend: Frontend, verb: str, answer: Callable[[Request, Grant | None], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """Ask for a key where keys are asked for, and answer every refusal in the contract's envelope."""

    async def answered(request: Request) -> Response:
        model_id = request.path_params.get("model", "")
        try:
            with frontend.gate.enter(request, verb, model_id) if frontend.gate else NO_GATE as grant:
                return await answer(request, grant)
        except WireError as error:
            if isinstance(error, Denial):
                tell_of(error, request, verb, model_id)
            return refusal(frontend, error)

    return answered


def refusal(frontend: Frontend, error: WireError, envelope: Envelope = Envelope.SIE) -> Response:
    """A refused request's answer, counted."""
    frontend.metrics.errors.labels(error.kind.value).inc()
    frontend.last_errors.note(error)
    if error.row.log_level >= logging.WARNING:
        log.log(error.row.log_level, "%s: %s", error.code, error.message)
    headers = error.headers()
    if envelope is not Envelope.SIE:
        body = error.openai_body() if envelope is Envelope.OPENAI else error.cohere_body()
        return Response(body, status_code=error.status, headers=headers)
    headers["x-sie-runtime-instance"] = frontend.runtime_instance
    return Response(error.body(), status_code=error.status, headers=headers)


def unknown_route(frontend: Frontend, request: Request, error: HTTPException) -> Response:
    """The answer to a path or a method that is not served; it is counted, under a label that nobody can make up."""
    with frontend.observer.exchange(UNKNOWN_ROUTE, "", request.headers) as exchange:
        near = None if error.status_code == 405 else near_route(request.url.path)
        if error.status_code == 405:
            refused = errors.method_not_allowed()
        else:
            said = " ".join(filter(None, (near, frontend.served)))
            refused = errors.route_not_found(request.method, request.url.path, said)
        frontend.metrics.errors.labels(refused.kind.value).inc()
        frontend.last_errors.note(refused)
        headers = refused.headers()
        if allowed := (error.headers or {}).get("Allow"):
            headers["allow"] = ", ".join(sorted(allowed.split(", ")))
        exchange.status = refused.status
        body = refused.anybodys_body(near) if near else refused.body()
        return Response(body, refused.status, {**headers, **exchange.headers})


def json_answer(content: Any) -> Response:
    """`content` as JSON."""
    return Response(orjson.dumps(content), media_type="application/json")

"""OpenTelemetry: one trace a request, from the caller's `traceparent` through every stage to Triton.

Tracing is on where the extra `otel` is installed and an OTLP endpoint is named in OpenTelemetry's own variables
(`OTEL_EXPORTER_OTLP_ENDPOINT`); everything else about it, such as sampling, is theirs as well. Otherwise nothing of
OpenTelemetry is imported, and each call below is a method that returns at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from sie_frontend import __version__
from sie_frontend.contract.responses import Timing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger("sie_frontend")

SERVICE_NAME: Final = "sie-triton-frontend"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class RequestTrace(Protocol):
    """The trace of one request, while it is answered."""

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits; null where nothing is traced."""

    def finish(self, status: int, model: str, *, body_s: float, timing: Timing | None) -> None:
        """Say how it ended, and where its time went, counted from the request's beginning."""


class Tracing(Protocol):
    """What the routes and the replicas tell."""

    def request(
        self, route: str, headers: Mapping[str, str], request_id: str
    ) -> contextlib.AbstractContextManager[RequestTrace]:
        """The span of one request; its parent is the caller's, if `headers` name one."""

    def run(self, model: str, replica: str, *, rows: int) -> contextlib.AbstractContextManager[Mapping[str, str]]:
        """The span of one run in Triton, and the headers that make Triton's own spans its children."""

    def close(self) -> None:
        """Send what waits to be sent."""


class NoTracing:
    """Tracing that is off. It stands for its own contexts, so that nothing is made for a request."""

    trace_id: Final[str | None] = None
    _headers: Mapping[str, str] = {}

    def request(self, route: str, headers: Mapping[str, str], request_id: str) -> contextlib.nullcontext[RequestTrace]:
        """Nothing."""
        return _NO_REQUEST

    def run(self, model: str, replica: str, *, rows: int) -> contextlib.nullcontext[Mapping[str, str]]:
        """Nothing."""
        return _NO_RUN

    def finish(self, status: int, model: str, *, body_s: float, timing: Timing | None) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


_OFF: Final = NoTracing()
_NO_REQUEST: Final[contextlib.nullcontext[RequestTrace]] = contextlib.nullcontext(_OFF)
_NO_RUN: Final[contextlib.nullcontext[Mapping[str, str]]] = contextlib.nullcontext({})


class OpenTelemetry:
    """Spans through a provider of the SDK, which is this process's own: no global is set."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._api = trace
        self._provider = provider
        self._tracer = provider.get_tracer("sie_frontend", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextlib.contextmanager
    def request(self, route: str, headers: Mapping[str, str], request_id: str) -> Iterator[RequestTrace]:
        """A server span, current for everything that is done for the request."""
        parent = self._propagator.extract(headers)
        attributes = {"http.request.method": "POST", "http.route": f"/v1/{route}", "sie.request_id": request_id}
        with self._tracer.start_as_current_span(
            f"POST /v1/{route}", parent, kind=self._api.SpanKind.SERVER, attributes=attributes
        ) as span:
            yield _OpenTelemetryRequest(self, span)

    @contextlib.contextmanager
    def run(self, model: str, replica: str, *, rows: int) -> Iterator[Mapping[str, str]]:
        """A client span below that of the request whose rows made the run necessary.

        Other requests may have rows in it too: `sie.rows` counts those of all.
        """
        host, _, port = replica.partition("/")[0].rpartition(":")
        attributes: dict[str, str | int] = {
            "server.address": host,
            "server.port": int(port),
            "sie.triton_model": model,
            "sie.rows": rows,
        }
        with self._tracer.start_as_current_span(f"run {model}", kind=self._api.SpanKind.CLIENT, attributes=attributes):
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier)
            yield carrier

    def close(self) -> None:
        """Send what waits to be sent."""
        self._provider.shutdown()

    def stage(self, name: str, begun_ns: int, milliseconds: float) -> int:
        """A span that is over, below the current one; returns the nanosecond of its end."""
        end = begun_ns + int(milliseconds * 1e6)
        self._tracer.start_span(name, start_time=begun_ns).end(end)
        return end


class _OpenTelemetryRequest:
    def __init__(self, tracing: OpenTelemetry, span: object) -> None:
        from opentelemetry.trace import Span

        assert isinstance(span, Span)
        self._tracing = tracing
        self._span = span
        self._begun_ns = time.time_ns()

    @property
    def trace_id(self) -> str | None:
        context = self._span.get_span_context()
        return f"{context.trace_id:032x}" if context.trace_flags.sampled else None

    def finish(self, status: int, model: str, *, body_s: float, timing: Timing | None) -> None:
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attribute("sie.model", model)
        if status >= 500:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR)
        if timing is None or not self._span.is_recording():
            return
        # The stages follow one another, so that their lengths say when each began.
        moment = self._tracing.stage("body", self._begun_ns, body_s * 1e3)
        for name, milliseconds in stages_ms(timing).items():
            moment = self._tracing.stage(name, moment, milliseconds)


def stages_ms(timing: Timing) -> dict[str, float]:
    """Milliseconds of each stage behind the body, in their order; together they are `total_ms`."""
    known = timing.tokenization_ms + timing.queue_ms + timing.inference_ms
    return {
        "tokenization": timing.tokenization_ms,
        "queue": timing.queue_ms,
        "inference": timing.inference_ms,
        "postprocessing": max(0.0, timing.total_ms - known),
    }


def make_tracing(environment: Mapping[str, str] = os.environ) -> Tracing:
    """Tracing as the environment wants it; off, with a warning, if the extra is what is missing."""
    endpoint = next((environment[name] for name in _ENDPOINTS if environment.get(name)), None)
    if endpoint is None or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return _OFF
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning(
            "no traces are sent to %s: %s; install the extra: `pip install 'sie-triton-frontend[otel]'`",
            endpoint,
            error,
        )
        return _OFF
    named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": SERVICE_NAME}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    log.info("traces are sent to %s", endpoint)
    return OpenTelemetry(provider)

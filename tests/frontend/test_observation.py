"""What is told of a request besides its answer: its id, a line in the log, its stages, and traces."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from aiohttp import web
from compiler import tiny
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from sie_frontend.http.app import create_app
from sie_frontend.settings import Settings
from sie_frontend.watch import logs
from sie_frontend.watch.logs import sane_request_id
from sie_frontend.watch.tracing import NoTracing, OpenTelemetry, make_tracing

from frontend.conftest import Service, until_ready
from frontend.fake_triton import FakeTriton, Run, failure, tensors
from frontend.process import FrontendProcess
from frontend.wire import ENCODE, JSON, answer, dense, encode, refusal, texts

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
STAGES = ["body", "tokenization", "queue", "inference", "postprocessing"]


@pytest.fixture(params=["text", "json"])
def log_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """`configure` replaces the process's handlers, pytest's among them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level


def lines(stream: io.StringIO, logger: str = "sie_frontend.access") -> list[dict[str, Any]]:
    """The JSON lines of one logger."""
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in found if line["logger"] == logger]


# Request ids


@pytest.mark.parametrize("given", ["a", "0" * 128, "3f2b-~!{}", "019ac0de:7/1"])
@pytest.mark.asyncio
async def test_a_callers_id_is_taken_over_and_echoed(given: str, service: Service, stream: io.StringIO) -> None:
    logs.configure("json", stream=stream)
    async with service.having(access_log=True).open() as client:
        for path, body in ((ENCODE, texts("the cell")), ("/v1/encode/no/such", texts("t")), (ENCODE, {"items": []})):
            response = await encode(client, body, path, x_request_id=given)
            assert response.headers["x-sie-request-id"] == given
    assert [line["request_id"] for line in lines(stream)] == [given] * 3


@pytest.mark.parametrize("given", [None, "", "a b", "0" * 129, "\x7f", "é"])
@pytest.mark.asyncio
async def test_an_id_of_ours_stays_in_the_log(given: str | None, service: Service, stream: io.StringIO) -> None:
    """Clients of SIE would show the header to callers, who did not ask for it."""
    assert sane_request_id(given) is None
    logs.configure("json", stream=stream)
    async with service.having(access_log=True).open() as client:
        headers = [(name.encode(), value.encode()) for name, value in JSON.items()]
        headers += [] if given is None else [(b"x-request-id", given.encode())]
        for _ in range(2):
            response = await client.post(ENCODE, content=b'{"items": [{"text": "t"}]}', headers=headers)
            assert "x-sie-request-id" not in response.headers
            assert "x-trace-id" not in response.headers
    first, second = (line["request_id"] for line in lines(stream))
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert first != second


@pytest.mark.asyncio
async def test_lines_of_requests_side_by_side_bear_their_own_ids(
    service: Service, triton: FakeTriton, stream: io.StringIO
) -> None:
    """Their rows share runs, and a run fails for all that have a row in it."""
    logs.configure("json", stream=stream)
    async with service.open() as client:
        triton.answer = failure(400, "unexpected shape")
        names = [f"request-{number}" for number in range(20)]
        await asyncio.gather(*(encode(client, texts(f"cell {name}"), x_request_id=name) for name in names))
    failed = [line for line in lines(stream, "sie_frontend") if line["message"].startswith("Triton failed")]
    assert sorted(line["request_id"] for line in failed) == sorted(names)


# The access log


@pytest.mark.asyncio
async def test_one_line_a_request(service: Service, log_format: str, stream: io.StringIO) -> None:
    logs.configure(log_format, stream=stream)
    async with service.having(access_log=True).open() as client:
        usage = answer(await encode(client, texts("the cell", "search"), x_request_id="r-1"))["usage"]
        await encode(client, texts("t"), "/v1/encode/nobody/knows", x_request_id="r-2")
        body = {"model": tiny.MODEL_ID, "input": "the cell"}
        await client.post("/v1/embeddings", json=body, headers={"x-request-id": "r-3"})
        await client.get("/readyz")
    assert usage["input_tokens"] == 7
    if log_format == "json":
        good, unknown, openai = lines(stream)
        assert list(good)[:5] == ["time", "level", "logger", "message", "request_id"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", good["time"])
        expected = {"route": "encode", "model": tiny.MODEL_ID, "status": 200, "items": 2, "tokens": 7}
        assert {key: good[key] for key in expected} == expected
        parts = [good[f"{stage}_ms"] for stage in STAGES]
        assert all(part >= 0 for part in parts)
        assert sum(parts) <= good["ms"] + 0.1
        assert (unknown["model"], unknown["status"], unknown["items"]) == ("nobody/knows", 404, 0)
        assert "inference_ms" not in unknown
        assert (openai["route"], openai["model"], openai["tokens"]) == ("embeddings", tiny.MODEL_ID, 4)
    else:
        first, second, _ = [line for line in stream.getvalue().splitlines() if "sie_frontend.access" in line]
        assert f"INFO sie_frontend.access: request route=encode model={tiny.MODEL_ID} status=200 items=2" in first
        assert first.endswith(" [r-1]")
        assert "status=404" in second


@pytest.mark.asyncio
async def test_without_the_access_log_there_is_none(service: Service, stream: io.StringIO) -> None:
    logs.configure("json", stream=stream)
    async with service.open() as client:
        await encode(client, texts("the cell"))
    assert lines(stream) == []


@pytest.mark.asyncio
async def test_nobody_writes_lines_of_their_own(service: Service, log_format: str, stream: io.StringIO) -> None:
    logs.configure(log_format, stream=stream)
    forged = "x\n2026-01-01 00:00:00,000 ERROR sie_frontend: forged\r\u2028\x1b[31m"
    async with service.having(access_log=True).open() as client:
        before = len(stream.getvalue().splitlines())
        response = await encode(client, texts("t"), f"/v1/encode/{quote(forged)}")
        assert response.status_code == 404
        written = stream.getvalue().split("\n")[before:]
    # A path with a line break is no route: the line of the access log, and the client's own.
    assert len([line for line in written if line]) == 2
    assert "\x1b" not in stream.getvalue()


def test_exceptions_are_one_json_line_and_a_readable_text(log_format: str, stream: io.StringIO) -> None:
    logs.configure(log_format, stream=stream)
    try:
        raise ValueError("because \ud800")
    except ValueError:
        logging.getLogger("sie_frontend").exception("it failed for %r", {1: 2})
    written = stream.getvalue()
    assert "Traceback" in written
    if log_format == "json":
        [line] = written.splitlines()
        assert json.loads(line)["message"] == "it failed for {1: 2}"
        assert "ValueError" in json.loads(line)["exception"]


def test_the_program_logs_as_it_is_told(repository: Path, triton: FakeTriton, tmp_path: Path) -> None:
    environment = {"SIE_TRITON_LOG_FORMAT": "json", "SIE_TRITON_ACCESS_LOG": "1"}
    arguments = ("--repository", repository, "--triton-url", triton.url)
    with FrontendProcess(tmp_path / "log", *arguments, **environment) as frontend:
        frontend.wait_ready()
        httpx.post(f"{frontend.url}{ENCODE}", json=texts("the cell"), headers={"x-request-id": "mine"})
        frontend.terminate()
        assert frontend.wait() == 0
        written = [json.loads(line) for line in frontend.log.splitlines()]
    [line] = [line for line in written if line["logger"] == "sie_frontend.access"]
    assert (line["request_id"], line["status"]) == ("mine", 200)


# Metrics


@pytest.mark.asyncio
async def test_stages_are_measured_for_what_was_answered(service: Service) -> None:
    async with service.open() as client:
        for _ in range(3):
            assert dense(await encode(client, texts("the cell")))
        assert refusal(await encode(client, {"items": []}))[0] == 400
        exposition = (await client.get("/metrics")).text
    for stage in STAGES:
        assert f'sie_frontend_stage_seconds_count{{model="{tiny.MODEL_ID}",stage="{stage}"}} 3.0' in exposition
    assert "sie_frontend_inflight_requests 0.0" in exposition


# Traces


@dataclass
class Traced:
    """An application whose spans are kept in memory."""

    client: httpx.AsyncClient
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)

    def spans(self) -> dict[str, ReadableSpan]:
        """The spans that have ended, by name."""
        return {span.name: span for span in self.exporter.get_finished_spans()}


@contextlib.asynccontextmanager
async def traced(settings: Settings, **provider: Any) -> AsyncIterator[Traced]:
    made = TracerProvider(**provider)
    exporter = InMemorySpanExporter()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    app = create_app(settings, OpenTelemetry(made))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://frontend") as client,
    ):
        await until_ready(client)
        yield Traced(client, exporter)


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent and span.parent.span_id


@pytest.mark.asyncio
async def test_a_request_is_one_trace_from_the_caller_to_triton(service: Service, triton: FakeTriton) -> None:
    async with traced(service.settings) as made:
        response = await encode(made.client, texts("the cell"), traceparent=TRACEPARENT, x_request_id="mine")
        assert response.headers["x-trace-id"] == TRACE_ID
        spans = made.spans()
    request, run = spans["POST /v1/encode"], spans[f"run {tiny.TRITON_NAME}"]
    assert set(spans) == {"POST /v1/encode", f"run {tiny.TRITON_NAME}", *STAGES}
    assert {f"{span.context.trace_id:032x}" for span in spans.values() if span.context} == {TRACE_ID}
    assert parent_of(request) == int(PARENT_ID, 16)
    assert request.context
    for name, span in spans.items():
        assert name == "POST /v1/encode" or parent_of(span) == request.context.span_id
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/encode",
        "http.response.status_code": 200,
        "sie.request_id": "mine",
        "sie.model": tiny.MODEL_ID,
    }
    assert run.attributes
    assert (run.attributes["server.port"], run.attributes["sie.rows"]) == (triton.port, 1)
    # The stages follow one another within the request.
    for earlier, later in itertools.pairwise(STAGES):
        assert spans[earlier].end_time == spans[later].start_time
    assert request.start_time
    assert spans["body"].start_time
    assert request.start_time <= spans["body"].start_time
    # Triton's own spans become children of the run.
    [sent] = triton.runs
    assert run.context
    assert sent.headers["traceparent"] == f"00-{TRACE_ID}-{run.context.span_id:016x}-01"


@pytest.mark.asyncio
async def test_runs_belong_to_the_request_that_made_them(service: Service, triton: FakeTriton) -> None:
    """Runs are started when others end, in whoever's task that is."""

    async def slowly(run: Run) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return tensors(run)

    triton.answer = slowly
    wide = ["cell " * 40 + str(number) for number in range(60)]
    async with traced(service.settings) as made:
        ids = [f"{number:032x}" for number in (1, 2, 3)]
        await asyncio.gather(
            *(encode(made.client, texts(*wide), traceparent=f"00-{i}-{PARENT_ID}-01") for i in ids),
        )
        finished = made.exporter.get_finished_spans()
    runs = [span for span in finished if span.name.startswith("run ")]
    requests = {span.context.span_id: span for span in finished if span.name == "POST /v1/encode" and span.context}
    assert len(runs) == len(triton.runs) > 6
    per_trace = [sum(f"{run.context.trace_id:032x}" == i for run in runs if run.context) for i in ids]
    assert all(per_trace), per_trace
    for run in runs:
        parent = requests[parent_of(run) or 0]
        assert parent.context
        assert run.context
        assert parent.context.trace_id == run.context.trace_id


@pytest.mark.asyncio
async def test_a_failure_is_an_error_of_its_spans(service: Service, triton: FakeTriton) -> None:
    async with traced(service.settings) as made:
        triton.answer = failure(400, "unexpected shape")
        assert refusal(await encode(made.client, texts("the cell")))[0] == 500
        assert refusal(await encode(made.client, {"items": []}))[0] == 400
        finished = made.exporter.get_finished_spans()
    statuses = [
        ((span.attributes or {})["http.response.status_code"], span.status.is_ok)
        for span in finished
        if span.name == "POST /v1/encode"
    ]
    assert statuses == [(500, False), (400, True)]
    [run] = [span for span in finished if span.name.startswith("run ")]
    assert not run.status.is_ok
    assert [event.name for event in run.events] == ["exception"]


@pytest.mark.asyncio
async def test_what_is_not_sampled_is_not_named(service: Service, triton: FakeTriton) -> None:
    async with traced(service.settings, sampler=ALWAYS_OFF) as made:
        response = await encode(made.client, texts("the cell"))
        assert dense(response)
        assert "x-trace-id" not in response.headers
        assert made.spans() == {}
    flags = int(triton.runs[0].headers["traceparent"].rpartition("-")[2], 16)
    assert flags & 1 == 0


@pytest.mark.asyncio
async def test_a_broken_traceparent_begins_a_new_trace(service: Service) -> None:
    async with traced(service.settings) as made:
        response = await encode(made.client, texts("the cell"), traceparent="00-zz-zz-01")
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-trace-id"])


@pytest.mark.asyncio
async def test_without_tracing_triton_gets_no_header(service: Service, triton: FakeTriton) -> None:
    async with service.open() as client:
        assert dense(await encode(client, texts("the cell"), traceparent=TRACEPARENT))
    assert "traceparent" not in triton.runs[0].headers


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_tracing_is_off_unless_there_is_somebody_to_tell(environment: dict[str, str]) -> None:
    assert isinstance(make_tracing(environment), NoTracing)


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:4318"])
def test_without_the_extra_it_is_off_and_says_so(endpoint: str | None) -> None:
    """In a process of its own. Without an endpoint nothing of OpenTelemetry is even looked for."""
    program = (
        "import sys, logging; sys.modules['opentelemetry'] = None; logging.basicConfig()\n"
        "import sie_frontend.main\n"
        "from sie_frontend.watch.tracing import NoTracing, make_tracing\n"
        f"assert isinstance(make_tracing({ {'OTEL_EXPORTER_OTLP_ENDPOINT': endpoint} if endpoint else {} }), NoTracing)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert ("pip install 'sie-triton-frontend[otel]'" in done.stderr) == (endpoint is not None)


def test_spans_reach_a_collector(repository: Path, triton: FakeTriton, tmp_path: Path) -> None:
    """OTLP over HTTP, to a receiver on loopback that is OpenTelemetry's own message type."""
    received: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    try:
        arguments = ("--repository", repository, "--triton-url", triton.url)
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        with FrontendProcess(tmp_path / "log", *arguments, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as frontend:
            frontend.wait_ready()
            headers = {"traceparent": TRACEPARENT}
            response = httpx.post(f"{frontend.url}{ENCODE}", json=texts("the cell"), headers=headers)
            assert response.headers["x-trace-id"] == TRACE_ID
            # What waits to be sent is sent before the process ends.
            frontend.terminate()
            assert frontend.wait() == 0
    finally:
        collector.shutdown()
        collector.server_close()
    resources = [resource for message in received for resource in message.resource_spans]
    names = {a.key: a.value.string_value for resource in resources for a in resource.resource.attributes}
    assert names["service.name"] == "sie-triton-frontend"
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert {span.name for span in spans} == {"POST /v1/encode", f"run {tiny.TRITON_NAME}", *STAGES}
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}

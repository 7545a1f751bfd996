"""A process that is told to go: what it answers until it is gone, and that no request is lost."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgpack
import pytest
from aiohttp import web
from sie_frontend.http.app import create_app
from sie_frontend.settings import Settings

from frontend.conftest import until_ready
from frontend.fake_triton import FakeTriton, Run, compute, tensors
from frontend.process import FrontendProcess, until
from frontend.wire import ENCODE, MSGPACK, dense, encode, texts

SHUTTING_DOWN = {
    "error": "Service shutting down",
    "detail": "Server is draining requests before shutdown. Retry on another instance.",
}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as made:
        yield made


class Held:
    """Triton's answers wait until `release`."""

    def __init__(self) -> None:
        self._gate = threading.Event()

    async def __call__(self, run: Run) -> web.StreamResponse:
        while not self._gate.is_set():
            await asyncio.sleep(0.01)
        return tensors(run)

    def release(self) -> None:
        self._gate.set()


def post(client: httpx.Client, frontend: FrontendProcess, text: str = "the cell") -> httpx.Response:
    return client.post(f"{frontend.url}{ENCODE}", content=msgpack.packb(texts(text)), headers=MSGPACK)


def test_while_load_balancers_take_notice_everything_is_answered(
    repository: Path, triton: FakeTriton, log: Path, client: httpx.Client
) -> None:
    arguments = ("--repository", repository, "--triton-url", triton.url, "--drain-delay-s", "600")
    with FrontendProcess(log, *arguments) as frontend:
        frontend.wait_ready()
        kept = http.client.HTTPConnection("127.0.0.1", frontend.port, timeout=10)
        kept.request("GET", "/livez")
        first = kept.getresponse()
        assert (first.read(), first.getheader("connection")) == (b"ok", None)
        kept.auto_open = 0
        frontend.terminate()
        until(lambda: frontend.status("/readyz") == 503)
        # The kept connection still works, once.
        kept.request("GET", "/livez")
        last = kept.getresponse()
        assert (last.read(), last.getheader("connection")) == (b"ok", "close")
        with pytest.raises(http.client.NotConnected):
            kept.request("GET", "/livez")
        # New ones do as well, as long as it takes.
        for _ in range(3):
            response = post(client, frontend)
            assert dense(response)
            assert response.headers["connection"] == "close"
        assert frontend.process.poll() is None
        # A second signal ends the wait.
        frontend.terminate()
        assert frontend.wait() == 0


def test_what_is_in_flight_is_finished_after_the_listener_closed(
    repository: Path, triton: FakeTriton, log: Path, client: httpx.Client
) -> None:
    held = Held()
    arguments = ("--repository", repository, "--triton-url", triton.url)
    with FrontendProcess(log, *arguments) as frontend, socket.socket() as idle:
        frontend.wait_ready()
        idle.connect(("127.0.0.1", frontend.port))
        idle.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        received = b""
        while not received.endswith(b"\r\n\r\nok"):
            received += idle.recv(1000)
        assert received.startswith(b"HTTP/1.1 200")
        triton.answer = held
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(post(client, frontend)))
        asking.start()
        until(lambda: triton.runs)
        frontend.terminate()
        until(lambda: frontend.status("/livez") == 0)
        # A connection without a request on it is closed, which every client takes for "try again".
        idle.settimeout(10)
        assert idle.recv(1000) == b""
        assert frontend.process.poll() is None
        held.release()
        asking.join(20)
        assert dense(answers[0])
        assert answers[0].headers["connection"] == "close"
        assert frontend.wait() == 0


def test_the_grace_ends(repository: Path, triton: FakeTriton, log: Path, client: httpx.Client) -> None:
    held = Held()
    arguments = ("--repository", repository, "--triton-url", triton.url, "--shutdown-grace-s", "1")
    try:
        with FrontendProcess(log, *arguments) as frontend:
            frontend.wait_ready()
            triton.answer = held
            asking = threading.Thread(target=lambda: _ignore(client, frontend))
            asking.start()
            until(lambda: triton.runs)
            frontend.terminate()
            # The run itself is still with Triton: only the request is given up.
            until(lambda: not asking.is_alive())
    finally:
        held.release()


def _ignore(client: httpx.Client, frontend: FrontendProcess) -> None:
    with contextlib.suppress(httpx.TransportError):
        post(client, frontend)


def test_a_process_that_is_not_ready_yet_goes_as_well(repository: Path, log: Path) -> None:
    with FrontendProcess(log, "--repository", repository, "--triton-url", "127.0.0.1:9") as frontend:
        frontend.terminate()
        assert frontend.wait() == 0
        assert "Traceback" not in frontend.log


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--repository", "nowhere"), "error: no `manifest.json` in `nowhere`; build one with `sie-triton build`"),
        (("--triton-url", "x"), "error: `SIE_TRITON_TRITON_URL` must be `host:port`"),
        (("--drain-delay-s", "soon"), "`--drain-delay-s` must be a number of seconds, not 'soon'"),
    ],
)
def test_a_start_that_cannot_be_is_an_error_and_no_traceback(
    arguments: tuple[str, ...], expected: str, log: Path
) -> None:
    with pytest.raises(AssertionError) as caught:
        FrontendProcess(log, *arguments)
    assert expected in str(caught.value)
    assert "Traceback" not in log.read_text()


def test_models_that_must_answer_are_models_of_the_repository(repository: Path, log: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        FrontendProcess(log, "--repository", repository, "--ready-models", "acme/tiny,acme/other")
    assert "error: `SIE_TRITON_READY_MODELS` names 'acme/other'" in str(caught.value)


@pytest.mark.asyncio
async def test_a_request_that_comes_too_late_gets_the_contracts_answer(repository: Path, triton: FakeTriton) -> None:
    app = create_app(Settings(repository, triton_url=triton.url))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://frontend") as client,
    ):
        await until_ready(client)
        held = Held()
        triton.answer = held
        early = asyncio.create_task(encode(client, texts("the cell")))
        while not triton.runs:
            await asyncio.sleep(0.01)
        app.state.frontend.drain.close()
        for method, path in (("POST", ENCODE), ("POST", "/v1/embeddings"), ("GET", "/v1/models")):
            response = await client.request(method, path, content=b"")
            assert (response.status_code, response.json()) == (503, SHUTTING_DOWN)
            assert response.headers["retry-after"] == "5"
            assert response.headers["connection"] == "close"
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        assert "sie_frontend_ready 0.0" in (await client.get("/metrics")).text
        held.release()
        # It came in time, and says that the next one will not.
        answered = await early
        assert dense(answered)
        assert answered.headers["connection"] == "close"
        triton.answer = compute

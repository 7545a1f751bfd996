"""Whatever goes wrong in a stream, its caller hears of it and the next one is served: on the real tritonserver."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from sie_frontend.triton.client import FailureKind, TritonClient, TritonFailure

from benchmarks.waiting import eventually
from embedded.client import infer, results, stub_of
from embedded.graphs import FLOAT, INT64, add_model, graph, onnx_config
from sie_triton.embedded.server import ServerSpec, TritonServer

pytestmark = pytest.mark.e2e
MODEL = Path(__file__).parent / "faulty_model.py"
READING, COMPUTING, WRITING, LEAVING, SLEEPING = range(-1, -6, -1)
X = '{ name: "x" data_type: TYPE_INT64 dims: [ -1 ] }'
YZ = ", ".join(X.replace('"x"', f'"{name}"') for name in "yz")
STREAMS = "".join(
    f'parameters {{ key: "{key}" value {{ string_value: "2" }} }}' for key in ("streams", "alone_threads")
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("faults")
    repository = folder / "repository"
    config = onnx_config(X, YZ, "dynamic_batching { }" + STREAMS)
    for name in ("faulty", "unbegun"):
        add_model(repository, name, config.replace('"onnxruntime"', '"python"'))
        (repository / name / "1" / "model.py").write_bytes(MODEL.read_bytes())
    (repository / "unbegun" / "unbegun").touch()
    # As many zeros as x says, of a model without batches.
    many = graph([("ConstantOfShape", ["x"], ["y"])], [("x", INT64, (1,))], [("y", FLOAT, ("n",))])
    one, numbers = X.replace("-1", "1"), '{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }'
    add_model(repository, "many", onnx_config(one, numbers, STREAMS, rows=0), many)
    running = TritonServer(ServerSpec(repository, folder / "triton.log", exit_on_error=False))
    running.start()
    try:
        assert eventually(running.is_ready, 60)
        yield running
    finally:
        running.stop(5)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def ask(server: TritonServer, *x: int) -> httpx.Response:
    return infer(server.url, "faulty", {"x": ("INT64", [1, len(x)], list(x))})


def serves(server: TritonServer) -> bool:
    """Whether as many requests at once as there are streams, and more, are answered rightly."""
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda x: results(ask(server, x)), range(1, 7)))
    return [(one["y"][1], one["z"][1]) for one in answers] == [([2 * x], [3 * x]) for x in range(1, 7)]


async def call(server: TritonServer, model: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """As the frontend asks."""
    client = TritonClient(server.url, timeout_s=20)
    try:
        return await client.infer(model, {"x": x}, ["y"])
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (READING, "the input cannot be read"),
        (COMPUTING, "Unable to allocate"),
        (WRITING, "the output cannot be written"),
        (LEAVING, "it wants to end"),
    ],
)
def test_whatever_fails_in_a_stream_is_told_its_caller_and_hurts_nobody_else(
    server: TritonServer, x: int, words: str
) -> None:
    pid = stub_of(server.pid or 0, "faulty")
    for _ in range(3):  # more often than there are streams
        answer = ask(server, x)
        assert answer.status_code == 500 and words in answer.json()["error"]
    assert serves(server)
    assert stub_of(server.pid or 0, "faulty") == pid


def test_memory_that_is_missing_in_a_run_is_told_as_such(server: TritonServer) -> None:
    with pytest.raises(TritonFailure) as caught:
        asyncio.run(call(server, "faulty", np.asarray([[COMPUTING]])))
    assert caught.value.kind is FailureKind.OUT_OF_MEMORY, caught.value


def test_a_model_without_batches_computes_in_streams_too(server: TritonServer) -> None:
    for count in (0, 3, 3):
        assert results(infer(server.url, "many", {"x": ("INT64", [1], [count])}))["y"] == ([count], [0.0] * count)


def test_a_request_of_no_rows_or_of_empty_ones_is_answered(server: TritonServer) -> None:
    assert results(infer(server.url, "faulty", {"x": ("INT64", [2, 0], [])}))["y"] == ([2, 0], [])
    none = infer(server.url, "faulty", {"x": ("INT64", [0, 3], [])})
    assert none.status_code == 400 or results(none)["y"] == ([0, 3], [])
    assert serves(server)


def test_a_stream_that_cannot_begin_lets_its_model_not_load_and_says_why(server: TritonServer) -> None:
    begun = time.monotonic()
    answer = httpx.post(f"{server.url}/v2/repository/models/unbegun/load", timeout=30)
    assert answer.status_code == 400 and "this thread cannot begin" in answer.json()["error"]
    assert time.monotonic() - begun < 10
    assert infer(server.url, "unbegun", {"x": ("INT64", [1, 1], [1])}).status_code in (400, 404)


def test_clients_that_leave_in_the_middle_of_their_runs_hold_nobody_up(
    server: TritonServer, pool: ThreadPoolExecutor
) -> None:
    """Two are computed and the others wait; all of them leave."""
    address = urlsplit(server.url)
    body = b'{"inputs": [{"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [%d]}]}' % SLEEPING
    head = b"POST /v2/models/faulty/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    left = [socket.create_connection((address.hostname or "", address.port or 0)) for _ in range(6)]
    for one in left:
        one.sendall(head + body)
    time.sleep(0.2)
    for one in left:
        one.close()
    begun = time.monotonic()
    assert serves(server)
    assert time.monotonic() - begun < 3


def test_hundreds_that_wait_are_all_answered(server: TritonServer) -> None:
    async def asked() -> list[dict[str, np.ndarray]]:
        client = TritonClient(server.url, timeout_s=30)
        try:
            given = [np.asarray([[x]]) for x in range(1, 401)]
            return await asyncio.gather(*(client.infer("faulty", {"x": x}, ["y", "z"]) for x in given))
        finally:
            await client.close()

    answers = asyncio.run(asked())
    assert [(int(one["y"][0, 0]), int(one["z"][0, 0])) for one in answers] == [(2 * x, 3 * x) for x in range(1, 401)]

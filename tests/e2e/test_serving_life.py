from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from compiler import tiny
from contract.recorded import promised_call
from embedded.started import started
from numpy.typing import NDArray

from benchmarks.waiting import eventually
from e2e.conftest import MINILM, TinyBuild
from e2e.corpus import mixed_texts
from e2e.processes import Serving, alive, descendants
from sie_triton.embedded.ports import free_port
from sie_triton.embedded.server import ServerSpec

pytestmark = pytest.mark.e2e

JSON = {"accept": "application/json"}
RETRYABLE = {"MODEL_LOADING", "QUEUE_FULL"}


def values(response: httpx.Response) -> NDArray[np.float64]:
    assert response.status_code == 200, response.text
    return np.asarray(response.json()["items"][0]["dense"]["values"])


def encode(url: str, text: str, model: str = tiny.MODEL_ID) -> httpx.Response:
    return httpx.post(f"{url}/v1/encode/{model}", json={"items": [{"text": text}]}, headers=JSON, timeout=60)


async def load_while(serving: Serving, strike: Callable[[], None]) -> tuple[Counter[str], list[bool]]:
    """Ask from eight clients, strike in the middle, go on until all is well again.

    Every answer is checked: a right vector, or a refusal that clients retry. Returns the answers by kind, and what
    readiness was seen to be, without repeats.
    """
    url = f"{serving.url}/v1/encode/{MINILM}"
    texts = mixed_texts(32, seed=6, longest=100)
    answers: Counter[str] = Counter()
    readiness = [True]
    over = asyncio.Event()
    async with httpx.AsyncClient(timeout=30, headers=JSON) as client:
        right = {text: values(await client.post(url, json={"items": [{"text": text}]})) for text in texts}

        async def ask(number: int) -> None:
            while not over.is_set():
                text = texts[(number * 7 + answers.total()) % len(texts)]
                response = await client.post(url, json={"items": [{"text": text}]})  # times out after 30 s: no hang
                if response.status_code == 200:
                    np.testing.assert_allclose(values(response), right[text], atol=1e-5)
                    answers["right"] += 1
                else:
                    code = response.json()["detail"]["code"]
                    assert (response.status_code, code in RETRYABLE) == (503, True), response.text
                    assert int(response.headers["retry-after"]) >= 1
                    answers[code] += 1
                    await asyncio.sleep(0.02)

        async def watch() -> None:
            while not over.is_set():
                ready = (await client.get(f"{serving.url}/readyz")).status_code == 200
                if ready != readiness[-1]:
                    readiness.append(ready)
                await asyncio.sleep(0.02)

        async def direct() -> None:
            while answers["right"] < 50:
                await asyncio.sleep(0.01)
            strike()
            for wanted in (False, True):
                while readiness[-1] != wanted:
                    await asyncio.sleep(0.02)
            served = answers["right"]
            while answers["right"] < served + 50:
                await asyncio.sleep(0.02)
            over.set()

        tasks = [asyncio.create_task(work) for work in (direct(), watch(), *(ask(n) for n in range(8)))]
        try:
            await asyncio.wait_for(asyncio.gather(*tasks), 120)
        finally:
            for task in tasks:
                task.cancel()
    return answers, readiness


@pytest.mark.parametrize("victim", ["tritonserver", "stub"])
def test_a_kill_during_load_gives_no_wrong_answer_and_heals(victim: str, serving: Serving) -> None:
    serving.wait_ready()
    triton_model = MINILM.replace("/", "__")
    pid = serving.tritonserver if victim == "tritonserver" else serving.stub(triton_model)
    answers, readiness = asyncio.run(load_while(serving, lambda: os.kill(pid, signal.SIGKILL)))
    # Triton goes on to call a dead stub's model ready; the frontend does not.
    assert readiness == [True, False, True]
    assert answers["right"] >= 100
    assert answers["MODEL_LOADING"] > 0
    assert not alive(pid)
    assert serving.tritonserver
    assert ("starting it again" if victim == "tritonserver" else "it alone is loaded again") in serving.said()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_everything(number: int, code: int, tiny_build: TinyBuild, tmp_path: Path) -> None:
    serving = Serving(tiny_build.repository, tmp_path / "serving")
    serving.wait_ready()
    assert values(encode(serving.url, "the cell")).shape == (32,)
    everything = descendants(serving.process.pid)
    regions = serving.regions()
    assert len(everything) >= 3  # warden, tritonserver, the one process of the model
    assert regions()
    run_the_printed_snippet(serving)
    assert serving.stop(number) == code
    assert [pid for pid in everything if alive(pid)] == []
    assert regions() == []
    # ONNX Runtime keeps a session id of its own in the temporary folder.
    assert {path.name for path in (tmp_path / "serving").iterdir()} - {".ses"} == {"output.txt", "log"}
    said = serving.said()
    assert re.search(rf"ready after \d+\.\d s: {serving.url} serves acme/tiny, acme/tiny:raw", said)
    assert "Traceback" not in said


def test_a_second_interrupt_waits_for_nobody_and_leaves_nothing(tiny_build: TinyBuild, tmp_path: Path) -> None:
    serving = Serving(tiny_build.repository, tmp_path / "serving")
    serving.wait_ready()
    everything, regions = descendants(serving.process.pid), serving.regions()
    # Its connection stays open, which a server that may take its time waits for.
    with socket.create_connection(("127.0.0.1", serving.port)) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\r\n")
        serving.process.send_signal(signal.SIGINT)
        assert eventually(lambda: "stopping" in serving.said(), 60)
        assert serving.process.poll() is None
        assert serving.stop(signal.SIGINT) == 130
    assert eventually(lambda: not any(alive(pid) for pid in everything), 60)
    assert regions() == []
    assert "Traceback" not in serving.said()


def test_a_signal_before_it_is_ready_ends_everything(tiny_build: TinyBuild, tmp_path: Path) -> None:
    serving = Serving(tiny_build.repository, tmp_path / "serving")
    try:
        assert eventually(lambda: len(descendants(serving.process.pid)) >= 2)
        everything, regions = descendants(serving.process.pid), serving.regions()
    finally:
        code = serving.stop(signal.SIGTERM)
    assert code == 0
    assert eventually(lambda: not any(alive(pid) for pid in everything), 60)
    assert regions() == []
    assert "Traceback" not in serving.said()


def run_the_printed_snippet(serving: Serving) -> None:
    """What `serve` invites to paste into another terminal."""
    assert eventually(lambda: "result[" in serving.said(), 60)
    printed = r"^try it in another terminal, in `(.*)`:\n\n(from .*?\.shape\))$"
    [(python, snippet)] = re.findall(printed, serving.said(), re.MULTILINE | re.DOTALL)
    done = subprocess.run([python, "-c", snippet], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("(32,)\n", 0), done.stderr


def test_the_promised_call_runs_verbatim(url: str) -> None:
    """Only the port differs. bge-small is served from a stand-in of its shape."""
    snippet = promised_call()
    assert "http://localhost:8080" in snippet
    program = snippet.replace(":8080", ":" + url.rpartition(":")[2])
    shown = "\nimport numpy\nassert isinstance(vec, numpy.ndarray)\nprint(vec.shape, vec.dtype)"
    done = subprocess.run([sys.executable, "-c", program + shown], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("(384,) float32\n", 0), done.stderr


def test_a_triton_that_already_runs_is_used_and_left_alone(tiny_build: TinyBuild, tmp_path: Path) -> None:
    with started(ServerSpec(tiny_build.repository, tmp_path / "triton.log")) as triton:
        serving = Serving(tiny_build.repository, tmp_path / "serving", "--triton-url", triton.url)
        try:
            serving.wait_ready()
            assert descendants(serving.process.pid) == set()
            assert values(encode(serving.url, "the cell")).shape == (32,)
        finally:
            assert serving.stop() == 0
        assert triton.is_ready()


def test_without_a_triton_the_frontend_waits_and_says_so(tiny_build: TinyBuild, tmp_path: Path) -> None:
    serving = Serving(tiny_build.repository, tmp_path / "serving", "--triton-url", f"127.0.0.1:{free_port()}")
    try:
        assert eventually(lambda: _status(f"{serving.url}/livez") == 200)
        assert _status(f"{serving.url}/readyz") == 503
        assert encode(serving.url, "the cell").json()["detail"]["code"] == "MODEL_LOADING"
    finally:
        assert serving.stop() == 0


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5, verify=False).status_code
    except httpx.TransportError:
        return 0

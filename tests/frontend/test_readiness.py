"""What is watched of models that come and go, and of those whose supervisor knows better than Triton."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import httpx
import pytest
from compiler import tiny
from sie_frontend.http.app import create_app
from sie_frontend.serving.ailments import Ailment, Ailments
from sie_frontend.settings import Settings
from sie_frontend.triton import patience

from frontend.conftest import Service, until_ready
from frontend.fake_triton import FakeTriton, Run, compute, failure
from frontend.wire import encode, texts

NOT_HEALTHY = failure(500, "Stub process 'acme__tiny_0_0' is not healthy.")


@pytest.mark.asyncio
async def test_a_model_that_is_unloaded_while_it_is_tried_ends_no_watch(
    repository: Path, triton: FakeTriton, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(repository=repository, triton_url=triton.url))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://frontend", timeout=30) as client,
    ):
        await until_ready(client)
        readiness = app.state.frontend.engine._readiness
        readiness._trial_s = 0.0
        tried, left = threading.Event(), threading.Event()

        async def slow(run: Run) -> object:
            tried.set()
            while not left.is_set():
                await asyncio.sleep(0.01)
            return await compute(run)

        triton.answer = NOT_HEALTHY
        assert (await encode(client, texts("the cell"))).status_code == 503
        triton.answer = slow  # type: ignore[assignment]
        assert await asyncio.to_thread(tried.wait, 10)
        readiness.left([tiny.TRITON_NAME])  # as residency does before it unloads
        with caplog.at_level(logging.ERROR):
            left.set()
            await until_ready(client)
            assert (await encode(client, texts("the cell"))).status_code == 200
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.asyncio
async def test_a_model_that_its_supervisor_knows_to_be_down_gets_no_run_and_says_why(
    repository: Path, triton: FakeTriton
) -> None:
    """Triton goes on to call it ready all the time."""
    ailments: dict[str, Ailment] = {}
    app = create_app(Settings(repository=repository, triton_url=triton.url), ailments=Ailments(lambda: ailments))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://frontend", timeout=30) as client,
    ):
        await until_ready(client)
        one = f"/v1/models/{tiny.MODEL_ID}"
        assert (await client.get(one)).json()["last_error"] is None
        ailments[tiny.TRITON_NAME] = Ailment("its process was killed by SIGKILL", 2, down=True, failing=False)
        await until_ready(client, 503)
        runs = len(triton.runs)
        answer = await encode(client, texts("the cell"))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (503, "MODEL_LOADING")
        info = (await client.get(one)).json()
        assert (info["state"], info["loaded"], info["last_error"]["attempts"]) == ("loading", False, 2)

        ailments[tiny.TRITON_NAME] = Ailment("its process was killed by SIGKILL", 7, down=True, failing=True)
        answer = await encode(client, texts("the cell"))
        assert (answer.status_code, answer.json()["detail"]["code"]) == (502, "MODEL_LOAD_FAILED")
        assert "its process was killed by SIGKILL" in answer.json()["detail"]["message"]
        assert (await client.get(one)).json()["state"] == "failed"
        assert len(triton.runs) == runs

        ailments[tiny.TRITON_NAME] = Ailment("its process was killed by SIGKILL", 7, down=False, failing=True)
        await until_ready(client)
        assert (await encode(client, texts("the cell"))).status_code == 200
        info = (await client.get(one)).json()
        assert (info["state"], info["last_error"]["attempts"]) == ("loaded", 7)


@pytest.mark.asyncio
async def test_nobody_waits_for_a_run_whose_process_has_ended(
    repository: Path, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton never answers what the process of a model had taken over. Whoever supervises hears that a run is late."""
    monkeypatch.setattr(patience, "UNKNOWN_S", 0.1)
    ailments: dict[str, Ailment] = {}
    suspected: list[str] = []
    known = Ailments(lambda: ailments, lambda model, _: suspected.append(model))
    app = create_app(Settings(repository=repository, triton_url=triton.url), ailments=known)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://frontend", timeout=30) as client,
    ):
        await until_ready(client)
        begun, never = threading.Event(), threading.Event()

        async def lost(run: Run) -> object:
            begun.set()
            while not never.is_set():
                await asyncio.sleep(0.01)
            return await compute(run)

        triton.answer = lost  # type: ignore[assignment]
        asked = asyncio.ensure_future(encode(client, texts("the cell")))
        assert await asyncio.to_thread(begun.wait, 10)
        while not suspected:
            await asyncio.sleep(0.01)
        assert set(suspected) == {tiny.TRITON_NAME} and not asked.done()
        ailments[tiny.TRITON_NAME] = Ailment("its process was killed by SIGKILL", 1, down=True, failing=False, number=7)
        await asyncio.to_thread(known.changed)
        answer = await asyncio.wait_for(asked, 60)
        assert (answer.status_code, answer.json()["detail"]["code"]) == (503, "MODEL_LOADING")

        # One that is there again is not given up for the death before.
        ailments[tiny.TRITON_NAME] = Ailment(
            "its process was killed by SIGKILL", 1, down=False, failing=False, number=7
        )
        triton.answer = compute
        await until_ready(client)
        begun.clear()
        triton.answer = lost  # type: ignore[assignment]
        asked = asyncio.ensure_future(encode(client, texts("the cell")))
        assert await asyncio.to_thread(begun.wait, 10)
        await asyncio.to_thread(known.changed)
        await asyncio.sleep(0.3)
        assert not asked.done()

        # A death after a forgiven one is the first in a row again, and one more.
        ailments[tiny.TRITON_NAME] = Ailment("its process ended", 1, down=True, failing=False, number=8)
        await asyncio.to_thread(known.changed)
        assert (await asyncio.wait_for(asked, 60)).status_code == 503
        never.set()


@pytest.mark.asyncio
async def test_without_a_supervisor_a_broken_model_must_compute_for_a_while(
    service: Service, triton: FakeTriton
) -> None:
    async with service.open() as client:
        triton.answer = NOT_HEALTHY
        assert (await encode(client, texts("the cell"))).status_code == 503
        triton.answer = compute
        await asyncio.sleep(1.0)
        assert (await client.get("/readyz")).status_code == 503

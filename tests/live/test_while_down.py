"""What is removed or replaced while it is down, on a supervised tritonserver: nobody brings it back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from compiler.tiny import MODEL_ID, TRITON_NAME
from embedded.client import stub_of
from sie_frontend.http.app import create_app
from sie_frontend.serving.ailments import Ailments
from sie_frontend.settings import Settings

from live.conftest import OTHER, Versions
from live.test_live_e2e import Watch, held, new_name, put
from sie_triton.embedded.healing import HealingRules
from sie_triton.embedded.server import ServerSpec
from sie_triton.embedded.supervisor import Supervisor
from sie_triton.repository.changes import roll_back, take_away
from sie_triton.serving.restarts import ailments_of

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]
RULES = HealingRules(first_delay=0.3, max_delay=0.6)
OTHER_NAME = "acme__other"


@pytest.fixture
def supervisor(joined: Path, tmp_path: Path) -> Iterator[Supervisor]:
    """Serves version `a` of the tiny model beside the other one."""
    repository = Path(shutil.copytree(joined, tmp_path / "repository"))
    roll_back(repository, MODEL_ID)
    found = Supervisor(ServerSpec(repository, tmp_path / "triton.log"), healing=RULES)
    found.start()
    try:
        found.wait_ready(60)
        yield found
    finally:
        found.stop(2)


@contextlib.asynccontextmanager
async def watching(versions: Versions, supervisor: Supervisor) -> AsyncIterator[Watch]:
    settings = Settings(repository=supervisor.server.spec.repository, triton_url=supervisor.url)
    app = create_app(
        settings,
        memory=supervisor.model_memory,
        ailments=Ailments(partial(ailments_of, supervisor)),
        discharge=supervisor.discharge,
    )
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://frontend", timeout=60) as http,
    ):
        while (await http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.04)
        yield Watch(http, {version: versions.vectors(version) for version in "abc"})


async def kept_down(supervisor: Supervisor, name: str) -> Path:
    """Kill a model, let its loads fail, and return where its graph lies until then."""
    graph = supervisor.server.spec.repository / name / "1" / "model.onnx"
    kept = graph.rename(supervisor.server.spec.log_path.with_name(f"{name}.onnx"))
    assert supervisor.server.pid
    os.kill(stub_of(supervisor.server.pid, name), signal.SIGKILL)
    while supervisor.troubles().get(name) is None or supervisor.troubles()[name].times < 2:
        await asyncio.sleep(0.05)
    return kept


async def test_what_is_removed_or_replaced_while_it_is_down_stays_away(
    versions: Versions, supervisor: Supervisor, replaced: Path
) -> None:
    repository = supervisor.server.spec.repository
    async with watching(versions, supervisor) as watch:
        kept = await kept_down(supervisor, OTHER_NAME)
        take_away(repository, OTHER)
        await watch.until(None, OTHER)
        kept.rename(repository / OTHER_NAME / "1" / "model.onnx")
        await watch.until_settled()

        await kept_down(supervisor, TRITON_NAME)
        put(repository, replaced)  # with the graph of the old version in its place again
        await watch.until("b", down=True)
        await watch.until_settled()
        await asyncio.sleep(2 * RULES.max_delay)
        assert held(supervisor.server) == {new_name(replaced)} and not supervisor.troubles()

        # A tritonserver that begins when something is let go of may have loaded it by then.
        httpx.post(f"{supervisor.url}/v2/repository/models/{TRITON_NAME}/load", timeout=60).raise_for_status()
        assert held(supervisor.server) == {new_name(replaced), TRITON_NAME}
        while held(supervisor.server) != {new_name(replaced)}:
            await asyncio.sleep(0.1)
        roll_back(repository, MODEL_ID)
        await watch.until("a")

"""Processes that end, loads that end late: models on demand below a supervised tritonserver."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from embedded.client import stub_of
from sie_frontend.serving.ailments import Ailments

from benchmarks.waiting import eventually
from residency.world import World, behave, write_world
from sie_triton.diagnostics import Diagnostic
from sie_triton.embedded.healing import HealingRules
from sie_triton.embedded.server import ServerSpec
from sie_triton.embedded.supervisor import Supervisor
from sie_triton.serving.restarts import ailments_of

pytestmark = pytest.mark.e2e
MB = 1_000_000
ONE = 160 * MB
DELAY_S = 3.0


@dataclass(frozen=True)
class Supervised(World):
    """A world whose server is looked after."""

    supervisor: Supervisor
    told: list[Diagnostic]

    @property
    def ailments(self) -> Ailments:
        return Ailments(lambda: ailments_of(self.supervisor))

    def deaths(self, name: str) -> int:
        """How often in a row it has died."""
        trouble = self.supervisor.troubles().get(f"acme__{name}")
        return trouble.times if trouble else 0

    def kill(self, name: str) -> None:
        assert self.server.pid
        os.kill(stub_of(self.server.pid, f"acme__{name}"), signal.SIGKILL)


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    folder, told = tmp_path_factory.mktemp("supervised"), list[Diagnostic]()
    spec = ServerSpec(write_world(folder), folder / "triton.log", on_demand=True)
    supervisor = Supervisor(spec, on_trouble=told.append, healing=HealingRules(first_delay=DELAY_S))
    supervisor.start()
    try:
        supervisor.wait_ready(60)
        yield Supervised(supervisor.server, supervisor, told)
    finally:
        supervisor.stop(5)


@pytest.mark.asyncio
async def test_a_model_on_demand_that_dies_is_loaded_again_once_and_its_memory_is_counted_once(
    supervised: Supervised,
) -> None:
    """Room for one: what is dead neither holds memory nor lets another in beside the one that comes back."""
    world, pid = supervised, supervised.server.pid
    behave(world.repository, "p", megabytes=100)
    behave(world.repository, "q", megabytes=100)
    async with world.open(memory_budget=ONE, ailments=world.ailments) as client:
        await client.until_served("p")
        for number in (1, 2):
            world.kill("p")
            begun = time.monotonic()
            while (answer := await client.ask("p")).status_code == 200:
                await asyncio.sleep(0.02)
            assert answer.json()["detail"]["code"] == "MODEL_LOADING"
            while not (await client.info("p"))["loaded"]:
                assert time.monotonic() - begun < 15
                assert await client.metric("memory_used_bytes") <= ONE
                await asyncio.sleep(0.02)
            assert (await client.ask("p")).status_code == 200
            error = (await client.info("p"))["last_error"]
            assert error["attempts"] == number and "was killed by SIGKILL" in error["message"]
        loads = 'sie_frontend_model_loads_total{model="acme/p",outcome="loaded"} '
        text = (await client.http.get("/metrics")).text
        assert f"{loads}3.0" in text
        await client.until_served("q")  # p goes, although Triton has forgotten a run of it
        assert world.held() >= {"q"} and set(world.server.model_memory()) == {"acme__q"}
    world.reset()
    assert world.supervisor.server.pid == pid, "the whole server was started again"
    assert {one.code for one in world.told} == {"SIE711"}


@pytest.mark.asyncio
async def test_a_model_that_is_evicted_while_it_is_down_is_left_alone_when_it_is_back(supervised: Supervised) -> None:
    """The process that died is not the one that answers by then."""
    world = supervised
    for name in ("p", "q"):
        behave(world.repository, name, megabytes=100)
    discharge = world.supervisor.discharge
    async with world.open(memory_budget=ONE, ailments=world.ailments, discharge=discharge) as client:
        for _ in range(2):  # the first one is unloaded at once, and the second after a while
            await client.until_served("p")
            before = world.deaths("p")
            world.kill("p")
            due = time.monotonic() + DELAY_S
            assert await asyncio.to_thread(eventually, lambda: world.deaths("p") > before, 10)  # noqa: B023
        await client.until_served("q")
        await client.until_served("p")
        while time.monotonic() < due + 1:
            assert (await client.ask("p")).status_code == 200
            await asyncio.sleep(0.05)
        assert not world.supervisor.troubles()
    world.reset()


@pytest.mark.asyncio
async def test_a_load_that_ends_after_it_was_given_up_does_not_stay(world: World) -> None:
    behave(world.repository, "p", load_s=3.0)
    async with world.open(load_timeout_s=1.0, load_cooldown_s=60) as client:
        assert (await client.ask("p")).status_code == 503
        assert "within 1 s" in (await client.until("p", "failed"))["last_error"]["message"]
        await asyncio.sleep(1.0)
        assert await asyncio.to_thread(eventually, lambda: not world.held(), 10)
        assert (await client.info("p"))["state"] == "failed"


@pytest.mark.asyncio
async def test_what_somebody_loads_behind_our_back_goes(world: World) -> None:
    async with world.open() as client:
        await client.until_served("p")
        assert (
            await asyncio.to_thread(httpx.post, f"{world.server.url}/v2/repository/models/acme__q/load")
        ).status_code == 200
        assert await asyncio.to_thread(eventually, lambda: world.held() == {"p"}, 10)
        await client.until("q", "available")

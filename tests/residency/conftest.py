"""One real tritonserver for the family, without a model loaded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from embedded.started import started

from residency.world import World, write_world
from sie_triton.embedded.server import ServerSpec


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with started(ServerSpec(write_world(folder), folder / "triton.log", on_demand=True)) as server:
        yield World(server)


@pytest.fixture
def world(running: World) -> Iterator[World]:
    yield running
    running.reset()

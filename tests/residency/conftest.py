"""One real tritonserver for the family, without a model loaded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from residency.world import World, write_world
from sie_triton.embedded.server import ServerSpec, TritonServer


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    server = TritonServer(ServerSpec(write_world(folder), folder / "triton.log", on_demand=True))
    server.start()
    try:
        server.wait_ready(60)
        yield World(server)
    finally:
        server.stop(5)


@pytest.fixture
def world(running: World) -> Iterator[World]:
    yield running
    running.reset()

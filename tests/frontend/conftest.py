"""A repository without graphs, a Triton that needs none, and an application between them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import uvloop
from sie_frontend.app import create_app
from sie_frontend.settings import Settings
from starlette.applications import Starlette

from frontend.fake_triton import FakeTriton
from frontend.repository import write_repository


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop of the standard library; for what depends on sockets the one that serves, too."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name == "test_triton_client.py":
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("frontend") / "repository")


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as server:
        yield server


@dataclass(frozen=True)
class Service:
    """How to open the application: `async with service.open() as client`."""

    settings: Settings

    def having(self, **settings: object) -> Service:
        """The same with other settings."""
        return Service(replace(self.settings, **settings))  # type: ignore[arg-type]

    @contextlib.asynccontextmanager
    async def open(self, *, wait: bool = True) -> AsyncIterator[httpx.AsyncClient]:
        """A client of the running application; by default only once it is ready."""
        app: Starlette = create_app(self.settings)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://frontend", timeout=30) as client,
        ):
            if wait:
                await until_ready(client)
            yield client


async def until_ready(client: httpx.AsyncClient, status: int = 200) -> None:
    """Return when `/readyz` answers `status`."""

    async def poll() -> None:
        while (await client.get("/readyz")).status_code != status:
            await asyncio.sleep(0.02)

    await asyncio.wait_for(poll(), 15)


@pytest.fixture
def service(repository: Path, triton: FakeTriton) -> Service:
    return Service(Settings(repository=repository, triton_url=triton.url))

"""A repository without graphs, a Triton that needs none, and an application between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import msgspec
import pytest
import uvloop
from compiler import tiny
from sie_frontend.http.app import create_app
from sie_frontend.manifest import TritonModel, dump_manifest, read_manifest
from sie_frontend.settings import Settings
from starlette.applications import Starlette

from frontend.fake_triton import FakeTriton
from frontend.repository import write_repository
from sie_triton.repository.publish import tree_digests


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop of the standard library; for what depends on sockets the one that serves, too."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ("test_triton_client.py", "test_triton_connections.py", "test_triton_lateness.py"):
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

    await asyncio.wait_for(poll(), 60)


@pytest.fixture
def service(repository: Path, triton: FakeTriton) -> Service:
    return Service(Settings(repository=repository, triton_url=triton.url))


# Object stores


@pytest.fixture(scope="session")
def stored(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny repository as a build publishes it, with digests, and with a file that no frontend needs."""
    folder = Path(shutil.copytree(repository, tmp_path_factory.mktemp("stored") / "repository"))
    (folder / tiny.TRITON_NAME / "1" / "model.onnx").write_bytes(b"weights")
    manifest = read_manifest(folder)
    models = {path.name: TritonModel((), (), tree_digests(path)) for path in folder.iterdir() if path.is_dir()}
    (folder / "manifest.json").write_bytes(dump_manifest(msgspec.structs.replace(manifest, triton_models=models)))
    return folder


@pytest.fixture
def memory(stored: Path) -> Iterator[str]:
    """A URL of the repository in fsspec's memory file system, and nothing else in it."""
    import fsspec

    files = fsspec.filesystem("memory")
    files.store.clear()
    for path in stored.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/bucket/models/{path.relative_to(stored).as_posix()}", path.read_bytes())
    yield "memory://bucket/models"
    files.store.clear()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`s3://bucket/models` on a server on loopback, which the environment names as it would name AWS."""
    import boto3
    import s3fs

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    httpx.post(f"{s3_server}/moto-api/reset").raise_for_status()
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    for path in stored.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "bucket", f"models/{path.relative_to(stored).as_posix()}")
    s3fs.S3FileSystem.clear_instance_cache()
    yield "s3://bucket/models"
    httpx.post(f"{s3_server}/moto-api/reset-auth", content=b"inf")
    s3fs.S3FileSystem.clear_instance_cache()

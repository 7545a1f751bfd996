"""What is published in an object store is served without a restart, by S3's own protocol, by either way to serve."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import s3fs
from compiler.tiny import MODEL_ID, TRITON_NAME
from moto.server import ThreadedMotoServer

from live.conftest import Versions
from live.test_live_e2e import held, new_name, tritons, watching
from sie_triton.repository.object_store import copy_repository
from sie_triton.serving.following import followed

pytestmark = pytest.mark.e2e
URL = "s3://bucket/models"


@dataclass(frozen=True)
class Bucket:
    """A bucket on loopback."""

    client: Any

    def upload(self, repository: Path, *, spare: str = "") -> None:
        """Put a repository there, its manifest last; a file named `spare` comes cut in half."""
        files = sorted((p for p in repository.rglob("*") if p.is_file()), key=lambda p: p.name.startswith("manifest"))
        for path in files:
            content = path.read_bytes()
            name = path.relative_to(repository).as_posix()
            body = content[: len(content) // 2] if spare and name.endswith(spare) else content
            self.client.put_object(Bucket="bucket", Key=f"models/{name}", Body=body)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    none = str(tmp_path / "none")
    for name, value in {
        "ENDPOINT_URL": f"http://{host}:{port}",
        "ACCESS_KEY_ID": "key",
        "SECRET_ACCESS_KEY": "secret",
        "EC2_METADATA_DISABLED": "true",
        "CONFIG_FILE": none,
        "SHARED_CREDENTIALS_FILE": none,
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    s3fs.S3FileSystem.clear_instance_cache()
    yield Bucket(client)
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.asyncio
async def test_the_copy_that_is_served_follows_the_bucket(
    bucket: Bucket, versions: Versions, replaced: Path, tmp_path: Path
) -> None:
    folder, told = tmp_path / "copy", list[str]()
    bucket.upload(versions.built)
    copy_repository(URL, folder, told.append)
    with tritons(folder, 1) as servers, followed(URL, folder, told.append, every_s=0.2):
        async with watching(versions, folder, servers) as watch, watch.load():
            await watch.until("a")
            bucket.upload(replaced, spare="model.onnx")
            until = time.monotonic() + 20
            while not any("is not served yet" in one and "its digest differs" in one for one in told):
                assert time.monotonic() < until, told
                await watch.ask()
            assert await watch.ask() == "a"
            bucket.upload(replaced)
            await watch.until("b")
            status = await watch.until_settled()
            assert held(servers[0]) == {new_name(replaced)}
            [event] = [e for e in status["events"] if (e["what"], e["model"]) == ("replaced", MODEL_ID)]
            assert "reference items" in event["detail"]


@pytest.mark.asyncio
async def test_a_frontend_of_a_bucket_tries_what_is_new_by_the_bucket_s_reference(
    bucket: Bucket, versions: Versions, replaced: Path, tmp_path: Path
) -> None:
    """Its Triton reads the same repository by itself."""
    folder = Path(shutil.copytree(replaced, tmp_path / "tritons"))
    bucket.upload(versions.built)
    with tritons(folder, 1, served=lambda: [TRITON_NAME]) as servers:
        async with watching(versions, URL, servers) as watch, watch.load():
            await watch.until("a")
            bucket.upload(replaced, spare=f"{new_name(replaced)}/1/reference.npz")
            refused = (await watch.http.post("/admin/reload")).json()["models"][MODEL_ID]["refused"]
            assert "reference.npz" in refused["reason"] and "its digest differs" in refused["reason"]
            assert await watch.ask() == "a" and held(servers[0]) == {TRITON_NAME}
            bucket.upload(replaced)
            status = (await watch.http.post("/admin/reload")).json()
            assert status["phase"] == "current" and await watch.ask() == "b"
            event = next(e for e in status["events"] if (e["what"], e["model"]) == ("replaced", MODEL_ID))
            assert "answers its" in event["detail"] and "moved to a cosine" in event["detail"]

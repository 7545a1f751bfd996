"""`sie-triton serve -r s3://…`: the real tritonserver on a repository that was fetched by S3's own protocol."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import boto3
import numpy as np
import pytest
from compiler import tiny
from moto.server import ThreadedMotoServer
from sie_sdk import SIEClient
from sie_sdk.types import Item

from e2e.conftest import TinyBuild
from e2e.processes import Serving

pytestmark = pytest.mark.e2e

TEXT = "The mitochondrion is the powerhouse of the cell."


@pytest.fixture
def bucket(tiny_build: TinyBuild, tmp_path: Path) -> Iterator[str]:
    """The built repository on a server on loopback, which the environment names as it would name AWS."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    none = str(tmp_path / "none")
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": none,
        "AWS_SHARED_CREDENTIALS_FILE": none,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    with mock.patch.dict(os.environ, environment):
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        for path in tiny_build.repository.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "bucket", f"models/{path.relative_to(tiny_build.repository).as_posix()}")
        yield "s3://bucket/models"
    server.stop()


def test_vectors_come_from_a_bucket_and_the_second_start_fetches_nothing(
    bucket: str, tmp_path: Path, tiny_build: TinyBuild
) -> None:
    vectors = []
    for start in ("first", "second", "folder"):
        serving = Serving(tiny_build.repository if start == "folder" else bucket, tmp_path / start)
        try:
            serving.wait_ready()
            with SIEClient(serving.url) as client:
                vectors.append(client.encode(tiny.MODEL_ID, Item(text=TEXT))["dense"])
            assert ("fetched" in serving.said()) is (start == "first")
        finally:
            assert serving.stop() == 0
    for vector in vectors[1:]:
        np.testing.assert_array_equal(vector, vectors[0])

"""A model with two inputs, text and vectors, through build, verify, the real server and the SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from compiler import tiny
from e2e.processes import Serving
from safetensors.torch import save_file
from sie_frontend.manifest import ManifestError, read_manifest
from sie_sdk import SIEClient
from sie_sdk.errors import RequestError
from sie_sdk.types import DocumentInput, Item

from .vectors import ADAPTER, LAYER, NAME, witness_layer

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "modality.command"]
BUNDLE = f"""
sie_id: {tiny.MODEL_ID}
hf_id: acme/tiny
inputs: {{text: true, document: true}}
tasks: {{encode: {{dense: {{dim: 32}}}}}}
max_sequence_length: 48
profiles:
  default:
    max_batch_tokens: 1024
    adapter_path: sie_server.adapters.two_way:{ADAPTER}
"""
VECTORS = np.random.default_rng(3).normal(size=(5, 32)).astype("<f4")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT / "tests"
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_checkpoint(tmp_path_factory.mktemp("two-way") / "checkpoint")
    torch.manual_seed(11)
    save_file({"weight": torch.randn(32, 32)}, folder / LAYER)
    return folder


def build(checkpoint: Path) -> Path:
    bundles, repository = checkpoint.parent / "bundles", checkpoint.parent / "repository"
    chosen = ("--bundles", bundles, "-m", tiny.MODEL_ID, "--weights", checkpoint, "--device", "cpu")
    done = run("build", *chosen, "-r", repository)
    assert done.returncode == 0, done.stderr
    return repository


@pytest.fixture(scope="module")
def built(checkpoint: Path) -> Path:
    tiny.write_bundle(checkpoint.parent / "bundles", BUNDLE)
    return build(checkpoint)


@pytest.fixture(scope="module")
def client(built: Path) -> Iterator[SIEClient]:
    server = Serving(built, built.parent / "serving", command=COMMAND, cwd=ROOT / "tests")
    server.wait_ready()
    with SIEClient(server.url) as made:
        yield made
    assert server.stop() == 0


def test_each_input_is_a_public_model_of_its_own(built: Path) -> None:
    """Verified again by a process that knows the modality; one that does not says so."""
    document = json.loads((built / "manifest.json").read_bytes())
    inputs = document["models"][tiny.MODEL_ID]["inputs"]
    assert {name: entry["triton_model"] for name, entry in inputs.items()} == {
        "text": tiny.TRITON_NAME,
        NAME: f"{tiny.TRITON_NAME}.{NAME}",
    }
    assert inputs[NAME]["reads"] == {"width": 32}
    assert set(document["built"]) == {tiny.TRITON_NAME, f"{tiny.TRITON_NAME}.{NAME}"}
    done = run("verify", "-r", built)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ManifestError, match=f"unknown modality `{NAME}`"):
        read_manifest(built)


def test_what_was_built_is_not_built_again(built: Path, checkpoint: Path) -> None:
    before = (built / "manifest.json").stat()
    build(checkpoint)
    assert (built / "manifest.json").stat() == before


def test_vectors_are_encoded_as_torch_does(client: SIEClient, checkpoint: Path) -> None:
    items = [Item(id=str(n), document={"data": vector.tobytes(), "format": "f32"}) for n, vector in enumerate(VECTORS)]
    results = client.encode(tiny.MODEL_ID, items)
    expected = torch.nn.functional.normalize(witness_layer(checkpoint)(torch.from_numpy(VECTORS.copy())), dim=-1)
    assert [result["id"] for result in results] == [item["id"] for item in items]
    np.testing.assert_allclose([result["dense"] for result in results], expected.detach().numpy(), atol=1e-5)


def test_text_and_vectors_of_one_request_go_each_to_their_own_model(client: SIEClient) -> None:
    document = DocumentInput(data=VECTORS[0].tobytes())
    mixed = client.encode(tiny.MODEL_ID, [Item(text="the cell"), Item(document=document), Item(text="a house")])
    alone = [client.encode(tiny.MODEL_ID, item) for item in (Item(text="the cell"), Item(document=document))]
    np.testing.assert_allclose(mixed[0]["dense"], alone[0]["dense"], atol=1e-5)
    np.testing.assert_allclose(mixed[1]["dense"], alone[1]["dense"], atol=1e-5)
    assert len({result["dense"].tobytes() for result in mixed}) == 3


def test_what_no_input_reads_is_refused_by_the_one_that_should(client: SIEClient) -> None:
    with pytest.raises(RequestError, match="requires text or a document"):
        client.encode(tiny.MODEL_ID, Item(images=[{"data": b"\x89PNG\r\n\x1a\n"}]))
    with pytest.raises(RequestError, match=r"`items\[1\]` has 3 bytes, a vector of this model has 128"):
        client.encode(tiny.MODEL_ID, [Item(text="the cell"), Item(document={"data": b"abc"})])

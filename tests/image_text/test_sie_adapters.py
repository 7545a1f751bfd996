"""SIE's own CLIPAdapter and SiglipAdapter on the same checkpoints as ours, with texts, pictures and both.

sie-server needs Python 3.12 and gigabytes of packages. `SIE_TRITON_SIE_SERVER_PYTHON` names an interpreter that has
sie-server 0.10.1; without it these tests are skipped.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from e2e.processes import Serving, sie_triton
from frontend.pictures import encoded, noise
from PIL import Image

from .checkpoints import write_clip, write_siglip
from .test_image_text_graphs import bundle_text

pytestmark = pytest.mark.official

TESTS = Path(__file__).resolve().parents[1]
ADAPTERS = {
    "clip": ("sie_server.adapters.clip:CLIPAdapter", "CLIPAdapter", 20),
    "siglip": ("sie_server.adapters.siglip.adapter:SiglipAdapter", "SiglipAdapter", 24),
}
PICTURES = tuple(
    base64.b64encode(encoded(Image.fromarray(noise(*size)), "PNG")).decode()
    for size in ((50, 80), (24, 24), (300, 40), (31, 200))
)
ITEMS: list[dict[str, Any]] = [
    {"text": "retrieval systems embed"},
    {"images": [PICTURES[0]]},
    {"text": "Two Dogs, one bone; what's that?"},
    {"images": [PICTURES[1], PICTURES[2]]},
    {"text": "unread", "images": [PICTURES[3]]},
    {"text": "the quick brown fox jumps over the lazy dog " * 20},
    {"text": ""},
    {"images": [PICTURES[2]]},
]


@pytest.fixture(scope="module")
def interpreter() -> str:
    python = os.environ.get("SIE_TRITON_SIE_SERVER_PYTHON")
    if not python:
        pytest.skip("SIE_TRITON_SIE_SERVER_PYTHON names no interpreter with sie-server 0.10.1")
    return python


@pytest.fixture(scope="module")
def root(interpreter: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each, and one repository."""
    folder = tmp_path_factory.mktemp("sie_adapters")
    write_clip(folder / "clip")
    write_siglip(folder / "siglip")
    (folder / "bundles").mkdir()
    for name, (_, adapter, dim) in ADAPTERS.items():
        text = bundle_text(folder / name, dim, adapter).replace("acme/clip", f"acme/{name}")
        (folder / "bundles" / f"{name}.yaml").write_text(text, encoding="utf-8")
    chosen = [argument for name in ADAPTERS for argument in ("-m", f"acme/{name}")]
    bundles = ("--bundles", folder / "bundles", "--device", "cpu")
    done = sie_triton("build", *bundles, *chosen, "-r", folder / "repository")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def serving(root: Path) -> Iterator[Serving]:
    server = Serving(root / "repository", root / "serving")
    server.wait_ready()
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_same_vectors_and_tokens(name: str, interpreter: str, root: Path, serving: Serving) -> None:
    given = root / "items.json"
    given.write_text(json.dumps(ITEMS), encoding="utf-8")
    command = [interpreter, "-m", "image_text.sie_adapter_driver", ADAPTERS[name][0], str(root / name), str(given)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    items = [{**one, "images": [{"data": data} for data in one["images"]]} if "images" in one else one for one in ITEMS]
    answer = httpx.post(
        f"{serving.url}/v1/encode/acme/{name}",
        json={"items": items},
        headers={"accept": "application/json"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    ours = np.array([item["dense"]["values"] for item in body["items"]])
    expected = np.array(theirs["dense"])
    np.testing.assert_allclose(ours, expected, atol=2e-5, rtol=0)
    cosines = (ours * expected).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() >= 0.99999
    assert body["usage"]["input_tokens"] == sum(theirs["tokens"])

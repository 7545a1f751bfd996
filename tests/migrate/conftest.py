"""A server of the real MiniLM whose requests may choose a pooling, beside the shipped bundles."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.processes import Serving, sie_triton

MODEL = "acme/minilm"
BUNDLE = """\
sie_id: acme/minilm
hf_id: sentence-transformers/all-MiniLM-L6-v2
inputs:
  text: true
tasks:
  encode:
    dense:
      dim: 384
max_sequence_length: 256
profiles:
  default:
    max_batch_tokens: 16384
    adapter_path: sie_server.adapters.bert_flash:BertFlashAdapter
    adapter_options:
      runtime:
        pooling: mean
        normalize: true
"""


@pytest.fixture(scope="session")
def check_url(built_repository: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("migrate")
    # Hard links, as a build makes them.
    repository = Path(shutil.copytree(built_repository, folder / "repository", copy_function=os.link))
    (folder / "bundles").mkdir()
    (folder / "bundles" / "minilm.yaml").write_text(BUNDLE, encoding="utf-8")
    weights = ("--weights", minilm, "--device", "cpu")
    done = sie_triton("build", "-m", MODEL, "--bundles", folder / "bundles", *weights, "-r", repository)
    assert done.returncode == 0, done.stderr
    server = Serving(repository, folder / "serving")
    server.wait_ready()
    yield server.url
    server.stop()

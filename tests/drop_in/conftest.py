"""The frontend on a port, in front of a Triton that computes something simple: one dense model and one reranker."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from aiohttp import web
from compiler import tiny
from e2e.processes import sie_triton
from frontend.fake_triton import FakeTriton, Run, compute, tensors
from frontend.process import until
from frontend.repository import write_repository
from numpy.typing import NDArray
from recipes.made import made
from recipes.serving import serve
from sie_frontend.main import make_server
from sie_frontend.manifest import dump_manifest, read_manifest
from sie_frontend.settings import Settings
from tokenizers import Tokenizer

from sie_triton.embedded.ports import free_port

DENSE = "sentence-transformers/all-MiniLM-L6-v2"
"""A name that Fastembed knows, of a model of this suite's: its bundle has templates, and pools otherwise."""
RERANKER = "cross-encoder/ms-marco-MiniLM-L-6-v2"
LIMIT = 48

_DENSE_BUNDLE = (
    tiny.BUNDLE.partition("  raw:")[0]
    .replace("acme/tiny", DENSE)
    .replace(
        "pooling: mean", "pooling: cls\n        query_template: 'search: {text}'\n        doc_template: 'the {text}'"
    )
)
_RERANKER_BUNDLE = f"""\
sie_id: {RERANKER}
hf_id: acme/reranker
inputs:
  text: true
tasks:
  score: {{}}
max_sequence_length: 48
profiles:
  default:
    max_batch_tokens: 1024
    adapter_path: sie_server.adapters.bert_flash_cross_encoder:BertFlashCrossEncoderAdapter
"""


def pair_score(ids: NDArray[np.int64] | list[int]) -> float:
    """What this Triton scores a row of real tokens with: their order counts."""
    return float(np.float32(np.sin(np.arange(1, len(ids) + 1) * np.asarray(ids) * 0.01).sum()))


async def _answer(run: Run) -> web.StreamResponse:
    if run.outputs == ("score",):
        scores = np.array([[pair_score(row)] for row in run.rows], dtype=np.float32)
        return tensors(run, {"score": scores})
    return await compute(run)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models' manifest entries and tokenizers in one repository."""
    folder = write_repository(tmp_path_factory.mktemp("drop_in") / "repository", _DENSE_BUNDLE)
    other = write_repository(
        tmp_path_factory.mktemp("drop_in_score") / "repository", _RERANKER_BUNDLE, num_labels=1, id2label={"0": "yes"}
    )
    first, second = read_manifest(folder), read_manifest(other)
    both = msgspec.structs.replace(first, models={**first.models, **second.models})
    (folder / "manifest.json").write_bytes(dump_manifest(both))
    for path in other.glob("*/1/tokenizer.json"):
        target = folder / path.relative_to(other)
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton(answer=_answer) as server:
        yield server


@contextmanager
def serving(repository: Path, triton: FakeTriton) -> Iterator[str]:
    """The frontend in a thread; its address."""
    port = free_port()
    server = make_server(Settings(repository, triton_url=triton.url, port=port))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    until(ready)
    yield url
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def url(repository: Path, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where both are served; the environment names it, as a user's would."""
    with serving(repository, triton) as address:
        monkeypatch.setenv("SIE_BASE_URL", address)
        yield address


@pytest.fixture(scope="session")
def tokenizer(repository: Path) -> Tokenizer:
    """The vocabulary of both, cut where both are."""
    loaded = Tokenizer.from_file(str(next(repository.glob("*/1/tokenizer.json"))))
    loaded.no_padding()
    loaded.enable_truncation(LIMIT)
    return loaded


# Tiny checkpoints behind the real tritonserver

FAMILIES = (
    "bert",
    "splade_bert",
    "opensearch_gte",
    "colbert_root_linear",
    "cross_encoder_bert_identity",
    "cross_encoder_bert_legacy_sigmoid",
)


@pytest.fixture(scope="session")
def tiny_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a family of each kind is served, built through the command line."""
    folder = tmp_path_factory.mktemp("drop_in_families")
    (folder / "bundles").mkdir()
    models = []
    for name in FAMILIES:
        shutil.copy(made(name).bundle_path, folder / "bundles")
        models += ["-m", made(name).sie_id]
    done = sie_triton("build", "--bundles", folder / "bundles", *models, "--device", "cpu", "-r", folder / "repository")
    assert done.returncode == 0, done.stderr
    served = serve(folder / "repository")
    yield served.url
    served.stop()

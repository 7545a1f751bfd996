"""What cannot work says why, and what to do about it; what has no effect says that."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from frontend.fake_triton import DIM, FakeTriton, Run, expected, tensors
from sie_sdk import RequestError
from sie_triton_fastembed import (
    LateInteractionMultimodalEmbedding,
    LateInteractionTextEmbedding,
    ModelNotServedError,
    ServerUnreachableError,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
)
from sie_triton_fastembed.common.model_description import ModelSource, PoolingType
from sie_triton_fastembed.common.types import Device
from tokenizers import Tokenizer

from sie_triton.embedded.ports import free_port

from .conftest import DENSE, RERANKER, serving


@pytest.fixture(autouse=True)
def _no_custom_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextEmbedding, "_custom", {})
    monkeypatch.setattr(TextCrossEncoder, "_custom", {})


def test_nobody_listens() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServerUnreachableError) as raised:
        TextEmbedding(DENSE, base_url=address)
    assert address in str(raised.value)
    assert "sie-triton up -m" in str(raised.value) and "SIE_BASE_URL" in str(raised.value)
    late = TextEmbedding(DENSE, base_url=address, lazy_load=True)
    with pytest.raises(ServerUnreachableError):
        next(iter(late.embed("the cell")))


def test_without_a_word_it_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIE_BASE_URL", raising=False)
    monkeypatch.setenv("SIE_API_KEY", "of the hosted service, which it must not go to by accident")
    assert TextEmbedding(DENSE, lazy_load=True)._server.base_url == "http://localhost:8080"


def test_a_server_that_goes_ends_the_call_at_once(repository: Path, triton: FakeTriton) -> None:
    with serving(repository, triton) as address:
        model = TextEmbedding(DENSE, base_url=address)
        vectors = iter(model.embed(["the cell"] * 4, batch_size=2))
        next(vectors), next(vectors)
    with pytest.raises(ServerUnreachableError, match=f"`sie-triton up -m {DENSE}`"):
        next(vectors)


def test_a_name_that_is_not_served(url: str) -> None:
    with pytest.raises(ModelNotServedError) as raised:
        TextEmbedding("sentence-transformers/all-MiniLM-L12-v2")
    assert f"which has `{DENSE}` for TextEmbedding. Did you mean `{DENSE}`?" in str(raised.value)
    assert "`sie-triton up -m sentence-transformers/all-MiniLM-L12-v2`" in str(raised.value)
    assert isinstance(raised.value, ValueError)  # which Fastembed raises
    with pytest.raises(ValueError, match="is not served"):
        TextEmbedding.get_embedding_size("no/such-thing")
    with pytest.raises(ModelNotServedError, match="which has no model for SparseTextEmbedding"):
        SparseTextEmbedding("prithivida/Splade_PP_en_v1")


def test_another_kind_of_model(url: str) -> None:
    with pytest.raises(ModelNotServedError, match=r"gives dense and no multivector .*: use TextEmbedding"):
        LateInteractionTextEmbedding(DENSE)
    with pytest.raises(ModelNotServedError, match="use TextCrossEncoder"):
        TextEmbedding(RERANKER)


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        (SparseTextEmbedding, "Qdrant/bm25", "keep Fastembed's class"),
        (SparseTextEmbedding, "Qdrant/minicoil-v1", "no recipe for miniCOIL"),
        (TextEmbedding, "nomic-ai/nomic-embed-text-v1.5-Q", "quantized to int8"),
        (TextEmbedding, "jinaai/jina-clip-v1", "authors' own code"),
    ],
)
def test_a_model_that_never_will_be(kind: Any, name: str, reason: str, url: str) -> None:
    with pytest.raises(ModelNotServedError, match=reason) as raised:
        kind(name)
    assert "sie-triton up" not in str(raised.value)


def test_pages_stay_where_they_are() -> None:
    assert LateInteractionMultimodalEmbedding.list_supported_models() == []
    with pytest.raises(NotImplementedError, match="fastembed itself"):
        LateInteractionMultimodalEmbedding("Qdrant/colpali-v1.3-fp16")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"cuda": True}, "`cuda`"),
        ({"cuda": Device.CUDA}, "`cuda`"),
        ({"providers": ["CUDAExecutionProvider", "CPUExecutionProvider"]}, "`providers`"),
        ({"providers": [("TensorrtExecutionProvider", {})]}, "`providers`"),
        ({"device_ids": [0, 1]}, "`device_ids`"),
        ({"specific_model_path": "my/weights"}, "`specific_model_path`"),
        ({"base_ulr": "http://elsewhere"}, "`base_ulr`"),
    ],
)
def test_what_would_mislead_is_said_where_it_stands(arguments: dict[str, Any], named: str) -> None:
    for kind in (TextEmbedding, SparseTextEmbedding):
        with pytest.warns(UserWarning, match=named) as seen:
            kind(DENSE, lazy_load=True, **arguments)
        assert [warning.filename for warning in seen] == [__file__]


def test_what_changes_no_vector_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TextEmbedding(
            DENSE,
            "cache",
            2,
            ["CPUExecutionProvider"],
            False,
            None,
            True,
            local_files_only=True,
            enable_cpu_mem_arena=False,
            specific_model_path=None,
        )


def test_a_task_would_give_other_vectors(url: str) -> None:
    with pytest.raises(ValueError, match="task_id"):
        TextEmbedding(DENSE, task_id=1)
    with pytest.raises(ValueError, match="task_id"):
        next(iter(TextEmbedding(DENSE).query_embed("the cell", task_id=0)))


# Custom models


def test_a_custom_model_is_pooled_as_it_was_registered(url: str, tokenizer: Tokenizer, triton: FakeTriton) -> None:
    TextEmbedding.add_custom_model("my/model", PoolingType.CLS, False, ModelSource(hf=DENSE), DIM, license="mit")
    assert TextEmbedding.get_embedding_size("MY/model") == DIM
    assert {entry["model"]: entry["license"] for entry in TextEmbedding.list_supported_models()}["my/model"] == "mit"
    ids = tokenizer.encode("a house").ids
    vectors = list(TextEmbedding("my/model").embed(["a house", "the cell"]))
    assert triton.runs[-1].outputs == ("dense_unnormalized",)  # the bundle's own pooling is that of the first token
    np.testing.assert_allclose(vectors[0], expected(ids, "dense_unnormalized"), atol=1e-5)
    with pytest.raises(ValueError, match="already registered"):
        TextEmbedding.add_custom_model("My/Model", PoolingType.MEAN, True, ModelSource(hf=DENSE), DIM)
    with pytest.raises(ValueError, match="already registered"):
        TextEmbedding.add_custom_model(DENSE, PoolingType.MEAN, True, ModelSource(hf=DENSE), DIM)


def test_a_custom_model_of_other_dims_is_another_checkpoint(url: str) -> None:
    TextEmbedding.add_custom_model("my/model", PoolingType.CLS, True, ModelSource(hf=DENSE), DIM + 1)
    with pytest.raises(
        ValueError, match=rf"registered with {DIM + 1} dims, and .* has {DIM}: register it with dim={DIM}"
    ):
        TextEmbedding("my/model")


def test_a_custom_reranker_is_a_name(url: str) -> None:
    TextCrossEncoder.add_custom_model("my/reranker", ModelSource(hf=RERANKER))
    scores = list(TextCrossEncoder("my/reranker").rerank("the cell", ["a house", "is"]))
    assert scores == list(TextCrossEncoder(RERANKER).rerank("the cell", ["a house", "is"]))
    with pytest.raises(ValueError, match="already registered"):
        TextCrossEncoder.add_custom_model("Xenova/ms-marco-MiniLM-L-6-v2", ModelSource(hf=RERANKER))
    with pytest.raises(NotImplementedError, match="no custom models"):
        SparseTextEmbedding.add_custom_model("my/sparse")


# An adapter that does not let a request choose


def test_vectors_that_come_too_long_are_normalised_here(url: str, triton: FakeTriton, tokenizer: Tokenizer) -> None:
    async def long(run: Run) -> web.StreamResponse:
        return tensors(run, {name: 3 * np.stack([expected(row, name) for row in run.rows]) for name in run.outputs})

    triton.answer = long
    (vector,) = TextEmbedding(DENSE).embed("a house")
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, expected(tokenizer.encode("a house").ids), atol=1e-6)


def test_a_length_that_is_lost_is_said(url: str, triton: FakeTriton) -> None:
    async def short(run: Run) -> web.StreamResponse:
        return tensors(run, {name: np.stack([expected(row) for row in run.rows]) for name in run.outputs})

    triton.answer = short
    TextEmbedding.add_custom_model("my/model", PoolingType.MEAN, False, ModelSource(hf=DENSE), DIM)
    with pytest.warns(UserWarning, match="`normalize: false` in its bundle") as seen:
        list(TextEmbedding("my/model").embed(["a house", "the cell"]))
    assert [warning.filename for warning in seen] == [__file__]


# The key


@pytest.fixture
def keys() -> Iterator[tuple[str, list[str | None]]]:
    """An address that refuses everybody, and the keys that it was shown."""
    shown: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            shown.append(self.headers.get("Authorization"))
            body = b'{"detail": {"code": "UNAUTHORIZED", "message": "who are you?"}}'
            self.send_response_only(401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _refuse

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", shown
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_key_goes_where_it_belongs(keys: tuple[str, list[str | None]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, shown = keys
    info: Any = {"name": DENSE, "outputs": ["dense"]}

    def ask(**arguments: Any) -> list[str | None]:
        shown.clear()
        model = TextEmbedding(DENSE, lazy_load=True, **arguments)
        with pytest.raises(RequestError, match="who are you"):
            list(model.embed("the cell"))
        model._info = info
        for call in (lambda: list(model.embed("the cell")), lambda: model.token_count("the cell")):
            with pytest.raises(RequestError, match="who are you"):
                call()
        return list(shown)

    assert ask(base_url=address, api_key="mine") == ["Bearer mine"] * 3
    monkeypatch.setenv("SIE_API_KEY", "the environment's")
    assert ask(base_url=address) == [None] * 3
    monkeypatch.setenv("SIE_BASE_URL", address)
    assert ask() == ["Bearer the environment's"] * 3

"""Calls over HTTP: values, order, laziness, what is in flight. The frontend is the real one."""

from __future__ import annotations

import os
import pickle
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from frontend.fake_triton import DIM, FakeTriton, Run, expected, tensors
from frontend.process import until
from sie_sdk import ServerError
from sie_triton_fastembed import TextCrossEncoder, TextEmbedding
from tokenizers import Tokenizer

from .conftest import DENSE, RERANKER, pair_score

TEXTS = [f"{word} cell {'text ' * (n % 5)}{n}" for n, word in enumerate(["the", "a", "search", "house"] * 15)]


def wanted(tokenizer: Tokenizer, text: str) -> Any:
    """The vector of the bare text: no template of the bundle's, Fastembed's pooling."""
    return expected(tokenizer.encode(text).ids)


def test_each_method_embeds_the_bare_text(url: str, tokenizer: Tokenizer, triton: FakeTriton) -> None:
    """The bundle has templates and pools the first token; Fastembed has none and takes the mean."""
    model = TextEmbedding(DENSE.lower())
    for method in (model.embed, model.query_embed, model.passage_embed):
        vectors = list(method(TEXTS))
        assert len(vectors) == len(TEXTS)
        assert triton.runs[-1].outputs == ("dense_mean",)
        for text, vector in zip(TEXTS, vectors, strict=True):
            assert vector.shape == (DIM,) and vector.dtype == np.float32
            np.testing.assert_allclose(vector, wanted(tokenizer, text), atol=1e-6)
    vector /= 2  # Fastembed's arrays can be written


def test_options_of_the_caller_come_last(url: str, tokenizer: Tokenizer, triton: FakeTriton) -> None:
    """A prefix on request, and a length that Fastembed would not give."""
    model = TextEmbedding(DENSE, options={"doc_template": "the {text}", "normalize": False})
    (vector,) = model.embed("cell is a house")
    assert triton.runs[-1].outputs == ("dense_mean_unnormalized",)
    wanted = expected(tokenizer.encode("the cell is a house").ids, "dense_mean_unnormalized")
    np.testing.assert_allclose(vector, wanted, atol=1e-5)


@pytest.mark.parametrize("method", ["embed", "query_embed", "passage_embed"])
def test_one_string_an_iterable_and_nothing(method: str, url: str, tokenizer: Tokenizer) -> None:
    call = getattr(TextEmbedding(DENSE), method)
    (single,) = call("the cell")
    np.testing.assert_allclose(single, wanted(tokenizer, "the cell"), atol=1e-6)
    (empty,) = call("")
    np.testing.assert_allclose(empty, wanted(tokenizer, ""), atol=1e-6)
    assert [v.tolist() for v in call(text for text in TEXTS[:3])] == [v.tolist() for v in call(tuple(TEXTS[:3]))]
    assert list(call([])) == list(call(iter(()))) == []


class Counted:
    """An endless source that counts what was taken from it."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        while True:
            self.taken += 1
            yield TEXTS[self.taken % len(TEXTS)]


def test_nothing_is_read_or_asked_before_a_vector_is_taken(url: str, triton: FakeTriton) -> None:
    source, model = Counted(), TextEmbedding(DENSE)
    before = len(triton.runs)
    vectors = iter(model.embed(source, batch_size=4))
    assert (source.taken, len(triton.runs)) == (0, before)
    for taken in range(1, 10):
        next(vectors)
        assert source.taken == -(-taken // 4) * 4  # whole batches, and none ahead


@pytest.mark.parametrize("parallel", [0, 1, 3])
def test_so_many_batches_are_in_flight_and_no_more(parallel: int, url: str, tokenizer: Tokenizer) -> None:
    source, limit = Counted(), parallel or 8
    vectors = iter(TextEmbedding(DENSE).embed(source, batch_size=2, parallel=parallel))
    for taken in range(1, 25):
        vector = next(vectors)
        np.testing.assert_allclose(vector, wanted(tokenizer, TEXTS[taken % len(TEXTS)]), atol=1e-6)
        begun = -(-taken // 2)
        ahead = limit if limit > 1 else 0
        assert source.taken <= 2 * (begun + ahead)
    vectors.close()  # type: ignore[attr-defined] # it is a generator, which the annotation does not say
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("sie-triton-fastembed")])


def test_requests_run_side_by_side_in_threads_alone(url: str, triton: FakeTriton, monkeypatch: Any) -> None:
    """What `parallel` promises, and what it must not do: Fastembed starts a process for each."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    for owner, name in ((subprocess.Popen, "__init__"), (os, "fork")):
        monkeypatch.setattr(owner, name, refuse)
    names = set()
    original = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        names.add(thread.name.rpartition("_")[0])
        original(thread)

    monkeypatch.setattr(threading.Thread, "run", run)
    vectors = list(TextEmbedding(DENSE).embed(TEXTS, batch_size=3, parallel=4))
    assert len(vectors) == len(TEXTS)
    assert "sie-triton-fastembed" in names


@pytest.mark.parametrize("parallel", [None, 3])
def test_an_error_arrives_at_its_place_and_ends_the_call(
    parallel: int | None, url: str, triton: FakeTriton, tokenizer: Tokenizer
) -> None:
    regular = triton.answer
    poison = tokenizer.token_to_id("mitochondria")

    async def fail(run: Run) -> web.StreamResponse:
        if any(poison in row for row in run.rows):
            return web.json_response({"error": "no"}, status=500)
        return await regular(run)

    triton.answer = fail
    vectors = iter(
        TextEmbedding(DENSE).embed([*TEXTS[:6], "mitochondria", *TEXTS[:6]], batch_size=3, parallel=parallel)
    )
    assert [next(vectors).shape for _ in range(6)] == [(DIM,)] * 6
    with pytest.raises(ServerError):
        next(vectors)
    assert list(vectors) == []


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("batch_size", -1), ("parallel", -1)])
def test_numbers_that_make_no_sense_are_refused_when_they_are_used(name: str, value: int, url: str) -> None:
    vectors = TextEmbedding(DENSE).embed(TEXTS, **{name: value})
    with pytest.raises(ValueError, match=name):
        next(iter(vectors))


def test_a_batch_beyond_the_servers_limit_is_several_requests(url: str, tokenizer: Tokenizer) -> None:
    texts = [f"cell {number}" for number in range(1100)]
    vectors = list(TextEmbedding(DENSE).embed(texts, batch_size=2000))
    for place in (0, 511, 512, 1023, 1024, 1099):
        np.testing.assert_allclose(vectors[place], wanted(tokenizer, texts[place]), atol=1e-6)


def test_sizes_names_and_what_is_listed(url: str) -> None:
    model = TextEmbedding(DENSE, cache_dir="somewhere", threads=3, lazy_load=True)
    assert (model.model_name, model.cache_dir, model.threads) == (DENSE, "somewhere", 3)
    assert model.embedding_size == DIM == TextEmbedding.get_embedding_size(DENSE.lower())
    (listed,) = TextEmbedding.list_supported_models()
    assert (listed["model"], listed["dim"], listed["sources"]["url"]) == (DENSE, DIM, url)
    assert [entry["model"] for entry in TextCrossEncoder.list_supported_models()] == [RERANKER]


def test_tokens_are_counted_as_the_tokenizer_counts_them(url: str, tokenizer: Tokenizer) -> None:
    texts = [*TEXTS, "cell " * 100]
    model = TextEmbedding(DENSE)
    assert model.token_count(texts, batch_size=7) == sum(len(tokenizer.encode(text).ids) for text in texts)
    assert model.token_count("the cell") == len(tokenizer.encode("the cell").ids)
    pairs = [("the cell", text) for text in TEXTS] + [("a house", "is")]
    counted = TextCrossEncoder(RERANKER).token_count(pairs, batch_size=9)
    assert counted == sum(len(tokenizer.encode(*pair).ids) for pair in pairs)


def test_an_instance_travels_to_another_process(url: str, tokenizer: Tokenizer) -> None:
    copy = pickle.loads(pickle.dumps(TextEmbedding(DENSE, base_url=url)))
    (vector,) = copy.embed("the cell")
    np.testing.assert_allclose(vector, wanted(tokenizer, "the cell"), atol=1e-6)


# Rerankers


def scored(tokenizer: Tokenizer, query: str, document: str) -> float:
    return pair_score(tokenizer.encode(query, document).ids)


def test_scores_come_in_the_order_of_the_documents(url: str, tokenizer: Tokenizer) -> None:
    model = TextCrossEncoder(f"Xenova/{RERANKER.partition('/')[2]}")  # Fastembed's name of the same checkpoint
    scores = list(model.rerank("the cell", TEXTS, batch_size=7))
    assert all(type(score) is float for score in scores)
    np.testing.assert_allclose(scores, [scored(tokenizer, "the cell", text) for text in TEXTS], atol=1e-5)
    assert list(model.rerank("the cell", [])) == []
    source = Counted()
    next(iter(model.rerank("the cell", source, batch_size=5)))
    assert source.taken == 5


@pytest.mark.parametrize("parallel", [None, 0, 2])
def test_pairs_keep_their_order_whatever_their_queries(parallel: int | None, url: str, tokenizer: Tokenizer) -> None:
    queries = ["the cell", "a house", "search text"]
    pairs = [(queries[(n * 7) % 3], text) for n, text in enumerate(TEXTS)]
    model = TextCrossEncoder(RERANKER)
    scores = list(model.rerank_pairs((pair for pair in pairs), batch_size=8, parallel=parallel))
    np.testing.assert_allclose(scores, [scored(tokenizer, *pair) for pair in pairs], atol=1e-5)
    assert list(model.rerank_pairs([])) == []


def test_a_tuple_is_one_pair_as_in_fastembed(url: str, tokenizer: Tokenizer) -> None:
    (score,) = TextCrossEncoder(RERANKER).rerank_pairs(("the cell", "is a house"))  # type: ignore[arg-type]
    assert score == pytest.approx(scored(tokenizer, "the cell", "is a house"), abs=1e-5)


def test_a_score_that_is_no_tensor_of_ours_is_not_made_up(url: str, triton: FakeTriton) -> None:
    async def nan(run: Run) -> web.StreamResponse:
        return tensors(run, {"score": np.full((len(run.rows), 1), np.nan, dtype=np.float32)})

    triton.answer = nan
    with pytest.raises(ServerError):
        list(TextCrossEncoder(RERANKER).rerank("the cell", ["a"]))

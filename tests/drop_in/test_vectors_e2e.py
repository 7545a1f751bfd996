"""The same numbers as Fastembed in process, method by method: on MiniLM's real weights, and on tiny checkpoints.

Fastembed runs its own pipeline on graphs of transformers' own models; ours asks the real tritonserver.
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.corpus import UNICODE, mixed_texts
from recipes.corpus import LONG_TEXT, QUERY
from recipes.corpus import TEXTS as TINY_TEXTS
from recipes.made import made, oracle
from recipes.serving import serve
from shared import made_once, session_folder
from sie_triton_fastembed import (
    LateInteractionTextEmbedding,
    SparseTextEmbedding,
    TextCrossEncoder,
    TextEmbedding,
)

from .in_process import NAMES, export

pytestmark = pytest.mark.e2e

fastembed = pytest.importorskip("fastembed")

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fastembed_migration.py"
# Every character is in the tiny vocabulary: Fastembed's ColBERT drops unknown tokens where its skip list has one.
KNOWN_TEXTS = [*TINY_TEXTS[:3], "yes no", "the sea, the wind and the rain."]
TEXTS = [*TINY_TEXTS, LONG_TEXT, "", "yes no"]


@pytest.fixture(scope="module")
def minilm_url(built_repository: Path) -> Iterator[str]:
    served = serve(built_repository)
    yield served.url
    served.stop()


@pytest.fixture(scope="module")
def theirs(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Fastembed in process on MiniLM's weights, exported by the migration example; Fastembed forgets it afterwards."""
    from fastembed.text.custom_text_embedding import CustomTextEmbedding

    example = runpy.run_path(str(EXAMPLE))
    folder = session_folder(tmp_path_factory) / "minilm_in_process"
    made_once(folder, lambda folder: example["export_for_fastembed"](minilm, folder))
    before = list(CustomTextEmbedding.SUPPORTED_MODELS)
    yield example["local_fastembed"](folder)
    CustomTextEmbedding.SUPPORTED_MODELS[:] = before


def test_fastembeds_published_values(minilm_url: str) -> None:
    """What Fastembed's own tests expect of this model for this text."""
    (vector,) = TextEmbedding(MINILM, base_url=minilm_url).embed("hello world")
    np.testing.assert_allclose(vector[:5], [-0.034478, 0.03102, 0.00673, 0.02611, -0.039362], atol=1e-3)


def test_what_fastembeds_own_tests_ask_of_its_models(minilm_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its tests that look at answers and not at its insides; the weights of its other models are not here."""
    monkeypatch.setenv("SIE_BASE_URL", minilm_url)
    for name in (MINILM, MINILM.lower()):
        assert TextEmbedding.get_embedding_size(name) == 384
        assert TextEmbedding(name, lazy_load=True).embedding_size == 384
    model = TextEmbedding(MINILM)
    texts = ["hello world", "flag embedding"] * 100
    first, *others = (np.stack([*model.embed(texts, batch_size=10, parallel=count)]) for count in (2, None, 0))
    assert first.shape == (200, 384)
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-3)
    questions = ["Which river flows through Vienna?", "The Danube flows through Vienna, and through Budapest after it."]
    counts = [model.token_count(text) for text in questions]
    assert sum(counts) == model.token_count(questions) == model.token_count(questions, batch_size=1)


def test_dense_vectors_method_by_method(minilm_url: str, theirs: Any) -> None:
    ours = TextEmbedding(MINILM, base_url=minilm_url)
    texts = [*UNICODE, *mixed_texts(40, seed=11, longest=120)]
    for method in ("embed", "query_embed", "passage_embed"):
        left, right = (list(getattr(model, method)(texts)) for model in (ours, theirs))
        assert len(left) == len(right) == len(texts)
        for one, other in zip(left, right, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert ours.token_count(texts) == theirs.token_count(texts)
    assert ours.embedding_size == theirs.embedding_size


def test_both_read_a_source_alike(minilm_url: str, theirs: Any) -> None:
    """How many texts have been taken after each vector, for both."""

    def taken(model: Any, **arguments: Any) -> list[int]:
        count = 0

        def source() -> Iterator[str]:
            nonlocal count
            for number in range(20):
                count += 1
                yield f"text {number}"

        return [count for _ in model.embed(source(), **arguments)]

    ours = TextEmbedding(MINILM, base_url=minilm_url)
    for size in (1, 7, 256):
        assert taken(ours, batch_size=size) == taken(theirs, batch_size=size)


# Tiny checkpoints


def checkpoint(family: str) -> Path:
    return oracle(family).folder


def sparse_in_process(family: str, name: str, folder: Path) -> Any:
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(checkpoint(family), attn_implementation="eager")
    inputs = NAMES if family == "splade_bert" else NAMES[:2]
    export(checkpoint(family), folder, model, "logits", max_length=48, inputs=inputs)
    return fastembed.SparseTextEmbedding(name, specific_model_path=str(folder), threads=1)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("splade_bert", "prithivida/Splade_PP_en_v1"),
        ("opensearch_gte", "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-gte"),
    ],
)
def test_sparse_vectors_method_by_method(family: str, name: str, tiny_url: str, tmp_path: Path) -> None:
    """SPLADE, and a model whose queries are looked up in a table."""
    theirs = sparse_in_process(family, name, tmp_path / "model")
    ours = SparseTextEmbedding(made(family).sie_id, base_url=tiny_url)
    for method in ("embed", "query_embed", "passage_embed"):
        left, right = (list(getattr(model, method)(TEXTS)) for model in (ours, theirs))
        assert any(len(one.indices) for one in left)
        for one, other in zip(left, right, strict=True):
            # A weight of 0 in the table of queries is an entry there; it adds nothing to any score.
            weighs = other.values != 0
            np.testing.assert_array_equal(one.indices, other.indices[weighs])
            np.testing.assert_allclose(one.values, other.values[weighs], atol=1e-4)
            assert one.indices.dtype == np.int64 and one.values.dtype == np.float32
    assert ours.token_count(TEXTS) == theirs.token_count(TEXTS)


def test_token_vectors_method_by_method(tiny_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastembed.late_interaction.colbert import Colbert
    from recipes.vocabularies import wordpiece
    from safetensors.torch import load_file
    from transformers import BertModel

    family = "colbert_root_linear"
    projection = load_file(checkpoint(family) / "model.safetensors")["linear.weight"]
    model = BertModel.from_pretrained(checkpoint(family), attn_implementation="eager")
    # Fastembed leaves room for the marker in 40 tokens, as the bundle does.
    folder = export(
        checkpoint(family),
        tmp_path / "model",
        model,
        "last_hidden_state",
        max_length=40,
        projection=projection,
        inputs=NAMES[:2],
    )
    # Its markers are the ids of the published vocabulary.
    for name, marker in (("QUERY_MARKER_TOKEN_ID", "[unused0]"), ("DOCUMENT_MARKER_TOKEN_ID", "[unused1]")):
        monkeypatch.setattr(Colbert, name, wordpiece().id_of(marker))
    theirs = fastembed.LateInteractionTextEmbedding(
        "colbert-ir/colbertv2.0", specific_model_path=str(folder), threads=1
    )
    ours = LateInteractionTextEmbedding(made(family).sie_id, base_url=tiny_url)
    texts = [*KNOWN_TEXTS, LONG_TEXT]
    short = [text for text in [*KNOWN_TEXTS, QUERY] if len(text) < 60]
    for method in ("embed", "query_embed", "passage_embed"):
        # Fastembed lets a query be longer than the 32 tokens that it is filled up to, where SIE cuts it.
        given = [t for t in KNOWN_TEXTS if len(t) < 60] + [QUERY] if method == "query_embed" else texts
        left, right = (list(getattr(side, method)(given)) for side in (ours, theirs))
        for one, other in zip(left, right, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_allclose(one, other, atol=1e-5)
    for keywords in ({}, {"include_extension": True}, {"is_doc": False}, {"is_doc": False, "include_extension": True}):
        counted = [side.token_count(short, **keywords) for side in (ours, theirs)]
        assert counted[0] == counted[1], keywords
    assert ours.embedding_size == 24


def reranker_in_process(family: str, folder: Path) -> Any:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder as Theirs
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint(family), attn_implementation="eager")
    export(checkpoint(family), folder, model, "logits", max_length=80)
    name = f"local/{folder.parent.name}-{family}"
    Theirs.add_custom_model(name, ModelSource(hf=name), model_file="model.onnx")
    return Theirs(name, specific_model_path=str(folder), threads=1)


def test_scores_are_fastembeds_logits(tiny_url: str, tmp_path: Path) -> None:
    family = "cross_encoder_bert_identity"
    theirs = reranker_in_process(family, tmp_path / "model")
    ours = TextCrossEncoder(made(family).sie_id, base_url=tiny_url)
    np.testing.assert_allclose(list(ours.rerank(QUERY, TEXTS)), list(theirs.rerank(QUERY, TEXTS)), atol=1e-4)
    pairs = [(QUERY, text) for text in TEXTS] + [(text, QUERY) for text in TEXTS]
    np.testing.assert_allclose(list(ours.rerank_pairs(pairs)), list(theirs.rerank_pairs(pairs)), atol=1e-4)
    assert ours.token_count(pairs) == theirs.token_count(pairs)


def test_where_the_checkpoint_names_a_sigmoid_the_logit_can_be_had(tiny_url: str, tmp_path: Path) -> None:
    """What the documentation says: the same order, and the logit by the inverse."""
    family = "cross_encoder_bert_legacy_sigmoid"
    texts = TEXTS[:4]
    logits = np.array(list(reranker_in_process(family, tmp_path / "model").rerank(QUERY, texts)))
    scores = np.array(list(TextCrossEncoder(made(family).sie_id, base_url=tiny_url).rerank(QUERY, texts)))
    assert np.argsort(scores).tolist() == np.argsort(logits).tolist()
    np.testing.assert_allclose(np.log(scores / (1 - scores)), logits, atol=1e-3)

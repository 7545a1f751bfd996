"""The same names, parameters and facts as the installed Fastembed has."""

from __future__ import annotations

import importlib
import inspect
import pickle
from enum import Enum
from typing import Any

import numpy as np
import pytest
import sie_triton_fastembed
from sie_triton_fastembed import _known
from sie_triton_fastembed.common.model_description import ModelSource
from sie_triton_fastembed.sparse import SparseEmbedding

fastembed = pytest.importorskip("fastembed")

CLASSES = (
    ("text.text_embedding", "TextEmbedding"),
    ("sparse.sparse_text_embedding", "SparseTextEmbedding"),
    ("sparse.sparse_embedding_base", "SparseEmbedding"),
    ("late_interaction.late_interaction_text_embedding", "LateInteractionTextEmbedding"),
    ("rerank.cross_encoder", "TextCrossEncoder"),
    ("image", "ImageEmbedding"),
    ("common.model_description", "ModelSource"),
    ("common.model_description", "BaseModelDescription"),
    ("common.model_description", "DenseModelDescription"),
    ("common.model_description", "SparseModelDescription"),
    ("common.model_description", "PoolingType"),
    ("common.types", "Device"),
)
# The tables of Fastembed's own classes, and how it downloads.
NOT_OURS = {
    "EMBEDDINGS_REGISTRY",
    "CROSS_ENCODER_REGISTRY",
    "METADATA_FILE",
    "decompress_to_cache",
    "download_file_from_gcs",
    "download_files_from_huggingface",
    "download_model",
    "retrieve_model_gcs",
}


def both(module: str, name: str) -> tuple[Any, Any]:
    return tuple(
        getattr(importlib.import_module(f"{top}.{module}"), name) for top in ("fastembed", "sie_triton_fastembed")
    )


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found if p.name not in ("self", "cls")]


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_every_public_member_is_there_with_its_parameters(module: str, name: str) -> None:
    theirs, ours = both(module, name)
    if issubclass(theirs, Enum):
        assert [(m.name, m.value) for m in ours] == [(m.name, m.value) for m in theirs]
        return
    for member in [*(m for m in dir(theirs) if not m.startswith("_") and m not in NOT_OURS), "__init__"]:
        original, own = getattr(theirs, member), getattr(ours, member)
        if callable(original):
            positional = [p for p in parameters(own) if p[1] is not inspect.Parameter.KEYWORD_ONLY]
            assert positional == parameters(original), f"{name}.{member}"


def test_the_top_has_what_theirs_has() -> None:
    assert set(fastembed.__all__) <= set(sie_triton_fastembed.__all__)
    from sie_triton_fastembed.common import ImageInput, OnnxProvider, PathInput  # noqa: F401 - importable is the point


def test_methods_that_are_generators_there_are_generators_here() -> None:
    for module, name in CLASSES:
        theirs, ours = both(module, name)
        for member in ("embed", "query_embed", "passage_embed", "rerank", "rerank_pairs"):
            if hasattr(theirs, member):
                assert inspect.isgeneratorfunction(getattr(ours, member)), f"{name}.{member}"
                assert inspect.isgeneratorfunction(getattr(theirs, member)), f"{name}.{member}"


def _expected(how: _known.Postprocessing, states: Any, mask: Any) -> Any:
    rows = [row[kept == 1] for row, kept in zip(states.astype(np.float64), mask, strict=True)]
    pooled = np.stack(
        [row[-1] if how.pooling is None else row[0] if how.pooling == "cls" else row.mean(0) for row in rows]
    )
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True) if how.normalize else pooled


def test_each_model_is_pooled_and_normalised_as_fastembeds_own_code_does_it() -> None:
    from fastembed.common.onnx_model import OnnxOutputContext

    random = np.random.default_rng(5)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    seen = set()
    for kind in fastembed.TextEmbedding.EMBEDDINGS_REGISTRY:
        for described in kind._list_supported_models():
            how = _known.POSTPROCESSING.get(described.model.lower())
            if how is None:
                continue
            states = random.standard_normal((2, 5, 8)).astype(np.float32)
            if described.model.lower() in PROJECTED:  # one vector a text leaves their graphs, not one a token
                states = np.repeat(states[:, :1], 5, axis=1)
            output = OnnxOutputContext(model_output=states.copy(), attention_mask=mask, input_ids=mask)
            theirs = np.stack(list(kind.__new__(kind)._post_process_onnx_output(output)))
            theirs = theirs[:, 0] if theirs.ndim == 3 else theirs
            np.testing.assert_allclose(theirs, _expected(how, states, mask), atol=1e-6, err_msg=described.model)
            seen.add(described.model.lower())
    assert seen == set(_known.POSTPROCESSING)


PROJECTED = {"qdrant/clip-vit-b-32-text", "google/siglip2-base-patch16-224"}
# Their graphs pool themselves, so that the bundle decides.
POOLED_IN_THE_GRAPH = {
    "google/embeddinggemma-300m",
    "ibm-granite/granite-embedding-small-english-r2",
    "qdrant/stella-en-400m-v5-doc-onnx",
    "qdrant/constella-nano",
}


def test_every_model_that_fastembed_lists_is_known() -> None:
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    dense = {m["model"].lower() for m in fastembed.TextEmbedding.list_supported_models()}
    assert dense == (set(_known.POSTPROCESSING) | set(_known.WITHOUT_COUNTERPART) & dense | POOLED_IN_THE_GRAPH)
    rerankers = {m["model"].lower() for m in TextCrossEncoder.list_supported_models()}
    sparse = {m["model"].lower() for m in fastembed.SparseTextEmbedding.list_supported_models()}
    assert rerankers == _known.RERANKERS
    images = {m["model"].lower() for m in fastembed.ImageEmbedding.list_supported_models()}
    assert set(_known.WITHOUT_COUNTERPART) <= dense | rerankers | sparse | images
    assert images <= {*_known.WITHOUT_COUNTERPART, *_known.ALIASES, *_known.POSTPROCESSING}
    assert set(_known.ALIASES) <= rerankers | sparse | dense | images


@pytest.mark.parametrize("data", [{}, {3: 1.5, 0: 2.0, 4: -0.25}])
def test_a_sparse_embedding_does_what_theirs_does(data: dict[int, float]) -> None:
    theirs, ours = fastembed.SparseEmbedding.from_dict(data), SparseEmbedding.from_dict(data)
    for name in ("values", "indices"):
        left, right = theirs.as_object()[name], ours.as_object()[name]
        np.testing.assert_array_equal(left, right)
        assert left.dtype == right.dtype
    assert theirs.as_dict() == ours.as_dict() == data
    assert [type(key) for key in ours.as_dict()] == [int] * len(data)
    assert [type(value) for value in ours.as_dict().values()] == [float] * len(data)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours)).values, ours.values)


def test_a_source_needs_a_place() -> None:
    with pytest.raises(ValueError, match="both are None"):
        ModelSource()

"""Models of sentence-transformers that no graph of ours can be: each must be refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling, MultiVectorMask
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    LSTM,
    BoW,
    Pooling,
    StaticEmbedding,
    WordWeights,
)
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder, SparseStaticEmbedding, SpladePooling

from .recipe import WIDTH

SPARSE = ("sparse_static", "csr")
MULTI = ("token_pooling",)
"""The foreign models whose bundle is a sparse or a late-interaction one; all others are dense."""


def _bow(_: Path) -> Any:
    return SentenceTransformer(modules=[BoW(["river", "sea", "salt", "rain", "cell"])], device="cpu")


def _static(body: Path) -> Any:
    embedding = StaticEmbedding(Transformer(str(body)).tokenizer, embedding_dim=WIDTH)
    return SentenceTransformer(modules=[embedding], device="cpu")


def _after_tokens(body: Path, module: Any, width: int) -> Any:
    """A module over the tokens, between the transformer and the mean."""
    return SentenceTransformer(modules=[Transformer(str(body)), module, Pooling(width, "mean")], device="cpu")


def _cnn(body: Path) -> Any:
    return _after_tokens(body, CNN(WIDTH, out_channels=8), 24)


def _lstm(body: Path) -> Any:
    return _after_tokens(body, LSTM(WIDTH, hidden_dim=16), WIDTH)


def _word_weights(body: Path) -> Any:
    vocabulary = Transformer(str(body)).tokenizer.get_vocab()
    words = sorted(vocabulary, key=lambda word: int(vocabulary[word]))
    return _after_tokens(body, WordWeights(words, dict.fromkeys(words[::3], 0.5)), WIDTH)


def _sparse_static(body: Path) -> Any:
    transformer = Transformer(str(body), transformer_task="fill-mask")
    weights = torch.rand(len(transformer.tokenizer.get_vocab()))
    static = SparseStaticEmbedding(transformer.tokenizer, weight=weights)
    router = Router.for_query_document(query_modules=[static], document_modules=[transformer, SpladePooling("max")])
    return SparseEncoder(modules=[router], device="cpu")


def _csr(body: Path) -> Any:
    encoder = SparseAutoEncoder(WIDTH, hidden_dim=64, k=8)
    return SparseEncoder(modules=[Transformer(str(body)), Pooling(WIDTH, "mean"), encoder], device="cpu")


def _router(body: Path) -> Any:
    query, document = ([Transformer(str(body)), Pooling(WIDTH, pooling)] for pooling in ("cls", "mean"))
    router = Router.for_query_document(query_modules=query, document_modules=document)
    return SentenceTransformer(modules=[router], device="cpu")


def _token_pooling(body: Path) -> Any:
    key = "token_embeddings"
    dense = Dense(WIDTH, 16, bias=False, activation_function=torch.nn.Identity(), module_input_name=key)
    last = [MultiVectorMask(), Normalize(module_input_name=key), HierarchicalTokenPooling(2.0)]
    return MultiVectorEncoder(modules=[Transformer(str(body)), dense, *last], device="cpu")


_MAKERS: Mapping[str, Callable[[Path], Any]] = {
    "static": _static,
    "bow": _bow,
    "cnn": _cnn,
    "lstm": _lstm,
    "word_weights": _word_weights,
    "sparse_static": _sparse_static,
    "csr": _csr,
    "router": _router,
    "token_pooling": _token_pooling,
}


def foreign_model(name: str, body: Path) -> Any:
    """A model around the transformer saved in `body`, by the names of `recipe.FOREIGN`."""
    return _MAKERS[name](body)

"""Models of sentence-transformers that no graph of ours can be: each must be refused by name."""

from __future__ import annotations

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


def foreign_model(name: str | None, body: Path) -> Any:
    """A model around the transformer saved in `body`, by the names of `recipe.FOREIGN`."""
    if name == "bow":
        return SentenceTransformer(modules=[BoW(["river", "sea", "salt", "rain", "cell"])], device="cpu")
    if name == "sparse_static":
        transformer = Transformer(str(body), transformer_task="fill-mask")
        weights = torch.rand(len(transformer.tokenizer.get_vocab()))
        static = SparseStaticEmbedding(transformer.tokenizer, weight=weights)
        router = Router.for_query_document(
            query_modules=[static], document_modules=[transformer, SpladePooling("max")]
        )
        return SparseEncoder(modules=[router], device="cpu")
    transformer = Transformer(str(body))
    pooling = Pooling(WIDTH, "mean")
    if name == "static":
        static_embedding = StaticEmbedding(transformer.tokenizer, embedding_dim=WIDTH)
        return SentenceTransformer(modules=[static_embedding], device="cpu")
    if name == "cnn":
        cnn = CNN(WIDTH, out_channels=8)
        return SentenceTransformer(modules=[transformer, cnn, Pooling(24, "mean")], device="cpu")
    if name == "lstm":
        lstm = LSTM(WIDTH, hidden_dim=16)
        return SentenceTransformer(modules=[transformer, lstm, Pooling(WIDTH, "mean")], device="cpu")
    if name == "word_weights":
        words = sorted(transformer.tokenizer.get_vocab(), key=transformer.tokenizer.get_vocab().get)
        weights = WordWeights(words, {word: 0.5 for word in words[::3]})
        return SentenceTransformer(modules=[transformer, weights, pooling], device="cpu")
    if name == "csr":
        encoder = SparseAutoEncoder(WIDTH, hidden_dim=64, k=8)
        return SparseEncoder(modules=[transformer, pooling, encoder], device="cpu")
    if name == "router":
        query, document = [Transformer(str(body)), Pooling(WIDTH, "cls")], [transformer, pooling]
        router = Router.for_query_document(query_modules=query, document_modules=document)
        return SentenceTransformer(modules=[router], device="cpu")
    if name == "token_pooling":
        key = "token_embeddings"
        dense = Dense(WIDTH, 16, bias=False, activation_function=torch.nn.Identity(), module_input_name=key)
        pool = HierarchicalTokenPooling(2.0)
        modules = [transformer, dense, MultiVectorMask(), Normalize(module_input_name=key), pool]
        return MultiVectorEncoder(modules=modules, device="cpu")
    raise ValueError(f"no foreign model is called `{name}`")

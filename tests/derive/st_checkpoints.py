"""Checkpoints that sentence-transformers itself saves, each of another kind, on the factory's tiny transformers."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from recipes.made import made
from recipes.weights import edit_config, write_json
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Pooling

PROMPTS = {"query": "query: ", "document": "passage: "}
CUTS = (16, 8)
TOKEN_WIDTH = 16


def _body(family: str, **options: Any) -> Transformer:
    return Transformer(str(made(family).folder), **options)


def dense(folder: Path) -> None:
    """A projection with Tanh, prompts, unit length, and widths that vectors may be cut to."""
    torch.manual_seed(1)
    modules = [_body("bert", max_seq_length=40), Pooling(32, "mean"), Dense(32, 24), Normalize()]
    SentenceTransformer(modules=modules, prompts=PROMPTS, device="cpu").save_pretrained(str(folder))
    edit_config(folder, matryoshka_dimensions=list(CUTS))


def old_pooling(folder: Path) -> None:
    """As a release of 2020 wrote it: no word of later poolings, modules by their older paths, no Normalize."""
    modules = [_body("roberta", max_seq_length=40), Pooling(32, "cls")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder))
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    for entry in listed:
        kind = entry["type"].rpartition(".")[2]
        entry["type"] = f"sentence_transformers.models.{kind}"
    write_json(folder / "modules.json", listed)


def sparse(folder: Path) -> None:
    SparseEncoder(str(made("splade_bert").folder), device="cpu").save_pretrained(str(folder))


def scores(folder: Path) -> None:
    CrossEncoder(str(made("cross_encoder_bert_identity").folder), device="cpu").save_pretrained(str(folder))


def multivector(folder: Path) -> None:
    """Queries padded with the mask token, documents without punctuation, markers of the vocabulary."""
    torch.manual_seed(2)
    projection = Dense(
        32, TOKEN_WIDTH, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"
    )
    body = _body("bert", document_length=40, query_expansion={"strategy": "fixed", "attend": False, "length": 16})
    mask = MultiVectorMask(skiplist_words=list(string.punctuation))
    modules = [body, projection, mask, Normalize(module_input_name="token_embeddings")]
    prompts = {"query": "search ", "document": "the "}
    MultiVectorEncoder(modules=modules, prompts=prompts, device="cpu").save_pretrained(str(folder))


SAVED: Mapping[str, Callable[[Path], None]] = {
    "st-dense": dense,
    "st-old-pooling": old_pooling,
    "st-sparse": sparse,
    "st-scores": scores,
    "st-multivector": multivector,
}

"""Sparse encoders: SPLADE and OpenSearch's document models with their query tables, and BGE-M3 with its three heads."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertForMaskedLM,
    GteForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from . import vocabularies
from .encoder_checkpoints import distilbert_config, gte_config, write_original_gte_config
from .family import Family
from .sentence_modules import write_splade_modules
from .tiny_shapes import ENCODER, POSITIONS, ROBERTA, WIDTH
from .vocabularies import Vocabulary
from .weights import gaussian, linear, spread, write_json, write_model, write_tensors


def _bert(folder: Path) -> None:
    words = vocabularies.wordpiece()
    model = BertForMaskedLM(BertConfig(**ENCODER, vocab_size=words.size))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def _distilbert(folder: Path) -> None:
    words = vocabularies.wordpiece(tokenizer_class="DistilBertTokenizer", type_ids=False)
    model = DistilBertForMaskedLM(distilbert_config(words))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def _roberta(folder: Path) -> None:
    words = vocabularies.roberta()
    model = RobertaForMaskedLM(RobertaConfig(**ROBERTA, vocab_size=words.size))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)


def query_table(vocabulary: Vocabulary, seed: str) -> dict[str, float]:
    """A weight for most words of the vocabulary, special tokens included; every ninth is absent, every seventh zero."""
    tokens = sorted(vocabulary.tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda entry: entry[1])
    weights = gaussian((len(tokens),), seed).abs().mul(3).add(0.5)
    return {
        token: 0.0 if index % 7 == 3 else round(float(weight), 6)
        for index, ((token, _), weight) in enumerate(zip(tokens, weights, strict=True))
        if index % 9 != 5
    }


def _opensearch_idf(folder: Path) -> None:
    _distilbert(folder)
    words = vocabularies.wordpiece(type_ids=False)
    write_json(folder / "idf.json", query_table(words, folder.name))


def _opensearch_query_weights(folder: Path) -> None:
    """Both tables, with different weights: the text file is read first."""
    _bert(folder)
    words = vocabularies.wordpiece()
    lines = "".join(f"{token}\t{weight}\n" for token, weight in query_table(words, folder.name).items())
    (folder / "query_token_weights.txt").write_text(lines, encoding="utf-8")
    write_json(folder / "idf.json", query_table(words, f"{folder.name}:other"))


def _opensearch_malformed_weights(folder: Path) -> None:
    """A text file that is no table: the JSON beside it is read instead."""
    _opensearch_idf(folder)
    (folder / "query_token_weights.txt").write_text("the\tnot a number\n", encoding="utf-8")


def _opensearch_gte(folder: Path) -> None:
    words = vocabularies.wordpiece()
    model = GteForMaskedLM(gte_config(words, pad_token_id=0, type_vocab_size=0))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)
    write_json(folder / "idf.json", query_table(words, folder.name))


def _opensearch_gte_original(folder: Path) -> None:
    _opensearch_gte(folder)
    _rename(folder / "model.safetensors", "gte.", "new.")
    write_original_gte_config(folder, "NewForMaskedLM")


def _rename(path: Path, old: str, new: str) -> None:
    tensors = load_file(path)
    write_tensors(path, {re.sub(f"^{re.escape(old)}", new, name): tensor for name, tensor in tensors.items()})


def _sentence_splade(folder: Path) -> None:
    _bert(folder)
    write_splade_modules(folder, max_length=POSITIONS)


def _bge_m3(folder: Path) -> None:
    """BGE-M3: an XLM-RoBERTa body and two linears, each as the published state dict and as safetensors."""
    words = vocabularies.multilingual_e5()
    model = XLMRobertaModel(XLMRobertaConfig(**ROBERTA, vocab_size=words.size))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)
    # Most lexical weights are above zero, and some are not.
    for name, rows, bias in (("sparse_linear", 1, 1.0), ("colbert_linear", WIDTH, 0.0)):
        head = {
            "weight": linear(rows, WIDTH, f"{folder.name}:{name}"),
            "bias": gaussian((rows,), f"{folder.name}:{name}:bias") * 0.1 + bias,
        }
        torch.save(head, folder / f"{name}.pt")
        write_tensors(folder / f"{name}.safetensors", head)


def _sparse(vocabulary: Vocabulary) -> dict[str, int]:
    return {"sparse": vocabulary.size}


_BERT_WORDS = _sparse(vocabularies.wordpiece())
_ROBERTA_WORDS = _sparse(vocabularies.roberta())

SPARSE_FAMILIES = (
    Family(
        "splade_bert",
        "SPLADEFlashAdapter",
        _bert,
        "rasyosef__splade-mini.yaml",
        _BERT_WORDS,
        native="BertForMaskedLM",
    ),
    Family(
        "splade_distilbert",
        "SPLADEFlashAdapter",
        _distilbert,
        "opensearch-project__opensearch-neural-sparse-encoding-v2-distill.yaml",
        _BERT_WORDS,
        native="DistilBertForMaskedLM",
    ),
    Family(
        "splade_roberta",
        "SPLADEFlashAdapter",
        _roberta,
        "ibm-granite__granite-embedding-30m-sparse.yaml",
        _ROBERTA_WORDS,
        native="RobertaForMaskedLM",
    ),
    Family(
        "opensearch_idf",
        "SPLADEFlashAdapter",
        _opensearch_idf,
        "opensearch-project__opensearch-neural-sparse-encoding-doc-v3-distill.yaml",
        _BERT_WORDS,
        native="DistilBertForMaskedLM",
        note="queries read `idf.json` and never run the model; a single log1p in spite of the name's v3",
        slug="opensearch-neural-sparse-encoding-doc-v3-distill",
    ),
    Family(
        "opensearch_query_weights",
        "SPLADEFlashAdapter",
        _opensearch_query_weights,
        "opensearch-project__opensearch-neural-sparse-encoding-doc-v2-mini.yaml",
        _BERT_WORDS,
        native="BertForMaskedLM",
        note="`query_token_weights.txt` comes before `idf.json`",
    ),
    Family(
        "opensearch_malformed_weights",
        "SPLADEFlashAdapter",
        _opensearch_malformed_weights,
        "opensearch-project__opensearch-neural-sparse-encoding-doc-v2-distill.yaml",
        _BERT_WORDS,
        native="DistilBertForMaskedLM",
        note="a text table that cannot be read makes way for `idf.json`",
    ),
    Family(
        "opensearch_gte",
        "GTESparseFlashAdapter",
        _opensearch_gte,
        "",
        _BERT_WORDS,
        native="GteForMaskedLM",
        note="double log1p by the `v3` in the path, special tokens zeroed",
        slug="opensearch-neural-sparse-encoding-doc-v3-gte",
    ),
    Family(
        "opensearch_gte_original",
        "GTESparseFlashAdapter",
        _opensearch_gte_original,
        "",
        _BERT_WORDS,
        twin="GteForMaskedLM",
        note="the same as published: `model_type: new`",
        slug="opensearch-neural-sparse-encoding-doc-v3-gte-original",
    ),
    Family(
        "sentence_splade",
        "SentenceTransformerSparseAdapter",
        _sentence_splade,
        "",
        _BERT_WORDS,
        native="BertForMaskedLM",
    ),
    Family(
        "bge_m3",
        "BGEM3FlashAdapter",
        _bge_m3,
        "BAAI__bge-m3.yaml",
        {"dense": WIDTH, "sparse": 250002, "multivector": WIDTH},
        score=True,
        native="XLMRobertaModel",
        runtime={"pooling": "cls", "normalize": True},
        note="both linears as state dicts (`.pt`) and as safetensors",
    ),
)

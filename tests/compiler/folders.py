"""Checkpoint folders made of JSON alone: whole as far as planning looks, with weights that nobody reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EMPTY_SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
BERT = {"model_type": "bert", "hidden_size": 384, "max_position_embeddings": 512}


def write_folder(folder: Path, files: dict[str, Any], *, bert: bool = True) -> Path:
    """Write `files` (name -> JSON) and, unless told otherwise, what every BERT checkpoint has."""
    whole = {
        "config.json": BERT,
        "tokenizer.json": {"version": "1.0"},
        "tokenizer_config.json": {"model_max_length": 512},
    }
    for name, content in {**(whole if bert else {}), **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(EMPTY_SAFETENSORS)
    return folder


def minilm_facts(folder: Path) -> Path:
    """What all-MiniLM-L6-v2 says about itself, without its weights."""
    return write_folder(
        folder,
        {
            "modules.json": [TRANSFORMER, POOLING, NORMALIZE],
            "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
            "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
            "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "2.0.0"}},
        },
    )


def bge_small_facts(folder: Path) -> Path:
    """What bge-small-en-v1.5 says about itself, without its weights."""
    return write_folder(
        folder,
        {
            "modules.json": [TRANSFORMER, POOLING, NORMALIZE],
            "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_cls_token": True},
            "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": True},
        },
    )

"""Tiny transformers of each architecture, with random weights and a tokenizer of its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers
from recipes import vocabularies
from recipes.vocabularies import Vocabulary
from recipes.weights import spread, write_model

from .recipe import POSITIONS, WIDTH

_ENCODER: Mapping[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
}
_OFFSET: Mapping[str, Any] = {
    **_ENCODER,
    "max_position_embeddings": POSITIONS + 2,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "type_vocab_size": 1,
}
_DECODER: Mapping[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    "head_dim": 8,
}
_DISTILBERT: Mapping[str, Any] = {
    "dim": WIDTH,
    "n_layers": 1,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": POSITIONS,
}


def _special_ids(words: Vocabulary) -> dict[str, int]:
    names = {"cls": "[CLS]", "bos": "[CLS]", "sep": "[SEP]", "eos": "[SEP]", "pad": "[PAD]"}
    return {f"{role}_token_id": words.id_of(token) for role, token in names.items()}


_VOCABULARIES: Mapping[str, Callable[[], Vocabulary]] = {
    "bert": vocabularies.wordpiece,
    "distilbert": lambda: vocabularies.wordpiece(tokenizer_class="DistilBertTokenizer", type_ids=False),
    "roberta": vocabularies.roberta,
    "xlmr": vocabularies.unigram,
    "mpnet": vocabularies.mpnet,
    "modernbert": lambda: vocabularies.modernbert(("[Q] ", "[D] ")),
    "qwen2": vocabularies.qwen,
    "qwen3": vocabularies.qwen_embedding,
    "gemma": lambda: vocabularies.sentencepiece_bpe(gemma=True, add_eos=True),
}
_NAMES: Mapping[str, str] = {
    "bert": "Bert",
    "distilbert": "DistilBert",
    "roberta": "Roberta",
    "xlmr": "XLMRoberta",
    "mpnet": "MPNet",
    "modernbert": "ModernBert",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma": "Gemma3Text",
}


def vocabulary_of(backbone: str) -> Vocabulary:
    """The tokenizer that a backbone has."""
    return _VOCABULARIES[backbone]()


def _config(backbone: str, words: Vocabulary, **changes: Any) -> Any:
    make = getattr(transformers, f"{_NAMES[backbone]}Config")
    options: dict[str, Any] = {"vocab_size": words.size, **changes}
    if backbone == "distilbert":
        return make(**_DISTILBERT, **options)
    if backbone in ("roberta", "xlmr", "mpnet"):
        return make(**{**_OFFSET, **options})
    if backbone == "modernbert":
        return make(**_ENCODER, **_special_ids(words), global_attn_every_n_layers=2, local_attention=8, **options)
    if backbone in ("qwen2", "qwen3", "gemma"):
        decoder = {k: v for k, v in _DECODER.items() if backbone != "qwen2" or k != "head_dim"}
        ends = {"pad_token_id": 0 if backbone == "gemma" else words.id_of("<|endoftext|>")}
        more = {"sliding_window": 16, "use_bidirectional_attention": True} if backbone == "gemma" else {}
        return make(**decoder, **ends, **more, **options)
    return make(**_ENCODER, pad_token_id=words.id_of("[PAD]"), **options)


def write_backbone(folder: Path, backbone: str, task: str, *, seed: str, labels: int = 1) -> Vocabulary:
    """A transformer as `save_pretrained` leaves it, and its tokenizer. `task` is the head: Model, ForMaskedLM, ..."""
    words = vocabulary_of(backbone)
    changes = {"num_labels": labels} if task == "ForSequenceClassification" else {}
    name = {"gemma": "Gemma3Text"}.get(backbone, _NAMES[backbone])
    model = getattr(transformers, f"{name}{task}")(_config(backbone, words, **changes))
    spread(model, seed)
    write_model(model, folder)
    words.save(folder, max_length=POSITIONS)
    return words

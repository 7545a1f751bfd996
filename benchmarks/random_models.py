"""Random checkpoints of real sizes, with the tokenizer of a real one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


@dataclass(frozen=True)
class Size:
    """The shape of a BERT."""

    layers: int
    width: int
    heads: int
    positions: int = 512


SIZES = {
    "tiny": Size(1, 32, 2, 128),
    "small": Size(6, 384, 12),
    "base": Size(12, 768, 12),
}
"""`small` is MiniLM's and `base` that of BERT's first release."""


def write_bert(folder: Path, tokenizer_of: Path, size: Size, *, seed: int, kind: str = "BertModel") -> None:
    """A seeded BERT, or one of its heads by the name of transformers' class, which reads what `tokenizer_of` reads."""
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    for name in _TOKENIZER_FILES:
        if (tokenizer_of / name).exists():
            shutil.copy(tokenizer_of / name, folder / name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    shape = {
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.width,
        "max_position_embeddings": size.positions,
    }
    labels = {"num_labels": 1} if kind.endswith("SequenceClassification") else {}
    torch.manual_seed(seed)
    config = transformers.BertConfig(vocab_size=len(tokenizer), **shape, **labels)
    made: Any = getattr(transformers, kind)(config)
    made.eval().save_pretrained(folder, safe_serialization=True)

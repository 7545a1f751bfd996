"""A checkpoint of the right architecture that builds in seconds: random BERT weights, a WordPiece of toy words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

MODEL_ID = "acme/tiny"
TRITON_NAME = "acme__tiny"
BUNDLE = """\
sie_id: acme/tiny
hf_id: acme/tiny
inputs:
  text: true
tasks:
  encode:
    dense:
      dim: 32
max_sequence_length: 48
profiles:
  default:
    max_batch_tokens: 1024
    adapter_path: sie_server.adapters.bert_flash:BertFlashAdapter
    adapter_options:
      runtime:
        pooling: mean
        normalize: true
  raw:
    extends: default
    adapter_options:
      runtime:
        pooling: cls
        normalize: false
"""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_bundle(folder: Path, text: str = BUNDLE) -> Path:
    """A bundles folder that holds the tiny model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    return folder


def write_checkpoint(
    folder: Path, tokenizer_from: Path | None = None, *, width: int = 32, positions: int = 64, seed: int = 7
) -> Path:
    """A seeded BERT of a layer. The tokenizer is `tokenizer_from`'s, or a toy of letters and the reference's words."""
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer_from is None:
        from sie_triton.verify.reference_texts import SENTENCE

        # Every word of the reference's sentence is one token, as in a real vocabulary: only then do its lengths meet
        # the edges of the buckets.
        size = write_tokenizer(folder, SENTENCE.split())
    else:
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
            (folder / name).write_bytes((tokenizer_from / name).read_bytes())
        size = len((tokenizer_from / "vocab.txt").read_text(encoding="utf-8").splitlines())
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=size,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=positions,
    )
    BertModel(config).eval().save_pretrained(folder, safe_serialization=True)
    return folder


def write_tokenizer(folder: Path, words: Sequence[str]) -> int:
    """`tokenizer.json` and its configuration, of letters and `words`; returns the size of the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?-'"
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = list(dict.fromkeys(pieces))
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 64,
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return len(vocabulary)

"""Reference outputs: the original checkpoint run by transformers on fixed texts, alone and unpadded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModel, PreTrainedTokenizerFast

from sie_triton.export.modules import load_dense_layer
from sie_triton.facts import DenseLayer
from sie_triton.plan import DensePooling, TritonPlan
from sie_triton.verify import StoredReference

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

# Scripts, directions, combining marks, emoji, control characters and what tokenizers are known to trip over.
UNICODE_TEXTS = (
    "",
    " ",
    "The mitochondrion is the powerhouse of the cell.",
    "Ünïcödé, naïve café — “quotes”… and ﬁne ligatures",
    "Zoe\u0308 vs Zo\u00eb: combining and composed",
    "深度学习模型将文本转换为向量。",
    "ひらがなとカタカナ、そして漢字",
    "한국어 문장도 있습니다",
    "Текст на русском языке с ё и й",
    "العربية تُكتب من اليمين إلى اليسار",
    "हिन्दी में एक वाक्य",
    "👩‍👩‍👧‍👦 family, 🇪🇺 flag, 👍🏽 skin tone",
    "tabs\tand\nnewlines\r\nand\u00a0no-break\u200bzero-width",
    "[PAD] [MASK] [CLS] <pad> </s> <|endoftext|> as plain text",
    "a" * 300,
    "supercalifragilisticexpialidocious-" * 8,
    "x = {y: 1}; // {text} %s {0} $HOME <b>html</b> & more",
    "\ud7ff\ufffd\U0001f600\U0010fffd",
)
SENTENCE = (
    "retrieval systems embed passages and queries into one space where near neighbours answer the question that was "
    "asked while sparse signals keep the rare words exact and late interaction compares every token with every other"
)


def reference_texts(tokenizer: PreTrainedTokenizerFast, max_length: int, buckets: Sequence[int]) -> tuple[str, ...]:
    """Texts whose token counts run from 1 word to beyond the maximum, with every bucket's edge and the truncation
    boundary on both sides, then the unicode cases."""
    lengths = {1, 2, 3, 4, 5, 8, 11}
    specials = len(tokenizer("").input_ids)
    # Every edge would cost minutes for models of 8,192 tokens; the longest ones stand for the rest there.
    edges = buckets if max_length <= 512 else (*buckets[:8], *(b for b in buckets if b in (512, 1024)), max_length)
    for edge in edges:
        if edge <= 2048 or edge == max_length:
            lengths.update(n - specials for n in (edge - 1, edge, edge + 1) if n > specials)
    return (*(_words(n) for n in sorted(lengths)), *UNICODE_TEXTS)


def _words(count: int) -> str:
    words = SENTENCE.split()
    return " ".join(words[(i * 7 + count) % len(words)] for i in range(count))


def compute_reference(
    plan: TritonPlan, folder: Path, tokenizer: PreTrainedTokenizerFast, *, trust_remote_code: bool = False
) -> StoredReference:
    """Run the checkpoint as transformers loads it (its default attention, no padding) and pool in float64."""
    model = AutoModel.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=trust_remote_code,
    ).eval()
    texts = reference_texts(tokenizer, plan.max_length, plan.buckets)
    heads = [
        (g.module, iter_pairs([t.name for t in g.outputs])) for g in plan.graphs if isinstance(g.module, DensePooling)
    ]
    outputs: dict[str, list[FloatArray]] = {
        t.name: [] for g in plan.graphs if g.module.kind == "dense" for t in g.outputs
    }
    token_ids = []
    with torch.inference_mode():
        for text in texts:
            encoded = tokenizer(text, truncation=True, max_length=plan.max_length, return_tensors="pt")
            token_ids.append(encoded.input_ids[0].numpy().astype(np.int64))
            states = model(input_ids=encoded.input_ids, attention_mask=encoded.attention_mask).last_hidden_state[0]
            for head, names in heads:
                layers = list(_layers(folder, head.layers))
                for pooling, (normalized, raw) in zip(head.poolings, names, strict=True):
                    vector = _pooled(states.double(), pooling)
                    for layer in layers:
                        vector = layer(vector)
                    outputs[raw].append(vector.float().numpy())
                    outputs[normalized].append((vector / max(float(vector.norm()), 1e-12)).float().numpy())
    return StoredReference(
        origin=f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32",
        texts=texts,
        token_ids=tuple(token_ids),
        outputs={name: tuple(arrays) for name, arrays in outputs.items()},
    )


def iter_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """A dense head's outputs two by two: normalised, as pooled."""
    return list(zip(names[::2], names[1::2], strict=True))


def _pooled(states: torch.Tensor, pooling: str) -> torch.Tensor:
    return {"cls": states[0], "mean": states.mean(0), "last_token": states[-1]}[pooling]


def _layers(folder: Path, layers: Sequence[DenseLayer]) -> Iterator[torch.nn.Module]:
    for layer in layers:
        yield load_dense_layer(folder, layer).double()

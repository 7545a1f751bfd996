"""Texts of mixed length and script, and vectors computed by transformers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SENTENCE = (
    "retrieval systems embed passages and queries into one space where near neighbours answer the question that was "
    "asked while sparse signals keep rare words exact café naïve 向量 поиск 🔎 state-of-the-art x=1 don't"
)
WORDS = SENTENCE.split()
UNICODE = (
    "",
    " ",
    "The mitochondrion is the powerhouse of the cell.",
    "Zoe\u0308 and Zo\u00eb",
    "ひらがなとカタカナ、そして漢字",
    "العربية تُكتب من اليمين إلى اليسار",
    "👩‍👩‍👧‍👦 🇪🇺 👍🏽",
    "no-break\u00a0space, zero\u200bwidth, \u202eright to left",
    "[PAD] [MASK] [CLS] [SEP] as text",
    "\x00\x01\x7f control",
    "ﬁ ﬂ Å ﷺ 𝒜 🅰",
    "a" * 1000,
)


def mixed_texts(count: int, seed: int, longest: int = 300) -> list[str]:
    """Texts of 0 to `longest` words, most of them short; the same for the same seed."""
    generator = random.Random(seed)
    lengths = [int(longest ** generator.random()) for _ in range(count)]
    return [" ".join(generator.choices(WORDS, k=length)) + f" {n}" for n, length in enumerate(lengths)]


def transformers_vectors(
    checkpoint: Path, texts: Sequence[str], *, pooling: str, max_length: int
) -> list[NDArray[np.float32]]:
    """Each text alone, unpadded, through `AutoModel`; pooled and normalised here."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    vectors = []
    with torch.inference_mode():
        for text in texts:
            encoded = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
            states = model(**encoded).last_hidden_state[0].numpy().astype(np.float64)
            pooled = states[0] if pooling == "cls" else states.mean(0)
            vectors.append((pooled / np.linalg.norm(pooled)).astype(np.float32))
    return vectors


def worst(left: Sequence[NDArray[Any]], right: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """The smallest cosine and the largest absolute difference over pairs."""
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(left, right, strict=True)]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    return float(np.min(cosines)), float(np.max([np.abs(a - b).max() for a, b in pairs]))

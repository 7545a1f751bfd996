"""Indexes of known faults: vectors that transformers computes from the checkpoint, in ways that people embed texts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
_WORDS = (
    (
        "the engine",
        "a harbour",
        "this contract",
        "my neighbour",
        "the river",
        "an old violin",
        "the court",
        "a volcano",
    ),
    ("describes", "cools", "buys", "forgets", "repairs", "measures", "protects", "refuses", "explains", "carries"),
    (
        "frozen soil",
        "interest rates",
        "the lost letters",
        "seven bridges",
        "protein folding",
        "cheap bread",
        "quantum noise",
    ),
    ("in winter", "after the war", "without a reason", "for the third time", "near Lisbon", "by email", "quietly"),
)


_LONG = (9, 45, 25, 17)
"""The sentences of every fourth text."""


def texts(count: int = 12, seed: int = 5) -> list[str]:
    """Different sentences: three quarters short, the others up to some 450 tokens."""
    generator = random.Random(seed)
    return [_text(generator, place) for place in range(count)]


def _text(generator: random.Random, place: int) -> str:
    sentences = generator.randint(1, 4) if place % 4 else _LONG[place // 4 % len(_LONG)]
    parts = [" ".join(generator.choice(words) for words in _WORDS) + "." for _ in range(sentences)]
    return f"Note {place}: {' '.join(parts)}"


class Encoder:
    """A checkpoint through transformers: each text alone, without padding."""

    def __init__(self, checkpoint: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        self.model: Any = AutoModel.from_pretrained(checkpoint, dtype="float32").eval()

    def __call__(
        self,
        texts: Sequence[str],
        *,
        pooling: str = "mean",
        before: str = "",
        max_length: int = 256,
        change: Callable[[str], str] = str,
    ) -> Vectors:
        """`[texts, dims]`, as pooled."""
        return np.stack([self._one(before + change(text), pooling, max_length) for text in texts])

    def _one(self, text: str, pooling: str, max_length: int) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            encoded = self.tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
            states = self.model(**encoded).last_hidden_state[0].numpy()
        pooled = {"cls": lambda: states[0], "mean": lambda: states.mean(axis=0), "max": lambda: states.max(axis=0)}
        return np.asarray(pooled[pooling](), np.float32)

    @contextmanager
    def random_weights(self) -> Iterator[None]:
        """Another model of the same shape."""
        import torch

        kept = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        torch.manual_seed(3)
        for module in self.model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
                torch.nn.init.normal_(module.weight, std=0.1)
        yield
        self.model.load_state_dict(kept)

    @contextmanager
    def quantized(self) -> Iterator[None]:
        """What dynamic quantisation computes: int8 weights and uint8 activations, a scale for each tensor."""
        import torch

        hooks, kept = [], []
        for module in self.model.modules():
            if isinstance(module, torch.nn.Linear):
                kept.append((module, module.weight.data))
                step = module.weight.data.abs().max() / 127
                module.weight.data = (module.weight.data / step).round() * step
                hooks.append(module.register_forward_pre_hook(_rounded))
        yield
        for hook in hooks:
            hook.remove()
        for module, weight in kept:
            module.weight.data = weight


def _rounded(module: Any, inputs: Any) -> Any:
    (states,) = inputs
    step = (states.max().clamp(min=0) - states.min().clamp(max=0)) / 255
    return ((states / step).round() * step,)


def unit(vectors: Vectors) -> Vectors:
    """At length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def noisy(vectors: Vectors, size: float) -> Vectors:
    """With noise of a length that is `size` times the vector's."""
    noise = np.random.default_rng(2).normal(size=vectors.shape)
    noise *= size * np.linalg.norm(vectors, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(vectors + noise, np.float32)


def int8(vectors: Vectors) -> Vectors:
    """Rounded to 127 steps of the largest number of each, and scaled back."""
    step = np.abs(vectors).max(axis=1, keepdims=True) / 127
    return np.asarray((vectors / step).round() * step, np.float32)

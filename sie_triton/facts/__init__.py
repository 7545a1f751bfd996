"""What a checkpoint says about itself, read from its files without torch. Nothing is silently ignored."""

from __future__ import annotations

from .answers import PairAnswer, answers, read_answer
from .card import ModelCard, whole_widths
from .chains import DenseChain, TokenChain, dense_chain, sparse_chain, token_chain
from .checkpoint import CheckpointFacts, Matryoshka, read_facts
from .pipeline import DenseLayer, Layer, LayerNormLayer, NormalizeLayer, Pipeline, Pooling, SpladeStep

__all__ = [
    "CheckpointFacts",
    "DenseChain",
    "DenseLayer",
    "Layer",
    "LayerNormLayer",
    "Matryoshka",
    "ModelCard",
    "NormalizeLayer",
    "PairAnswer",
    "Pipeline",
    "Pooling",
    "SpladeStep",
    "TokenChain",
    "answers",
    "dense_chain",
    "read_answer",
    "read_facts",
    "sparse_chain",
    "token_chain",
    "whole_widths",
]

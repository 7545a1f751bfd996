"""What a checkpoint says about itself, read from its files without torch. Nothing is silently ignored."""

from __future__ import annotations

from .answers import PairAnswer, answers, read_answer
from .card import ModelCard, whole_widths
from .chains import DenseChain, TokenChain, dense_chain, sparse_chain, token_chain
from .checkpoint import CheckpointFacts, Matryoshka, read_facts
from .conversation import PROCESSOR_TEMPLATE, ConversationParts, read_conversation
from .images import PREPROCESSOR_NAME, Pixels, Spelling, TowerSizes, read_pixels, read_spelling, read_towers
from .pages import (
    Framing,
    PageTexts,
    Tiling,
    check_bare,
    check_positions,
    read_page_sizes,
    read_page_texts,
    read_tiling,
    special_token,
    token_ids,
)
from .pipeline import DenseLayer, Layer, LayerNormLayer, NormalizeLayer, Pipeline, Pooling, SpladeStep
from .sighted import Sighted, SightedSizes, read_sighted, read_sighted_sizes

__all__ = [
    "PREPROCESSOR_NAME",
    "PROCESSOR_TEMPLATE",
    "CheckpointFacts",
    "ConversationParts",
    "DenseChain",
    "DenseLayer",
    "Framing",
    "Layer",
    "LayerNormLayer",
    "Matryoshka",
    "ModelCard",
    "NormalizeLayer",
    "PageTexts",
    "PairAnswer",
    "Pipeline",
    "Pixels",
    "Pooling",
    "Sighted",
    "SightedSizes",
    "Spelling",
    "SpladeStep",
    "Tiling",
    "TokenChain",
    "TowerSizes",
    "answers",
    "check_bare",
    "check_positions",
    "dense_chain",
    "read_answer",
    "read_conversation",
    "read_facts",
    "read_page_sizes",
    "read_page_texts",
    "read_pixels",
    "read_sighted",
    "read_sighted_sizes",
    "read_spelling",
    "read_tiling",
    "read_towers",
    "sparse_chain",
    "special_token",
    "token_chain",
    "token_ids",
    "whole_widths",
]

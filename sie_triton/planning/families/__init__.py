"""The families of models that compile, a file each, and the adapters that are refused.

A family's file says which heads it computes, which of SIE's adapters belong to it and what a profile of one asks for.
Here they are joined: whoever must know every head or every recipe matches on the unions.

An adapter's key is its class name, which is stable; module paths moved between SIE's versions (`adapters.X:Class`,
`adapters.X.adapter:Class`, `adapters.sglang:SGLangEmbeddingAdapter`). No adapter code is ever imported.
Source: `wire-contract.md` sections 3.2, 3.4, 5, 6.3, 6.7, 7 and 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from sie_triton.planning.recipe import Refusal

from . import (
    bge_m3,
    causal,
    cross_encoder,
    dense,
    image_text,
    late_interaction,
    mixed,
    pages,
    refusals,
    sentence_dense,
    sparse,
)
from .bge_m3 import BgeM3Recipe, TokenWeights
from .causal import CausalRecipe, LastTokenLogits
from .cross_encoder import Classifier, CrossEncoderRecipe
from .dense import DensePooling, DenseRecipe
from .image_text import ImageTextRecipe, ProjectedImage, ProjectedText
from .late_interaction import LateRecipe, TokenVectors
from .mixed import MixedRecipe
from .pages import PageRecipe, PageVectors
from .sentence_dense import SentenceRecipe
from .sparse import QUERY_WEIGHTS_NAME, SparseMax, SparseRecipe

__all__ = [
    "CATALOGUE",
    "QUERY_WEIGHTS_NAME",
    "Classifier",
    "CrossEncoderRecipe",
    "DensePooling",
    "HeadModule",
    "ImageTextRecipe",
    "LastTokenLogits",
    "MixedRecipe",
    "PageRecipe",
    "PageVectors",
    "ProjectedImage",
    "ProjectedText",
    "Recipe",
    "SparseMax",
    "TokenVectors",
    "TokenWeights",
]

HeadModule: TypeAlias = (
    dense.DenseHeads
    | sparse.SparseHeads
    | bge_m3.BgeM3Heads
    | late_interaction.LateHeads
    | cross_encoder.CrossEncoderHeads
    | causal.CausalHeads
    | image_text.ImageTextHeads
    | pages.PageHeads
)
Recipe: TypeAlias = (
    DenseRecipe
    | SentenceRecipe
    | SparseRecipe
    | BgeM3Recipe
    | LateRecipe
    | CrossEncoderRecipe
    | CausalRecipe
    | ImageTextRecipe
    | MixedRecipe
    | PageRecipe
)

CATALOGUE: Mapping[str, Recipe | Refusal] = {
    **dense.ADAPTERS,
    **sentence_dense.ADAPTERS,
    **sparse.ADAPTERS,
    **bge_m3.ADAPTERS,
    **late_interaction.ADAPTERS,
    **cross_encoder.ADAPTERS,
    **causal.ADAPTERS,
    **image_text.ADAPTERS,
    **pages.ADAPTERS,
    **mixed.ADAPTERS,
    **refusals.ADAPTERS,
}

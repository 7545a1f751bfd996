"""What Fastembed 0.9.1 does with the models of its own list, by lower-case name. Facts only; no I/O.

A bundle may pool or normalise otherwise than Fastembed: Fastembed's `PooledEmbedding` leaves vectors as long as they
come. A request says what Fastembed does, so that the vectors of one name are the same on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Postprocessing:
    """From the vectors of tokens to the vector of a text; a pooling of None is the bundle's own."""

    pooling: Literal["cls", "mean"] | None
    normalize: bool


_CLS = Postprocessing("cls", normalize=True)
_MEAN = Postprocessing("mean", normalize=True)
_RAW_MEAN = Postprocessing("mean", normalize=False)
_LAST = Postprocessing(None, normalize=True)
_PROJECTED = Postprocessing(None, normalize=False)

POSTPROCESSING: Mapping[str, Postprocessing] = {
    "baai/bge-base-en": _CLS,
    "baai/bge-base-en-v1.5": _CLS,
    "baai/bge-large-en-v1.5": _CLS,
    "baai/bge-small-en": _CLS,
    "baai/bge-small-en-v1.5": _CLS,
    "baai/bge-small-zh-v1.5": _CLS,
    "mixedbread-ai/mxbai-embed-large-v1": _CLS,
    "snowflake/snowflake-arctic-embed-xs": _CLS,
    "snowflake/snowflake-arctic-embed-s": _CLS,
    "snowflake/snowflake-arctic-embed-m": _CLS,
    "snowflake/snowflake-arctic-embed-m-long": _CLS,
    "snowflake/snowflake-arctic-embed-l": _CLS,
    "sentence-transformers/all-minilm-l6-v2": _MEAN,
    "jinaai/jina-embeddings-v2-base-en": _MEAN,
    "jinaai/jina-embeddings-v2-small-en": _MEAN,
    "jinaai/jina-embeddings-v2-base-de": _MEAN,
    "jinaai/jina-embeddings-v2-base-code": _MEAN,
    "jinaai/jina-embeddings-v2-base-zh": _MEAN,
    "jinaai/jina-embeddings-v2-base-es": _MEAN,
    "thenlper/gte-base": _MEAN,
    "thenlper/gte-large": _MEAN,
    "nomic-ai/nomic-embed-text-v1.5": _RAW_MEAN,
    "nomic-ai/nomic-embed-text-v1": _RAW_MEAN,
    "sentence-transformers/paraphrase-multilingual-minilm-l12-v2": _RAW_MEAN,
    "sentence-transformers/paraphrase-multilingual-mpnet-base-v2": _RAW_MEAN,
    "intfloat/multilingual-e5-large": _RAW_MEAN,
    "qwen/qwen3-embedding-0.6b": _LAST,
    "qdrant/clip-vit-b-32-text": _PROJECTED,
    "google/siglip2-base-patch16-224": _LAST,
}
"""Of every dense model that both sides can have."""

ALIASES: Mapping[str, str] = {
    "qdrant/clip-vit-b-32-text": "openai/clip-vit-base-patch32",
    "qdrant/clip-vit-b-32-vision": "openai/clip-vit-base-patch32",
    "prithvida/splade_pp_en_v1": "prithivida/Splade_PP_en_v1",
    "xenova/ms-marco-minilm-l-6-v2": "cross-encoder/ms-marco-MiniLM-L-6-v2",
    "xenova/ms-marco-minilm-l-12-v2": "cross-encoder/ms-marco-MiniLM-L-12-v2",
}
"""Names under which Fastembed has a checkpoint that the hub and SIE call otherwise."""

RERANKERS = frozenset(
    {
        "xenova/ms-marco-minilm-l-6-v2",
        "xenova/ms-marco-minilm-l-12-v2",
        "baai/bge-reranker-base",
        "baai/bge-reranker-v2-m3",
        "baai/bge-reranker-v2-m3-int8",
        "jinaai/jina-reranker-v1-tiny-en",
        "jinaai/jina-reranker-v1-turbo-en",
        "jinaai/jina-reranker-v2-base-multilingual",
    }
)
"""Names that Fastembed has itself, and a custom reranker cannot have."""

_QUANTIZED = "its weights are quantized to int8, which sie-triton refuses; serve the float model and rebuild the index"
_NO_NETWORK = "it needs no server: keep Fastembed's class for it"
_JINA_CLIP = "its architecture is in its authors' own code: keep Fastembed's class for it"
_UNICOM = "sie-triton has no recipe for Unicom: keep Fastembed's class for it, or serve a CLIP and rebuild the index"

WITHOUT_COUNTERPART: Mapping[str, str] = {
    "nomic-ai/nomic-embed-text-v1.5-q": _QUANTIZED,
    "qwen/qwen3-embedding-0.6b-q": _QUANTIZED,
    "baai/bge-reranker-v2-m3-int8": _QUANTIZED,
    "qdrant/bm25": _NO_NETWORK,
    "qdrant/bm42-all-minilm-l6-v2-attentions": "sie-triton has no recipe for BM42: keep Fastembed's class for it",
    "qdrant/minicoil-v1": "sie-triton has no recipe for miniCOIL: keep Fastembed's class for it",
    "minishlab/potion-base-8m": _NO_NETWORK,
    "minishlab/potion-retrieval-32m": _NO_NETWORK,
    "minishlab/potion-multilingual-128m": _NO_NETWORK,
    "qdrant/constella-zero": _NO_NETWORK,
    "jinaai/jina-clip-v1": _JINA_CLIP,
    "qdrant/resnet50-onnx": "it is no transformer, and sees images alone: keep Fastembed's class for it",
    "qdrant/unicom-vit-b-16": _UNICOM,
    "qdrant/unicom-vit-b-32": _UNICOM,
    "nomic-ai/nomic-embed-vision-v1.5": "sie-triton has no recipe for it: keep Fastembed's class for it",
    "nomic-ai/nomic-embed-vision-v1.5-q": _QUANTIZED,
    "jinaai/jina-embeddings-v3": "its tasks are LoRA adapters, which sie-triton refuses",
}
"""Why a model of Fastembed's list cannot be served under any name."""

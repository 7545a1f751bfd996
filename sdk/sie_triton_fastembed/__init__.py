"""Fastembed's classes on a sie-triton server: change the import, and nothing else.

    from sie_triton_fastembed import TextEmbedding

    vectors = list(TextEmbedding("sentence-transformers/all-MiniLM-L6-v2").embed(["The powerhouse of the cell."]))

The server is at `SIE_BASE_URL`, by default `http://localhost:8080`. Modules have the names that they have in Fastembed.
What computes, and what parses the wire, lives elsewhere: nothing here imports fastembed, onnxruntime or torch.
"""

from __future__ import annotations

from sie_triton_fastembed._stand_in import install
from sie_triton_fastembed.errors import ModelNotServedError, ServerUnreachableError
from sie_triton_fastembed.image import ImageEmbedding
from sie_triton_fastembed.late_interaction import LateInteractionTextEmbedding
from sie_triton_fastembed.late_interaction_multimodal import LateInteractionMultimodalEmbedding
from sie_triton_fastembed.rerank.cross_encoder import TextCrossEncoder
from sie_triton_fastembed.sparse import SparseEmbedding, SparseTextEmbedding
from sie_triton_fastembed.text import TextEmbedding

__all__ = [
    "ImageEmbedding",
    "LateInteractionMultimodalEmbedding",
    "LateInteractionTextEmbedding",
    "ModelNotServedError",
    "ServerUnreachableError",
    "SparseEmbedding",
    "SparseTextEmbedding",
    "TextCrossEncoder",
    "TextEmbedding",
    "install",
]

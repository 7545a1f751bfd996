"""Sparse vectors. Nothing else lives here."""

from __future__ import annotations

from sie_triton_fastembed.sparse.sparse_embedding_base import SparseEmbedding
from sie_triton_fastembed.sparse.sparse_text_embedding import SparseTextEmbedding

__all__ = ["SparseEmbedding", "SparseTextEmbedding"]

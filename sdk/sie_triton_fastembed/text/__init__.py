"""Dense vectors. Nothing else lives here."""

from __future__ import annotations

from sie_triton_fastembed.text.text_embedding import TextEmbedding

__all__ = ["TextEmbedding"]

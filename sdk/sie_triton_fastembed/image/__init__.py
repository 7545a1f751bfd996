"""Vectors of pictures. Nothing else lives here."""

from __future__ import annotations

from sie_triton_fastembed.image.image_embedding import ImageEmbedding

__all__ = ["ImageEmbedding"]

"""Models that read a query and a document together. Nothing else lives here."""

from __future__ import annotations

from sie_triton_fastembed.rerank.cross_encoder.text_cross_encoder import TextCrossEncoder

__all__ = ["TextCrossEncoder"]

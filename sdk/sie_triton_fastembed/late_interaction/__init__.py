"""One vector a token. Nothing else lives here."""

from __future__ import annotations

from sie_triton_fastembed.late_interaction.late_interaction_text_embedding import LateInteractionTextEmbedding

__all__ = ["LateInteractionTextEmbedding"]

"""`LateInteractionMultimodalEmbedding`, which sie-triton cannot serve: only the name is here, so that it can be
imported."""

from __future__ import annotations

from typing import Any


class LateInteractionMultimodalEmbedding:
    """Raises `NotImplementedError` when it is made: images stay with Fastembed."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError(
            "sie-triton serves texts only: take `LateInteractionMultimodalEmbedding` from fastembed itself"
        )

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """None."""
        return []


__all__ = ["LateInteractionMultimodalEmbedding"]

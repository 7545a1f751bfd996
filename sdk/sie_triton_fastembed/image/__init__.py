"""`ImageEmbedding`, which sie-triton cannot serve. It is here so that what imports the name can be imported."""

from __future__ import annotations

from typing import Any


class ImageEmbedding:
    """Raises `NotImplementedError` when it is made: images stay with Fastembed."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("sie-triton serves texts only: take `ImageEmbedding` from fastembed itself")

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """None."""
        return []


__all__ = ["ImageEmbedding"]

"""Fastembed's shared names: types of arguments and descriptions of models. Nothing here talks to a server."""

from __future__ import annotations

from sie_triton_fastembed.common.types import ImageInput, OnnxProvider, PathInput

__all__ = ["ImageInput", "OnnxProvider", "PathInput"]

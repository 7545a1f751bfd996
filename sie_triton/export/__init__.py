"""The only place that imports torch, transformers and onnx. It is itself imported late, by `compiler` alone."""

from __future__ import annotations

from sie_triton.export.exporter import Exporter

__all__ = ["Exporter"]

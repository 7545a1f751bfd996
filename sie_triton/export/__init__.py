"""A checkpoint and its plans -> graph files and tokenizer: graphs that `onnx_graphs` does not write, torch traces here.

Imported late, by `compiler` alone, since torch takes seconds to import.
"""

from __future__ import annotations

from sie_triton.export.exporter import Exporter

__all__ = ["Exporter"]

"""A checkpoint and its plans -> graph files: graphs that `onnx_graphs` does not write, torch traces here.

Imported late, by `compiler` alone, since torch takes seconds to import.
"""

from __future__ import annotations

from sie_triton.export.tracer import trace_graphs

__all__ = ["trace_graphs"]

"""The other side of every comparison: implementations that load the checkpoint themselves, by their own reading.

sentence-transformers where it can, transformers' task classes otherwise. Nothing here reads a checkpoint's files
through `sie_triton.facts` or builds it with `sie_triton.export`: a misreading would be on both sides. Of ours come the
plan, which names the outputs, and what SIE's contract says about text: templates, markers, the prompts of rerankers.
"""

from __future__ import annotations

from .subject import Subject
from .testify import testify

__all__ = ["Subject", "testify"]

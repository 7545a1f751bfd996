"""A checkpoint's tokenizer: its file as we serve it, its special ids, the tables of weights that name its tokens.

Nothing here may import torch.
"""

from __future__ import annotations

from sie_triton.tokenizer.checkpoint import CheckpointTokenizer

__all__ = ["CheckpointTokenizer"]

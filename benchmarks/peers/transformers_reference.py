"""What every vector is compared with: transformers and torch in float32, one text at a time, so without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers import Embed, Files


def load(files: Files) -> dict[str, Embed]:
    """One variant, `reference`."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(files.checkpoint)
    model = AutoModel.from_pretrained(files.checkpoint, dtype=torch.float32).eval()

    def embed(texts: Sequence[str]) -> Any:
        rows = []
        with torch.inference_mode():
            for text in texts:
                tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
                pooled = model(**tokens).last_hidden_state.mean(dim=1)[0]
                rows.append(torch.nn.functional.normalize(pooled, dim=0).numpy())
        return rows

    return {"reference": embed}

"""CTranslate2 in process, in int8: sorted runs of 512 tokens.

Once in as many streams as there are cores, and once in one stream of all cores, which suits a text that comes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers import Embed, Files
from benchmarks.peers.limit import embed_in_streams, open_tokenizer

RUN_TOKENS = 512


def load(files: Files) -> dict[str, Embed]:
    """Both ways to use the cores; the converted weights are kept beside the checkpoint."""
    import ctranslate2

    folder = Path(files.checkpoint, "ctranslate2")
    if not folder.exists():
        ctranslate2.converters.TransformersConverter(files.checkpoint).convert(str(folder))
    tokenizer = open_tokenizer(files)
    variants: dict[str, Embed] = {}
    for streams, threads in ((files.cores, 1), (1, files.cores)):
        encoder = ctranslate2.Encoder(
            str(folder), device="cpu", compute_type="int8", inter_threads=streams, intra_threads=threads
        )
        run = partial(_run, encoder)
        variants[f"int8, {streams} x {threads} threads"] = partial(
            embed_in_streams, run, tokenizer, RUN_TOKENS, streams
        )
    return variants


def _run(encoder: Any, rows: Sequence[Sequence[int]]) -> Any:
    import numpy as np

    hidden = np.asarray(encoder.forward_batch([list(row) for row in rows]).last_hidden_state)
    lengths = np.array([len(row) for row in rows])
    mask = (np.arange(hidden.shape[1]) < lengths[:, None]).astype(np.float32)
    pooled = np.einsum("rlh,rl->rh", hidden, mask) / lengths[:, None]
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

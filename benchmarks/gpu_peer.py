"""The other side of `benchmarks.gpu`, in a process of its own so that the GPU's memory is free afterwards.

    python -m benchmarks.gpu_peer CHECKPOINT < ASKED.json > TOLD.json

ASKED has `texts`, `tokens` (how many all of them have), `device`, `precision`, `batches` (sizes to try) and `seconds`
(for each of them). TOLD has `tokens_per_second` by batch size, and `vectors` of the first `keep` texts, in float32.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Read, compute, print."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    asked = json.load(sys.stdin)
    json.dump(measured(sys.argv[1], asked), answers)
    answers.close()


def measured(checkpoint: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What sentence-transformers gives, and how fast it does in the precision that is asked for."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_grad_enabled(False)
    model: Any = SentenceTransformer(checkpoint, device=asked["device"], local_files_only=True)
    texts, keep = asked["texts"], asked["keep"]
    vectors = model.encode(texts[:keep], batch_size=8, normalize_embeddings=True)
    model = model.to(getattr(torch, asked["precision"]))
    speeds: dict[str, float] = {}
    for size in asked["batches"]:
        model.encode(texts[:size], batch_size=size)
        begun, done = time.perf_counter(), 0
        while (passed := time.perf_counter() - begun) < asked["seconds"]:
            model.encode(texts, batch_size=size)
            done += 1
        speeds[str(size)] = done * asked["tokens"] / passed
    return {"tokens_per_second": speeds, "vectors": vectors.tolist()}


if __name__ == "__main__":
    main()

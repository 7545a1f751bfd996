"""The in-process limit: ONNX Runtime and the tokenizer with nothing around them.

All texts sorted by length, cut into runs of about N padded tokens, which one-threaded streams, as many as there are
cores, compute over one session. Nothing that serves the same graph on the same cores can be faster for long. The graph
is the one that the peers get, which computes every position; the packed one of ours is measured beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers import Embed, Files

BUDGETS = (512, 256, 1024)


def load(files: Files) -> dict[str, Embed]:
    """A variant for each token budget, and one for the packed graph."""
    import onnxruntime as ort
    from tokenizers import Tokenizer

    folder = Path(files.checkpoint)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    plain, packed = (
        ort.InferenceSession(folder / "onnx" / name, options, providers=["CPUExecutionProvider"])
        for name in ("model.onnx", "model.packed.onnx")
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    variants: dict[str, Embed] = {f"{n} tokens": partial(_embed, plain, tokenizer, n, files.cores) for n in BUDGETS}
    variants["packed, 256 tokens"] = partial(_embed, packed, tokenizer, 256, files.cores)
    return variants


def _embed(session: Any, tokenizer: Any, budget: int, streams: int, texts: Sequence[str]) -> Any:
    import numpy as np

    rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]
    runs = iter(_runs([len(row) for row in rows], budget))
    result = np.empty((len(rows), 384), dtype=np.float32)
    lock = threading.Lock()
    failures: list[BaseException] = []

    def stream() -> None:
        try:
            while True:
                with lock:
                    run = next(runs, None)
                if run is None:
                    return
                result[run] = _run(session, [rows[number] for number in run])
        except BaseException as error:  # raised again where it is seen
            failures.append(error)

    if len(rows) == 1:
        stream()  # the single call has no thread to wait for
    else:
        threads = [threading.Thread(target=stream) for _ in range(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return result


def _runs(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Text numbers, longest first, cut so that a run has at most `budget` padded tokens."""
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    start = 0
    while start < len(order):
        count = max(1, budget // lengths[order[start]])
        yield order[start : start + count]
        start += count


def _run(session: Any, rows: Sequence[Sequence[int]]) -> Any:
    import numpy as np

    width = max(map(len, rows))
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    (hidden,) = session.run(["last_hidden_state"], {"input_ids": ids, "attention_mask": mask})
    pooled = np.einsum("rlh,rl->rh", hidden, mask.astype(np.float32)) / mask.sum(axis=1, keepdims=True)
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

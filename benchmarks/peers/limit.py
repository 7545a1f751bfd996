"""The in-process limit: ONNX Runtime and the tokenizer with nothing around them.

All texts sorted by length, cut into runs of about N padded tokens, which one-threaded streams, as many as there are
cores, compute over one session. Nothing that serves the same graph on the same cores can be faster for long. The graph
is the one that the peers get, which computes every position; the packed one of ours is measured beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers import Embed, Files

BUDGETS = (512, 256, 1024)


def load(files: Files) -> dict[str, Embed]:
    """A variant for each token budget, and one for the packed graph."""
    import onnxruntime as ort

    folder = Path(files.checkpoint)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    plain, packed = (
        ort.InferenceSession(folder / "onnx" / name, options, providers=["CPUExecutionProvider"])
        for name in ("model.onnx", "model.packed.onnx")
    )
    tokenizer = open_tokenizer(files)
    ways = {f"{n} tokens": (plain, n) for n in BUDGETS} | {"packed, 256 tokens": (packed, 256)}
    return {
        name: partial(embed_in_streams, partial(_run, session), tokenizer, budget, files.cores)
        for name, (session, budget) in ways.items()
    }


def open_tokenizer(files: Files) -> Any:
    """The checkpoint's tokenizer, which cuts at 256 tokens and does not pad."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(files.checkpoint) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return tokenizer


def embed_in_streams(
    run: Callable[[Sequence[Sequence[int]]], Any], tokenizer: Any, budget: int, streams: int, texts: Sequence[str]
) -> Any:
    """Vectors of texts, in runs of about `budget` padded tokens, of which `streams` threads take one after the other.

    `run` makes vectors [rows, dim] of rows of ids.
    """
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
                    chosen = next(runs, None)
                if chosen is None:
                    return
                result[chosen] = run([rows[number] for number in chosen])
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


def padded(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Rows of ids as a BERT's inputs, int64 [rows, longest]."""
    import numpy as np

    width = max(map(len, rows))
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _run(session: Any, rows: Sequence[Sequence[int]]) -> Any:
    import numpy as np

    feed = padded(rows)
    (hidden,) = session.run(["last_hidden_state"], feed)
    mask = feed["attention_mask"]
    pooled = np.einsum("rlh,rl->rh", hidden, mask.astype(np.float32)) / mask.sum(axis=1, keepdims=True)
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

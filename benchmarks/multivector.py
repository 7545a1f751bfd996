"""What padding costs where every token has a vector: outputs `[rows, sequence, dim]` travel padded within a run.

    python -m benchmarks.multivector

Requests of 64 texts and of one, with the corpora's lengths, go from four clients through the scheduler and the client
of Triton to a server that answers with zeros (`zeros`). Prints how many of the
positions are padding, and the CPU time of both ends for carrying one position; beside it stands what computing one
position takes (`--compute-us`, MiniLM on one thread of the machine of docs/performance.md).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray
from sie_frontend.rows import stack
from sie_frontend.serving.scheduler import RunQueue
from sie_frontend.text.tokenization import TextRow
from sie_frontend.triton.client import TritonClient
from sie_frontend.watch.metrics import RunRecord

from benchmarks.corpora import MAX_TOKENS, PROFILES
from benchmarks.measure import cpu_seconds
from benchmarks.zeros import answering

_CLIENTS, _TEXTS = 4, 2048
_LIMIT = 512
_FILLS = {"input_ids": 0, "attention_mask": 0}


def lengths_of(corpus: str) -> list[int]:
    """Token counts as `corpora` draws them."""
    rng = random.Random(corpus)
    return [min(MAX_TOKENS, max(3, round(PROFILES[corpus](rng)))) for _ in range(_TEXTS)]


async def carry(url: str, lengths: Sequence[int], texts_per_request: int, dim: int) -> tuple[int, int]:
    """Send everything once; returns tokens and positions."""
    client = TritonClient(url)
    records: list[RunRecord] = []
    buckets = range(1, _LIMIT + 1)

    async def run(rows: Sequence[TextRow], outputs: tuple[str, ...]) -> list[NDArray[Any]]:
        batch = stack(rows, max(map(len, rows)), _FILLS)
        array = (await client.infer("model", batch, outputs))[outputs[0]]
        assert np.isfinite(array).all()
        return [vectors[: len(row)] for vectors, row in zip(array, rows, strict=True)]

    queue: RunQueue[TextRow] = RunQueue(
        run, widths=buckets, run_tokens=512, max_rows=64, streams=2, observe=records.append
    )
    rows = [TextRow(np.ones(length, np.int64), length) for length in lengths]
    requests = [rows[start : start + texts_per_request] for start in range(0, len(rows), texts_per_request)]

    async def ask() -> None:
        while requests:
            request = requests.pop()
            outcome = await queue.submit(request, (f"tokens x {dim}",))
            assert [len(vectors) for vectors in outcome.results] == [len(row) for row in request]

    await asyncio.gather(*(ask() for _ in range(_CLIENTS)))
    await queue.drain()
    await client.close()
    return sum(record.tokens for record in records), sum(record.padded_tokens for record in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compute-us", type=float, default=140.0, help="CPU time of computing one position")
    flags = parser.parse_args()
    loop = uvloop.new_event_loop()
    print("| texts a request | corpus | padding | dim | carrying a position, us | carrying padding, of all CPU time |")
    print("|---|---|---|---|---|---|")
    with answering() as (url, server):
        for texts, corpus, dim in product((64, 1), PROFILES, (128, 1024)):
            begun = time.process_time() + cpu_seconds(server)
            tokens, positions = loop.run_until_complete(carry(url, lengths_of(corpus), texts, dim))
            each = (time.process_time() + cpu_seconds(server) - begun) / positions * 1e6
            padding = 1 - tokens / positions
            cost = padding * each / (each + flags.compute_us)
            print(f"| {texts} | {corpus} | {padding:.1%} | {dim} | {each:.1f} | {cost:.2%} |")
    loop.close()


if __name__ == "__main__":
    main()

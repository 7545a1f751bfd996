"""What one call to Triton costs its client: ours, and NVIDIA's `tritonclient` over aiohttp.

    python -m benchmarks.triton_clients
    python -m benchmarks.triton_clients --url 127.0.0.1:8000 --model NAME --output TENSOR

Prints a Markdown table of CPU microseconds a call, the median of alternating rounds. Without `--url` the server answers
at once with zeros (`zeros`), so that nothing but the clients and the loopback is measured; with it, a Triton whose
model takes `input_ids` and `attention_mask`. `tritonclient[http]` is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray
from sie_frontend.triton.client import TritonClient

from benchmarks.zeros import answering

_ROUNDS, _CALLS = 9, 200

Call = Callable[[NDArray[np.int64], NDArray[np.int64]], Awaitable[NDArray[Any]]]


def ours(url: str, model: str, output: str) -> tuple[Call, Callable[[], Awaitable[None]]]:
    """Our client's call, and how to close it."""
    client = TritonClient(url)

    async def call(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[Any]:
        return (await client.infer(model, {"input_ids": ids, "attention_mask": mask}, [output]))[output]

    return call, client.close


def theirs(url: str, model: str, output: str) -> tuple[Call, Callable[[], Awaitable[None]]]:
    """tritonclient's. Raises `ImportError`."""
    http = importlib.import_module("tritonclient.http")
    client = importlib.import_module("tritonclient.http.aio").InferenceServerClient(url)
    requested = http.InferRequestedOutput(output, binary_data=True)

    async def call(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[Any]:
        tensors = []
        for name, array in (("input_ids", ids), ("attention_mask", mask)):
            tensor = http.InferInput(name, list(array.shape), "INT64")
            tensor.set_data_from_numpy(array, binary_data=True)
            tensors.append(tensor)
        answer = await client.infer(model, tensors, outputs=[requested])
        found: NDArray[Any] = answer.as_numpy(output)
        return found

    return call, client.close


CLIENTS = {"ours": ours, "tritonclient, aiohttp": theirs}


async def microseconds(call: Call, rows: int, tokens: int) -> float:
    """CPU time of one call for a batch of `[rows, tokens]`."""
    ids = np.full((rows, tokens), 2000, np.int64)
    mask = np.ones_like(ids)
    begun = time.process_time()
    for _ in range(_CALLS):
        assert (await call(ids, mask)).shape[0] == rows
    return (time.process_time() - begun) / _CALLS * 1e6


async def compare(url: str, model: str, output: str) -> None:
    """Print the table."""
    calls: dict[str, Call] = {}
    closers = []
    for name, make in CLIENTS.items():
        try:
            calls[name], close = make(url, model, output)
            closers.append(close)
        except ImportError:
            print(f"{name} is not installed", file=sys.stderr)
    shapes = ((1, 24), (16, 32), (64, 8))
    found: dict[tuple[str, tuple[int, int]], list[float]] = {}
    for _ in range(_ROUNDS):
        for shape in shapes:
            for name, call in calls.items():
                found.setdefault((name, shape), []).append(await microseconds(call, *shape))
    for close in closers:
        await close()
    print("| CPU us a call | " + " | ".join(f"{rows} x {tokens}" for rows, tokens in shapes) + " |")
    print("|---|" + "---|" * len(shapes))
    for name in calls:
        print(f"| {name} | " + " | ".join(f"{statistics.median(found[name, shape]):.0f}" for shape in shapes) + " |")


def _run(main: Coroutine[Any, Any, None]) -> None:
    """On the event loop that serves."""
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="host:port of a Triton")
    parser.add_argument("--model", help="the Triton model", default="model")
    parser.add_argument("--output", help="its output", default="rows x 384")
    flags = parser.parse_args()
    if flags.url:
        _run(compare(flags.url, flags.model, flags.output))
    else:
        with answering() as (url, _):
            _run(compare(url, flags.model, flags.output))


if __name__ == "__main__":
    main()

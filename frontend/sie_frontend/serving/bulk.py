"""Requests with more items than the engine admits at once: one part after the other, in order.

Such a request holds no more of the queue than any other may, and parts of others come between its own. So nothing is
admitted on its account while its first parts are computed, and it waits for room where a smaller one is told to retry:
what is computed already would be lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from starlette.requests import ClientDisconnect

from sie_frontend.contract.errors import ErrorKind, WireError
from sie_frontend.contract.responses import Timing

T = TypeVar("T")
R = TypeVar("R")

# How long a later part waits for room in the queue, and how often it looks.
PATIENCE_S: Final = 60.0
LOOK_S: Final = 0.05


async def in_parts(
    items: Sequence[T],
    size: int,
    compute: Callable[[Sequence[T]], Awaitable[R]],
    gone: Callable[[], Awaitable[bool]],
) -> list[R]:
    """What `compute` gives for each part of at most `size` items, in order.

    Raises what it raises, and `ClientDisconnect` if the client is `gone` before the last part is begun.
    """
    results: list[R] = []
    for start in range(0, len(items), size):
        part = items[start : start + size]
        if not results:
            results.append(await compute(part))
        elif await gone():
            raise ClientDisconnect
        else:
            results.append(await _patiently(part, compute))
    return results


async def _patiently(part: Sequence[T], compute: Callable[[Sequence[T]], Awaitable[R]]) -> R:
    """As `compute`, but a full queue is waited for."""
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE_S
    while True:
        try:
            return await compute(part)
        except WireError as refusal:
            if refusal.kind is not ErrorKind.QUEUE_FULL or loop.time() > until:
                raise
        await asyncio.sleep(LOOK_S)


def total_timing(timings: Sequence[Timing]) -> Timing:
    """The time of parts that were computed one after the other."""
    return Timing(
        total_ms=sum(timing.total_ms for timing in timings),
        queue_ms=sum(timing.queue_ms for timing in timings),
        tokenization_ms=sum(timing.tokenization_ms for timing in timings),
        inference_ms=sum(timing.inference_ms for timing in timings),
    )

"""The threads in which items become rows, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from sie_frontend.contract.errors import WireError
from sie_frontend.rows import INLINE_BYTES, Call, Reader, Row
from sie_frontend.serving.together import together

T = TypeVar("T")

# Below this many characters reading takes less time than waking another thread.
INLINE_CHARACTERS: Final = 2_000

_TEXT_THREADS: Final = 2


class ReadingThreads:
    """Where a request's CPU work is done, so that the event loop answers meanwhile.

    Images have `image_threads` of their own: a large one takes as long as a thousand texts. A request keeps that many
    of its items there at a time, so that those of other requests come between its own; what it has not begun when its
    client leaves is never read.
    """

    def __init__(self, image_threads: int) -> None:
        self._image_threads = image_threads
        self._texts = ThreadPoolExecutor(max_workers=_TEXT_THREADS, thread_name_prefix="read")
        self._images = ThreadPoolExecutor(max_workers=image_threads, thread_name_prefix="read-images")
        self._batches = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batch")

    def close(self) -> None:
        """Let the threads end when they have done what they are at."""
        self._texts.shutdown(wait=False)
        self._images.shutdown(wait=False)
        self._batches.shutdown(wait=False)

    async def run(self, work: int, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run CPU work in a thread, unless it is so little that the hop would cost more."""
        if work <= INLINE_CHARACTERS:
            return function(*args, **kwargs)
        return await _in_thread(self._texts, partial(function, *args, **kwargs))

    async def batch(self, rows: Sequence[Row], function: Callable[[], T]) -> T:
        """Put the tensors of a run together: where much is copied, in a thread, so that the event loop answers.

        Not in those of images: a run would wait for the pictures of everybody's next ones.
        """
        if sum(row.nbytes for row in rows) <= INLINE_BYTES:
            return function()
        return await _in_thread(self._batches, function)

    async def pairs(self, reader: Reader, work: int, function: Callable[..., T], *args: Any) -> T:
        """Run what reads pairs: among images where the reader sees them."""
        if not reader.apart:
            return await self.run(work, function, *args)
        return await _in_thread(self._images, partial(function, *args))

    async def rows(
        self, reader: Reader, given: Sequence[Any], call: Call, *, is_query: bool, places: Sequence[str]
    ) -> Sequence[Row]:
        """The rows of what items give, in order. Raises what the reader raises."""
        if not reader.apart:
            return await self.run(reader.work(given), reader.rows, given, call, is_query=is_query, places=places)
        reader.check_together(given, call, places)
        found: list[Sequence[Row]] = [()] * len(given)
        refused: dict[int, WireError] = {}
        numbers = iter(range(len(given)))

        async def work_off() -> None:
            for number in numbers:
                read = partial(reader.rows, [given[number]], call, is_query=is_query, places=[places[number]])
                try:
                    found[number] = await _in_thread(self._images, read)
                except WireError as refusal:
                    # Its traceback would keep this frame, which keeps it: pictures would stay until a collection.
                    refused[number] = refusal.with_traceback(None)
                if refused:
                    break

        await together(work_off() for _ in range(min(self._image_threads, len(given))))
        if refused:  # whichever was quicker to be found out, the first is told
            raise refused.pop(min(refused))
        return [row for rows in found for row in rows]


async def _in_thread(threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, function)

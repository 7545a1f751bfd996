"""Whose items are read when, and where."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sie_frontend.contract.errors import WireError, invalid_input
from sie_frontend.contract.requests import Limits
from sie_frontend.images.entry import ImageInput
from sie_frontend.images.preparing import ImageRow
from sie_frontend.images.reader import ImageReader, Pictures
from sie_frontend.outputs.options import ResolvedCall, resolve_encode
from sie_frontend.rows import INLINE_BYTES
from sie_frontend.serving.reading import ReadingThreads

CALL: ResolvedCall = resolve_encode(
    None, profiles={"default": {}}, declared_outputs=("dense",), model_id="acme/two-way"
)


class Slow(ImageReader):
    """Reads nothing, and each item when it is `let`; tells in which order."""

    def __init__(self) -> None:
        super().__init__(ImageInput("pixels", 8, "crop", "bicubic", ""), Path(), profiles={}, limits=Limits())
        self.begun: list[Any] = []
        self.let = threading.Semaphore(0)

    def rows(self, given: Sequence[Pictures], call: Any, *, is_query: bool, places: Sequence[str] = ()) -> Any:
        [one] = given
        self.begun.append(one)
        assert self.let.acquire(timeout=60)
        if "bad" in one:
            raise invalid_input(f"{one} at {places[0]}")
        return [ImageRow({str(one): self.probe(1).arrays["pixels"]})]

    async def wait_begun(self, count: int) -> None:
        while len(self.begun) < count:
            await asyncio.sleep(0.001)


class Texts(Slow):
    """One that sees nothing."""

    apart = False


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.let.release(1000)


@pytest.fixture
def threads(slow: Slow) -> Iterator[ReadingThreads]:
    made = ReadingThreads(1)
    yield made
    slow.let.release(1000)
    made.close()


def read(threads: ReadingThreads, reader: Slow, *given: str) -> asyncio.Task[Any]:
    places = [f"items[{number}]" for number in range(len(given))]
    return asyncio.ensure_future(threads.rows(reader, given, CALL, is_query=False, places=places))


@pytest.mark.asyncio
async def test_items_of_others_come_between_those_of_a_request(threads: ReadingThreads, slow: Slow) -> None:
    bulk = read(threads, slow, "a0", "a1", "a2", "a3")
    await slow.wait_begun(1)
    small = read(threads, slow, "b0")
    await asyncio.sleep(0)
    slow.let.release(5)
    assert [next(iter(row.arrays)) for row in await small] == ["b0"]
    assert [next(iter(row.arrays)) for row in await bulk] == ["a0", "a1", "a2", "a3"]
    assert slow.begun == ["a0", "b0", "a1", "a2", "a3"]


@pytest.mark.asyncio
async def test_texts_are_read_meanwhile(threads: ReadingThreads, slow: Slow) -> None:
    bulk = read(threads, slow, *"abcdef")
    await slow.wait_begun(1)
    assert await threads.run(10_000, str.upper, "x") == "X"
    assert not bulk.done()
    slow.let.release(6)
    await bulk


@pytest.mark.asyncio
async def test_what_is_not_begun_when_the_client_leaves_is_never_read(threads: ReadingThreads, slow: Slow) -> None:
    bulk = read(threads, slow, *"abcdef")
    await slow.wait_begun(1)
    bulk.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bulk
    slow.let.release(7)
    assert [next(iter(row.arrays)) for row in await read(threads, slow, "z")] == ["z"]
    assert slow.begun == ["a", "z"]


@pytest.mark.asyncio
async def test_the_first_that_is_refused_is_told_and_the_rest_is_not_read(slow: Slow) -> None:
    """The second is found out first: its thread does not wait."""
    two = ReadingThreads(2)
    bulk = read(two, slow, "bad 0", "bad 1", "c", "d")
    await slow.wait_begun(2)
    slow.let.release(2)
    with pytest.raises(WireError, match=r"bad 0 at items\[0\]"):
        await bulk
    assert sorted(slow.begun) == ["bad 0", "bad 1"]
    two.close()


@pytest.mark.asyncio
async def test_pairs_with_pictures_wait_among_pictures_and_texts_do_not(threads: ReadingThreads, slow: Slow) -> None:
    """A reader that sees reads its pairs in the threads of images, where one more waits for its turn."""
    bulk = read(threads, slow, "a")
    await slow.wait_begun(1)

    def named(*_: Any) -> str:
        return threading.current_thread().name

    pairs = asyncio.ensure_future(threads.pairs(slow, 0, named))
    texts = Texts()
    assert await threads.pairs(texts, 0, named) == threading.current_thread().name
    assert (await threads.pairs(texts, 1 << 20, named)).startswith("read_")
    assert not pairs.done()
    slow.let.release(1)
    assert (await pairs).startswith("read-images")
    await bulk


@pytest.mark.asyncio
async def test_large_batches_are_put_together_beside_the_loop_and_wait_for_no_picture(
    threads: ReadingThreads, slow: Slow
) -> None:
    bulk = read(threads, slow, "a")
    await slow.wait_begun(1)

    def named() -> str:
        return threading.current_thread().name

    row = ImageRow({"pixels": np.zeros(INLINE_BYTES // 2, np.uint8)})
    assert await threads.batch([row] * 2, named) == threading.current_thread().name
    assert (await threads.batch([row] * 3, named)).startswith("batch")
    assert not bulk.done()
    slow.let.release(1)
    await bulk

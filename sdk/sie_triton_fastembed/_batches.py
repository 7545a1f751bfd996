"""Batches out of any iterable, and a limited number of them in flight. Threads only: no process is ever started."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

IN_FLIGHT = 8
"""Requests in flight where the caller leaves their number to us (`parallel=0`)."""

_MAX_ITEMS = 512
_MAX_BYTES = 16 * 1024 * 1024
"""The server takes 512 items and 34 MiB a request; half of the bytes leave room for what surrounds the texts."""


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last may be shorter. Takes no item before its batch is asked for.

    Raises `ValueError` for a size below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size must be >= 1, got {size}")
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def requests_in_flight(parallel: int | None) -> int:
    """What `parallel` means here: None is one request at a time, 0 leaves the number to us.

    Raises `ValueError` for a negative number.
    """
    if parallel is None:
        return 1
    if parallel < 0:
        raise ValueError(f"parallel must be None, 0 or a number of requests in flight, got {parallel}")
    return parallel or IN_FLIGHT


def in_order(call: Callable[[T], R], items: Iterable[T], limit: int) -> Iterator[R]:
    """`call` of each item, in their order, with at most `limit` of them begun and not yet taken.

    With a limit of 1 nothing is read ahead, and the caller's own thread does everything. The first error ends it: what
    has not begun is dropped, and what runs is not waited for.
    """
    if limit == 1:
        yield from map(call, items)
        return
    source = iter(items)
    executor = ThreadPoolExecutor(limit, thread_name_prefix="sie-triton-fastembed")
    try:
        begun: deque[Future[R]] = deque(executor.submit(call, item) for item in islice(source, limit))
        while begun:
            done = begun.popleft().result()
            begun.extend(executor.submit(call, item) for item in islice(source, 1))
            yield done
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def requests(texts: Sequence[str], extra_bytes: int = 0) -> Iterator[list[str]]:
    """The texts in lists that one request may hold; `extra_bytes` is what each text brings besides itself."""
    return request_parts(
        texts, lambda text: (len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else 0) + extra_bytes
    )


def request_parts(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """The items, of so many bytes each, in lists that one request may hold. Reads no further than a list is full."""
    part: list[T] = []
    size = 0
    for item in items:
        needed = size_of(item)
        if part and (len(part) == _MAX_ITEMS or size + needed > _MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += needed
    if part:
        yield part

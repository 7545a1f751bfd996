"""The progress of a download, and who is told about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol


class Progress(Protocol):
    """Called, from another thread, with the progress of a file in bytes; `total` is None if the server does not say."""

    def __call__(self, file: str, done: int, total: int | None) -> None:
        """`done` of `total` bytes of `file` are here."""


@contextlib.contextmanager
def rich_progress() -> Iterator[Progress]:
    """A `Progress` that draws one bar per file on stderr; a log file gets the last state only."""
    from rich.console import Console  # only downloads draw
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done, total=total)

        yield show


def no_progress(file: str, done: int, total: int | None) -> None:
    """Nobody is watching."""

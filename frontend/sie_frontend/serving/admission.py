"""How much may be under way at once, and what a caller is told of a run that failed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from sie_frontend.contract import errors
from sie_frontend.contract.requests import Item, check_item_count
from sie_frontend.settings import Settings
from sie_frontend.triton.client import FailureKind
from sie_frontend.watch.metrics import Metrics


class Permits:
    """Counts the items and images that are admitted and not answered yet."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._items = 0
        self._images = 0

    @contextlib.contextmanager
    def taken(self, model_id: str, items: Sequence[Item], count: int, images: int) -> Iterator[None]:
        """A permit for `count` items and their images. Raises `WireError` for too many, in one request or in all."""
        check_item_count(items, model_id, self._settings.max_items)
        if self._items and self._items + count > self._settings.pending_items:
            raise errors.queue_full(model_id)
        if images and self._images and self._images + images > self._settings.pending_images:
            raise errors.queue_full(model_id)
        self._items += count
        self._images += images
        self._metrics.items.labels(model_id).inc(len(items))
        self._tell()
        try:
            yield
        finally:
            self._items -= count
            self._images -= images
            self._tell()

    def _tell(self) -> None:
        self._metrics.pending_items.set(self._items)
        self._metrics.pending_images.set(self._images)


def as_wire_error(kind: FailureKind, model_id: str, activity: str, where: str) -> errors.WireError:
    """What is answered for a run that failed in this way; `where` in the request, in brackets, if that is known."""
    if kind in (FailureKind.UNREACHABLE, FailureKind.NOT_READY, FailureKind.BROKEN):
        return errors.model_loading(model_id)
    if kind is FailureKind.OVERLOADED:
        return errors.queue_full(model_id)
    if kind is FailureKind.OUT_OF_MEMORY:
        return errors.resource_exhausted(f"Triton ran out of memory on '{model_id}'{where}")
    return errors.inference_error(activity + where)

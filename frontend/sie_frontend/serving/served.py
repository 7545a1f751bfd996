"""One model as it is served: the readers of its inputs, its heads, and the queue of each public Triton model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sie_frontend.contract.errors import invalid_input
from sie_frontend.contract.requests import Item
from sie_frontend.images.reader import ImageReader
from sie_frontend.manifest import Batching, Model, ModelInput
from sie_frontend.mixed.reader import MixedReader
from sie_frontend.modalities import MODALITIES
from sie_frontend.outputs.heads import Heads
from sie_frontend.outputs.reading import OutputReader
from sie_frontend.rows import Array, Reader, Row, padded_width
from sie_frontend.serving.reading import ReadingThreads
from sie_frontend.serving.scheduler import Quiet, RunQueue
from sie_frontend.settings import Settings
from sie_frontend.triton.client import FailureKind, TritonFailure
from sie_frontend.triton.replicas import ReplicaSet
from sie_frontend.watch.metrics import Metrics

MIXED = "mixed"
"""The input that reads the texts and the images of an item together."""


def count_images(items: Sequence[Item]) -> int:
    """How many images some items have."""
    return sum(len(item.images) for item in items if item.images)


class NotFinite(Exception):
    """A row's output `tensor` has NaN or infinity: a value of the checkpoint, or an overflow of its precision."""

    def __init__(self, tensor: str) -> None:
        super().__init__(f"`{tensor}` is not finite")
        self.tensor = tensor


@dataclass(frozen=True, slots=True)
class Shared:
    """What all models of a frontend have in common."""

    settings: Settings
    triton: ReplicaSet
    threads: ReadingThreads
    metrics: Metrics
    quiet: Quiet = field(default_factory=Quiet)


class ServedInput:
    """One public Triton model with the rows that wait for it. `label` is the model id that its runs are told under."""

    def __init__(self, label: str, entry: ModelInput, reader: Reader, shared: Shared) -> None:
        settings = shared.settings
        self.label = label
        self.triton_model = entry.triton_model
        self.reader = reader
        self.batching: Batching = entry.batching.get(settings.device) or next(iter(entry.batching.values()))
        # On a CPU positions cost time, so it pads no further than it must; a GPU and Triton's batcher want few shapes.
        self.widths = reader.widths(exact=settings.device == "cpu")
        self._triton = shared.triton
        self._threads = shared.threads
        self.queue: RunQueue[Row] = RunQueue(
            self._run,
            widths=self.widths,
            run_tokens=self.batching.run_tokens,
            max_rows=self.batching.max_batch_size,
            streams=self.batching.streams,
            express=self.batching.express,
            padding_cost=self.batching.padding_cost,
            ahead=settings.inflight_extra,
            quiet=shared.quiet,
            observe=partial(shared.metrics.observe_run, label),
            divisible=_may_be_one_rows,
        )

    def batch(self, rows: Sequence[Row]) -> dict[str, Array]:
        """The input tensors of some rows that may share a run."""
        return self.reader.batch(rows, padded_width(max(row.cost for row in rows), self.widths))

    async def _run(self, rows: Sequence[Row], outputs: tuple[str, ...]) -> Sequence[tuple[Array, ...] | NotFinite]:
        """One Triton request; one tuple per row, in the order of `outputs`, or what is wrong with that row."""
        inputs = await self._threads.batch(rows, partial(self.batch, rows))
        arrays = await self._triton.infer(self.triton_model, inputs, outputs)
        for name, array in arrays.items():
            if array.shape[0] != len(rows):
                raise TritonFailure(
                    FailureKind.REJECTED, f"`{name}` came back with {array.shape[0]} rows for {len(rows)}"
                )
        results: list[tuple[Array, ...] | NotFinite] = list(zip(*(arrays[name] for name in outputs), strict=True))
        for name, array in arrays.items():
            if array.dtype.kind != "f" or (finite := np.isfinite(array)).all():
                continue
            bad = np.flatnonzero(~finite.reshape(len(rows), -1).all(axis=1))
            if len(bad) == len(rows) > 1:  # what one row spoils is found out by halves
                raise TritonFailure(FailureKind.REJECTED, f"`{name}` came back with numbers that are not finite")
            for index in bad:
                results[index] = NotFinite(name)
        return results


def _may_be_one_rows(error: Exception) -> bool:
    """Whether a run may have failed for one of its rows, so that the others deserve a run without it."""
    return isinstance(error, TritonFailure) and error.kind in (FailureKind.REJECTED, FailureKind.OUT_OF_MEMORY)


class ServedModel:
    """One routable id: the reader of each of its inputs, by modality, and its heads."""

    def __init__(self, model_id: str, model: Model, repository: Path, settings: Settings) -> None:
        self.model_id = model_id
        self.model = model
        self.readers: Mapping[str, Reader] = {
            name: MODALITIES[name].open(entry.reads, repository, profiles=model.profiles, limits=settings.limits)
            for name, entry in model.inputs.items()
        }
        entries: list[Any] = [entry.reads for entry in model.inputs.values()]
        self.heads = Heads(model.heads, repository, entries, model.loadtime)
        self.outputs = OutputReader(self.heads)

    def by_modality(self, items: Sequence[Item], *, are_queries: bool = False) -> dict[str, list[int]]:
        """The numbers of the items that each input reads.

        What no input can read goes to the first one, which says what it needs.
        """
        groups: dict[str, list[int]] = {}
        for number, item in enumerate(items):
            name = "text" if are_queries and self._read_as_text(item) else self._modality(item)
            groups.setdefault(name, []).append(number)
        return groups

    def images(self, items: Sequence[Item]) -> int:
        """How many images would be read, large ones as several: their pixels are held until they are computed."""
        reader = next((self.readers[name] for name in (MIXED, "image") if name in self.readers), None)
        if reader is None:
            return 0
        room = reader.room if isinstance(reader, ImageReader | MixedReader) else 1
        return room * count_images(items)

    def billed_images(self, items: Sequence[Item]) -> int | None:
        """How many images `usage` counts: SIE says it of models that read them beside texts, and of no other."""
        reader = self.readers.get(MIXED)
        return count_images(items) if isinstance(reader, MixedReader) and reader.counts_images else None

    def as_asked(self, items: Sequence[Item], *, are_queries: bool) -> Sequence[Item]:
        """The items as they are read: of a query that a page model reads its text, whatever else it has."""
        reader = self.readers.get(MIXED)
        if not (are_queries and isinstance(reader, MixedReader) and not reader.counts_images):
            return items
        return [item if item.text is None else msgspec.structs.replace(item, images=None) for item in items]

    def one_modality(self, items: Sequence[Item]) -> str:
        """The input that reads all of the items. Raises `WireError` (400) where they need several."""
        groups = self.by_modality(items)
        if len(groups) > 1:
            raise invalid_input(f"a query and its items must be of one kind, got {' and '.join(sorted(groups))}")
        return next(iter(groups))

    def _read_as_text(self, query: Item) -> bool:
        """Whether a query's text is read, whatever else it has."""
        queries = self.model.text.queries if "text" in self.readers else "like_items"
        return queries == "text_only" or (queries == "text_first" and query.text is not None)

    def _modality(self, item: Item) -> str:
        first = next(iter(self.readers))
        return next((name for name in MODALITIES if name in self.readers and MODALITIES[name].given_by(item)), first)


def tell_queues(inputs: Iterable[ServedInput], metrics: Metrics) -> None:
    """Let `/metrics` tell how many tokens are not computed yet, by the id that the runs bear.

    They are counted when somebody asks, and not before.
    """
    metrics.queued_tokens.clear()  # models may have left
    queues: dict[str, list[RunQueue[Row]]] = {}
    for served in inputs:
        queues.setdefault(served.label, []).append(served.queue)
    for label, found in queues.items():
        metrics.queued_tokens.labels(label, "frontend").set_function(partial(_waiting_tokens, found))
        metrics.queued_tokens.labels(label, "triton").set_function(partial(_running_tokens, found))


def _waiting_tokens(queues: Sequence[RunQueue[Row]]) -> float:
    return sum(queue.waiting_tokens for queue in queues)


def _running_tokens(queues: Sequence[RunQueue[Row]]) -> float:
    return sum(queue.running_tokens for queue in queues)

"""Serves the models of one repository: items -> admission -> rows -> Triton -> per-item outputs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeAlias

from sie_frontend.contract import errors
from sie_frontend.contract.requests import Item, check_item_count
from sie_frontend.contract.responses import Timing, Usage
from sie_frontend.manifest import Manifest, Model
from sie_frontend.outputs.options import ResolvedCall, ResolvedScore
from sie_frontend.outputs.response import ItemOutputs
from sie_frontend.residency.carrier import Memory
from sie_frontend.residency.residency import Residency
from sie_frontend.residency.state import LoadFailure, Stage
from sie_frontend.rows import Array, Row
from sie_frontend.serving.clock import Clock
from sie_frontend.serving.counting import cut_texts, encode_tokens, score_tokens
from sie_frontend.serving.lora import weights_of
from sie_frontend.serving.on_demand import make_residency
from sie_frontend.serving.readiness import Readiness
from sie_frontend.serving.reading import ReadingThreads
from sie_frontend.serving.runs import Outcome, RowFailure
from sie_frontend.serving.served import NotFinite, ServedInput, ServedModel
from sie_frontend.serving.together import together
from sie_frontend.settings import Settings
from sie_frontend.triton.client import FailureKind, TritonFailure
from sie_frontend.triton.replicas import ReplicaSet
from sie_frontend.watch.metrics import Metrics
from sie_frontend.watch.tracing import Tracing

log = logging.getLogger("sie_frontend")

# Told of the tokens of a request before they are computed; raises `WireError` if they may not be.
Spend: TypeAlias = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encode call produced, in the order of its items. `usage` is null where no item has tokens."""

    items: list[ItemOutputs]
    timing: Timing
    usage: Usage | None

    @property
    def tokens(self) -> int:
        """The tokens that were read: none of images."""
        return 0 if self.usage is None else self.usage.input_tokens


@dataclass(frozen=True, slots=True)
class Scored:
    """What a score call produced: one float32 score per item, in the order of the items."""

    scores: Array
    timing: Timing
    usage: Usage


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Whether a model can be asked now, the contract's word for its state, and why it failed if it did."""

    loaded: bool
    state: str
    failure: LoadFailure | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """The items of a call that one input reads: their numbers in the call, and what the input makes of them."""

    numbers: Sequence[int]
    outputs: Sequence[ItemOutputs]
    tokens: int | None
    truncated: int


class Engine:
    """Everything behind the routes. Made inside a running event loop, closed by `close`.

    `repository` is a folder with the files that the manifest's models name. `memory` tells what loaded Triton models
    take, where they run on this machine.
    """

    def __init__(
        self,
        manifest: Manifest,
        repository: Path,
        settings: Settings,
        metrics: Metrics,
        tracing: Tracing,
        memory: Memory | None = None,
    ) -> None:
        self.manifest = manifest
        self.settings = settings
        self.metrics = metrics
        self.draining = False
        self._triton = ReplicaSet(settings.triton_urls, metrics, tracing, timeout_s=settings.triton_timeout_s)
        self._threads = ReadingThreads(settings.image_threads)
        self._models = {i: ServedModel(i, model, repository, settings) for i, model in manifest.models.items()}
        # Ids that differ in how items are prepared share a Triton model: its runs bear the first one, the bundle's own.
        self._inputs: dict[str, ServedInput] = {}
        for model_id, served in self._models.items():
            for name, entry in served.model.inputs.items():
                if entry.triton_model not in self._inputs:
                    self._inputs[entry.triton_model] = ServedInput(
                        model_id, entry, served.readers[name], self._triton, settings, metrics
                    )
        self._residency: Residency | None = None
        if settings.on_demand:
            required: Iterable[str] = (*settings.ready_model_ids, *settings.pinned_ids)
            watched: Callable[[], Iterable[str]] | None = self._watched
        else:
            required, watched = settings.ready_model_ids or manifest.models, None
        self._readiness = Readiness(
            self._inputs,
            frozenset(name for model_id in required for name in manifest.models[model_id].triton_models),
            self._triton,
            settings,
            metrics,
            watched,
        )
        if settings.on_demand:
            self._residency = make_residency(
                manifest, repository, settings, self._triton, self._readiness, metrics, memory
            )
            self._residency.start()
        self._pending = 0
        self._pending_images = 0

    async def close(self) -> None:
        """Finish the runs under way and let go of Triton."""
        self.draining = True
        await self._readiness.close()
        if self._residency is not None:
            await self._residency.close()
        for served in self._inputs.values():
            await served.queue.drain()
        await self._triton.close()
        self._threads.close()

    @property
    def ready(self) -> bool:
        """Whether every model that must answer can be served now, and new work is welcome."""
        settled = self._residency is None or self._residency.settled
        return not self.draining and settled and self._readiness.all_ready

    def _watched(self) -> Iterable[str]:
        return () if self._residency is None else self._residency.watched

    def hold(self, model_id: str) -> contextlib.AbstractContextManager[None]:
        """Keep a model for several calls. Raises `WireError` where it is not there; it is asked for then."""
        return contextlib.nullcontext() if self._residency is None else self._residency.use(model_id)

    def state(self, model_id: str, model: Model) -> ModelStatus:
        """What `/v1/models` says of it."""
        ready = self.model_ready(model)
        if self._residency is None:
            return ModelStatus(ready, "loaded" if ready else "loading")
        stage = self._residency.stage(model_id)
        word = "loading" if stage is Stage.READY and not ready else stage.word
        return ModelStatus(ready and stage is Stage.READY, word, self._residency.failure(model_id))

    def model_ready(self, model: Model) -> bool:
        """Whether Triton last said that every input of this model is ready."""
        return all(map(self._readiness.ready, model.triton_models))

    # Encode

    async def encode(
        self, model_id: str, model: Model, items: Sequence[Item], call: ResolvedCall, *, spend: Spend | None = None
    ) -> Encoded:
        """Every item's outputs. Raises `WireError` with the contract's status and code, and what `spend` raises."""
        clock = Clock()
        served = self._models[weights_of(model_id, self.manifest.models, call.options)]
        with self._admitted(served, items, len(items)):
            groups = served.by_modality(items, are_queries=call.is_query)
            parts = [
                self._encode_part(served, name, items, numbers, call, clock, spend) for name, numbers in groups.items()
            ]
            done = await together(parts) if len(parts) > 1 else [await parts[0]]
            self.metrics.truncated.labels(model_id).inc(sum(part.truncated for part in done))
        outputs: list[ItemOutputs] = [ItemOutputs()] * len(items)
        for part in done:
            for number, found in zip(part.numbers, part.outputs, strict=True):
                outputs[number] = ItemOutputs(items[number].id, found.values)
        tokens = [part.tokens for part in done if part.tokens is not None]
        usage = Usage(sum(tokens), served.billed_images(items)) if tokens else None
        return Encoded(outputs, clock.timing(), usage)

    async def _encode_part(
        self,
        served: ServedModel,
        modality: str,
        items: Sequence[Item],
        numbers: Sequence[int],
        call: ResolvedCall,
        clock: Clock,
        spend: Spend | None,
    ) -> _Part:
        """The items that one input reads; those that give it the same are computed once."""
        reader = served.readers[modality]
        asked = served.as_asked([items[number] for number in numbers], are_queries=call.is_query)
        given = reader.given(asked)
        firsts: dict[Any, str] = {}
        for number, one in zip(numbers, given, strict=True):
            firsts.setdefault(one, f"items[{number}]")
        unique, places = list(firsts), list(firsts.values())
        counts = reader.row_counts(unique)
        rows = await self._threads.rows(reader, unique, call, is_query=call.is_query, places=places)
        place_of = {one: index for index, one in enumerate(unique)}
        chosen = [place_of[one] for one in given]

        async def counted() -> int | None:
            work = reader.work(unique) if reader.recounts else 0
            billed = await self._threads.run(work, reader.billed, unique, rows, call, is_query=call.is_query)
            return None if billed is None else sum(billed[index] for index in chosen)

        tokens = None
        if spend is not None:  # otherwise they are counted after the run, which need not wait for it
            tokens = await counted()
            spend(tokens or 0)
        clock.read()
        names = served.outputs.tensors(call)
        of_rows = list(chain.from_iterable(map(repeat, places, counts)))
        outcome = await self._submit(served, modality, rows, names, "encoding", of_rows)
        clock.computed(outcome)
        tensors = [dict(zip(names, arrays, strict=True)) for arrays in outcome.results]
        read = partial(served.outputs.read, tensors, rows, counts, call)
        # Dense vectors are views; anything else is worth another thread.
        outputs = read() if call.adapter_outputs == ("dense",) else await self._threads.run(len(rows) << 20, read)
        if spend is None:
            tokens = await counted()
        cut = {place for place, row in zip(of_rows, rows, strict=True) if row.cut}
        return _Part(
            numbers,
            [outputs[index] for index in chosen],
            tokens,
            sum(places[index] in cut for index in chosen),
        )

    # Score

    async def score(
        self,
        model_id: str,
        model: Model,
        query: Item,
        items: Sequence[Item],
        call: ResolvedScore,
        *,
        spend: Spend | None = None,
    ) -> Scored:
        """Every item's score against the query. Raises as `encode` does."""
        clock = Clock()
        served = self._models[weights_of(model_id, self.manifest.models, call.options)]
        head = served.heads.scored()
        names = tuple(dict.fromkeys(head.tensors(call, served.heads)))
        with self._admitted(served, items, len(items) + 1, served.images([query])):
            modality = served.one_modality([query, *items])
            reader = served.readers[modality]
            question, documents = reader.given([query])[0], reader.given(items)
            places = [f"items[{index}]" for index in range(len(items))]
            places = [f"query + {place}" for place in places] if head.pairs else ["query", *places]
            work = reader.work(documents) + reader.work([question]) * (len(documents) if head.pairs else 1)
            rows = await self._threads.pairs(reader, work, head.rows, reader, question, documents, call)
            # A query counts once with each document, whether or not the model reads it so.
            repeated = 0 if head.pairs else rows[0].cost * (len(items) - 1)
            tokens = sum(row.cost for row in rows) + repeated
            if spend is not None:
                spend(tokens)
            clock.read()
            self.metrics.truncated.labels(model_id).inc(sum(row.cut for row in rows[-len(items) :]))
            outcome = await self._submit(served, modality, rows, names, "scoring", places)
            clock.computed(outcome)
            tensors = [dict(zip(names, arrays, strict=True)) for arrays in outcome.results]
            scores = await self._threads.run(
                0 if head.pairs else 1 << 20, head.scores, tensors, rows, call, served.heads
            )
        images = served.billed_images([*[query] * len(items), *items])
        return Scored(scores, clock.timing(), Usage(tokens, images))

    async def tokens(
        self, model_id: str, items: Sequence[Item], call: ResolvedCall | ResolvedScore, query: Item | None = None
    ) -> int:
        """What items have in `usage` if they are computed in parts, none of which is yet; scored for a query."""
        served = self._models[weights_of(model_id, self.manifest.models, call.options)]
        part = self.settings.max_items
        if isinstance(call, ResolvedCall):
            return await encode_tokens(self._threads, served, items, call, part=part)
        assert query is not None
        return await score_tokens(self._threads, served, query, items, call, part=part)

    async def cut(self, model_id: str, texts: Sequence[str], tokens: int) -> Sequence[str]:
        """The texts, none with more than `tokens` tokens of the model's; as they are if it reads fewer anyway."""
        return await cut_texts(self._threads, self._models[model_id], texts, tokens)

    # What both share

    @contextlib.contextmanager
    def _admitted(self, served: ServedModel, items: Sequence[Item], count: int, more_images: int = 0) -> Iterator[None]:
        """A permit for `count` items and their images, and for more, taken before any work and given back on the way
        out.
        """
        with self.hold(served.model_id), self._permitted(served, items, count, more_images):
            yield

    @contextlib.contextmanager
    def _permitted(self, served: ServedModel, items: Sequence[Item], count: int, more_images: int) -> Iterator[None]:
        if not self.model_ready(served.model):
            raise errors.model_loading(served.model_id)
        check_item_count(items, served.model_id, self.settings.max_items)
        images = served.images(items) + more_images
        if self._pending and self._pending + count > self.settings.pending_items:
            raise errors.queue_full(served.model_id)
        if images and self._pending_images and self._pending_images + images > self.settings.pending_images:
            raise errors.queue_full(served.model_id)
        self._pending += count
        self._pending_images += images
        self.metrics.items.labels(served.model_id).inc(len(items))
        self._tell_pending()
        try:
            yield
        finally:
            self._pending -= count
            self._pending_images -= images
            self._tell_pending()

    def _tell_pending(self) -> None:
        self.metrics.pending_items.set(self._pending)
        self.metrics.pending_images.set(self._pending_images)

    async def _submit(
        self,
        served: ServedModel,
        modality: str,
        rows: Sequence[Row],
        names: tuple[str, ...],
        activity: str,
        places: Sequence[str],
    ) -> Outcome:
        """The named outputs of each row; `places` says where in the request its item stands."""
        if not names:
            return Outcome([()] * len(rows), 0.0, 0.0)
        served.readers[modality].check(rows, places)
        target = self._inputs[served.model.inputs[modality].triton_model]
        try:
            outcome = await target.queue.submit(rows, names)
        except RowFailure as failure:
            place = places[failure.row]
            if isinstance(failure.cause, NotFinite):
                log.warning("model %s: `%s` of %s is not finite", served.model_id, failure.cause.tensor, place)
                raise errors.not_finite(served.model_id, activity, place) from failure
            assert isinstance(failure.cause, TritonFailure)
            where = place if len(rows) > 1 else None
            raise self._as_wire_error(failure.cause, served.model_id, target, names, activity, where) from failure
        except TritonFailure as failure:
            raise self._as_wire_error(failure, served.model_id, target, names, activity) from failure
        self.metrics.queue_seconds.labels(target.label).observe(outcome.queue_s)
        return outcome

    def _as_wire_error(
        self,
        failure: TritonFailure,
        model_id: str,
        target: ServedInput,
        names: tuple[str, ...],
        activity: str,
        place: str | None = None,
    ) -> errors.WireError:
        where = f" ({place})" if place else ""
        log.warning("Triton failed on %s%s: %s: %s", target.triton_model, where, failure.kind.value, failure)
        if failure.kind in (FailureKind.UNREACHABLE, FailureKind.NOT_READY, FailureKind.BROKEN):
            self._readiness.lost(target.triton_model, names if failure.kind is FailureKind.BROKEN else ())
            return errors.model_loading(model_id)
        if failure.kind is FailureKind.OVERLOADED:
            return errors.queue_full(model_id)
        if failure.kind is FailureKind.OUT_OF_MEMORY:
            return errors.resource_exhausted(f"Triton ran out of memory on '{model_id}'{where}")
        return errors.inference_error(activity + where)

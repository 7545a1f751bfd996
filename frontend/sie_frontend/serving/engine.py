"""Serves the models of one repository: items -> admission -> token rows -> Triton -> per-item outputs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from sie_frontend.contract import errors
from sie_frontend.contract.options import ResolvedCall, ResolvedScore
from sie_frontend.contract.requests import Item, check_item_count
from sie_frontend.contract.responses import ItemOutputs, Timing, Usage
from sie_frontend.manifest import Batching, BgeM3Score, Manifest, MaxSimScore, Model
from sie_frontend.outputs.heads import Heads
from sie_frontend.outputs.reading import late_rows, late_scores, read_outputs, refuse_lora, score_parts, texts_of
from sie_frontend.serving.clock import Clock
from sie_frontend.serving.scheduler import Outcome, RowFailure, RunQueue
from sie_frontend.settings import Settings
from sie_frontend.text.rows import RowMaker
from sie_frontend.text.tokenization import Row, make_batch
from sie_frontend.triton.client import PROBE_TIMEOUT_S, FailureKind, TritonFailure
from sie_frontend.triton.replicas import ReplicaSet
from sie_frontend.watch.metrics import Metrics
from sie_frontend.watch.tracing import Tracing

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
T = TypeVar("T")

log = logging.getLogger("sie_frontend")

READY_POLL_S = 1.0
# So long a broken model must compute before it is admitted to; a supervisor sees a dead process sooner.
TRIAL_S = 3.0
# Below this many characters tokenising takes less time than waking another thread.
INLINE_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encode call produced, in the order of its items."""

    items: list[ItemOutputs]
    timing: Timing
    usage: Usage


@dataclass(frozen=True, slots=True)
class Scored:
    """What a score call produced: one float32 score per item, in the order of the items."""

    scores: Array
    timing: Timing
    usage: Usage


class NotFinite(Exception):
    """A row's output `tensor` has NaN or infinity: a value of the checkpoint, or an overflow of its precision."""

    def __init__(self, tensor: str) -> None:
        super().__init__(f"`{tensor}` is not finite")
        self.tensor = tensor


class Engine:
    """Everything behind the routes. Made inside a running event loop, closed by `close`.

    `repository` is a folder with the files that the manifest's models name.
    """

    def __init__(
        self, manifest: Manifest, repository: Path, settings: Settings, metrics: Metrics, tracing: Tracing
    ) -> None:
        self.manifest = manifest
        self.settings = settings
        self.metrics = metrics
        self.draining = False
        self._triton = ReplicaSet(settings.triton_urls, metrics, tracing, timeout_s=settings.triton_timeout_s)
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokenize")
        self._rows: dict[str, RowMaker] = {}
        self._heads: dict[str, Heads] = {}
        for model_id, model in manifest.models.items():
            self._rows[model_id] = RowMaker(model, repository, request_bytes=settings.max_body_bytes)
            self._heads[model_id] = Heads(model, self._rows[model_id], repository)
        # Ids that differ in how text is prepared share a Triton model: its runs bear the first one, the bundle's own.
        self._labels = {model.triton_model: i for i, model in reversed(manifest.models.items())}
        self._queues = {model.triton_model: self._queue(model) for model in manifest.models.values()}
        self._models = {model.triton_model: model for model in manifest.models.values()}
        self._ready: dict[str, bool] = dict.fromkeys(self._queues, False)
        self._required = {manifest.models[i].triton_model for i in settings.ready_model_ids or manifest.models}
        self._losses: dict[str, int] = dict.fromkeys(self._queues, 0)
        self._broken: dict[str, _Broken] = {}
        self._pending = 0
        self._recheck = asyncio.Event()
        self._monitor = asyncio.get_running_loop().create_task(self._watch_readiness())

    def _queue(self, model: Model) -> RunQueue[Row]:
        batching = self._batching(model)
        return RunQueue(
            partial(self._run, model),
            length=len,
            buckets=self._buckets(model),
            run_tokens=batching.run_tokens,
            max_rows=batching.max_batch_size,
            streams=batching.streams,
            express=batching.express,
            padding_cost=batching.padding_cost,
            ahead=self.settings.inflight_extra,
            observe=partial(self.metrics.observe_run, self._labels[model.triton_model]),
            divisible=_may_be_one_rows,
        )

    def _buckets(self, model: Model) -> Sequence[int]:
        """The lengths that rows are padded to. On a CPU positions cost time, so it pads no further than it must; a GPU
        and Triton's batcher want few shapes."""
        if self.settings.device == "cpu":
            return range(1, model.tokenization.max_length + 1)
        return model.tokenization.buckets

    def _batching(self, model: Model) -> Batching:
        return model.batching.get(self.settings.device) or next(iter(model.batching.values()))

    async def close(self) -> None:
        """Finish the runs under way and let go of Triton."""
        self.draining = True
        self._monitor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._monitor
        for queue in self._queues.values():
            await queue.drain()
        await self._triton.close()
        self._threads.shutdown(wait=False)

    # Readiness

    @property
    def ready(self) -> bool:
        """Whether every model that must answer can be served now, and new work is welcome."""
        return not self.draining and bool(self._required) and all(self._ready[name] for name in self._required)

    def model_ready(self, model: Model) -> bool:
        """Whether Triton last said that this model is ready."""
        return self._ready[model.triton_model]

    async def _watch_readiness(self) -> None:
        while True:
            for name in self._ready:
                now = await self._computes(name)
                if now != self._ready[name]:
                    log.info("model %s is %s", name, "ready" if now else "not ready")
                self._ready[name] = now
                self._queues[name].replicas = self._triton.serving(name, self.settings.keep_busy)
            self.metrics.ready.set(self.ready)
            self._recheck.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._recheck.wait(), READY_POLL_S if self.ready else READY_POLL_S / 5)

    async def _computes(self, name: str) -> bool:
        """Whether a model can be admitted to: Triton says so, and if it was found broken, it has computed for a while.

        Triton goes on to call a model ready whose backend's process has died. Whoever supervises Triton restarts it,
        which shows as a moment in which it is not ready; nobody may supervise a remote one, so it is tried as well.
        For a while, since the other instances may take every run as long as Triton waits for the dead one.
        """
        losses = self._losses[name]
        if not await self._triton.model_ready(name):
            self._broken.pop(name, None)
            return False
        if name in self._broken and not await self._try_all_instances(name, self._broken[name].outputs):
            self._broken[name].since = time.monotonic()
        if name in self._broken and time.monotonic() - self._broken[name].since > TRIAL_S:
            del self._broken[name]
        return name not in self._broken and losses == self._losses[name]

    async def _try_all_instances(self, name: str, outputs: tuple[str, ...]) -> bool:
        """Whether a model computes, tried with as many runs at once as it has instances.

        The runs have different lengths, so that Triton does not merge them.
        """
        model = self._models[name]
        batching = self._batching(model)

        async def attempt(length: int) -> bool:
            row = Row(np.full(length, model.tokenization.pad_id), length)
            batch = make_batch([row], model.tokenization, self._buckets(model))
            try:
                await self._triton.infer(name, batch.arrays, outputs, timeout_s=PROBE_TIMEOUT_S)
            except TritonFailure:  # whatever it is: a server that is being ended refuses in many words
                return False
            return True

        lengths = range(1, 1 + min(batching.streams + batching.express, model.tokenization.max_length))
        return all(await asyncio.gather(*map(attempt, lengths)))

    def _lost(self, model: Model, broken: tuple[str, ...]) -> None:
        """Triton did not answer, or cannot compute the outputs `broken`: admit nothing until it is ready again."""
        if broken:
            self._broken[model.triton_model] = _Broken(broken, time.monotonic())
        self._losses[model.triton_model] += 1
        self._ready[model.triton_model] = False
        self.metrics.ready.set(False)
        self._recheck.set()

    # Encode

    async def encode(self, model_id: str, model: Model, items: Sequence[Item], call: ResolvedCall) -> Encoded:
        """Every item's outputs. Raises `WireError` with the contract's status and code."""
        clock = Clock()
        refuse_lora(model_id, model, call.options)
        with self._admitted(model_id, model, items, len(items)):
            texts = texts_of(items, model.requires_text)
            firsts: dict[str, str] = {}
            for index, text in enumerate(texts):
                firsts.setdefault(text, f"items[{index}]")
            unique, places = list(firsts), list(firsts.values())
            heads, maker = self._heads[model_id], self._rows[model_id]
            rows = await self._off_loop(
                _characters(unique),
                maker.text_rows,
                unique,
                call.options,
                call.instruction,
                is_query=call.is_query,
                places=places,
            )
            clock.tokenized()
            from_table = "sparse" in call.adapter_outputs and call.is_query and heads.query_weights is not None
            computed = [o for o in call.adapter_outputs if not (o == "sparse" and from_table)]
            names = tuple(dict.fromkeys(n for o in computed for n in heads.tensors_for(o, call.options)))
            outcome = await self._submit(model_id, model, rows, names, "encoding", places)
            clock.computed(outcome)
            read = partial(read_outputs, heads, rows, outcome.results, names, unique, call, from_table=from_table)
            # Dense vectors are views; anything else is worth another thread.
            outputs = read() if call.adapter_outputs == ("dense",) else await self._off_loop(len(rows) << 20, read)
            by_text = dict(zip(unique, range(len(unique)), strict=True))
            numbers = [by_text[text] for text in texts]
            self.metrics.truncated.labels(model_id).inc(sum(rows[number].cut for number in numbers))
            lengths = await self._counted(model_id, model, unique, rows, call)
        return Encoded(
            items=[
                ItemOutputs(item.id, outputs[n].dense, outputs[n].sparse, outputs[n].multivector)
                for item, n in zip(items, numbers, strict=True)
            ],
            timing=clock.timing(),
            usage=Usage(input_tokens=sum(lengths[number] for number in numbers)),
        )

    # Score

    async def score(
        self, model_id: str, model: Model, query: Item, items: Sequence[Item], call: ResolvedScore
    ) -> Scored:
        """Every item's score against the query. Raises `WireError` with the contract's status and code."""
        clock = Clock()
        refuse_lora(model_id, model, call.options)
        parts = score_parts(model, call)
        with self._admitted(model_id, model, items, len(items) + 1):
            question = texts_of([query], model.requires_text)[0]
            documents = texts_of(items, model.requires_text)
            heads, maker = self._heads[model_id], self._rows[model_id]
            late = isinstance(model.heads["score"], MaxSimScore | BgeM3Score)
            if late:
                # Scores compare directions, whatever a call says of the vectors it would get.
                call = replace(call, options={**call.options, "normalize": True})
                places = ["query", *(f"items[{index}]" for index in range(len(items)))]
            else:
                places = [f"query + items[{index}]" for index in range(len(items))]
            size = _characters(documents) + len(question) * (1 if late else len(documents))
            make_rows = late_rows if late else RowMaker.pair_rows
            rows = await self._off_loop(size, make_rows, maker, question, documents, call.options, call.instruction)
            clock.tokenized()
            self.metrics.truncated.labels(model_id).inc(sum(row.cut for row in rows[-len(items) :]))
            names = tuple(dict.fromkeys(n for part in parts for n in heads.tensors_for(part, call.options)))
            outcome = await self._submit(model_id, model, rows, names, "scoring", places)
            clock.computed(outcome)
            if late:
                tensors = [dict(zip(names, arrays, strict=True)) for arrays in outcome.results]
                scores = await self._off_loop(1 << 20, late_scores, heads, rows, tensors, parts, call)
            else:
                scores = np.asarray([arrays[0].reshape(-1)[0] for arrays in outcome.results], dtype=np.float32)
        tokens = sum(map(len, rows))
        # A query counts once with each document, whether or not the model reads it so.
        return Scored(scores, clock.timing(), Usage(tokens + len(rows[0]) * (len(items) - 1) if late else tokens))

    async def cut(self, model_id: str, model: Model, texts: Sequence[str], tokens: int) -> Sequence[str]:
        """The texts, none with more than `tokens` tokens of the model's; as they are if it reads fewer anyway."""
        if tokens >= model.tokenization.max_length:
            return texts
        tokenizer = self._rows[model_id].tokenizer
        return await self._off_loop(_characters(texts), lambda: [tokenizer.cut_text(text, tokens) for text in texts])

    # What both share

    @contextlib.contextmanager
    def _admitted(self, model_id: str, model: Model, items: Sequence[Item], count: int) -> Iterator[None]:
        """A permit for `count` items, taken before any work and given back on the way out."""
        if not self.model_ready(model):
            raise errors.model_loading(model_id)
        check_item_count(items, model_id, self.settings.max_items)
        if self._pending and self._pending + count > self.settings.pending_items:
            raise errors.queue_full(model_id)
        self._pending += count
        self.metrics.items.labels(model_id).inc(len(items))
        self.metrics.pending_items.set(self._pending)
        try:
            yield
        finally:
            self._pending -= count
            self.metrics.pending_items.set(self._pending)

    async def _off_loop(self, characters: int, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run CPU work in a thread, unless it is so little that the hop would cost more."""
        if characters <= INLINE_CHARACTERS:
            return function(*args, **kwargs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(function, *args, **kwargs))

    async def _submit(
        self,
        model_id: str,
        model: Model,
        rows: Sequence[Row],
        names: tuple[str, ...],
        activity: str,
        places: Sequence[str],
    ) -> Outcome:
        """The named outputs of each row; `places` says where in the request its text stands."""
        if not names:
            return Outcome([()] * len(rows), 0.0, 0.0)
        self._rows[model_id].check_vocabulary(rows, places)
        try:
            outcome = await self._queues[model.triton_model].submit(rows, names)
        except RowFailure as failure:
            place = places[failure.row]
            if isinstance(failure.cause, NotFinite):
                log.warning("model %s: `%s` of %s is not finite", model_id, failure.cause.tensor, place)
                raise errors.not_finite(model_id, activity, place) from failure
            assert isinstance(failure.cause, TritonFailure)
            where = place if len(rows) > 1 else None
            raise self._as_wire_error(failure.cause, model_id, model, names, activity, where) from failure
        except TritonFailure as failure:
            raise self._as_wire_error(failure, model_id, model, names, activity) from failure
        self.metrics.queue_seconds.labels(self._labels[model.triton_model]).observe(outcome.queue_s)
        return outcome

    async def _counted(
        self, model_id: str, model: Model, texts: Sequence[str], rows: Sequence[Row], call: ResolvedCall
    ) -> list[int]:
        """What `usage` counts: the ids that were processed, or, for adapters that do so, those of the bare text."""
        if model.usage == "processed" or self._rows[model_id].reads_bare_text(texts, call):
            return [len(row) for row in rows]
        return await self._off_loop(_characters(texts), self._rows[model_id].tokenizer.count, texts)

    async def _run(
        self, model: Model, rows: Sequence[Row], outputs: tuple[str, ...]
    ) -> Sequence[tuple[Array, ...] | NotFinite]:
        """One Triton request; one tuple per row, in the order of `outputs`, or what is wrong with that row."""
        batch = make_batch(rows, model.tokenization, self._buckets(model))
        arrays = await self._triton.infer(model.triton_model, batch.arrays, outputs)
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

    def _as_wire_error(
        self,
        failure: TritonFailure,
        model_id: str,
        model: Model,
        names: tuple[str, ...],
        activity: str,
        place: str | None = None,
    ) -> errors.WireError:
        where = f" ({place})" if place else ""
        log.warning("Triton failed on %s%s: %s: %s", model.triton_model, where, failure.kind.value, failure)
        if failure.kind in (FailureKind.UNREACHABLE, FailureKind.NOT_READY, FailureKind.BROKEN):
            self._lost(model, names if failure.kind is FailureKind.BROKEN else ())
            return errors.model_loading(model_id)
        if failure.kind is FailureKind.OVERLOADED:
            return errors.queue_full(model_id)
        if failure.kind is FailureKind.OUT_OF_MEMORY:
            return errors.resource_exhausted(f"Triton ran out of memory on '{model_id}'{where}")
        return errors.inference_error(activity + where)


@dataclass(slots=True)
class _Broken:
    """A model that could not compute `outputs`; `since` is when it was last seen to fail."""

    outputs: tuple[str, ...]
    since: float


def _may_be_one_rows(error: Exception) -> bool:
    """Whether a run may have failed for one of its rows, so that the others deserve a run without it."""
    return isinstance(error, TritonFailure) and error.kind in (FailureKind.REJECTED, FailureKind.OUT_OF_MEMORY)


def _characters(texts: Sequence[str]) -> int:
    return sum(map(len, texts))

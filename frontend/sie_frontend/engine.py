"""Serves the models of one repository: items -> admission -> token rows -> Triton -> per-item outputs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from sie_frontend import errors, scoring
from sie_frontend.heads import Heads, narrow, narrow_sparse
from sie_frontend.manifest import Batching, BgeM3Score, DenseHead, Manifest, MaxSimScore, Model
from sie_frontend.metrics import Metrics
from sie_frontend.options import ResolvedCall, ResolvedScore
from sie_frontend.replicas import ReplicaSet
from sie_frontend.requests import Item, check_item_count
from sie_frontend.responses import ItemOutputs, SparseVector, Timing, Usage
from sie_frontend.rows import RowMaker
from sie_frontend.scheduler import Outcome, RunQueue
from sie_frontend.settings import Settings
from sie_frontend.tokenization import Row, make_batch
from sie_frontend.tracing import Tracing
from sie_frontend.triton_client import PROBE_TIMEOUT_S, FailureKind, TritonFailure

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
            self._rows[model_id] = RowMaker(model, repository)
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
        clock = _Clock()
        with self._admitted(model_id, model, items, len(items)):
            texts = _texts(items, model.requires_text)
            unique = list(dict.fromkeys(texts))
            heads = self._heads[model_id]
            rows = await self._off_loop(
                _characters(unique),
                self._rows[model_id].text_rows,
                unique,
                call.options,
                call.instruction,
                is_query=call.is_query,
            )
            clock.tokenized()
            from_table = "sparse" in call.adapter_outputs and call.is_query and heads.query_weights is not None
            computed = [o for o in call.adapter_outputs if not (o == "sparse" and from_table)]
            names = tuple(dict.fromkeys(n for o in computed for n in heads.tensors_for(o, call.options)))
            outcome = await self._submit(model_id, model, rows, names, "encoding")
            clock.computed(outcome)
            read = partial(_read_all, heads, rows, outcome.results, names, unique, call, from_table=from_table)
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
        clock = _Clock()
        with self._admitted(model_id, model, items, len(items) + 1):
            question = _texts([query], model.requires_text)[0]
            documents = _texts(items, model.requires_text)
            heads, maker = self._heads[model_id], self._rows[model_id]
            head = model.heads["score"]
            size = _characters(documents) + len(question)
            if isinstance(head, MaxSimScore | BgeM3Score):
                rows = [
                    *maker.text_rows([question], call.options, call.instruction, is_query=True),
                    *await self._off_loop(size, maker.text_rows, documents, call.options, None, is_query=False),
                ]
            else:
                rows = await self._off_loop(size, maker.pair_rows, question, documents, call.options, call.instruction)
            clock.tokenized()
            self.metrics.truncated.labels(model_id).inc(sum(row.cut for row in rows[-len(items) :]))
            parts = _score_parts(model, call)
            names = tuple(dict.fromkeys(n for part in parts for n in heads.tensors_for(part, call.options)))
            outcome = await self._submit(model_id, model, rows, names, "scoring")
            clock.computed(outcome)
            if isinstance(head, MaxSimScore | BgeM3Score):
                tensors = [dict(zip(names, arrays, strict=True)) for arrays in outcome.results]
                scores = await self._off_loop(1 << 20, _late_scores, heads, rows, tensors, parts, call)
            else:
                scores = np.asarray([arrays[0].reshape(-1)[0] for arrays in outcome.results], dtype=np.float32)
        return Scored(scores, clock.timing(), Usage(input_tokens=sum(len(row) for row in rows)))

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
        self, model_id: str, model: Model, rows: Sequence[Row], names: tuple[str, ...], activity: str
    ) -> Outcome:
        if not names:
            return Outcome([()] * len(rows), 0.0, 0.0)
        try:
            outcome = await self._queues[model.triton_model].submit(rows, names)
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

    async def _run(self, model: Model, rows: Sequence[Row], outputs: tuple[str, ...]) -> list[tuple[Array, ...]]:
        """One Triton request; one tuple per row, in the order of `outputs`."""
        batch = make_batch(rows, model.tokenization, self._buckets(model))
        arrays = await self._triton.infer(model.triton_model, batch.arrays, outputs)
        for name, array in arrays.items():
            if array.shape[0] != len(rows):
                raise TritonFailure(
                    FailureKind.REJECTED, f"`{name}` came back with {array.shape[0]} rows for {len(rows)}"
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise TritonFailure(FailureKind.REJECTED, f"`{name}` came back with numbers that are not finite")
        return list(zip(*(arrays[name] for name in outputs), strict=True))

    def _as_wire_error(
        self, failure: TritonFailure, model_id: str, model: Model, names: tuple[str, ...], activity: str
    ) -> errors.WireError:
        log.warning("Triton failed on %s: %s: %s", model.triton_model, failure.kind.value, failure)
        if failure.kind in (FailureKind.UNREACHABLE, FailureKind.NOT_READY, FailureKind.BROKEN):
            self._lost(model, names if failure.kind is FailureKind.BROKEN else ())
            return errors.model_loading(model_id)
        if failure.kind is FailureKind.OVERLOADED:
            return errors.queue_full(model_id)
        if failure.kind is FailureKind.OUT_OF_MEMORY:
            return errors.resource_exhausted(f"Triton ran out of memory on '{model_id}'")
        return errors.inference_error(activity)


@dataclass(slots=True)
class _Broken:
    """A model that could not compute `outputs`; `since` is when it was last seen to fail."""

    outputs: tuple[str, ...]
    since: float


class _Clock:
    """Where one call's time goes."""

    def __init__(self) -> None:
        self._begun = self._tokenized = self._computed = time.perf_counter()
        self._queue_s = 0.0

    def tokenized(self) -> None:
        """The rows are made."""
        self._tokenized = time.perf_counter()

    def computed(self, outcome: Outcome) -> None:
        """Triton has answered."""
        self._computed, self._queue_s = time.perf_counter(), outcome.queue_s

    def timing(self) -> Timing:
        """Milliseconds by stage, up to now."""
        return Timing(
            total_ms=(time.perf_counter() - self._begun) * 1e3,
            queue_ms=self._queue_s * 1e3,
            tokenization_ms=(self._tokenized - self._begun) * 1e3,
            inference_ms=max(0.0, self._computed - self._tokenized - self._queue_s) * 1e3,
        )


def _characters(texts: Sequence[str]) -> int:
    return sum(map(len, texts))


def _texts(items: Sequence[Item], message: str) -> list[str]:
    texts = []
    for item in items:
        if item.text is None:
            raise errors.invalid_input(message)
        texts.append(item.text)
    return texts


def _read_all(
    heads: Heads,
    rows: Sequence[Row],
    results: Sequence[tuple[Array, ...]],
    names: Sequence[str],
    texts: Sequence[str],
    call: ResolvedCall,
    *,
    from_table: bool,
) -> list[ItemOutputs]:
    """The wanted outputs of each row, in the output dtype of the call."""
    tensors = [dict(zip(names, arrays, strict=True)) for arrays in results]
    dense: Sequence[Array | None] = [None] * len(rows)
    sparse: Sequence[SparseVector | None] = dense  # type: ignore[assignment]
    tokens: Sequence[Array | None] = dense
    vectors = []
    if "multivector" in call.adapter_outputs:
        vectors = [heads.multivector(t, row, is_query=call.is_query) for t, row in zip(tensors, rows, strict=True)]
    if "dense" in call.output_types:
        if call.muvera:
            full = [heads.as_fixed(vector, is_query=call.is_query) for vector in vectors]
        else:
            full = [heads.dense(t, call.options) for t in tensors]
            head = heads.model.heads["dense"]
            if isinstance(head, DenseHead) and head.blank_is_zero:
                full = [v if text.strip() else np.zeros_like(v) for v, text in zip(full, texts, strict=True)]
        dense = narrow(full, call)
    if "sparse" in call.output_types:
        if call.smve:
            found = [heads.as_sparse(vector, is_query=call.is_query) for vector in vectors]
        elif from_table:
            found = [heads.weigh_query(row) for row in rows]
        else:
            found = [heads.sparse(t, row) for t, row in zip(tensors, rows, strict=True)]
        sparse = [narrow_sparse(vector, call) for vector in found]
    if "multivector" in call.output_types:
        tokens = narrow(vectors, call)
    return [ItemOutputs(None, d, s, m) for d, s, m in zip(dense, sparse, tokens, strict=True)]


def _score_parts(model: Model, call: ResolvedScore) -> tuple[str, ...]:
    """The heads whose tensors a score needs."""
    head = model.heads["score"]
    if isinstance(head, BgeM3Score):
        return scoring.bge_m3_outputs(call.options)
    return ("multivector",) if isinstance(head, MaxSimScore) else ("score",)


def _late_scores(
    heads: Heads, rows: Sequence[Row], tensors: Sequence[dict[str, Array]], parts: Sequence[str], call: ResolvedScore
) -> Array:
    """Scores out of the query's outputs, which come first, and the documents'."""
    encoded = [
        scoring.Encoded(
            dense=heads.dense(t, {**call.options, "normalize": True}) if "dense" in parts else None,
            sparse=heads.sparse(t, row) if "sparse" in parts else None,
            multivector=heads.multivector(t, row, is_query=index == 0) if "multivector" in parts else None,
        )
        for index, (t, row) in enumerate(zip(tensors, rows, strict=True))
    ]
    query, documents = encoded[0], encoded[1:]
    if isinstance(heads.model.heads["score"], BgeM3Score):
        scores = scoring.bge_m3_scores(query, documents, call.options)
    else:
        assert query.multivector is not None
        scores = [
            scoring.maxsim(query.multivector, document.multivector)
            for document in documents
            if document.multivector is not None
        ]
    return np.asarray(scores, dtype=np.float32)

"""Serves the models of one repository: items -> admission -> token rows -> Triton -> per-item outputs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from sie_frontend import errors
from sie_frontend.manifest import Batching, DenseHead, Manifest, Model
from sie_frontend.metrics import Metrics
from sie_frontend.options import ResolvedCall
from sie_frontend.prompting import prepare_texts
from sie_frontend.quantize import quantize_vectors
from sie_frontend.requests import Item, check_item_count
from sie_frontend.responses import ItemOutputs, Timing, Usage
from sie_frontend.scheduler import RunQueue
from sie_frontend.settings import Settings
from sie_frontend.tokenization import IdArray, TextTokenizer, make_batch
from sie_frontend.triton_client import FailureKind, TritonClient, TritonFailure

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Row: TypeAlias = IdArray

log = logging.getLogger("sie_frontend")

READY_POLL_S = 1.0
# Below this many characters tokenising takes less time than waking another thread.
INLINE_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encode call produced, in the order of its items."""

    items: list[ItemOutputs]
    timing: Timing
    usage: Usage


class Engine:
    """Everything behind the routes. Made inside a running event loop, closed by `close`."""

    def __init__(self, manifest: Manifest, settings: Settings, metrics: Metrics) -> None:
        self.manifest = manifest
        self.settings = settings
        self.metrics = metrics
        self.draining = False
        self._triton = TritonClient(settings.triton_url, timeout_s=settings.triton_timeout_s)
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokenize")
        self._tokenizers = {
            name: TextTokenizer(model.tokenization, settings.repository)
            for name, model in {m.triton_model: m for m in manifest.models.values()}.items()
        }
        self._queues = {model.triton_model: self._queue(model) for model in manifest.models.values()}
        self._ready: dict[str, bool] = dict.fromkeys(self._tokenizers, False)
        self._pending = 0
        self._recheck = asyncio.Event()
        self._monitor = asyncio.get_running_loop().create_task(self._watch_readiness())

    def _queue(self, model: Model) -> RunQueue[Row]:
        batching = self._batching(model)
        return RunQueue(
            partial(self._run, model),
            length=len,
            buckets=model.tokenization.buckets,
            run_tokens=batching.run_tokens,
            max_rows=batching.max_batch_size,
            streams=batching.streams + self.settings.inflight_extra,
            observe=partial(self.metrics.observe_run, model.triton_model),
        )

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
        """Whether every model of the repository can be served now."""
        return not self.draining and bool(self._ready) and all(self._ready.values())

    def model_ready(self, model: Model) -> bool:
        """Whether Triton last said that this model is ready."""
        return self._ready[model.triton_model]

    async def _watch_readiness(self) -> None:
        while True:
            for name in self._ready:
                now = await self._triton.model_ready(name)
                if now != self._ready[name]:
                    log.info("model %s is %s", name, "ready" if now else "not ready")
                self._ready[name] = now
            self.metrics.ready.set(self.ready)
            self._recheck.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._recheck.wait(), READY_POLL_S if self.ready else READY_POLL_S / 5)

    def _lost(self, model: Model) -> None:
        """Triton did not answer: stop admitting to this model until it is seen ready again."""
        self._ready[model.triton_model] = False
        self.metrics.ready.set(False)
        self._recheck.set()

    # Encode

    async def encode(self, model_id: str, model: Model, items: Sequence[Item], call: ResolvedCall) -> Encoded:
        """Every item's outputs. Raises `WireError` with the contract's status and code."""
        begun = time.perf_counter()
        texts = _texts(items, model.requires_text)
        if not self.model_ready(model):
            raise errors.model_loading(model_id)
        check_item_count(items, model_id, self.settings.max_items)
        with self._admitted(model_id, len(items)):
            self.metrics.items.labels(model_id).inc(len(items))
            tensors = _tensors(model, call)
            unique = list(dict.fromkeys(texts))
            rows = await self._tokenize(model, unique, call)
            tokenized = time.perf_counter()
            try:
                outcome = await self._queues[model.triton_model].submit(rows, tuple(tensors.values()))
            except TritonFailure as failure:
                raise self._as_wire_error(failure, model_id, model) from failure
            computed = time.perf_counter()
            by_text = dict(zip(unique, range(len(unique)), strict=True))
            numbers = [by_text[text] for text in texts]
            outputs = self._outputs(items, numbers, outcome.results, tensors, call)
            lengths = await self._raw_lengths(model, unique, rows)
        self.metrics.queue_seconds.labels(model.triton_model).observe(outcome.queue_s)
        done = time.perf_counter()
        return Encoded(
            items=outputs,
            timing=Timing(
                total_ms=(done - begun) * 1e3,
                queue_ms=outcome.queue_s * 1e3,
                tokenization_ms=(tokenized - begun) * 1e3,
                inference_ms=(computed - tokenized - outcome.queue_s) * 1e3,
            ),
            usage=Usage(input_tokens=sum(lengths[number] for number in numbers)),
        )

    @contextlib.contextmanager
    def _admitted(self, model_id: str, count: int) -> Iterator[None]:
        """A permit for `count` items, taken before any work and given back on the way out."""
        if self._pending + count > self.settings.pending_items and self._pending:
            raise errors.queue_full(model_id)
        self._pending += count
        self.metrics.pending_items.set(self._pending)
        try:
            yield
        finally:
            self._pending -= count
            self.metrics.pending_items.set(self._pending)

    async def _tokenize(self, model: Model, texts: Sequence[str], call: ResolvedCall) -> list[Row]:
        prepared = prepare_texts(
            texts, model.prompting, options=call.options, instruction=call.instruction, is_query=call.is_query
        )
        tokenizer = self._tokenizers[model.triton_model]
        if sum(map(len, prepared)) <= INLINE_CHARACTERS:
            return tokenizer.encode(prepared)
        return await asyncio.get_running_loop().run_in_executor(self._threads, tokenizer.encode, prepared)

    async def _raw_lengths(self, model: Model, texts: Sequence[str], rows: Sequence[Row]) -> list[int]:
        """What `usage` counts: the ids that were processed, or, for adapters that do so, those of the bare text."""
        if model.usage == "processed":
            return [len(row) for row in rows]
        tokenizer = self._tokenizers[model.triton_model]
        if sum(map(len, texts)) <= INLINE_CHARACTERS:
            return tokenizer.count(texts)
        return await asyncio.get_running_loop().run_in_executor(self._threads, tokenizer.count, texts)

    async def _run(self, model: Model, rows: Sequence[Row], outputs: tuple[str, ...]) -> list[tuple[Array, ...]]:
        """One Triton request; one tuple per row, in the order of `outputs`."""
        batch = make_batch(rows, model.tokenization)
        arrays = await self._triton.infer(
            model.triton_model,
            {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask},
            outputs,
        )
        for name, array in arrays.items():
            if array.shape[0] != len(rows):
                raise TritonFailure(
                    FailureKind.REJECTED, f"`{name}` came back with {array.shape[0]} rows for {len(rows)}"
                )
        return list(zip(*(arrays[name] for name in outputs), strict=True))

    def _outputs(
        self,
        items: Sequence[Item],
        numbers: Sequence[int],
        results: Sequence[tuple[Array, ...]],
        tensors: dict[str, str],
        call: ResolvedCall,
    ) -> list[ItemOutputs]:
        dense = list(tensors).index("dense") if "dense" in tensors else None
        vectors = None
        if dense is not None:
            vectors = quantize_vectors(np.stack([row[dense] for row in results]), call.output_dtype)
        return [
            ItemOutputs(id=item.id, dense=None if vectors is None else vectors[number])
            for item, number in zip(items, numbers, strict=True)
        ]

    def _as_wire_error(self, failure: TritonFailure, model_id: str, model: Model) -> errors.WireError:
        log.warning("Triton failed on %s: %s: %s", model.triton_model, failure.kind.value, failure)
        if failure.kind in (FailureKind.UNREACHABLE, FailureKind.NOT_READY):
            self._lost(model)
            return errors.model_loading(model_id)
        if failure.kind is FailureKind.OVERLOADED:
            return errors.queue_full(model_id)
        if failure.kind is FailureKind.OUT_OF_MEMORY:
            return errors.resource_exhausted(f"Triton ran out of memory on '{model_id}'")
        return errors.inference_error("encoding")


def _texts(items: Sequence[Item], message: str) -> list[str]:
    texts = []
    for item in items:
        if item.text is None:
            raise errors.invalid_input(message)
        texts.append(item.text)
    return texts


def _tensors(model: Model, call: ResolvedCall) -> dict[str, str]:
    """The Triton output to ask for, by output type."""
    tensors: dict[str, str] = {}
    for output in call.adapter_outputs:
        head = model.heads.get(output)
        if head is None:
            raise errors.invalid_input(f"output type '{output}' of this model was not built")
        tensors[output] = _dense_tensor(head, call)
    return tensors


def _dense_tensor(head: DenseHead, call: ResolvedCall) -> str:
    pooling = head.pooling
    wanted = call.options.get("pooling")
    if wanted is not None and head.pooling_names:
        pooling = head.pooling_names.get(str(wanted), head.pooling_names["*"])
    normalize = head.normalize
    if head.honours_normalize and call.options.get("normalize") is not None:
        normalize = bool(call.options["normalize"])
    pooled = head.poolings[pooling]
    return pooled.normalized if normalize else pooled.raw

"""Serves the models of one repository: items -> admission -> rows -> Triton -> per-item outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeAlias

from sie_frontend.contract.requests import Item
from sie_frontend.contract.responses import Usage
from sie_frontend.manifest import Manifest, Model
from sie_frontend.outputs.options import ResolvedCall, ResolvedScore
from sie_frontend.outputs.response import ItemOutputs
from sie_frontend.residency.carrier import Discharge, Memory
from sie_frontend.residency.residency import Residency
from sie_frontend.residency.state import Stage
from sie_frontend.serving.admission import Permits
from sie_frontend.serving.ailments import Ailments, ailment_of, as_failure, is_down, parts_of, refusal
from sie_frontend.serving.billing import unread_texts
from sie_frontend.serving.catalogue import Catalogue, held, make_catalogue
from sie_frontend.serving.clock import Clock
from sie_frontend.serving.counting import cut_texts, encode_tokens, score_tokens
from sie_frontend.serving.deaths import DeathWatch
from sie_frontend.serving.on_demand import make_residency
from sie_frontend.serving.readiness import Readiness
from sie_frontend.serving.reading import ReadingThreads
from sie_frontend.serving.results import Encoded, EncodedPart, ModelStatus, Scored
from sie_frontend.serving.served import ServedInput, ServedModel, Shared, tell_queues
from sie_frontend.serving.submitting import Submitter
from sie_frontend.serving.together import together
from sie_frontend.settings import Settings
from sie_frontend.triton.replicas import ReplicaSet
from sie_frontend.watch.metrics import Metrics
from sie_frontend.watch.tracing import Tracing

# Told of the tokens of a request before they are computed; raises `WireError` if they may not be.
Spend: TypeAlias = Callable[[int], None]


__all__ = ["Encoded", "Engine", "ModelStatus", "Scored", "Spend"]


class Engine:
    """Everything behind the routes. Made inside a running event loop, closed by `close`.

    `repository` is a folder with the files that the manifest's models name. `memory` tells what loaded Triton models
    take and `ailments` which of them went down, where they run on this machine, and `discharge` is told of what is
    unloaded there.
    """

    def __init__(
        self,
        manifest: Manifest,
        repository: Path,
        settings: Settings,
        metrics: Metrics,
        tracing: Tracing,
        memory: Memory | None = None,
        ailments: Ailments | None = None,
        discharge: Discharge | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.memory = memory
        self.draining = False
        self._ailments = ailments or Ailments()
        self._triton = ReplicaSet(
            settings.triton_urls, metrics, tracing, timeout_s=settings.triton_timeout_s, late=self._suspect
        )
        self._threads = ReadingThreads(settings.image_threads)
        self.shared = Shared(settings, self._triton, self._threads, metrics)
        self.catalogue = make_catalogue(manifest, repository, self.shared)
        # Those of older catalogues and of the next one too, as long as Triton has them.
        self._inputs: dict[str, ServedInput] = dict(self.catalogue.inputs)
        tell_queues(self._inputs.values(), metrics)
        self._residency: Residency | None = None
        self._readiness = Readiness(
            self._inputs,
            self._required(manifest),
            self._triton,
            settings,
            metrics,
            self._watched if settings.on_demand else None,
            (lambda name: is_down(name, self.manifest, self._ailments)) if ailments else None,
        )
        if settings.on_demand:
            self._residency = make_residency(
                manifest, repository, settings, self._triton, self._readiness, metrics, memory, discharge
            )
            self.catalogue.unit_of = self._residency.unit_of
            self._residency.start()
        self._deaths = DeathWatch(self._inputs, lambda: self.manifest, self._triton, ailments) if ailments else None
        self._permits = Permits(settings, metrics)
        self._submitter = Submitter(self._inputs, self._readiness, metrics)

    async def close(self) -> None:
        """Finish the runs under way and let go of Triton."""
        self.draining = True
        await self._readiness.close()
        if self._deaths is not None:
            self._deaths.close()
        if self._residency is not None:
            await self._residency.close()
        for served in self._inputs.values():
            await served.queue.drain()
        await self._triton.close()
        self._threads.close()

    @property
    def manifest(self) -> Manifest:
        """What is served now."""
        return self.catalogue.manifest

    @property
    def triton(self) -> ReplicaSet:
        """The Tritons that compute."""
        return self._triton

    @property
    def readiness(self) -> Readiness:
        """What Triton says of its models."""
        return self._readiness

    @property
    def residency(self) -> Residency | None:
        """What loads and unloads where models are loaded on demand."""
        return self._residency

    def _required(self, manifest: Manifest) -> frozenset[str]:
        """The public Triton models without which the whole is not ready."""
        ids: Iterable[str] = self.settings.ready_model_ids
        if self.settings.on_demand:
            ids = (*ids, *self.settings.pinned_ids)
        found = (manifest.models.get(model_id) for model_id in ids or self._all_unless_on_demand(manifest))
        return frozenset(name for model in found if model is not None for name in model.triton_models)

    def _all_unless_on_demand(self, manifest: Manifest) -> Iterable[str]:
        return () if self.settings.on_demand else manifest.models

    def expect(self, catalogue: Catalogue) -> None:
        """Look after the Triton models of a catalogue that may be switched to."""
        for name, served in catalogue.inputs.items():
            if name not in self._inputs:
                self._inputs[name] = served
        self._readiness.enter(catalogue.inputs)
        tell_queues(self._inputs.values(), self.metrics)

    def switch(self, catalogue: Catalogue) -> Catalogue:
        """Answer every request that begins from now on out of another catalogue; returns the one before."""
        before, self.catalogue = self.catalogue, catalogue
        self._inputs.update(catalogue.inputs)
        self._readiness.require(self._required(catalogue.manifest))
        return before

    def forget(self, names: Iterable[str]) -> None:
        """These public Triton models are needed no more."""
        for name in names:
            if name not in self.catalogue.inputs:
                self._readiness.drop(name)
                self._inputs.pop(name, None)
        tell_queues(self._inputs.values(), self.metrics)

    @property
    def ready(self) -> bool:
        """Whether every model that must answer can be served now, and new work is welcome."""
        settled = self._residency is None or self._residency.settled
        return not self.draining and settled and self._readiness.all_ready

    def _suspect(self, triton_model: str, waited_s: float) -> None:
        """A run takes much longer than those before: whoever supervises Triton may see why."""
        for part in parts_of(triton_model, self.manifest):
            self._ailments.suspect(part, waited_s)

    def _watched(self) -> Iterable[str]:
        return () if self._residency is None else self._residency.watched

    @contextlib.contextmanager
    def hold(self, model_id: str, options: Mapping[str, Any] | None = None) -> Iterator[None]:
        """Keep a model, in the version that is served now, for several calls with these options.

        Raises `WireError` where it is not there; it is asked for then.
        """
        with held(self.catalogue) as catalogue:
            if options is not None:
                model_id = catalogue.served(model_id, options).model_id
            with self._resident(catalogue, model_id):
                yield

    def _resident(self, catalogue: Catalogue, model_id: str) -> contextlib.AbstractContextManager[None]:
        if self._residency is None:
            return contextlib.nullcontext()
        return self._residency.use(model_id, catalogue.unit_of[model_id])

    def state(self, model_id: str, model: Model) -> ModelStatus:
        """What `/v1/models` says of it."""
        ready = self.model_ready(model)
        ailment = ailment_of(model, self.manifest, self._ailments())
        failure = as_failure(ailment) if ailment else None
        lost = "failed" if ailment and ailment.failing and ailment.down else "loading"
        if self._residency is None:
            return ModelStatus(ready, "loaded" if ready else lost, failure)
        stage = self._residency.stage(model_id)
        word = lost if stage is Stage.READY and not ready else stage.word
        return ModelStatus(ready and stage is Stage.READY, word, self._residency.failure(model_id) or failure)

    def model_ready(self, model: Model) -> bool:
        """Whether Triton last said that every input of this model is ready."""
        return all(map(self._readiness.ready, model.triton_models))

    # Encode

    async def encode(
        self, model_id: str, model: Model, items: Sequence[Item], call: ResolvedCall, *, spend: Spend | None = None
    ) -> Encoded:
        """Every item's outputs. Raises `WireError` with the contract's status and code, and what `spend` raises."""
        clock = Clock()
        with (
            held(self.catalogue) as catalogue,
            self._admitted(served := catalogue.served(model_id, call.options), catalogue, items, len(items)),
        ):
            groups = served.by_modality(items, are_queries=call.is_query)
            unread = unread_texts(served.readers, groups, items)
            beside = await self._threads.run(unread.work, unread.count) if unread.counted else 0
            if spend is not None and beside:
                spend(beside)
            parts = [
                self._encode_part(served, name, items, numbers, call, clock, spend) for name, numbers in groups.items()
            ]
            done = await together(parts) if len(parts) > 1 else [await parts[0]]
            self.metrics.truncated.labels(model_id).inc(sum(part.truncated for part in done))
        outputs: list[ItemOutputs] = [ItemOutputs()] * len(items)
        for part in done:
            for number, found in zip(part.numbers, part.outputs, strict=True):
                outputs[number] = ItemOutputs(items[number].id, found.values)
        read = [part.tokens for part in done if part.tokens is not None]
        tokens = unread.total(sum(read) if read else None, beside)
        usage = None if tokens is None else Usage(tokens, served.billed_images(items))
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
    ) -> EncodedPart:
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
        outcome = await self._submitter.submit(served, modality, rows, names, "encoding", of_rows)
        clock.computed(outcome)
        tensors = [dict(zip(names, arrays, strict=True)) for arrays in outcome.results]
        read = partial(served.outputs.read, tensors, rows, counts, call)
        # Dense vectors are views; anything else is worth another thread.
        outputs = read() if call.adapter_outputs == ("dense",) else await self._threads.run(len(rows) << 20, read)
        if spend is None:
            tokens = await counted()
        cut = {place for place, row in zip(of_rows, rows, strict=True) if row.cut}
        return EncodedPart(
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
        with contextlib.ExitStack() as stack:
            catalogue = stack.enter_context(held(self.catalogue))
            served = catalogue.served(model_id, call.options)
            head = served.heads.scored()
            names = tuple(dict.fromkeys(head.tensors(call, served.heads)))
            stack.enter_context(self._admitted(served, catalogue, items, len(items) + 1, served.images([query])))
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
            outcome = await self._submitter.submit(served, modality, rows, names, "scoring", places)
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
        part = self.settings.max_items
        with held(self.catalogue) as catalogue:
            served = catalogue.served(model_id, call.options)
            if isinstance(call, ResolvedCall):
                return await encode_tokens(self._threads, served, items, call, part=part)
            assert query is not None
            return await score_tokens(self._threads, served, query, items, call, part=part)

    async def cut(self, model_id: str, texts: Sequence[str], tokens: int) -> Sequence[str]:
        """The texts, none with more than `tokens` tokens of the model's; as they are if it reads fewer anyway."""
        with held(self.catalogue) as catalogue:
            return await cut_texts(self._threads, catalogue.models[model_id], texts, tokens)

    # What both share

    @contextlib.contextmanager
    def _admitted(
        self, served: ServedModel, catalogue: Catalogue, items: Sequence[Item], count: int, more_images: int = 0
    ) -> Iterator[None]:
        """A permit for `count` items and their images, and for more, taken before any work and given back on the way
        out.
        """
        with self._resident(catalogue, served.model_id):
            if not self.model_ready(served.model):
                raise refusal(served.model_id, ailment_of(served.model, catalogue.manifest, self._ailments()))
            with self._permits.taken(served.model_id, items, count, served.images(items) + more_images):
                yield

"""`TextCrossEncoder`: a score for a query with each document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from sie_triton_fastembed._batches import IN_FLIGHT, batches, in_order, requests, requests_in_flight
from sie_triton_fastembed._known import RERANKERS
from sie_triton_fastembed._remote import Remote
from sie_triton_fastembed._server import Output, Server
from sie_triton_fastembed.common.model_description import BaseModelDescription, ModelSource

if TYPE_CHECKING:
    from sie_sdk.types import ModelInfo

Pair = tuple[str, str]


class TextCrossEncoder(Remote):
    """Fastembed's `TextCrossEncoder` on a server; `Remote` says what the arguments mean.

    Fastembed's scores are the model's logits. A checkpoint whose configuration names a sigmoid, and one that names
    nothing, is served with the sigmoid: the order is the same, and the logit is `log(score / (1 - score))`.
    """

    output: ClassVar[Output] = "score"
    _custom: ClassVar[dict[str, BaseModelDescription]] = {}

    @classmethod
    def add_custom_model(
        cls,
        model: str,
        sources: ModelSource,
        model_file: str = "onnx/model.onnx",
        description: str = "",
        license: str = "",
        size_in_gb: float = 0.0,
        additional_files: list[str] | None = None,
    ) -> None:
        """Give a served reranker another name: the server must have it as `model` or as `sources.hf`.

        Raises `ValueError` for a name that is taken.
        """
        if model.lower() in {*RERANKERS, *cls._custom}:
            raise ValueError(f"Model {model} is already registered in TextCrossEncoder; register it under another name")
        cls._custom[model.lower()] = BaseModelDescription(
            model=model,
            sources=sources,
            model_file=model_file,
            description=description,
            license=license,
            size_in_GB=size_in_gb,
            additional_files=additional_files or [],
        )

    @classmethod
    def _described_models(cls) -> list[BaseModelDescription]:
        served = super()._described_models()
        names = {description.model.lower() for description in served}
        return [*served, *(custom for name, custom in cls._custom.items() if name not in names)]

    @classmethod
    def _description(cls, info: ModelInfo, server: Server) -> BaseModelDescription:
        return BaseModelDescription(**cls._common_fields(info, server))

    def rerank(self, query: str, documents: Iterable[str], batch_size: int = 64, **kwargs: Any) -> Iterable[float]:
        """The score of each document for the query, in the order of the documents. Reads them batch by batch."""
        for batch in batches(documents, batch_size):
            yield from self._scores(query, batch)

    def rerank_pairs(
        self,
        pairs: Iterable[Pair],
        batch_size: int = 64,
        parallel: int | None = None,
        **kwargs: Any,
    ) -> Iterable[float]:
        """The score of each pair, in order. Pairs of one batch that share a query share a request.

        `parallel` batches are in flight, as in `TextEmbedding.embed`; of one batch at most 8 requests are. A tuple is
        taken for a single pair.
        """
        given = [pairs] if isinstance(pairs, tuple) else pairs
        for scores in in_order(self._pair_scores, batches(given, batch_size), requests_in_flight(parallel)):
            yield from scores

    def token_count(self, pairs: Iterable[Pair], batch_size: int = 1024, **kwargs: Any) -> int:
        """The tokens of all pairs, special ones included, after cutting. The server runs the model to tell."""
        model = self._served()["name"]
        total = 0
        for batch in batches(pairs, batch_size):
            for query, places in _by_query(batch).items():
                for part in requests([batch[place][1] for place in places], len(query) * 4):
                    total += self._server.score(model, query, part, self._options)[1]
        return total

    def _names(self) -> Sequence[str]:
        custom = self._custom.get(self.model_name.lower())
        source = custom.sources.hf if custom else None
        return (self.model_name, source) if source else (self.model_name,)

    def _scores(self, query: str, documents: Sequence[str]) -> Iterator[float]:
        model = self._served()["name"]
        # Every pair has the query once more.
        for part in requests(documents, len(query) * 4):
            yield from self._server.score(model, query, part, self._options)[0]

    def _pair_scores(self, batch: list[Pair]) -> list[float]:
        by_query = _by_query(batch)
        self._served()

        def ask(query: str) -> list[float]:
            return list(self._scores(query, [batch[place][1] for place in by_query[query]]))

        found = chain.from_iterable(in_order(ask, by_query, min(IN_FLIGHT, len(by_query))))
        scores = dict(zip(chain.from_iterable(by_query.values()), found, strict=True))
        return [scores[place] for place in range(len(batch))]


def _by_query(batch: Sequence[Pair]) -> dict[str, list[int]]:
    """The places of the pairs of each query."""
    places: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(batch):
        places.setdefault(query, []).append(place)
    return places

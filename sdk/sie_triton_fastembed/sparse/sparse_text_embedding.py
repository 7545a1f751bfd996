"""`SparseTextEmbedding`: the weights of some tokens for each text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sie_triton_fastembed._remote import Remote
from sie_triton_fastembed._server import Output, Server
from sie_triton_fastembed.common.model_description import SparseModelDescription
from sie_triton_fastembed.sparse.sparse_embedding_base import SparseEmbedding

if TYPE_CHECKING:
    from sie_sdk.types import EncodeResult, ModelInfo


class SparseTextEmbedding(Remote):
    """Fastembed's `SparseTextEmbedding` on a server, for SPLADE and its relatives; `Remote` says what arguments mean.

    BM25, BM42 and miniCOIL have no counterpart: keep Fastembed's class for them.
    """

    output: ClassVar[Output] = "sparse"

    @classmethod
    def _description(cls, info: ModelInfo, server: Server) -> SparseModelDescription:
        return SparseModelDescription(
            **cls._common_fields(info, server), vocab_size=info.get("dims", {}).get("sparse"), requires_idf=None
        )

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **kwargs: Any,
    ) -> Iterable[SparseEmbedding]:
        """One `SparseEmbedding` for each text, in order; lazy, and `parallel` as in `TextEmbedding.embed`."""
        yield from self._encode(documents, batch_size, parallel, _read, output="sparse")

    def query_embed(self, query: str | Iterable[str], **kwargs: Any) -> Iterable[SparseEmbedding]:
        """The vectors of queries, which differ from `embed` for models that weigh queries by a table."""
        batch_size, parallel = kwargs.get("batch_size", 256), kwargs.get("parallel")
        yield from self._encode(query, batch_size, parallel, _read, output="sparse", is_query=True)

    def passage_embed(self, texts: Iterable[str], **kwargs: Any) -> Iterable[SparseEmbedding]:
        """The same as `embed`."""
        yield from self.embed(texts, **kwargs)

    def token_count(self, texts: str | Iterable[str], batch_size: int = 1024, **kwargs: Any) -> int:
        """The tokens of all texts, special ones included, after cutting. The server runs the model to tell."""
        return self._count(texts, batch_size, "sparse")


def _read(results: list[EncodeResult]) -> list[SparseEmbedding]:
    found = []
    for result in results:
        indices = np.array(result["sparse"]["indices"], dtype=np.int64)
        values = np.array(result["sparse"]["values"], dtype=np.float32)
        order = np.argsort(indices, kind="stable")
        found.append(SparseEmbedding(values=values[order], indices=indices[order]))
    return found

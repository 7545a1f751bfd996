"""`LateInteractionTextEmbedding`: one vector for each token of a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sie_triton_fastembed._remote import Remote
from sie_triton_fastembed._server import Output, Server
from sie_triton_fastembed._sizes import size_of
from sie_triton_fastembed.common.model_description import DenseModelDescription
from sie_triton_fastembed.common.types import NumpyArray

if TYPE_CHECKING:
    from sie_sdk.types import EncodeResult, ModelInfo


class LateInteractionTextEmbedding(Remote):
    """Fastembed's `LateInteractionTextEmbedding` on a server; `Remote` says what the arguments mean.

    Markers, the expansion of queries and which tokens of a document are left out are the bundle's.
    """

    output: ClassVar[Output] = "multivector"
    _embedding_size: int | None = None

    @classmethod
    def _description(cls, info: ModelInfo, server: Server) -> DenseModelDescription:
        return DenseModelDescription(**cls._common_fields(info, server), dim=info.get("dims", {}).get("multivector"))

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """Numbers in a token's vector of a model that the server of `SIE_BASE_URL` serves.

        Raises `ModelNotServedError`, which is a `ValueError`, and `ServerUnreachableError`.
        """
        server = Server()
        return size_of(server.find((model_name,), "multivector"), "multivector", server)

    @property
    def embedding_size(self) -> int:
        """Numbers in a token's vector of this model."""
        if self._embedding_size is None:
            self._embedding_size = size_of(self._served(), "multivector", self._server)
        return self._embedding_size

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **kwargs: Any,
    ) -> Iterable[NumpyArray]:
        """`[tokens, dim]` in float32 for each text, in order; lazy, and `parallel` as in `TextEmbedding.embed`."""
        yield from self._encode(documents, batch_size, parallel, _read, output="multivector")

    def query_embed(self, query: str | Iterable[str], **kwargs: Any) -> Iterable[NumpyArray]:
        """`[tokens, dim]` for each query. Of an iterator one query is read at a time, as Fastembed does."""
        batch_size = kwargs.get("batch_size", 256) if isinstance(query, str | list | tuple) else 1
        yield from self._encode(query, batch_size, kwargs.get("parallel"), _read, output="multivector", is_query=True)

    def passage_embed(self, texts: Iterable[str], **kwargs: Any) -> Iterable[NumpyArray]:
        """The same as `embed`."""
        yield from self.embed(texts, **kwargs)

    def token_count(
        self,
        texts: str | Iterable[str],
        batch_size: int = 1024,
        is_doc: bool = True,
        include_extension: bool = False,
        **kwargs: Any,
    ) -> int:
        """The tokens of all texts, special ones included, as the server counts them: it runs the model to tell.

        With `include_extension` a document has its marker besides, and a query as many as it has vectors.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        if include_extension and not is_doc:
            return sum(len(vectors) for vectors in self.query_embed(given, batch_size=batch_size))
        return self._count(given, batch_size, "multivector") + (len(given) if include_extension else 0)


def _read(results: list[EncodeResult]) -> list[NumpyArray]:
    return [np.array(result["multivector"], dtype=np.float32) for result in results]

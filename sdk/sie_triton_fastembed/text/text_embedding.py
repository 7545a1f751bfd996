"""`TextEmbedding`: one vector a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sie_triton_fastembed._arguments import refuse_task, warn
from sie_triton_fastembed._known import POSTPROCESSING, WITHOUT_COUNTERPART, Postprocessing
from sie_triton_fastembed._remote import Remote
from sie_triton_fastembed._server import TIMEOUT_S, Output, Server
from sie_triton_fastembed._sizes import size_of
from sie_triton_fastembed.common.model_description import DenseModelDescription, ModelSource, PoolingType
from sie_triton_fastembed.common.types import Device, NumpyArray, OnnxProvider

if TYPE_CHECKING:
    from sie_sdk.types import EncodeResult, ModelInfo

_UNIT = 1e-3
"""How far a length may be from 1 and still be 1: float16 leaves 5e-4."""


@dataclass(frozen=True, slots=True)
class _Custom:
    """A custom model as it was registered."""

    description: DenseModelDescription
    postprocessing: Postprocessing


class TextEmbedding(Remote):
    """Fastembed's `TextEmbedding` on a server: the same vectors of the same checkpoint, float32, of shape `[dim]`.

    `Remote` says what the arguments mean. `embed`, `query_embed` and `passage_embed` add no prefix, as in Fastembed:
    the bundle's templates are left out. For the models of Fastembed's list, pooling and normalisation are Fastembed's
    where the bundle's adapter lets a request choose.
    """

    output: ClassVar[Output] = "dense"
    _custom: ClassVar[dict[str, _Custom]] = {}

    def __init__(
        self,
        model_name: str = "BAAI/bge-small-en-v1.5",
        cache_dir: str | None = None,
        threads: int | None = None,
        providers: Sequence[OnnxProvider] | None = None,
        cuda: bool | Device = Device.AUTO,
        device_ids: list[int] | None = None,
        lazy_load: bool = False,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        wait_for_server: bool = False,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._registered = self._custom.get(model_name.lower())
        found = self._registered.postprocessing if self._registered else POSTPROCESSING.get(model_name.lower())
        self._postprocessing = found
        self._embedding_size: int | None = None
        super().__init__(
            model_name,
            cache_dir,
            threads,
            providers,
            cuda,
            device_ids,
            lazy_load,
            base_url=base_url,
            api_key=api_key,
            timeout_s=timeout_s,
            wait_for_server=wait_for_server,
            options=options,
            **kwargs,
        )

    @classmethod
    def add_custom_model(
        cls,
        model: str,
        pooling: PoolingType,
        normalization: bool,
        sources: ModelSource,
        dim: int,
        model_file: str = "onnx/model.onnx",
        description: str = "",
        license: str = "",
        size_in_gb: float = 0.0,
        additional_files: list[str] | None = None,
        output_name: str | None = None,
    ) -> None:
        """Say how a model that Fastembed does not list is pooled and normalised.

        The server must serve it, as `model` or as `sources.hf`; its weights are the server's. `pooling` is asked for
        where it is CLS or MEAN; with the others the bundle decides. Raises `ValueError` for a name that is taken.
        """
        known = {*POSTPROCESSING, *WITHOUT_COUNTERPART, *cls._custom}
        if model.lower() in known:
            raise ValueError(f"Model {model} is already registered in TextEmbedding; register it under another name")
        words = {PoolingType.CLS: "cls", PoolingType.MEAN: "mean"}
        chosen: Any = words.get(PoolingType(pooling))
        described = DenseModelDescription(
            model=model,
            sources=sources,
            model_file=model_file,
            description=description,
            license=license,
            size_in_GB=size_in_gb,
            additional_files=additional_files or [],
            dim=dim,
        )
        cls._custom[model.lower()] = _Custom(described, Postprocessing(chosen, normalization))

    @classmethod
    def _described_models(cls) -> list[DenseModelDescription]:
        served = super()._described_models()
        names = {description.model.lower() for description in served}
        return [*served, *(c.description for name, c in cls._custom.items() if name not in names)]

    @classmethod
    def _description(cls, info: ModelInfo, server: Server) -> DenseModelDescription:
        return DenseModelDescription(**cls._common_fields(info, server), dim=info.get("dims", {}).get("dense"))

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """Numbers in a vector of a model that the server of `SIE_BASE_URL` serves, or of a custom model.

        Raises `ModelNotServedError`, which is a `ValueError`, and `ServerUnreachableError`.
        """
        if custom := cls._custom.get(model_name.lower()):
            assert custom.description.dim is not None, "`add_custom_model` asks for it"
            return custom.description.dim
        server = Server()
        return size_of(server.find((model_name,), "dense"), "dense", server)

    @property
    def embedding_size(self) -> int:
        """Numbers in a vector of this model."""
        if self._embedding_size is None:
            self._embedding_size = size_of(self._served(), "dense", self._server)
        return self._embedding_size

    def embed(
        self,
        documents: str | Iterable[str],
        batch_size: int = 256,
        parallel: int | None = None,
        **kwargs: Any,
    ) -> Iterable[NumpyArray]:
        """One vector `[dim]` in float32 for each text, in order.

        Reads `documents` batch by batch, and only when a vector is taken. `parallel` batches are in flight at once, 8
        where it is 0 and one where it is None; no process is started. Other keywords have no effect.
        """
        refuse_task(kwargs)
        yield from self._encode(documents, batch_size, parallel, self._read, output="dense")

    def query_embed(self, query: str | Iterable[str], **kwargs: Any) -> Iterable[NumpyArray]:
        """The same as `embed`: Fastembed adds no prefix to queries."""
        yield from self.embed(query, **kwargs)

    def passage_embed(self, texts: Iterable[str], **kwargs: Any) -> Iterable[NumpyArray]:
        """The same as `embed`: Fastembed adds no prefix to passages."""
        yield from self.embed(texts, **kwargs)

    def token_count(self, texts: str | Iterable[str], batch_size: int = 1024, **kwargs: Any) -> int:
        """The tokens of all texts, special ones included, after cutting. The server runs the model to tell."""
        return self._count(texts, batch_size, "dense")

    def _names(self) -> Sequence[str]:
        source = self._registered.description.sources.hf if self._registered else None
        return (self.model_name, source) if source else (self.model_name,)

    def _served(self) -> ModelInfo:
        info = super()._served()
        wanted = self._registered.description.dim if self._registered else None
        served = info.get("dims", {}).get("dense")
        if wanted is not None and served is not None and wanted != served:
            raise ValueError(
                f"`{self.model_name}` was registered with {wanted} dims, and `{info['name']}` at "
                f"{self._server.base_url} has {served}: register it with dim={served}, or serve another checkpoint"
            )
        return info

    def _call_options(self) -> Mapping[str, Any]:
        how = self._postprocessing
        if how is None:
            return self._options
        pooling = {} if how.pooling is None else {"pooling": how.pooling}
        return {**pooling, "normalize": how.normalize, **self._options}

    def _read(self, results: list[EncodeResult]) -> list[NumpyArray]:
        vectors = [np.array(result["dense"], dtype=np.float32) for result in results]
        wanted = self._options.get(
            "normalize", None if self._postprocessing is None else self._postprocessing.normalize
        )
        if wanted is None or not vectors:
            return vectors
        lengths = np.linalg.norm(np.stack(vectors), axis=1)
        if wanted:
            # Fastembed's own arithmetic, for an adapter that does not let a request choose.
            return [
                v if abs(n - 1) < _UNIT else v / max(n, np.float32(1e-12))
                for v, n in zip(vectors, lengths, strict=True)
            ]
        if len(lengths) > 1 and np.all(np.abs(lengths - 1) < _UNIT):
            warn(
                f"`{self.model_name}` has vectors of length 1 at {self._server.base_url}, and Fastembed's are longer: "
                "the direction is the same; for the same length, serve it with `normalize: false` in its bundle"
            )
        return vectors

"""What the classes share: Fastembed's constructor, the model behind its name, calls in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from sie_triton_fastembed._arguments import check_arguments
from sie_triton_fastembed._batches import batches, in_order, requests, requests_in_flight
from sie_triton_fastembed._server import TIMEOUT_S, Output, Server, fits
from sie_triton_fastembed.common.model_description import BaseModelDescription, ModelSource
from sie_triton_fastembed.common.types import Device, OnnxProvider

if TYPE_CHECKING:
    from sie_sdk.types import EncodeResult, ModelInfo, OutputType

T = TypeVar("T")


class Remote:
    """A model of a server, under the constructor of Fastembed's classes.

    Arguments that Fastembed has: `model_name`, in any case; `lazy_load`, to ask for the model at the first call instead
    of here; the rest is accepted, with a `UserWarning` where somebody would expect an effect. Arguments of ours, by
    keyword:

    * `base_url`: where the server is; otherwise `SIE_BASE_URL`, otherwise `http://localhost:8080`.
    * `api_key`: otherwise `SIE_API_KEY`, which goes to the origin of `SIE_BASE_URL` only.
    * `timeout_s`: for one request in seconds (900).
    * `wait_for_server`: wait so long for a server that is restarted, instead of failing at once (False).
    * `options`: the contract's options for every request, for example `{"doc_template": "passage: {text}"}`.

    Raises `ServerUnreachableError` and `ModelNotServedError`.
    """

    output: ClassVar[Output]
    sees: ClassVar[bool] = False

    def __init__(
        self,
        model_name: str,
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
        check_arguments(providers, cuda, device_ids, kwargs)
        self.model_name = model_name
        self.cache_dir = cache_dir
        self.threads = threads
        self._server = Server(base_url, api_key, timeout_s, wait_for_server)
        self._options = dict(options or {})
        self._info: ModelInfo | None = None
        if not lazy_load:
            self._served()

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """What the server of `SIE_BASE_URL` serves for this class, and every custom model, in Fastembed's form.

        Raises `ServerUnreachableError`.
        """
        return [asdict(model) for model in cls._described_models()]

    @classmethod
    def add_custom_model(cls, *args: Any, **kwargs: Any) -> None:
        """Raises `NotImplementedError`, as in Fastembed, where a class has no custom models."""
        raise NotImplementedError(f"{cls.__name__} has no custom models: serve the model under the name that you want")

    @classmethod
    def _described_models(cls) -> list[Any]:
        server = Server()
        return [
            cls._description(info, server)
            for info in server.models()
            if cls.output in info["outputs"] and fits(info, cls.sees)
        ]

    @classmethod
    def _description(cls, info: ModelInfo, server: Server) -> BaseModelDescription:
        raise NotImplementedError

    @staticmethod
    def _common_fields(info: ModelInfo, server: Server) -> dict[str, Any]:
        return {
            "model": info["name"],
            "sources": ModelSource(url=server.base_url),
            "model_file": "",
            "description": f"served at {server.base_url}",
            "license": "",
            "size_in_GB": 0.0,
        }

    def _names(self) -> Sequence[str]:
        """The names under which the server may have it, the best first."""
        return (self.model_name,)

    def _served(self) -> ModelInfo:
        if self._info is None:
            self._info = self._server.find(self._names(), self.output, sees=self.sees)
        return self._info

    def _call_options(self) -> Mapping[str, Any]:
        return self._options

    def _encode(
        self,
        documents: str | Iterable[str],
        batch_size: int,
        parallel: int | None,
        read: Callable[[list[EncodeResult]], list[T]],
        *,
        output: OutputType,
        is_query: bool = False,
    ) -> Iterator[T]:
        """One value a text, in order; `parallel` batches at most are asked for and not yet taken."""
        limit = requests_in_flight(parallel)
        model, options = self._served()["name"], self._call_options()

        def embed(batch: list[str]) -> list[T]:
            encode = self._server.encode
            parts = [encode(model, p, output, options=options, is_query=is_query) for p in requests(batch)]
            return [value for part in parts for value in read(part)]

        texts = [documents] if isinstance(documents, str) else documents
        for values in in_order(embed, batches(texts, batch_size), limit):
            yield from values

    def _count(self, texts: str | Iterable[str], batch_size: int, output: OutputType, *, is_query: bool = False) -> int:
        """The tokens of all texts, special ones included, after cutting. The server runs the model to tell."""
        model, options = self._served()["name"], self._call_options()
        given = [texts] if isinstance(texts, str) else texts
        return sum(
            self._server.tokens(model, part, output, options=options, is_query=is_query)
            for batch in batches(given, batch_size)
            for part in requests(batch)
        )

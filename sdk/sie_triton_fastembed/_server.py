"""The server behind the classes: its address, its models under Fastembed's names, and errors that say what to do."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from sie_sdk import SIEClient, SIEConnectionError

from sie_triton_fastembed._known import ALIASES, WITHOUT_COUNTERPART
from sie_triton_fastembed._tokens import token_count
from sie_triton_fastembed.errors import ModelNotServedError, ServerUnreachableError

if TYPE_CHECKING:
    from sie_sdk.types import EncodeResult, Item, ModelInfo, OutputType

BASE_URL_ENV = "SIE_BASE_URL"
DEFAULT_BASE_URL = "http://localhost:8080"
TIMEOUT_S = 900.0
"""For one request in seconds. A batch of long texts on a CPU takes minutes, and Fastembed has no limit at all."""

Output = Literal["dense", "sparse", "multivector", "score"]
CLASSES: Mapping[Output, str] = {
    "dense": "TextEmbedding",
    "sparse": "SparseTextEmbedding",
    "multivector": "LateInteractionTextEmbedding",
    "score": "TextCrossEncoder",
}

BARE: Mapping[str, Any] = {"query_template": "{text}", "doc_template": "{text}", "default_instruction": None}
"""Options that leave a text as it is. Fastembed adds no prefix, whatever the bundle or the checkpoint would add."""


class Server:
    """One server, for any number of threads and processes. Pickled as its arguments.

    `base_url` is otherwise the variable `SIE_BASE_URL`, otherwise `http://localhost:8080`. `api_key` is otherwise
    `SIE_API_KEY`, which goes to the origin of `SIE_BASE_URL` only. `timeout_s` limits one request; with
    `wait_for_server` it is also how long to wait for a server that is restarted.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        wait_for_server: bool = False,
    ) -> None:
        self._given = (base_url, api_key, timeout_s, wait_for_server)
        self._timeout_s = timeout_s
        self._waiting: dict[str, Any] = {"wait_for_capacity": wait_for_server, "provision_timeout_s": timeout_s}
        at = base_url or os.environ.get(BASE_URL_ENV, "").strip() or DEFAULT_BASE_URL
        self._client = SIEClient(at, api_key=api_key, read_timeout_s=timeout_s)
        self._api_key = api_key
        weakref.finalize(self, _close, self._client)

    def __reduce__(self) -> tuple[Any, ...]:
        return Server, self._given

    @property
    def base_url(self) -> str:
        """Its address, without a slash at its end."""
        return self._client.base_url

    def models(self) -> list[ModelInfo]:
        """Every id that it serves. Raises `ServerUnreachableError`."""
        with self._explained("ID"):
            return self._client.list_models()

    def find(self, names: Sequence[str], output: Output, *, sees: bool = False) -> ModelInfo:
        """The first of the names that is served, whatever its case, with this output, and of images if it `sees`.

        Raises `ModelNotServedError` that lists what is served, and `ServerUnreachableError`.
        """
        served = self.models()
        by_name = {alias.lower(): info for info in served for alias in (*info.get("aliases", ()), info["name"])}
        for name in names:
            info = by_name.get(name.lower()) or by_name.get(ALIASES.get(name.lower(), "").lower())
            if info is not None and output in info["outputs"] and fits(info, sees):
                return info
            if info is not None and output in info["outputs"]:
                raise ModelNotServedError(
                    f"`{info['name']}` reads {' and '.join(info['inputs'])} at {self.base_url}, and no "
                    f"{'images: use TextEmbedding' if sees else 'text: use ImageEmbedding'}, or serve another model"
                )
            if info is not None:
                fitting = " or ".join(CLASSES[o] for o in CLASSES if o in info["outputs"])
                raise ModelNotServedError(
                    f"`{info['name']}` gives {', '.join(info['outputs'])} and no {output} at {self.base_url}: "
                    f"use {fitting}, or serve a model for {CLASSES[output]}"
                )
        raise ModelNotServedError(
            self._not_served(
                names[0],
                [i["name"] for i in served if output in i["outputs"] and fits(i, sees)],
                "ImageEmbedding" if sees else CLASSES[output],
            )
        )

    def _not_served(self, name: str, fitting: Sequence[str], kind: str) -> str:
        known = {other.lower(): other for other in fitting}
        near = [known[found] for found in get_close_matches(name.lower(), known, n=3, cutoff=0.6)]
        listed = ", ".join(f"`{other}`" for other in fitting[:20]) or "no model"
        more = f" and {len(fitting) - 20} more" if len(fitting) > 20 else ""
        message = f"`{name}` is not served at {self.base_url}, which has {listed}{more} for {kind}."
        if near:
            message += f" Did you mean {' or '.join(f'`{other}`' for other in near)}?"
        if reason := WITHOUT_COUNTERPART.get(name.lower()):
            return f"{message} It cannot be: {reason}."
        return f"{message} To serve it: `sie-triton up -m {ALIASES.get(name.lower(), name)}`."

    def encode(
        self, model: str, texts: Sequence[str], output: OutputType, *, options: Mapping[str, Any], is_query: bool
    ) -> list[EncodeResult]:
        """One result a text, in order. Raises `ServerUnreachableError`, and what `SIEClient.encode` raises."""
        items: list[Item] = [{"text": text} for text in texts]
        bare: dict[str, Any] = {} if "instruction" in options else {"instruction": ""}
        return self.encode_items(model, items, output, options={**BARE, **options}, is_query=is_query or None, **bare)

    def encode_items(
        self, model: str, items: Sequence[Any], output: OutputType, *, options: Mapping[str, Any], **more: Any
    ) -> list[EncodeResult]:
        """One result an item, in order. Raises as `encode` does."""
        with self._explained(model):
            return self._client.encode(
                model,
                list(items),
                output_types=[output],
                output_dtype="float32",
                options=dict(options) or None,
                **more,
                **self._waiting,
            )

    def score(
        self, model: str, query: str, documents: Sequence[str], options: Mapping[str, Any]
    ) -> tuple[list[float], int]:
        """The score of each document, in their order, and the tokens of all pairs. Raises as `encode` does."""
        items: list[Item] = [{"id": str(index), "text": text} for index, text in enumerate(documents)]
        with self._explained(model):
            result = self._client.score(model, {"text": query}, items, options=dict(options) or None, **self._waiting)
        scores = {entry["item_id"]: float(entry["score"]) for entry in result["scores"]}
        return [scores[str(index)] for index in range(len(documents))], result.get("usage", {"input_tokens": 0})[
            "input_tokens"
        ]

    def tokens(
        self, model: str, texts: Sequence[str], output: OutputType, *, options: Mapping[str, Any], is_query: bool
    ) -> int:
        """How many tokens the model reads of these texts, special ones included. Raises as `encode` does."""
        params = {
            "output_types": [output],
            "output_dtype": "binary",
            "instruction": "",
            "options": {**BARE, **options, "is_query": is_query},
        }
        with self._explained(model):
            return token_count(self.base_url, self._api_key, model, texts, params, self._timeout_s)

    @contextmanager
    def _explained(self, model: str) -> Iterator[None]:
        try:
            yield
        except SIEConnectionError as error:
            raise ServerUnreachableError(
                f"the server at {self.base_url} cannot be asked: {error}. Start one with `sie-triton up -m {model}`, "
                f"or say where it is: `base_url=...` or the variable {BASE_URL_ENV}"
            ) from error


def fits(info: ModelInfo, sees: bool) -> bool:
    """Whether a model reads what a class sends: images, or texts."""
    return ("image" if sees else "text") in info.get("inputs", ["text"])


def _close(client: SIEClient) -> None:
    client.close()

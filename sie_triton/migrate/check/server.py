"""A running server, asked over SIE's HTTP contract."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sie_triton.migrate.http import RefusedAnswer, Unreachable, ask
from sie_triton.migrate.stores import fail

Vectors = npt.NDArray[np.float32]
"""`[texts, dims]`"""
_MOST_ITEMS = 32
_MOST_BYTES = 1_000_000


class EncodingServer:
    """One model of one server. `options` go with every request and stand below those of a single one.

    What it said of a text under the same options is not asked again: much of what a check tries is a text as before.
    """

    def __init__(self, url: str, model: str, options: Mapping[str, Any] | None = None) -> None:
        """Raises `DiagnosticError` (`SIE907`) if it does not answer, or does not serve dense vectors of the model."""
        self.url = url.rstrip("/")
        self.model = model
        self.options = dict(options or {})
        self._vectors: dict[tuple[str, str], Vectors] = {}
        self._tokens: dict[tuple[str, str], int] = {}
        info = self._ask(f"/v1/models/{model}")
        if "dense" not in info.get("outputs", ()):
            given = ", ".join(info.get("outputs", ())) or "nothing"
            raise fail("SIE907", f"`{model}` gives {given}; only dense vectors are checked", "name another with `-m`")
        self.dims: int | None = info.get("dims", {}).get("dense")
        self.limit: int | None = info.get("max_sequence_length")

    def encode(self, texts: Sequence[str], **options: object) -> Vectors:
        """The dense vectors of texts, in their order; `options` are those of `params.options`."""
        params = {**self.options, **options}
        told = _told(params)
        unknown = [text for text in dict.fromkeys(texts) if (told, text) not in self._vectors]
        for part in _parts(unknown):
            for text, item in zip(part, self._answer(part, params)["items"], strict=True):
                self._vectors[told, text] = _row(item)
        return np.asarray([self._vectors[told, text] for text in texts], np.float32).reshape(len(texts), -1)

    def tokens(self, text: str) -> int:
        """How many tokens a text has with the special ones, as the server counts them: perhaps after cutting."""
        key = _told(self.options), text
        if key not in self._tokens:
            answer = self._answer([text], self.options)
            self._tokens[key] = int(answer["usage"]["input_tokens"])
            self._vectors.setdefault(key, _row(answer["items"][0]))
        return self._tokens[key]

    def _answer(self, texts: Sequence[str], options: Mapping[str, object]) -> Any:
        params = {"output_types": ["dense"], "options": dict(options)}
        return self._ask(f"/v1/encode/{self.model}", {"items": [{"text": text} for text in texts], "params": params})

    def _ask(self, path: str, body: object = None) -> Any:
        try:
            return ask(f"{self.url}{path}", body)
        except RefusedAnswer as error:
            raise fail(
                "SIE907", f"{self.url}{path} answers {error}", "check `-m`; `GET /v1/models` lists all"
            ) from None
        except Unreachable as error:
            hint = "start it with `sie-triton serve`, or name it with `--url`"
            raise fail("SIE907", f"{self.url} cannot be reached: {error}", hint) from None


def _row(item: Any) -> Vectors:
    return np.asarray(item["dense"]["values"], np.float32)


def _told(options: Mapping[str, object]) -> str:
    return json.dumps(options, sort_keys=True)


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Texts in parts that one request may hold."""
    start = size = 0
    for place, text in enumerate(texts):
        length = len(text.encode(errors="replace"))
        if place > start and (place - start >= _MOST_ITEMS or size + length > _MOST_BYTES):
            yield texts[start:place]
            start, size = place, 0
        size += length
    if start < len(texts):
        yield texts[start:]

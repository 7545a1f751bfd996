"""A running server, asked over SIE's HTTP contract."""

from __future__ import annotations

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
    """One model of one server. `options` go with every request and stand below those of a single one."""

    def __init__(self, url: str, model: str, options: Mapping[str, Any] | None = None) -> None:
        """Raises `DiagnosticError` (`SIE907`) if it does not answer, or does not serve dense vectors of the model."""
        self.url = url.rstrip("/")
        self.model = model
        self.options = dict(options or {})
        info = self._ask(f"/v1/models/{model}")
        if "dense" not in info.get("outputs", ()):
            given = ", ".join(info.get("outputs", ())) or "nothing"
            raise fail("SIE907", f"`{model}` gives {given}; only dense vectors are checked", "name another with `-m`")
        self.dims: int | None = info.get("dims", {}).get("dense")
        self.limit: int | None = info.get("max_sequence_length")

    def encode(self, texts: Sequence[str], **options: object) -> Vectors:
        """The dense vectors of texts, in their order; `options` are those of `params.options`."""
        rows = [row for part in _parts(texts) for row in self._encode(part, options)]
        return np.asarray(rows, np.float32).reshape(len(texts), -1)

    def tokens(self, text: str) -> int:
        """How many tokens a text has with the special ones, as the server counts them: perhaps after cutting."""
        return int(self._answer([text], {})["usage"]["input_tokens"])

    def _encode(self, texts: Sequence[str], options: Mapping[str, object]) -> list[list[float]]:
        return [item["dense"]["values"] for item in self._answer(texts, options)["items"]]

    def _answer(self, texts: Sequence[str], options: Mapping[str, object]) -> Any:
        params = {"output_types": ["dense"], "options": {**self.options, **options}}
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

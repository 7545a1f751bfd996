"""Qdrant through its REST API, which every version of the server speaks. Needs no client."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from sie_triton.diagnostics import DiagnosticError
from sie_triton.migrate.http import RefusedAnswer, Unreachable, ask
from sie_triton.migrate.stores import (
    TEXT_FIELDS,
    Metric,
    Stored,
    as_vector,
    chosen,
    fail,
    left_out,
    pages,
    pick,
    text_at,
    text_fields,
)

METRICS: Mapping[str, Metric] = {"cosine": "cosine", "dot": "dot", "euclid": "euclid", "manhattan": "euclid"}
_IDS = 5000
_POINTS = 64
_MOST_FOR_NAMES = 20


class QdrantStore:
    """One collection and one of its dense vectors. `QDRANT_API_KEY` is sent where it is set."""

    def __init__(
        self, url: str, collection: str, *, vector: str | None, text_field: str | None, model: str, dims: int | None
    ) -> None:
        """`dims` and `model` decide between several vectors where `vector` is None.

        Raises `DiagnosticError`: `SIE903` if it cannot be read, `SIE904` and `SIE905` for names.
        """
        self._url = url.rstrip("/")
        self._path = f"/collections/{quote(collection, safe='')}"
        self.notes: list[str] = []
        spaces = self._spaces(collection)
        self._vector = choose_vector(vector, spaces, model, dims)
        space = spaces[self._vector]
        self._others = [name for name in spaces if name != self._vector and spaces[name]["size"] == space["size"]]
        self.metric: Metric = METRICS.get(str(space.get("distance")).casefold(), "unknown")
        self.normalizes = self.metric == "cosine"
        self.name = f"Qdrant collection `{collection}`" + (f", vector `{self._vector}`" if self._vector else "")
        if len(spaces) > 1 and vector is None:
            self.notes.append(f"of {', '.join(f'`{name}`' for name in spaces)}, the vector `{self._vector}` was taken")
        if space.get("datatype") not in (None, "float32"):
            self.notes.append(f"the collection keeps vectors as {space['datatype']}")
        self._text_field = text_field

    def _ask(self, path: str, body: object = None) -> Any:
        key = os.environ.get("QDRANT_API_KEY")
        try:
            return ask(f"{self._url}{path}", body, headers={"api-key": key} if key else None)["result"]
        except RefusedAnswer as error:
            if error.status == 404:
                raise self._no_collection() from None
            hint = "set `QDRANT_API_KEY`" if error.status in (401, 403) else "check `--qdrant`"
            raise fail("SIE903", f"Qdrant at {self._url} answers {error}", hint) from None
        except (Unreachable, KeyError, TypeError) as error:
            raise fail("SIE903", f"Qdrant at {self._url} cannot be read: {error}", "check `--qdrant`") from None

    def _no_collection(self) -> DiagnosticError:
        try:
            listed = [entry["name"] for entry in ask(f"{self._url}/collections")["result"]["collections"]]
        except (RefusedAnswer, Unreachable, KeyError, TypeError):
            listed = []
        names = ", ".join(f"`{name}`" for name in listed) or "none"
        return fail("SIE904", f"there is no such collection; there are: {names}", "name one with `--collection`")

    def _spaces(self, collection: str) -> dict[str, dict[str, Any]]:
        """The dense vectors of the collection by their names; the unnamed one is ""."""
        return spaces_of(collection, self._ask(self._path)["config"]["params"])

    def _keys(self) -> Iterator[int | str]:
        offset = None
        while True:
            body = {"limit": _IDS, "offset": offset, "with_payload": False, "with_vector": False}
            page = self._ask(f"{self._path}/points/scroll", body)
            yield from (point["id"] for point in page["points"])
            offset = page.get("next_page_offset")
            if offset is None:
                return

    def sample(self, count: int, seed: int) -> list[Stored]:
        """Reads every id, a page at a time, and the points of the chosen ones."""
        keys = chosen(self._keys(), count, seed)
        names = [self._vector, *self._others] if self._vector else True
        points: list[Mapping[str, Any]] = []
        for page in pages(keys, _POINTS):
            body = {"ids": list(page), "with_payload": True, "with_vector": names}
            points += self._ask(f"{self._path}/points", body)
        seen = {name for point in points for name in text_fields(point.get("payload") or {})}
        if self._text_field is None:
            self._text_field = next((name for name in TEXT_FIELDS if name in seen), None)
        found = {point["id"]: stored for point in points if (stored := self._stored(point)) is not None}
        if keys and not found:
            listed = ", ".join(f"`{name}`" for name in sorted(seen)[:_MOST_FOR_NAMES]) or "none"
            raise fail("SIE904", f"no point has text and vector; texts are in: {listed}", "name it with `--text-field`")
        self.notes += left_out(len(keys), len(found))
        return [found[key] for key in keys if key in found]

    def _stored(self, point: Mapping[str, Any]) -> Stored | None:
        payload = point.get("payload") or {}
        text = text_at(payload, self._text_field) if self._text_field else None
        vectors = point.get("vector")
        named = vectors if isinstance(vectors, Mapping) else {"": vectors}
        vector = as_vector(named.get(self._vector))
        if text is None or vector is None:
            return None
        others = {name: other for name in self._others if (other := as_vector(named.get(name))) is not None}
        beside = {name: value for name, value in text_fields(payload).items() if name != self._text_field}
        return Stored(str(point["id"]), text, vector, beside, others)


def spaces_of(collection: str, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The dense vectors of a collection by their names, out of its settings; the unnamed one is "".

    Raises `DiagnosticError` (`SIE904`) where there is none.
    """
    vectors = config.get("vectors") or {}
    spaces = {"": vectors} if isinstance(vectors.get("size"), int) else dict(vectors)
    dense = {name: space for name, space in spaces.items() if not space.get("multivector_config")}
    if not dense:
        raise fail("SIE904", f"`{collection}` has no dense vector", "sparse and multi-vectors are not checked")
    return dense


def choose_vector(wanted: str | None, spaces: Mapping[str, Mapping[str, Any]], model: str, dims: int | None) -> str:
    """The vector that was named; else the only one, the one called after the model, or the only one of its size."""
    if wanted is not None or len(spaces) == 1:
        return pick("vector", wanted, list(spaces), (), "--vector")
    whole = _plain(model.partition(":")[0])
    base = _plain(model.partition(":")[0].rpartition("/")[2])
    called = [name for name in spaces if _plain(name) in (whole, base, f"fast-{base}")]
    fitting = [name for name in spaces if spaces[name].get("size") == dims]
    for found in (called, fitting):
        if len(found) == 1:
            return found[0]
    return pick("vector", None, list(spaces), (), "--vector")


def _plain(name: str) -> str:
    """Without what may not stand in the name of a vector: clients write a model's name in several ways."""
    return re.sub(r"[^a-z0-9.]+", "-", name.casefold())

"""A Chroma collection in a folder or behind a server, through the package `chromadb`.

Chroma's client writes to a folder that it opens, also when it only reads (seen with 1.5.9): a copy is opened.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sie_triton.migrate.stores import (
    Metric,
    Stored,
    as_vector,
    chosen,
    fail,
    left_out,
    missing_package,
    pages,
    text_fields,
)

_METRICS: Mapping[str, Metric] = {"cosine": "cosine", "ip": "dot", "l2": "euclid"}
_IDS = 5000
_POINTS = 64


class ChromaStore:
    """One collection; its documents are the texts."""

    normalizes = False

    def __init__(self, place: str, collection: str, *, metric: Metric = "unknown") -> None:
        """`place` is a folder or a URL.

        Raises `DiagnosticError`: `SIE902` without chromadb, `SIE903` if nothing can be read, `SIE904` for its name.
        """
        try:
            import chromadb
        except ImportError:
            raise missing_package("chromadb", "chromadb") from None
        self.name = f"Chroma collection `{collection}`"
        self.notes: list[str] = []
        # Removed with this object.
        self._copy = tempfile.TemporaryDirectory(prefix="sie-triton-chroma-", ignore_cleanup_errors=True)
        client = _client(chromadb, place, Path(self._copy.name) / "copy")
        try:
            self._collection = client.get_collection(collection, embedding_function=None)
        except Exception as error:  # its kinds differ between releases
            listed = _names(client)
            if listed is None:
                raise fail("SIE903", f"Chroma at `{place}` cannot be read: {error}", "check `--chroma`") from None
            names = ", ".join(f"`{name}`" for name in listed) or "none"
            hint = "name one with `--collection`"
            raise fail("SIE904", f"there is no collection `{collection}`; there are: {names}", hint) from None
        self.metric: Metric = metric if metric != "unknown" else _metric(self._collection)

    def _keys(self) -> Iterator[str]:
        offset = 0
        while ids := self._collection.get(limit=_IDS, offset=offset, include=[])["ids"]:
            yield from ids
            offset += len(ids)

    def sample(self, count: int, seed: int) -> list[Stored]:
        """Reads every id, a page at a time, and the documents of the chosen ones."""
        found: dict[str, Stored] = {}
        keys = chosen(self._keys(), count, seed)
        for page in pages(keys, _POINTS):
            answer = self._collection.get(ids=list(page), include=["embeddings", "documents", "metadatas"])
            columns = (answer["ids"], answer["documents"], answer["embeddings"], answer["metadatas"])
            for key, text, numbers, beside in zip(*columns, strict=True):
                vector = as_vector(numbers)
                if isinstance(text, str) and vector is not None:
                    found[key] = Stored(key, text, vector, text_fields(beside or {}))
        self.notes += left_out(len(keys), len(found))
        return [found[key] for key in keys if key in found]


def _client(chromadb: Any, place: str, copy: Path) -> Any:
    settings = chromadb.Settings(anonymized_telemetry=False)
    address = urlsplit(place)
    try:
        if address.scheme in ("http", "https"):
            port = address.port or (443 if address.scheme == "https" else 80)
            ssl = address.scheme == "https"
            return chromadb.HttpClient(host=address.hostname, port=port, ssl=ssl, settings=settings)
        if not (Path(place) / "chroma.sqlite3").is_file():
            raise fail("SIE903", f"`{place}` is no folder of Chroma", "name the folder that holds `chroma.sqlite3`")
        shutil.copytree(place, copy)
        return chromadb.PersistentClient(path=str(copy), settings=settings)
    except (ValueError, OSError, RuntimeError) as error:
        raise fail("SIE903", f"Chroma at `{place}` cannot be read: {error}", "check `--chroma`") from None


def _names(client: Any) -> list[str] | None:
    try:
        return [getattr(entry, "name", str(entry)) for entry in client.list_collections()]
    except Exception:  # whatever made it fail before
        return None


def _metric(collection: Any) -> Metric:
    said = (collection.metadata or {}).get("hnsw:space")
    configuration = getattr(collection, "configuration_json", None) or {}
    kinds = [said, *((configuration.get(kind) or {}).get("space") for kind in ("hnsw", "spann"))]
    return next((_METRICS[str(kind)] for kind in kinds if kind in _METRICS), "unknown")

"""A file of texts and vectors: JSONL with an object on each line, or an `.npz` of numpy."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sie_triton.migrate.stores import TEXT_FIELDS, Metric, Stored, as_vector, chosen, fail, pick, text_at, text_fields

VECTOR_FIELDS = ("vector", "embedding", "dense", "values")


class JsonLines:
    """A JSONL file. Lines are found again by their place in the file, so that only the sample is held."""

    normalizes = False

    def __init__(self, path: Path, *, vector: str | None, text_field: str | None, metric: Metric = "unknown") -> None:
        """Raises `DiagnosticError` (`SIE903`) if the file is not there."""
        if not path.is_file():
            raise fail("SIE903", f"`{path}` is not a file", "name a JSONL file or an `.npz` with `--file`")
        self.name = f"file `{path}`"
        self.metric = metric
        self.notes: list[str] = []
        self._path = path
        self._vector = vector
        self._text_field = text_field

    def _places(self) -> Iterator[tuple[int, int]]:
        """Number and place in bytes of every line that is not blank."""
        place = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, place
                place += len(line)

    def sample(self, count: int, seed: int) -> list[Stored]:
        """Raises `DiagnosticError`: `SIE903` for a line that is no JSON, `SIE904` for fields that are not there."""
        with self._path.open("rb") as file:
            found = []
            for number, place in chosen(self._places(), count, seed):
                file.seek(place)
                stored = self._stored(number, self._object(number, file.readline()))
                if stored is not None:
                    found.append(stored)
        return found

    def _object(self, number: int, line: bytes) -> Mapping[str, Any]:
        try:
            content = json.loads(line)
        except ValueError as error:
            raise fail("SIE903", f"{self._path}:{number} is no JSON: {error}", "mend or remove the line") from None
        if not isinstance(content, Mapping):
            raise fail("SIE903", f"{self._path}:{number} is no JSON object", 'write `{"text": …, "vector": […]}`')
        return content

    def _stored(self, number: int, content: Mapping[str, Any]) -> Stored | None:
        fields = text_fields(content)
        if self._text_field is None:
            self._text_field = pick("field of texts", None, list(fields), TEXT_FIELDS, "--text-field")
        if self._vector is None:
            lists = [name for name, value in content.items() if isinstance(value, list)]
            self._vector = pick("field of vectors", None, lists, VECTOR_FIELDS, "--vector")
        text = text_at(content, self._text_field)
        vector = as_vector(content.get(self._vector))
        if text is None or vector is None:
            return None
        beside = {name: value for name, value in fields.items() if name != self._text_field}
        return Stored(f"line {number}", text, vector, beside)


class NumpyFile:
    """An `.npz` with an array of texts and one of vectors, `[rows, dims]`. Arrays of objects would be unpickled."""

    normalizes = False

    def __init__(self, path: Path, *, vector: str | None, text_field: str | None, metric: Metric = "unknown") -> None:
        """Raises `DiagnosticError`: `SIE903` for a damaged file, `SIE906` for arrays of objects."""
        self.name = f"file `{path}`"
        self.metric = metric
        self.notes: list[str] = []
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names = list(arrays.files)
                plural = tuple(f"{name}s" for name in TEXT_FIELDS)
                text_name = pick("array of texts", text_field, names, (*plural, *TEXT_FIELDS), "--text-field")
                vectors = tuple(f"{name}s" for name in VECTOR_FIELDS)
                vector_name = pick("array of vectors", vector, names, (*vectors, *VECTOR_FIELDS), "--vector")
                self._texts, self._vectors = arrays[text_name], arrays[vector_name]
        except ValueError as error:
            if "pickle" not in str(error):
                raise fail("SIE903", f"`{path}` cannot be read: {error}", "save it with numpy's `savez`") from None
            hint = "save the texts as `numpy.array(texts)` of strings, or as JSONL"
            raise fail("SIE906", f"`{path}` holds Python objects, which only unpickling reads", hint) from None
        except (OSError, zipfile.BadZipFile) as error:
            raise fail("SIE903", f"`{path}` cannot be read: {error}", "save it with numpy's `savez`") from None
        if len(self._texts) != len(self._vectors):
            counts = f"{len(self._texts)} texts and {len(self._vectors)} vectors"
            raise fail("SIE903", f"`{path}` has {counts}", "save as many of one as of the other")

    def sample(self, count: int, seed: int) -> list[Stored]:
        """Rows by their numbers, from 0."""
        found = []
        for row in chosen(range(len(self._texts)), count, seed):
            vector = as_vector(self._vectors[row])
            if vector is not None:
                found.append(Stored(f"row {row}", str(self._texts[row]), vector))
        return found

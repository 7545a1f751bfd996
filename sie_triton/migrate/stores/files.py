"""A file of texts and vectors: JSONL with an object on each line, or an `.npz` of numpy."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sie_triton.migrate.stores import (
    TEXT_FIELDS,
    Metric,
    Stored,
    as_vector,
    chosen,
    fail,
    left_out,
    pick,
    text_at,
    text_fields,
)

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
            lines = []
            for number, place in chosen(self._places(), count, seed):
                file.seek(place)
                lines.append((number, self._object(number, file.readline())))
        if not lines:
            return []
        self._name_fields([content for _, content in lines])
        found = [stored for number, content in lines if (stored := self._stored(number, content)) is not None]
        self.notes += left_out(len(lines), len(found))
        return found

    def _object(self, number: int, line: bytes) -> Mapping[str, Any]:
        where = f"{self._path}:{number}"
        try:
            content = json.loads(line)
        except (UnicodeDecodeError, RecursionError) as error:
            raise fail("SIE903", f"{where} is no JSON: {error}", "name JSONL in UTF-8, or an `.npz`") from None
        except ValueError as error:
            raise fail("SIE903", f"{where} is no JSON: {error}", "mend or remove the line") from None
        if not isinstance(content, Mapping):
            raise fail("SIE903", f"{where} is no JSON object", 'write `{"text": …, "vector": […]}` on each line')
        return content

    def _name_fields(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Decide where texts and vectors are by all lines of the sample: some may have neither."""
        if self._text_field is None:
            names = dict.fromkeys(name for content in lines for name in text_fields(content))
            self._text_field = pick("field of texts", None, list(names), TEXT_FIELDS, "--text-field")
        if self._vector is None:
            lists = dict.fromkeys(k for content in lines for k, value in content.items() if isinstance(value, list))
            self._vector = pick("field of vectors", None, list(lists), VECTOR_FIELDS, "--vector")

    def _stored(self, number: int, content: Mapping[str, Any]) -> Stored | None:
        assert self._text_field is not None and self._vector is not None
        text = text_at(content, self._text_field)
        vector = as_vector(content.get(self._vector))
        if text is None or vector is None:
            return None
        beside = {name: value for name, value in text_fields(content).items() if name != self._text_field}
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
        if self._texts.dtype.kind == "S":
            self._texts = _decoded(self._texts, path)
        if self._texts.ndim != 1 or self._texts.dtype.kind != "U" or self._vectors.ndim != 2:
            shapes = f"`{text_name}` of {_kind(self._texts)} and `{vector_name}` of {_kind(self._vectors)}"
            raise fail("SIE903", f"`{path}` holds {shapes}", "save texts as `[rows]` and vectors as `[rows, dims]`")
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


def _decoded(texts: NDArray[Any], path: Path) -> NDArray[Any]:
    """Byte strings as texts. Raises `DiagnosticError` (`SIE903`) if they are not UTF-8."""
    try:
        return np.char.decode(texts, "utf-8")
    except UnicodeDecodeError as error:
        raise fail("SIE903", f"`{path}` holds texts that are not UTF-8: {error}", "save them as strings") from None


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"

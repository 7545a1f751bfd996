"""A LanceDB table, through the package `lancedb`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sie_triton.migrate.stores import (
    TEXT_FIELDS,
    Metric,
    Stored,
    as_vector,
    chosen,
    fail,
    left_out,
    missing_package,
    pages,
    pick,
)

_METRICS: Mapping[str, Metric] = {"cosine": "cosine", "dot": "dot", "l2": "euclid"}
_ROWS = 64


class LanceStore:
    """One table. The metric is that of the index on its column, if it has one."""

    normalizes = False

    def __init__(
        self, place: str, table: str, *, vector: str | None, text_field: str | None, metric: Metric = "unknown"
    ) -> None:
        """Raises `DiagnosticError`: `SIE902` without lancedb, `SIE903` if nothing can be read, else for the names."""
        try:
            import lancedb
        except ImportError:
            raise missing_package("lancedb", "lancedb") from None
        if "://" not in place and not Path(place).is_dir():
            raise fail("SIE903", f"`{place}` is no folder", "name the folder of the database with `--lancedb`")
        self.name = f"LanceDB table `{table}`"
        self.notes: list[str] = []
        try:
            self._table: Any = lancedb.connect(place).open_table(table)
        except Exception as error:  # its kinds differ between releases
            hint = "name the folder with `--lancedb` and the table with `--table`"
            raise fail("SIE903", f"the table `{table}` in `{place}` cannot be opened: {error}", hint) from None
        kinds = {column.name: str(column.type) for column in self._table.schema}
        vectors = [name for name, kind in kinds.items() if kind.startswith("fixed_size_list")]
        texts = [name for name, kind in kinds.items() if kind in ("string", "large_string")]
        self._vector = pick("vector column", vector, vectors, ("vector", "embedding"), "--vector-column")
        self._text = pick("text column", text_field, texts, TEXT_FIELDS, "--text-column")
        self._beside = [name for name in texts if name != self._text]
        self.metric: Metric = metric if metric != "unknown" else self._metric()

    def _metric(self) -> Metric:
        for index in self._table.list_indices():
            if self._vector in index.columns:
                statistics = self._table.index_stats(index.name)
                return _METRICS.get(str(getattr(statistics, "distance_type", None)), "unknown")
        return "unknown"

    def sample(self, count: int, seed: int) -> list[Stored]:
        """Rows by their place in the table, which is kept as long as nothing is written."""
        found = []
        columns = [self._text, self._vector, *self._beside]
        # In the order of the table, as the rows come back.
        rows = sorted(chosen(range(self._table.count_rows()), count, seed))
        for page in pages(rows, _ROWS):
            taken = self._table.take_offsets(list(page)).select(columns).to_list()
            for place, row in zip(page, taken, strict=True):
                vector = as_vector(row[self._vector])
                if isinstance(row[self._text], str) and vector is not None:
                    beside = {name: row[name] for name in self._beside if isinstance(row[name], str)}
                    found.append(Stored(f"row {place}", row[self._text], vector, beside))
        self.notes += left_out(len(rows), len(found))
        return found

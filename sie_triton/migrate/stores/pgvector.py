"""A PostgreSQL table with a vector column, through psycopg, in a transaction that can only read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sie_triton.migrate.stores import TEXT_FIELDS, Metric, Stored, as_vector, fail, missing_package, pick

_VECTORS = ("vector", "halfvec", "real[]", "double precision[]")
_TEXTS = ("text", "character varying")
_USUAL_VECTORS = ("embedding", "vector", "embeddings", "dense")
_METRICS: Mapping[str, Metric] = {"cosine_ops": "cosine", "ip_ops": "dot", "l2_ops": "euclid"}
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute a
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_OPERATORS = """
SELECT o.opcname FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey::int2[])
JOIN pg_opclass o ON o.oid = ANY(i.indclass::oid[])
WHERE i.indrelid = to_regclass(%s) AND a.attname = %s
"""
_KEYS = """
SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey::int2[])
WHERE i.indrelid = to_regclass(%s) AND i.indisprimary ORDER BY a.attnum
"""


class PgvectorStore:
    """One table. The metric is that of the index on its column, if it has one."""

    normalizes = False

    def __init__(
        self, dsn: str, table: str, *, vector: str | None, text_field: str | None, metric: Metric = "unknown"
    ) -> None:
        """Raises `DiagnosticError`: `SIE902` without psycopg, `SIE903`, `SIE904` and `SIE905` otherwise."""
        try:
            import psycopg
        except ImportError:
            raise missing_package("psycopg", "psycopg[binary]") from None
        self._psycopg: Any = psycopg
        self._table = table
        self.name = f"table `{table}`"
        self.notes: list[str] = []
        try:
            self._connection = psycopg.connect(dsn, connect_timeout=20)
            self._connection.read_only = True
            self._columns(vector, text_field)
            self.metric: Metric = metric if metric != "unknown" else self._metric()
        except psycopg.Error as error:
            raise fail("SIE903", f"PostgreSQL: {str(error).strip()}", "check `--pgvector` and `--table`") from None

    def _rows(self, query: Any, *values: object) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            return list(cursor.execute(query, values).fetchall())

    def _columns(self, vector: str | None, text_field: str | None) -> None:
        columns = dict(self._rows(_COLUMNS, self._table))
        if not columns:
            hint = "name it with `--table`, as SQL does: `schema.table`"
            raise fail("SIE904", f"there is no table `{self._table}`", hint)
        vectors = [name for name, kind in columns.items() if kind.rpartition(".")[2] in _VECTORS]
        texts = [name for name, kind in columns.items() if kind in _TEXTS]
        self._vector = pick("vector column", vector, vectors, _USUAL_VECTORS, "--vector-column")
        self._text = pick("text column", text_field, texts, TEXT_FIELDS, "--text-column")
        self._beside = [name for name in texts if name != self._text]
        self._keys = [name for (name,) in self._rows(_KEYS, self._table)]
        if columns[self._vector] == "halfvec":
            self.notes.append("the column keeps vectors in half precision (halfvec)")

    def _metric(self) -> Metric:
        for (name,) in self._rows(_OPERATORS, self._table, self._vector):
            for ending, metric in _METRICS.items():
                if name.endswith(ending):
                    return metric
        return "unknown"

    def sample(self, count: int, seed: int) -> list[Stored]:
        """PostgreSQL orders the keys by a hash with the seed, and sends the first `count` rows."""
        sql = self._psycopg.sql
        key = (
            sql.SQL(" || ':' || ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in self._keys)
            if self._keys
            else sql.SQL("ctid::text")
        )
        beside = sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier(name)) for name in self._beside)
        query = sql.SQL(
            "SELECT {key}, {text}, {vector}::text{beside} FROM {table} WHERE {text} IS NOT NULL"
            " AND {vector} IS NOT NULL ORDER BY md5({key} || %s), {key} LIMIT %s"
        ).format(
            key=key,
            text=sql.Identifier(self._text),
            vector=sql.Identifier(self._vector),
            beside=beside,
            table=sql.Identifier(*self._table.split(".")),
        )
        try:
            rows = self._rows(query, f":{seed}", count)
        except self._psycopg.Error as error:
            raise fail("SIE903", f"PostgreSQL: {str(error).strip()}", "check the rights on the table") from None
        found = []
        for name, text, numbers, *fields in rows:
            vector = as_vector(json.loads(numbers.translate(str.maketrans("{}", "[]"))))
            if vector is not None:
                beside_it = {k: v for k, v in zip(self._beside, fields, strict=True) if isinstance(v, str)}
                found.append(Stored(name, text, vector, beside_it))
        return found

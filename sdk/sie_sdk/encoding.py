"""Converts results to plain Python lists and dicts for vector databases.

Every function takes a dictionary or an object with attributes of the same names.
"""

from __future__ import annotations

from typing import Any

SparseVector = dict[str, list[Any]]
"""`{"indices": [int, …], "values": [float, …]}`"""


def dense_embedding(result: Any, *, strict: bool = True) -> list[float]:
    """The dense vector of an encode result as floats.

    Raises `ValueError` if the result has none; with `strict=False` returns an empty list instead.
    """
    dense = _field(result, "dense")
    if dense is None and strict:
        raise ValueError('Encode result missing dense embedding; ask for it with `output_types=["dense"]`')
    return _plain(dense)


def sparse_embedding(result: Any) -> SparseVector:
    """The sparse vector of an encode result; empty lists if it has none."""
    return normalize_sparse_vector(_field(result, "sparse"))


def sparse_embedding_dict(result: Any) -> dict[int, float]:
    """The sparse vector of an encode result as index to weight; empty if it has none."""
    sparse = sparse_embedding(result)
    return dict(zip(sparse["indices"], sparse["values"], strict=True))


def normalize_sparse_vector(sparse: Any) -> SparseVector:
    """The value of `result["sparse"]` with lists for arrays; empty lists if either half is absent."""
    indices, values = _field(sparse, "indices"), _field(sparse, "values")
    if indices is None or values is None:
        return {"indices": [], "values": []}
    return {"indices": _plain(indices), "values": _plain(values)}


def multivector_embedding(raw: Any) -> list[list[float]]:
    """The value of `result["multivector"]`, shape [tokens, token_dims], as a list per token."""
    if hasattr(raw, "tolist"):
        return list(raw.tolist())
    return [_plain(vector) for vector in raw]


def _field(source: Any, name: str) -> Any:
    return source.get(name) if isinstance(source, dict) else getattr(source, name, None)


def _plain(values: Any) -> list[Any]:
    if values is None:
        return []
    return list(values.tolist() if hasattr(values, "tolist") else values)

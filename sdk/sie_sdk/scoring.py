"""MaxSim, the late interaction of ColBERT (Khattab and Zaharia, 2020), on multivectors that you already hold.

The score of a document is the sum, over the query's tokens, of the greatest dot product with any token of the
document. Multivectors have the shape [tokens, token_dims]; float16 is widened, and everything is summed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def maxsim(query: NDArray[Any], documents: Sequence[NDArray[Any]] | NDArray[Any]) -> list[float]:
    """The score of each document, in order; one 2-D array counts as one document.

    Raises `ValueError` for anything that is not 2-D, has no tokens or is not as wide as the query.
    """
    if isinstance(documents, np.ndarray) and documents.ndim == 2:
        documents = [documents]
    query = _multivector(query, "query")
    return [_maxsim(query, _multivector(doc, f"documents[{i}]"), i) for i, doc in enumerate(documents)]


def maxsim_batch(queries: Sequence[NDArray[Any]], documents: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """The score of each pair, shape [queries, documents]; raises as `maxsim` does."""
    checked = [_multivector(query, f"queries[{index}]") for index, query in enumerate(queries)]
    scores = np.zeros((len(checked), len(documents)), dtype=np.float32)
    # Documents outside: one of them at a time is held as float32, and there are more of them than queries.
    for column, raw in enumerate(documents):
        document = _multivector(raw, f"documents[{column}]")
        for row, query in enumerate(checked):
            scores[row, column] = _maxsim(query, document, column)
    return scores


def _maxsim(query: NDArray[np.float32], document: NDArray[np.float32], index: int) -> float:
    if document.shape[1] != query.shape[1]:
        raise ValueError(
            f"dim mismatch: the query's vectors have {query.shape[1]} dims but those of documents[{index}] have "
            f"{document.shape[1]}; encode both sides with the same model"
        )
    return float((query @ document.T).max(axis=1).sum(dtype=np.float32))


def _multivector(raw: Any, name: str) -> NDArray[np.float32]:
    array = np.asarray(raw, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(
            f"{name} must be a 2-D array [tokens, dims], got shape {array.shape}; a single vector needs `vector[None]`"
        )
    if array.shape[0] == 0:
        raise ValueError(f"{name} has 0 tokens, so that MaxSim is undefined; leave it out")
    return array

"""Tables that weigh the tokens of queries in the model's place: OpenSearch's, and sentence-transformers'."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sie_triton.checkpoint.tensors import load_tensors
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where


def weights_by_id(path: Path) -> NDArray[np.float32]:
    """The weights of a `SparseStaticEmbedding`, `[words]`, float32 whatever they are stored in.

    Raises `DiagnosticError` (`SIE406`) for weights that no sparse vector of ours can have.
    """
    weights: NDArray[np.float32] = load_tensors(path)["weight"].astype(np.float32)
    reason = None
    if not np.isfinite(weights).all():
        reason = "some are not finite"
    elif (weights < 0).any():
        reason = f"{int((weights < 0).sum())} are below zero, and only positive weights leave in a sparse vector"
    elif not (weights > 0).any():
        reason = "all are zero"
    if reason:
        message = f"the token weights of queries cannot be served: {reason}"
        raise DiagnosticError([Diagnostic("SIE406", message, Where(path), "use a checkpoint with positive weights")])
    return weights


def first_weights(paths: Sequence[Path]) -> dict[str, float]:
    """The weights by token of the first table that can be read; raises the last one's `DiagnosticError` if none can."""
    for path in paths[:-1]:
        with contextlib.suppress(DiagnosticError):
            return _read_weights(path)
    return _read_weights(paths[-1])


def _read_weights(path: Path) -> dict[str, float]:
    """Weights by token. Raises `DiagnosticError` (`SIE406`).

    `idf.json` maps tokens to weights; `query_token_weights.txt` has one `token<TAB>weight` a line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return {str(token): float(weight) for token, weight in json.loads(text).items()}
        pairs = (line.rsplit("\t", 1) for line in text.splitlines() if line.strip())
        return {token: float(weight) for token, weight in pairs}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DiagnosticError(
            [Diagnostic("SIE406", f"cannot read the token weights: {error}", Where(path), "fetch the checkpoint again")]
        ) from None

"""Tables of token weights, which inference-free sparse models have for their queries."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where


def first_weights(paths: Sequence[Path]) -> dict[str, float]:
    """The weights by token of the first table that can be read; raises the last one's `DiagnosticError` if none can."""
    for path in paths[:-1]:
        with contextlib.suppress(DiagnosticError):
            return read_weights(path)
    return read_weights(paths[-1])


def read_weights(path: Path) -> dict[str, float]:
    """Weights by token. Raises `DiagnosticError` (`SIE406`).

    `idf.json` maps tokens to weights; `query_token_weights.txt` has one `token<TAB>weight` a line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return {str(token): float(weight) for token, weight in json.loads(text).items()}
        pairs = (line.rsplit("\t", 1) for line in text.splitlines() if line.strip())
        return {token: float(weight) for token, weight in pairs}
    except (OSError, ValueError, AttributeError) as error:
        raise DiagnosticError(
            [Diagnostic("SIE406", f"cannot read the token weights: {error}", Where(path), "fetch the checkpoint again")]
        ) from None

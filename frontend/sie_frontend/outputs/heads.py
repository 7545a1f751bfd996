"""The heads of one model, opened: what reading them needs beside the tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sie_frontend.contract.errors import invalid_input
from sie_frontend.outputs.kind import EncodedKind, ScoreKind
from sie_frontend.outputs.table import Head, OutputType, encoded_kind, score_kind
from sie_frontend.rows import Array
from sie_frontend.text.entry import TextInput


class Heads:
    """The heads of one model, whose `entries` are the manifest's.

    `inputs` are the entries of the model's inputs, since text knows its special ids. `loadtime` are the bundle's
    load-time options. `tables` holds what was read of `repository`, by path.
    """

    def __init__(
        self,
        entries: Mapping[OutputType, Head],
        repository: Path,
        inputs: Iterable[object] = (),
        loadtime: Mapping[str, Any] | None = None,
    ) -> None:
        self.repository = repository
        self.loadtime = loadtime or {}
        self.tables: dict[str, Array] = {}
        self._text = next((entry for entry in inputs if isinstance(entry, TextInput)), None)
        self._encoded: dict[str, EncodedKind] = {}
        self._score: ScoreKind | None = None
        for output, entry in entries.items():
            if encoded := encoded_kind(entry):
                self._encoded[output] = encoded
            if score := score_kind(entry):
                self._score = score

    def encoded(self, output: str) -> EncodedKind:
        """The head of an output type. Raises `WireError` (400) if the model was built without it."""
        if output not in self._encoded:
            raise invalid_input(f"output type '{output}' of this model was not built")
        return self._encoded[output]

    def scored(self) -> ScoreKind:
        """The head of the scores. Raises `WireError` (400) if the model was built without it."""
        if self._score is None:
            raise invalid_input("output type 'score' of this model was not built")
        return self._score

    @cached_property
    def special_ids(self) -> Array:
        """Every special id of the model's tokenizer."""
        known = self._text.tokenization.all_special_ids if self._text else ()
        return np.asarray(known, dtype=np.int64)

    def ids_of(self, roles: Sequence[str]) -> Array:
        """The ids of special tokens by role; roles that the tokenizer lacks are left out."""
        known = self._text.tokenization.special_ids if self._text else {}
        return np.asarray(sorted({known[role] for role in roles if role in known}), dtype=np.int64)

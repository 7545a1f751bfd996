"""Page models: texts and pages as another implementation computes them, which `retrieval.py` opens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sie_frontend.reference import Case
from sie_frontend.rows import Array, Row
from sie_frontend.text.tokenization import TextRow

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.verify.testimony import Testimony

from .base import Witness, asking
from .image_text import picture_of
from .retrieval import Retrieval, open_retrieval
from .subject import Outputs, Subject

_CUT_TEXTS = "a text that is too long is cut, and keeps what stands around it; transformers cuts nothing"


class PageTextWitness(Witness):
    """Queries: the processor's text, and a vector for each of its tokens."""

    compared = ("text to tokens", "transformer", "projection", "token vectors")
    departures = (_CUT_TEXTS,)

    def __init__(self, subject: Subject) -> None:
        self._names = subject.names
        self._told: Retrieval = open_retrieval(subject.folder)
        self._from_left = subject.truncation_side == "left"
        self._limit = subject.plan.max_length
        self.implementation = self._told.implementation
        self.not_compared = self._told.not_compared

    @property
    def model(self) -> Any:
        """The whole model, whose input embeddings are the language model's."""
        return self._told.model

    @property
    def positions(self) -> int | None:
        """Rotary positions have no end."""
        return None

    def narrow(self, limit: int) -> None:
        """Read no more than `limit` tokens."""
        self._limit = limit

    def read_with(self, tokenizer: Any) -> None:
        """Never: SIE's server runs this very processor."""
        raise TypeError("the processor and `tokenizer.json` read a text differently")

    def token_ids(self, case: Case) -> list[int]:
        """The ids of a text with everything around it, cut where it is too long.

        None of a text that has the token of pictures written in it: not every processor takes that.
        """
        if self._told.image_token in self.text(case):
            return []
        ids = self._told.text_ids(self.text(case))
        surplus = max(0, len(ids) - self._limit)
        start = self._told.before_texts if self._from_left else len(ids) - self._told.behind_texts - surplus
        return ids[:start] + ids[start + surplus :]

    def text(self, case: Case) -> str:
        """The text as it is."""
        return (case.query if case.document is None else case.document) or ""

    def outputs(self, case: Case, row: TextRow) -> Outputs:
        """`[tokens, dim]`."""
        (name,) = self._names
        return {name: self._told.text_vectors(self.token_ids(case))}


def testify_pages(
    folder: Path, names: Sequence[str], cases: Sequence[Case], rows: Sequence[Row], *, shifted: bool = False
) -> Testimony:
    """What transformers makes of pages, prepared by its processor on Pillow.

    `shifted`: patches have the positions that release 4.57 gives them in float32.

    Raises `DiagnosticError` where it prepares one otherwise than we do.
    """
    (name,) = names
    with asking(folder, "load the checkpoint", "transformers"):
        told = open_retrieval(folder, shifted=shifted)
    vectors: list[Array] = []
    with asking(folder, "run the checkpoint", "transformers"):
        for case, row in zip(cases, rows, strict=True):
            picture = picture_of(case)
            told.agree(folder, picture, row)
            vectors.append(told.page_vectors(picture))
    if not all(np.isfinite(array).all() for array in vectors):
        message = f"the checkpoint itself gives numbers that are not finite, says {told.implementation}"
        hint = "its weights are damaged, or were never trained; fetch the checkpoint again"
        raise DiagnosticError([Diagnostic("SIE507", message, Where(folder), hint)])
    return Testimony(
        implementation=told.implementation,
        outputs={name: tuple(vectors)},
        compared=(
            *("pictures to pixels", "levels to numbers", "prompt" if told.writes_prompt else "places of tiles"),
            *("transformer", "projection", "vectors"),
        ),
        not_compared=told.not_compared,
    )

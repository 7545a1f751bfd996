"""The certificate of a build: which texts were compared with which other implementation, and what that is worth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sie_frontend.manifest import Certificate
from sie_frontend.text.prompting import prepare_texts
from sie_frontend.text.rows import RowMaker

from sie_triton.planning.plan import TritonPlan
from sie_triton.verify.reference import Case, StoredReference, case_rows, make_cases

if TYPE_CHECKING:
    from sie_triton.witness import Testimony


def take_reference(
    plan: TritonPlan,
    maker: RowMaker,
    folder: Path,
    token_id: Callable[[str], int],
    added_tokens: Sequence[str],
    *,
    trust_remote_code: bool,
) -> tuple[StoredReference, Testimony]:
    """What the witness says of every reference text, to be stored beside the graphs.

    `token_id` gives a token's id by its spelling; `added_tokens` are put into texts. Raises `DiagnosticError` if there
    is no witness, or if it reads the texts otherwise than we do.
    """
    from sie_triton.witness import Subject, testify

    model = maker.model
    options = model.profiles["default"]

    def prepared(case: Case) -> str:
        query = case.document is None
        text = (case.query if query else case.document) or ""
        return prepare_texts([text], model.prompting, options=options, instruction=None, is_query=query)[0]

    def bare_ids(text: str) -> list[int]:
        return list(map(int, maker.tokenizer.encode([text])[0]))

    cases = make_cases(maker, len(bare_ids("")), added_tokens)
    rows = case_rows(maker, cases)
    testimony = testify(
        Subject(
            folder=folder,
            plan=plan,
            served=plan.served[0],
            cases=cases,
            rows=rows,
            prepared=prepared,
            bare_ids=bare_ids,
            token_id=token_id,
            truncation_side=plan.truncation_side,
            trust_remote_code=trust_remote_code,
        )
    )
    kept = [place for place in range(len(cases)) if place not in testimony.skipped]
    reference = StoredReference(
        origin=testimony.implementation,
        cases=tuple(cases[place] for place in kept),
        token_ids=tuple(rows[place].ids for place in kept),
        outputs=dict(testimony.outputs),
    )
    return reference, testimony


def certify(reference: StoredReference, testimony: Testimony, warnings: Sequence[str]) -> Certificate:
    """The certificate of a build whose graphs came as close to the reference as they must."""
    passed_over = (
        (f"texts without a token, with one that has no embedding, or without finite numbers: {len(testimony.skipped)}",)
        if testimony.skipped
        else ()
    )
    return Certificate(
        implementation=testimony.implementation,
        texts=texts_digest(reference.cases),
        cases=len(reference.cases),
        compared=testimony.compared,
        not_compared=(*testimony.not_compared, *passed_over),
        departures=testimony.departures,
        warnings=tuple(warnings),
    )


def texts_digest(cases: Sequence[Case]) -> str:
    """SHA-256 of what was compared, text by text."""
    written = json.dumps([[case.document, case.query] for case in cases], ensure_ascii=True)
    return hashlib.sha256(written.encode()).hexdigest()


def tokens_without_rows(largest_id: int, rows: int) -> tuple[str, ...]:
    """Tokens that the tokenizer can make and the model has no embedding for."""
    if largest_id < rows:
        return ()
    return (
        f"the tokenizer makes ids up to {largest_id}, the embedding has {rows} rows: a text with a token beyond them "
        "is refused when it is sent",
    )

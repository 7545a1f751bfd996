"""The certificate of a build: which cases were compared with which other implementation, and what that is worth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from sie_frontend.manifest import Certificate
from sie_frontend.reference import Case, Question, StoredReference, UnreadableReference, read_reference

from sie_triton.compiler.options import Announce
from sie_triton.compiler.workbench import WrittenInput
from sie_triton.verify.carried import misfit, retold, stored_reference
from sie_triton.verify.public_model import PublicModel
from sie_triton.verify.testimony import Testimony


def take_reference(
    written: WrittenInput, model: PublicModel, question: Question, carried: Path | None, announce: Announce
) -> tuple[StoredReference, Testimony]:
    """What another implementation says of every case, to be stored beside the graphs.

    `carried`: where its answer may lie already, told on another machine. Raises `DiagnosticError` if there is none, or
    if it reads the cases otherwise than we do.
    """
    cases = written.cases(model)
    rows = model.rows(cases)
    if carried is not None and carried.is_file():
        try:
            stored = read_reference(carried)
            reason = misfit(stored, question, cases, rows)
        except UnreadableReference as error:
            reason = f"it cannot be read ({error})"
        if reason is None:
            announce(f"{model.name}: comparing with what is carried beside the bundle, `{carried.name}`")
            return stored, retold(stored, cases)
        announce(f"{model.name}: `{carried.name}` beside the bundle does not answer: {reason}")
    announce(
        f"{model.name}: computing reference outputs with another implementation, which reads the checkpoint itself"
    )
    testimony = written.testify(model, cases, rows)
    return stored_reference(testimony, question, cases, rows), testimony


def certify(
    reference: StoredReference, testimony: Testimony, warnings: Sequence[str], *, not_compared: Sequence[str] = ()
) -> Certificate:
    """The certificate of a build whose graphs came as close to the reference as they must.

    `not_compared`: what both sides were given alike.
    """
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
        not_compared=(*testimony.not_compared, *not_compared, *passed_over),
        departures=testimony.departures,
        warnings=tuple(warnings),
    )


def texts_digest(cases: Sequence[Case]) -> str:
    """SHA-256 of what was compared, case by case."""
    written = json.dumps([[case.document, case.query] for case in cases], ensure_ascii=True)
    return hashlib.sha256(written.encode()).hexdigest()

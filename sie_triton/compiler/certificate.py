"""The certificate of a build: which cases were compared with which other implementation, and what that is worth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from sie_frontend.manifest import Certificate

from sie_triton.compiler.workbench import WrittenInput
from sie_triton.verify.public_model import PublicModel
from sie_triton.verify.reference import Case, StoredReference, fingerprint
from sie_triton.verify.testimony import Testimony


def take_reference(written: WrittenInput, model: PublicModel) -> tuple[StoredReference, Testimony]:
    """What another implementation says of every case, to be stored beside the graphs.

    Raises `DiagnosticError` if there is none, or if it reads the cases otherwise than we do.
    """
    cases = written.cases(model)
    rows = model.rows(cases)
    testimony = written.testify(model, cases, rows)
    kept = [place for place in range(len(cases)) if place not in testimony.skipped]
    reference = StoredReference(
        origin=testimony.implementation,
        cases=tuple(cases[place] for place in kept),
        fingerprints=tuple(fingerprint(rows[place]) for place in kept),
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
    """SHA-256 of what was compared, case by case."""
    written = json.dumps([[case.document, case.query] for case in cases], ensure_ascii=True)
    return hashlib.sha256(written.encode()).hexdigest()

"""A reference that was stored elsewhere: whether it answers for this checkpoint, this bundle and these rows.

It lies beside the bundle, so that a model can be built where no other implementation is installed, or sooner. It is
never weaker than asking anew: the checkpoint is the same by its identity, our rows must be the stored ones, and the
graphs are measured as always. Weights that were damaged on the way differ from it, where a witness that loads them
would agree with itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from sie_frontend.reference import REFERENCE_NAME, Account, Case, Question, StoredReference, fingerprint
from sie_frontend.rows import Row

from sie_triton.bundle import Bundle
from sie_triton.planning.tensors import triton_model_name
from sie_triton.verify.testimony import Testimony


def carried_name(triton_model: str) -> str:
    """The file's name beside the bundle, for a public Triton model."""
    return f"{triton_model}.{REFERENCE_NAME}"


def carried_files(bundle: Bundle) -> Iterator[Path]:
    """The references beside a bundle that may be of it; each Triton model of it has one of its own."""
    return bundle.path.parent.glob(f"{triton_model_name(bundle.sie_id)}*.{REFERENCE_NAME}")


def stored_reference(
    testimony: Testimony, question: Question, cases: Sequence[Case], rows: Sequence[Row]
) -> StoredReference:
    """What a witness said of `cases`, whose rows are ours, as it is stored."""
    kept = [place for place in range(len(cases)) if place not in testimony.skipped]
    account = Account(
        question=question,
        compared=testimony.compared,
        not_compared=testimony.not_compared,
        departures=testimony.departures,
        skipped=tuple(cases[place] for place in sorted(testimony.skipped)),
        vocabulary=testimony.vocabulary,
    )
    return StoredReference(
        origin=testimony.implementation,
        cases=tuple(cases[place] for place in kept),
        fingerprints=tuple(fingerprint(rows[place]) for place in kept),
        outputs=dict(testimony.outputs),
        account=account,
    )


def misfit(stored: StoredReference, question: Question, cases: Sequence[Case], rows: Sequence[Row]) -> str | None:
    """Why a stored reference does not answer a question about these cases and our rows of them; None where it does."""
    account = stored.account
    if account is None:
        return "it does not say what was asked"
    if account.question.checkpoint != question.checkpoint:
        return f"it is of the checkpoint {account.question.checkpoint}, and this is {question.checkpoint}"
    if account.question.plan != question.plan:
        return "it was made for other settings of the bundle"
    skipped = set(map(_key, account.skipped))
    kept = [place for place, case in enumerate(cases) if _key(case) not in skipped]
    if [_key(cases[place]) for place in kept] != list(map(_key, stored.cases)):
        return "it is about other texts than this version compares"
    for place, ids in zip(kept, stored.fingerprints, strict=True):
        if not np.array_equal(fingerprint(rows[place]), ids):
            return f"it has other tokens for {str(cases[place].document or cases[place].query)[:40]!r}"
    return None


def retold(stored: StoredReference, cases: Sequence[Case]) -> Testimony:
    """The testimony that a stored reference holds; only for one without `misfit`."""
    account = stored.account
    assert account is not None, "`misfit` looks first"
    skipped = set(map(_key, account.skipped))
    return Testimony(
        implementation=stored.origin,
        outputs=stored.outputs,
        compared=account.compared,
        not_compared=account.not_compared,
        departures=account.departures,
        skipped=frozenset(place for place, case in enumerate(cases) if _key(case) in skipped),
        vocabulary=account.vocabulary,
    )


def _key(case: Case) -> str:
    return json.dumps([case.document, case.query])

"""Whether a model that was just loaded answers its own stored reference, and how far it is from the one before.

The reference lies beside the graphs: what another implementation said of the checkpoint when the model was built. A
copy that was cut short, another runtime, or a machine that computes wrongly is found out here, before anybody is
answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sie_frontend.closeness import SCALARS, canonical, cosine, equally_wide, max_abs, min_cosine
from sie_frontend.contract.errors import WireError
from sie_frontend.images.options import IMAGE_OPTIONS
from sie_frontend.manifest import Built, Distance
from sie_frontend.outputs.kind import Comparable
from sie_frontend.reference import (
    REFERENCE_NAME,
    Case,
    StoredReference,
    UnreadableReference,
    fingerprint,
    read_reference,
)
from sie_frontend.rows import Array, Reader, Row
from sie_frontend.serving.runs import RowFailure
from sie_frontend.serving.served import ServedInput, ServedModel
from sie_frontend.triton.client import TritonFailure

# What a release never goes below, so that nobody has to embed again.
PROMISE: Final = 0.999
# Another machine, device or batch rounds otherwise; a model that is wrong is far beyond.
_SLACK: Final = 20.0
_LEAST: Final = 1e-3


class TrialFailed(Exception):
    """The model may not be served; the message says why."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a trial: how many reference items there were, and by output the worst cosine to their reference."""

    cases: int
    closeness: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _TrialCall:
    """How reference items are read: with the default profile's options."""

    options: Mapping[str, Any]
    instruction: str | None = None


async def tried(served: ServedModel, target: ServedInput, built: Built, repository: Path, device: str) -> Verdict:
    """Ask a loaded model for its reference items. Raises `TrialFailed` where they come out otherwise than built."""
    path = repository / target.triton_model / "1" / REFERENCE_NAME
    try:
        reference = await asyncio.to_thread(read_reference, path)
    except UnreadableReference as error:
        raise TrialFailed(f"`{path.name}` of `{target.triton_model}` cannot be read: {error}") from None
    rows = await asyncio.to_thread(_rows, target.reader, served, reference.cases)
    if not all(np.array_equal(fingerprint(row), f) for row, f in zip(rows, reference.fingerprints, strict=True)):
        raise TrialFailed(f"`{target.triton_model}` reads its reference items otherwise than when it was built")
    try:
        outcome = await target.queue.submit(rows, tuple(reference.outputs))
    except (TritonFailure, RowFailure) as failure:
        cause = failure.cause if isinstance(failure, RowFailure) else failure
        raise TrialFailed(f"`{target.triton_model}` does not compute its reference items: {cause}") from None
    answers = [dict(zip(reference.outputs, arrays, strict=True)) for arrays in outcome.results]
    recorded = built.parity.get(built.precisions.get(device.partition("-")[0], ""), {})
    return await asyncio.to_thread(_judged, served, target, reference, rows, answers, recorded)


def _rows(reader: Reader, served: ServedModel, cases: Sequence[Case]) -> list[Row]:
    """The row of each case, as when the model was built: pictures are seen as the checkpoint says."""
    options = served.model.profiles.get("default", {})
    call = _TrialCall({name: value for name, value in options.items() if name not in IMAGE_OPTIONS})
    rows: list[Row] = []
    for case in cases:
        if case.document is not None and case.query is not None:
            rows += reader.pairs(case.query, [case.document], call)
        elif case.document is not None:
            rows += reader.rows([case.document], call, is_query=False)
        else:
            rows += reader.rows([case.query], call, is_query=True)
    return rows


def _judged(
    served: ServedModel,
    target: ServedInput,
    reference: StoredReference,
    rows: Sequence[Row],
    answers: Sequence[Mapping[str, Array]],
    recorded: Mapping[str, Distance],
) -> Verdict:
    closeness = {}
    for compared in _comparables(served):
        if not set(compared.tensors) <= set(reference.outputs):
            continue
        expected = [{name: arrays[i] for name, arrays in reference.outputs.items()} for i in range(len(rows))]
        theirs = [canonical(outputs, compared, row) for outputs, row in zip(expected, rows, strict=True)]
        ours = equally_wide([canonical(a, compared, row) for a, row in zip(answers, rows, strict=True)], theirs)
        distance, known = max_abs(ours, theirs), recorded.get(compared.name)
        if compared.shape in SCALARS:
            largest = max(1.0, *(float(np.max(np.abs(array), initial=0.0)) for array in theirs))
            allowed = max(_LEAST * largest, _SLACK * known.max_abs if known else 0.0)
            if not distance <= allowed:
                raise TrialFailed(
                    f"`{compared.name}` of `{target.triton_model}` misses its reference by {distance:.2e} over "
                    f"{len(rows)} items, {allowed:.0e} is allowed"
                )
            continue
        worst = min_cosine(ours, theirs)
        required = min(PROMISE, _bit_further(known.min_cosine)) if known and known.min_cosine is not None else PROMISE
        if not worst >= required:
            raise TrialFailed(
                f"`{compared.name}` of `{target.triton_model}` misses its reference: worst cosine {worst:.5f} over "
                f"{len(rows)} items, {required:.5f} is required"
            )
        closeness[compared.name] = worst
    return Verdict(len(rows), closeness)


def _bit_further(cosine_then: float) -> float:
    """What a build measured below the promise, a tenth further away: 8 bits round otherwise on another processor."""
    return 1 - 1.1 * (1 - cosine_then)


def _comparables(served: ServedModel) -> tuple[Comparable, ...]:
    return tuple(dict.fromkeys(c for head in served.model.heads.values() for c in head.comparables))


async def moved(
    before: ServedModel, old: ServedInput, now: ServedModel, new: ServedInput, reference: Path
) -> Mapping[str, float]:
    """The worst cosine between what the model before and the new one answer to the new one's reference items.

    It decides nothing: another revision has other vectors. Nothing where the two cannot be compared.
    """
    try:
        cases = (await asyncio.to_thread(read_reference, reference)).cases
        found = []
        shared = {c.name: c for c in _comparables(before) if c in _comparables(now) and c.shape not in SCALARS}
        names = tuple(dict.fromkeys(name for c in shared.values() for name in c.tensors))
        if not names:
            return {}
        for served, target in ((before, old), (now, new)):
            rows = await asyncio.to_thread(_rows, target.reader, served, cases)
            outcome = await target.queue.submit(rows, names)
            answers = [dict(zip(names, arrays, strict=True)) for arrays in outcome.results]
            found.append(
                {n: [canonical(a, c, r) for a, r in zip(answers, rows, strict=True)] for n, c in shared.items()}
            )
    except (TritonFailure, RowFailure, WireError, UnreadableReference, ValueError, KeyError):
        return {}
    left, right = found
    return {name: _worst(left[name], right[name]) for name in shared if _alike(left[name], right[name])}


def _worst(left: Sequence[Array], right: Sequence[Array]) -> float:
    return min(cosine(a, b) for a, b in zip(left, right, strict=True))


def _alike(left: Sequence[Array], right: Sequence[Array]) -> bool:
    return all(a.shape == b.shape for a, b in zip(left, right, strict=True))

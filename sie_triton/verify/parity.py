"""Numeric parity: a public model run over its stored reference, alone and in mixed batches, and how close is close."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sie_frontend.closeness import SCALARS, VECTORS, canonical, equally_wide
from sie_frontend.manifest import Distance
from sie_frontend.outputs.kind import Shape
from sie_frontend.reference import REFERENCE_NAME, fingerprint, read_reference
from sie_frontend.rows import Array, Row, padded_width

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.formats import Precision
from sie_triton.verify.compare import max_abs, min_cosine
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import PublicModel

BATCH_ROWS = 8


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest accepted distances: cosine, absolute (for scores and token weights), alone against batched."""

    min_cosine: float
    max_abs: float
    batch_max_abs: float


# Reduced precision keeps the promise that nobody has to re-embed: a cosine of 0.999. What it rounds depends on the
# shape of a batch, since that decides the order of sums.
TOLERANCES: Mapping[Precision, Tolerance] = {
    "float32": Tolerance(min_cosine=0.99999, max_abs=1e-4, batch_max_abs=1e-5),
    "float16": Tolerance(min_cosine=0.999, max_abs=2e-2, batch_max_abs=1e-2),
    "bfloat16": Tolerance(min_cosine=0.999, max_abs=1e-1, batch_max_abs=5e-2),
    "int8": Tolerance(min_cosine=0.998, max_abs=1e-1, batch_max_abs=5e-2),
}
TOLD: Collection[Precision] = ("int8", "bfloat16")
# The worst sparse vector has few terms, and the worst token vector is one of thousands: less is asked of these than of
# a dense vector, since what is found with them is asked besides (`compiler/answers.py`).
EIGHT_BIT_COSINES: Mapping[Shape, float] = {Shape.WEIGHTS: 0.99, Shape.VECTORS: 0.98}
# In 8 bits a text alone must be this many times closer to itself in a batch than the precision is to float32: what
# shares a batch decides nothing, then.
CLOSER_TO_ITSELF = 10


def measure(
    repository: Path, model: PublicModel, config_name: str = "", runner: ModelRunner | None = None
) -> dict[str, Distance]:
    """Run a public model over its stored reference: each case alone in its bucket, then in mixed batches.

    `config_name` chooses the graphs, as `--model-config-name` does; they run on this machine's CPU in any case.
    `runner` has opened the model in another way; it sees the cases alone, in their order, before it sees batches.
    Returns one `Distance` per output. Raises `DiagnosticError` if the repository does not make the reference's rows:
    then nothing can be compared.
    """
    reference = read_reference(repository / model.name / "1" / REFERENCE_NAME)
    rows = model.rows(reference.cases)
    if not all(np.array_equal(fingerprint(row), f) for row, f in zip(rows, reference.fingerprints, strict=True)):
        raise DiagnosticError([reads_differently(model.name, reference.origin, Where(repository / model.name))])
    runner = runner or ModelRunner(repository, model.name, config_name)
    names = list(reference.outputs)
    alone = [_run(runner, model, [row], names)[0] for row in rows]
    batched: list[dict[str, Array]] = [{} for _ in rows]
    for chunk in _mixed_batches(rows):
        for index, outputs in zip(chunk, _run(runner, model, [rows[i] for i in chunk], names), strict=True):
            batched[index] = outputs
    expected = [{name: reference.outputs[name][i] for name in names} for i in range(len(rows))]
    distances = {}
    for compared in model.comparables:
        ours, theirs, together = (
            [canonical(outputs, compared, row) for outputs, row in zip(side, rows, strict=True)]
            for side in (alone, expected, batched)
        )
        ours, together = equally_wide(ours, theirs), equally_wide(together, theirs)
        scale = max(1.0, *(float(np.max(np.abs(array), initial=0.0)) for array in theirs))
        distances[compared.name] = Distance(
            reference=reference.origin,
            cases=len(rows),
            min_cosine=None if compared.shape in SCALARS else min_cosine(ours, theirs),
            max_abs=max_abs(ours, theirs),
            batch_max_abs=max_abs(ours, together) / scale,
            largest=scale,
        )
    return distances


def _mixed_batches(rows: Sequence[Row]) -> Iterator[list[int]]:
    """The numbers of rows that are run together: all rows, those of each shape by themselves."""
    alike: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        alike.setdefault(row.shape_key, []).append(index)
    for numbers in alike.values():
        order = [numbers[place] for place in _mixed_order(len(numbers))]
        yield from (order[start : start + BATCH_ROWS] for start in range(0, len(order), BATCH_ROWS))


def _mixed_order(count: int) -> list[int]:
    """Short texts next to long ones: the worst case for padding."""
    half = (count + 1) // 2
    return [i for pair in zip(range(half), reversed(range(half, count)), strict=False) for i in pair] + (
        [half - 1] if count % 2 else []
    )


def _run(runner: ModelRunner, model: PublicModel, rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, Array]]:
    width = padded_width(max(row.cost for row in rows), model.reader.widths(exact=False))
    arrays = runner.run(model.reader.batch(rows, width), names)
    return [{name: array[index] for name, array in arrays.items()} for index in range(len(rows))]


def tolerance_for(precision: Precision, shape: Shape, distance: Distance, accepted: Mapping[str, float]) -> Tolerance:
    """What is asked of an output in a precision, and where a build `accepted` less, by name, that.

    Less is accepted of those precisions only whose answers a build tells.
    """
    asked = TOLERANCES[precision]
    cosine, largest, batch = asked.min_cosine, asked.max_abs, asked.batch_max_abs
    if precision not in TOLD:
        return asked
    if precision == "int8":
        cosine = EIGHT_BIT_COSINES.get(shape, cosine)
        largest *= distance.largest
        batch = distance.max_abs / distance.largest / CLOSER_TO_ITSELF
    return Tolerance(accepted.get("cosine", cosine), largest, accepted.get("batch", batch))


def check_parity(
    repository: Path,
    model: PublicModel,
    measured: Mapping[str, Distance],
    precision: Precision = "float32",
    accepted: Mapping[str, float] | None = None,
) -> Iterator[Diagnostic]:
    """What of the measured distances is too far. The comparisons are written so that NaN fails.

    `accepted`: what the build took less of, by name.
    """
    name, shapes = model.name, {compared.name: compared.shape for compared in model.comparables}
    where = Where(repository / name)
    hint = "nothing was published; report the checkpoint, or try another version of torch or transformers"
    for tensor, distance in measured.items():
        tolerance = tolerance_for(precision, shapes[tensor], distance, accepted or {})
        if distance.max_abs == float("inf"):
            yield Diagnostic(
                "SIE501",
                f"`{tensor}` of `{name}` in {precision} has another shape than the reference, or an infinite number",
                where,
                hint,
            )
            continue
        if distance.min_cosine is not None and not distance.min_cosine >= tolerance.min_cosine:
            yield Diagnostic(
                "SIE501",
                f"`{tensor}` of `{name}` in {precision} misses the reference: worst cosine {distance.min_cosine:.7f} "
                f"over {distance.cases} cases, {tolerance.min_cosine} is required; worst difference "
                f"{distance.max_abs:.2e}",
                where,
                hint,
            )
        # In float32 numbers must agree one by one, so that a vector that is not normalised has the right length too;
        # with less, the direction of a vector is the promise.
        absolute = shapes[tensor] in SCALARS or precision == "float32"
        allowed = tolerance.max_abs * (distance.largest if shapes[tensor] in VECTORS else 1.0)
        if absolute and not distance.max_abs <= allowed:
            yield Diagnostic(
                "SIE501",
                f"`{tensor}` of `{name}` in {precision} misses the reference by {distance.max_abs:.2e} over "
                f"{distance.cases} cases, {allowed:.0e} is allowed",
                where,
                hint,
            )
        if not distance.batch_max_abs <= tolerance.batch_max_abs:
            yield Diagnostic(
                "SIE503",
                f"`{tensor}` of `{name}` in {precision} depends on its batch: alone and batched differ by "
                f"{distance.batch_max_abs:.2e}, {tolerance.batch_max_abs:.0e} is allowed",
                where,
                "nothing was published; report the checkpoint",
            )


def reads_differently(name: str, reference: str, where: Where) -> Diagnostic:
    """The repository does not make the rows of the reference that lies in it."""
    return Diagnostic(
        "SIE508",
        f"`{name}` tokenises differently from when it was built and compared with {reference}",
        where,
        "rebuild with `sie-triton build --force`; if that does not help, another version of `tokenizers` reads the "
        "file differently",
    )

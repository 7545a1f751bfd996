"""What a build took less of holds for the precisions whose answers it tells, and for no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pytest
from sie_frontend.manifest import Distance
from sie_frontend.outputs.kind import Shape

from sie_triton.verify.parity import Tolerance, tolerance_for

FAR = Distance(reference="theirs", cases=9, min_cosine=0.99, max_abs=0.2, batch_max_abs=0.03, largest=4.0)
LESS = {"cosine": 0.9, "batch": 0.04, "nearest": 0.5}


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_of_a_precision_beside_int8_nothing_less_is_accepted(precision: Literal["float32", "float16"]) -> None:
    assert tolerance_for(precision, Shape.VECTOR, FAR, LESS) == tolerance_for(precision, Shape.VECTOR, FAR, {})
    assert tolerance_for(precision, Shape.VECTOR, FAR, LESS).min_cosine > 0.99


@pytest.mark.parametrize(
    ("precision", "accepted", "expected"),
    [
        ("int8", {}, Tolerance(0.998, 0.4, 0.005)),
        ("int8", {"cosine": 0.9}, Tolerance(0.9, 0.4, 0.005)),
        ("int8", LESS, Tolerance(0.9, 0.4, 0.04)),
        ("bfloat16", {}, Tolerance(0.999, 0.1, 0.05)),
        ("bfloat16", {"cosine": 0.9}, Tolerance(0.9, 0.1, 0.05)),
        ("bfloat16", {"batch": 0.06}, Tolerance(0.999, 0.1, 0.06)),
    ],
)
def test_less_is_accepted_by_name(
    precision: Literal["int8", "bfloat16"], accepted: Mapping[str, float], expected: Tolerance
) -> None:
    found = tolerance_for(precision, Shape.VECTOR, FAR, accepted)
    for name in ("min_cosine", "max_abs", "batch_max_abs"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name))

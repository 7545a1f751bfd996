"""How close a model that was just loaded must come to its stored reference."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sie_frontend.live import trial
from sie_frontend.live.trial import TrialFailed
from sie_frontend.manifest import Distance
from sie_frontend.outputs.kind import Comparable, Shape
from sie_frontend.reference import StoredReference

DENSE = Comparable("dense", ("dense",), Shape.VECTOR)
EXPECTED = np.asarray([1.0, 0.0], np.float32)


def judged(cosine: float, built: float | None) -> float:
    """The worst cosine that a trial finds where a build measured another one, or none."""
    served: Any = SimpleNamespace(model=SimpleNamespace(heads={"dense": SimpleNamespace(comparables=(DENSE,))}))
    target: Any = SimpleNamespace(triton_model="acme__tiny")
    row: Any = SimpleNamespace(cost=1)
    reference = StoredReference("theirs", (), (), {"dense": (EXPECTED,)})
    answer = np.asarray([cosine, np.sqrt(1 - cosine**2)], np.float32)
    recorded = {} if built is None else {"dense": Distance("theirs", 1, built, 0.0, 0.0)}
    return trial._judged(served, target, reference, [row], [{"dense": answer}], recorded).closeness["dense"]


@pytest.mark.parametrize(
    ("built", "passes", "fails"),
    [
        (None, 0.9991, 0.9989),
        (1.0, 0.9991, 0.9989),
        (0.99999, 0.9991, 0.9989),
        # What was published with less may be a tenth further away, on another processor.
        (0.9985, 0.99836, 0.99834),
        (0.990, 0.98902, 0.98898),
    ],
)
def test_the_promise_holds_or_what_was_published_below_it(built: float | None, passes: float, fails: float) -> None:
    assert judged(passes, built) == pytest.approx(passes, abs=1e-6)
    with pytest.raises(TrialFailed, match="worst cosine"):
        judged(fails, built)


def test_what_is_no_number_fails() -> None:
    with pytest.raises(TrialFailed):
        judged(float("nan"), None)

"""What is left of Triton's words about a load: recorded from tritonserver 2.51."""

from __future__ import annotations

import pytest
from sie_frontend.triton.reasons import cause_of_load

FAILED = "load failed for model 'slow': "
UNAVAILABLE = f"{FAILED}version 1 is at UNAVAILABLE state: Internal: "
RECORDED = {
    UNAVAILABLE + "Stub process 'slow_0_0' is not healthy.;\n": "Stub process 'slow_0_0' is not healthy.",
    UNAVAILABLE + "RuntimeError: cut short\n\nAt:\n  /r/p/1/model.py(28): initialize\n  /r/q.py(2): f\n;\n": (
        "RuntimeError: cut short"
    ),
    "Internal: RuntimeError: no\n\nAt:\n  /r/p/1/model.py(28): initialize\n": "RuntimeError: no",
    "failed to load 'x', failed to poll": "failed to load 'x', failed to poll",
    FAILED: FAILED.strip(),
}


@pytest.mark.parametrize("said", RECORDED)
def test_the_cause_is_left(said: str) -> None:
    assert cause_of_load(said) == RECORDED[said]

"""Attention masks that reduced precision survives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask

from sie_triton.export.encoder import MASK_SHARE
from sie_triton.formats import Precision


def _roomy_mask(*args: Any, **kwargs: Any) -> Any:
    mask = eager_mask(*args, **kwargs)
    return None if mask is None else mask * MASK_SHARE


@contextlib.contextmanager
def masks_with_room(precision: Precision) -> Iterator[None]:
    """While graphs are exported: masks of half the type's minimum, unless the precision is float32.

    transformers masks with the minimum itself. In float16 a score beside it overflows to -inf, and where everything in
    a query's sight is masked (padding whose local window holds only padding) the softmax of nothing but -inf is NaN,
    which the next layer spreads to the real tokens.
    """
    if precision == "float32":
        yield
        return
    # Set on the object, as the TorchScript exporter does: what is registered for the class lies beneath that.
    before = ALL_MASK_ATTENTION_FUNCTIONS["eager"]
    ALL_MASK_ATTENTION_FUNCTIONS["eager"] = _roomy_mask
    try:
        yield
    finally:
        ALL_MASK_ATTENTION_FUNCTIONS["eager"] = before

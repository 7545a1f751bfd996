"""What Triton can make of `batch_input` and `batch_output`."""

from __future__ import annotations

from collections.abc import Iterable

from sie_triton.backends.received import BatchTensor, ConfigTensor

KINDS = frozenset(
    {
        "BATCH_ELEMENT_COUNT",
        "BATCH_ACCUMULATED_ELEMENT_COUNT",
        "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
        "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
        "BATCH_ITEM_SHAPE",
        "BATCH_ITEM_SHAPE_FLATTEN",
    }
)
"""Kinds of `batch_input`."""
TYPES = ("TYPE_INT32", "TYPE_FP32")
"""Types that a `batch_input` is made in."""


def has_one_source(entry: BatchTensor) -> bool:
    """Every kind takes exactly one `source_input`."""
    return len(entry.sources) == 1


def unknown_sources(entry: BatchTensor, inputs: Iterable[ConfigTensor]) -> list[str]:
    """Sources that are no configured inputs."""
    known = {tensor.name for tensor in inputs}
    return [name for name in entry.sources if name not in known]


def has_one_target(entry: BatchTensor) -> bool:
    """A backend counts one tensor for each entry."""
    return len(entry.targets) == 1


def unknown_targets(entry: BatchTensor, tensors: Iterable[ConfigTensor]) -> list[str]:
    """Targets that are none of the configured tensors."""
    known = {tensor.name for tensor in tensors}
    return [name for name in entry.targets if name not in known]

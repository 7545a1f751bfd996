"""The rules, a file for each subject. A rule is its check with `@rule` above it, which says all about it."""

from __future__ import annotations

from sie_triton.lint.rule import Rule
from sie_triton.lint.rules import (
    accelerators,
    configuration,
    decoupled,
    dynamic_batching,
    ensemble_flow,
    ensemble_models,
    folders,
    instances,
    onnx_files,
    onnx_signatures,
    onnxruntime_parameters,
    ragged,
    releases,
    sequences,
    tensorrt,
    tensorrt_profiles,
    tensors,
    torchscript,
    variants,
    warmup,
)

_FILES = (
    accelerators,
    configuration,
    decoupled,
    dynamic_batching,
    ensemble_flow,
    ensemble_models,
    folders,
    instances,
    onnx_files,
    onnx_signatures,
    onnxruntime_parameters,
    ragged,
    releases,
    sequences,
    tensorrt,
    tensorrt_profiles,
    tensors,
    torchscript,
    variants,
    warmup,
)


def _by_id() -> dict[str, Rule]:
    rules = [value for file in _FILES for value in vars(file).values() if isinstance(value, Rule)]
    return {rule.id: rule for rule in sorted(rules, key=lambda rule: rule.id)}


RULES: dict[str, Rule] = _by_id()
"""Every rule by its id, in the order of ids."""

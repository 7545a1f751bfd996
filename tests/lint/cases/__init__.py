"""For every rule a repository that breaks it and one, as close as possible, that does not."""

from __future__ import annotations

from . import (
    accelerators,
    batching,
    configuration,
    ensembles,
    folders,
    instances,
    onnx,
    parameters,
    releases,
    torchscript,
)
from .case import Case

_FILES = (accelerators, batching, configuration, ensembles, folders, instances, onnx, parameters, releases, torchscript)

CASES: dict[str, Case] = {rule_id: case for file in _FILES for rule_id, case in file.CASES.items()}

"""The catalogue of fake models that the exchanges were recorded with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FakeModel:
    """What the wire layer must know of a model: dims by output type, runtime options by profile, its tasks."""

    dims: Mapping[str, int]
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"default": {}})
    scores: bool = False


_ALL_DIMS = {"dense": 8, "sparse": 100, "multivector": 4}
_SPARSE = {"output_types": ["sparse"]}
_HALF = {"output_dtype": "float16"}

CATALOGUE: Mapping[str, FakeModel] = {
    "acme/fake-dense": FakeModel({"dense": 8}),
    "acme/fake-fail": FakeModel({"dense": 8}),
    "acme/fake-all": FakeModel(_ALL_DIMS, {"default": {}, "sparse": _SPARSE, "half": _HALF}, scores=True),
    "acme/fake-sparse": FakeModel({"sparse": 50}),
    "acme/fake-all:sparse": FakeModel(_ALL_DIMS, {"default": _SPARSE}, scores=True),
    "acme/fake-all:half": FakeModel(_ALL_DIMS, {"default": _HALF}, scores=True),
    "acme/only-variant:candle": FakeModel({"dense": 8}),
}

# Scores were recorded against another catalogue, of this one model.
SCORE_CATALOGUE: Mapping[str, FakeModel] = {"acme/fake-score": FakeModel({}, scores=True)}

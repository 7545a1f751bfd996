"""A pair of repositories for one rule."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from lint.builders import identity_config, identity_graph
from lint.builds import Build, copies
from sie_triton.lint import Machine

CPU = Machine(cores=2)
GPU = Machine(cores=16, gpus=1)


@dataclass(frozen=True)
class Case:
    """`bad` breaks the rule, `good` does not; `line` is the reported line where it is worth stating."""

    bad: Build
    good: Build
    triton: str = "24.10"
    good_triton: str | None = None
    machine: Machine | None = CPU
    line: int | None = None


def texts(bad: str, good: str | None = None, **case: object) -> Case:
    """Two configurations of one identity graph."""
    return Case(copies(bad), copies(good or identity_config()), **case)  # type: ignore[arg-type]


def graphs(
    bad: onnx.ModelProto, good: onnx.ModelProto | None = None, config: str | None = None, **case: object
) -> Case:
    """Two graphs behind one configuration."""
    text = config or identity_config()
    return Case(copies(text, bad), copies(text, good or identity_graph()), **case)  # type: ignore[arg-type]

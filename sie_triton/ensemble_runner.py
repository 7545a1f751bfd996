"""Runs a public Triton model in this process: its `config.pbtxt` wires the graphs, ONNX Runtime computes them.

Verification uses it, so that what is checked is the repository as Triton will read it, not the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.lint.config import model_config_pb2

Array = np.ndarray[Any, np.dtype[Any]]


def read_model_config(directory: Path) -> Any:
    """Parse `directory/config.pbtxt` with Triton's schema; raises `text_format.ParseError`."""
    return text_format.Parse((directory / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2().ModelConfig())


class EnsembleRunner:
    """The graphs of one public model, opened once. `run` computes only the steps that the outputs need."""

    def __init__(self, repository: Path, name: str) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise DiagnosticError(
                [
                    Diagnostic(
                        "SIE530",
                        "checking parity needs onnxruntime",
                        hint="`pip install 'sie-triton[cpu]'`, or `[gpu]`",
                    )
                ]
            ) from None
        self.config = read_model_config(repository / name)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # One shape after another: an arena would keep the largest of each.
        options.enable_cpu_mem_arena = False
        self._sessions = {
            step.model_name: onnxruntime.InferenceSession(
                str(repository / step.model_name / "1" / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
            for step in self.config.ensemble_scheduling.step
        }

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Named arrays in, named arrays out; shapes include the batch."""
        values: dict[str, Array] = dict(inputs)
        for step in self._needed(outputs):
            session = self._sessions[step.model_name]
            wanted = list(step.output_map)
            computed = session.run(wanted, {theirs: values[ours] for theirs, ours in step.input_map.items()})
            values.update(zip((step.output_map[name] for name in wanted), computed, strict=True))
        return {name: values[name] for name in outputs}

    def _needed(self, outputs: Sequence[str]) -> list[Any]:
        wanted, steps = set(outputs), []
        for step in reversed(self.config.ensemble_scheduling.step):
            if wanted & set(step.output_map.values()):
                steps.append(step)
                wanted |= set(step.input_map.values())
        return steps[::-1]

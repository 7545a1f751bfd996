"""Runs a public Triton model in this process: its configuration wires the graphs, their own runtimes compute them.

Verification uses it, so that what is checked is the repository as Triton will read it, not the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from google.protobuf import text_format
from sie_frontend.rows import Array

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.embedded.openvino_engine import ACCELERATOR, OpenVinoError, OpenVinoGraph, installed, wanted_precision
from sie_triton.formats import Format, format_of
from sie_triton.lint.config import model_config_pb2
from sie_triton.resources import available_cores

Graph: TypeAlias = "Callable[[Mapping[str, Array], Sequence[str]], Sequence[Array]]"
"""Named inputs and the names of the wanted outputs -> those outputs in that order."""
TimedServer = Literal["embedded", "nvidia"]
"""Whose sessions are timed. NVIDIA's backend of 24.10 cannot be told to let idle threads sleep, and ours does."""


@dataclass(frozen=True, slots=True)
class Timed:
    """How a server opens a graph: the threads of each run, the runs at a time, and which server it is.

    `alone` opens it for runs of one row beside which there is no other.
    """

    threads: int
    streams: int = 1
    server: TimedServer = "embedded"
    alone: bool = False


Runtime: TypeAlias = "Callable[[Any, Path, Timed | None], Graph]"
"""A model's configuration, its graph's file, and how it is opened to be timed -> the graph, opened."""

SPINNING = "session.intra_op.allow_spinning"


def config_path(directory: Path, config_name: str = "") -> Path:
    """The file that Triton reads for a model under a `--model-config-name`: the named one, else the default."""
    named = directory / "configs" / f"{config_name}.pbtxt"
    return named if config_name and named.is_file() else directory / "config.pbtxt"


def read_model_config(path: Path) -> Any:
    """Parse a configuration with Triton's schema; raises `text_format.ParseError`."""
    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2().ModelConfig())


class ModelRunner:
    """The graphs of one public model, opened once. `run` computes only the steps that the outputs need.

    `formats` are those of its graphs. `timed` opens them as a server would, with an arena. `runtimes` opens them in
    another way, by their format.
    """

    def __init__(
        self,
        repository: Path,
        name: str,
        config_name: str = "",
        timed: Timed | None = None,
        runtimes: Mapping[Format, Runtime] | None = None,
    ) -> None:
        runtimes = RUNTIMES if runtimes is None else runtimes
        self.config = read_model_config(config_path(repository / name, config_name))
        steps = [step.model_name for step in self.config.ensemble_scheduling.step] or [name]
        configs = {step: read_model_config(config_path(repository / step, config_name)) for step in steps}
        self.formats = {step: format_of(config.backend, config.platform) for step, config in configs.items()}
        self._graphs = {
            step: runtimes[self.formats[step].name](
                config, repository / step / "1" / config.default_model_filename, timed
            )
            for step, config in configs.items()
        }

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Named arrays in, named arrays out; shapes include the batch."""
        if not self.config.ensemble_scheduling.step:
            (graph,) = self._graphs.values()
            return dict(zip(outputs, graph(inputs, outputs), strict=True))
        values: dict[str, Array] = dict(inputs)
        for step in self._needed(outputs):
            wanted = list(step.output_map)
            given = {theirs: values[ours] for theirs, ours in step.input_map.items()}
            computed = self._graphs[step.model_name](given, wanted)
            values.update(zip((step.output_map[name] for name in wanted), computed, strict=True))
        return {name: values[name] for name in outputs}

    def _needed(self, outputs: Sequence[str]) -> list[Any]:
        wanted, steps = set(outputs), []
        for step in reversed(self.config.ensemble_scheduling.step):
            if wanted & set(step.output_map.values()):
                steps.append(step)
                wanted |= set(step.input_map.values())
        return steps[::-1]


def _spins(config: Any, server: TimedServer) -> str:
    """Whether idle threads of a session spin: as configured on ours, always on NVIDIA's, which reads no such key."""
    written = str(config.parameters[SPINNING].string_value) if SPINNING in config.parameters else ""
    return "1" if server == "nvidia" else written or "0"


def open_onnx(config: Any, path: Path, timed: Timed | None) -> Graph:
    """The ONNX file at `path` in ONNX Runtime's CPU provider, or in OpenVINO where the configuration asks for it."""
    for accelerator in config.optimization.execution_accelerators.cpu_execution_accelerator:
        if accelerator.name == ACCELERATOR:
            return _open_openvino(path, timed, dict(accelerator.parameters))
    try:
        import onnxruntime
    except ImportError:
        raise _runtime_missing("onnxruntime", "`pip install 'sie-triton[cpu]'`, or `[gpu]`") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if timed is None:
        # One shape after another: an arena would keep the largest of each.
        options.enable_cpu_mem_arena = False
        # A third of a check's work was idle threads that spin.
        options.add_session_config_entry(SPINNING, "0")
    else:
        options.intra_op_num_threads = timed.threads
        options.add_session_config_entry(SPINNING, _spins(config, timed.server))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs, outputs: session.run(list(outputs), dict(inputs))


def _open_openvino(path: Path, timed: Timed | None, parameters: Mapping[str, str]) -> Graph:
    if not installed():
        raise _runtime_missing("openvino", "`pip install 'sie-triton[openvino]'`")
    timed = timed or Timed(available_cores(), alone=True)
    threads, streams = timed.threads * timed.streams, timed.streams
    try:
        graph = OpenVinoGraph(
            path,
            threads=threads,
            precision=wanted_precision(parameters),
            streams=streams,
            alone_threads=threads if timed.alone else 0,
        )
    except OpenVinoError as error:
        hint = "build it without `--engine openvino`"
        raise DiagnosticError([Diagnostic("SIE531", str(error), Where(path), hint)]) from None

    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> Sequence[Array]:
        # One row goes the way that a row goes which is alone on the server.
        compute = graph.run_alone if all(len(array) == 1 for array in inputs.values()) else graph.run
        return compute(list(outputs), inputs)

    return run


def open_torchscript(config: Any, path: Path, _: Timed | None) -> Graph:
    """The TorchScript file at `path`; its tensors are found by their places in `config`."""
    try:
        import torch
    except ImportError:
        raise _runtime_missing("torch", "`pip install 'sie-triton[export]'`") from None
    module: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    places = {tensor.name: index for index, tensor in enumerate(config.output)}

    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> Sequence[Array]:
        with torch.inference_mode():
            results = module(*(torch.from_numpy(np.ascontiguousarray(inputs[t.name])) for t in config.input))
        results = results if isinstance(results, tuple) else (results,)
        return [results[places[name]].numpy() for name in outputs]

    return run


RUNTIMES: Mapping[Format, Runtime] = {"onnx": open_onnx, "torchscript": open_torchscript}


def _runtime_missing(package: str, hint: str) -> DiagnosticError:
    return DiagnosticError([Diagnostic("SIE530", f"checking parity needs {package}", hint=hint)])

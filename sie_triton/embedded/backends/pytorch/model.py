"""The `pytorch` backend of the embedded server: the model repository's `model.pt` (TorchScript) on pip's torch.

On the CPU; on CUDA where the configuration asks for `KIND_GPU` and torch has one. Tensors pass through the memory of
the host either way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from sie_triton.backends.pytorch.archive import TorchArchive, TorchArchiveError
from sie_triton.backends.pytorch.parameters import INTER_OP, SECOND_INTER_OP_SINCE
from sie_triton.backends.pytorch.signature import (
    TORCH_TYPES,
    Argument,
    input_positions,
    output_positions,
    takes_dictionary,
)
from sie_triton.embedded.backends.pytorch.refusals import refusals
from sie_triton.embedded.batching import Array, Arrays
from sie_triton.embedded.once import already_set
from sie_triton.embedded.python_model import BatchedModel, DlpackInput, row_major

# Switches of torch's interpreter that stay as they are unless the configuration names them.
_SWITCHES: Mapping[str, Callable[[bool], object]] = {
    "ENABLE_JIT_EXECUTOR": torch._C._jit_set_profiling_executor,
    "ENABLE_JIT_PROFILING": torch._C._jit_set_profiling_mode,
    "ENABLE_TENSOR_FUSER": torch._C._jit_set_texpr_fuser_enabled,
}


class TritonPythonModel(BatchedModel):
    """One TorchScript module, in inference mode unless `INFERENCE_MODE` says otherwise."""

    default_filename = "model.pt"

    def load(self, path: Path) -> list[str]:
        """Open the module and compare `forward` with the configuration by the rules of NVIDIA's backend."""
        gpu = torch.cuda.is_available()
        self._device = torch.device("cuda", self.device_id) if gpu and self.on_gpu else torch.device("cpu")
        if reasons := self._open(path):
            return reasons
        schema = self._module.forward.schema
        arguments = [Argument(argument.name, argument.type.kind()) for argument in schema.arguments[1:]]
        if reasons := refusals(self.config, arguments, gpu=gpu) or self._aborts():
            return reasons
        # What is not above 0 leaves NVIDIA's backend at all cores it sees, and us at 1: instances share the machine.
        torch.set_num_threads(max(1, self.config.integer("INTRA_OP_THREAD_COUNT", 1)))
        torch.set_num_interop_threads(max(1, self.config.integer(INTER_OP, 1)))
        torch._C._set_graph_executor_optimize(not self.config.boolean("DISABLE_OPTIMIZED_EXECUTION", False))
        for key, switch in _SWITCHES.items():
            if key in self.config.parameters:
                switch(self.config.boolean(key, True))
        self._dictionary = takes_dictionary(arguments)
        self._inputs = sorted(input_positions(self.config, arguments).items(), key=lambda item: item[1])
        self._outputs = output_positions(self.config)
        self._types = {tensor.name: getattr(torch, TORCH_TYPES[tensor.data_type]) for tensor in self.config.outputs}
        return []

    def _open(self, path: Path) -> list[str]:
        """Load the module; return why that is not possible."""
        try:
            TorchArchive.read(path)
            inference = self.config.boolean("INFERENCE_MODE", True)
        except (TorchArchiveError, ValueError) as error:
            return [str(error)]
        self._guard = torch.inference_mode if inference else torch.no_grad
        try:
            with self._guard():
                # A module that was saved in training mode stays in it, as there.
                self._module = torch.jit.load(str(path), map_location=self._device)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            return [f"torch does not load the file: {error}"]
        if not hasattr(self._module, "forward"):
            return ["the module has no `forward`"]
        return []

    def _aborts(self) -> list[str]:
        """Whether NVIDIA's server, all of whose models share one process, would end itself over this model."""
        if self.config.integer(INTER_OP, 0) <= 0:
            return []
        holder = already_set(INTER_OP, self.name, self.version, self.instance)
        if holder is None:
            return []
        return [
            f"it sets `{INTER_OP}`, which {holder} has set already: NVIDIA's server sets it once a process and aborts "
            f"at the second time, before release {SECOND_INTER_OP_SINCE}; remove it (`sie-triton build` no longer "
            "writes it)"
        ]

    def begin_stream(self) -> None:
        """The number of threads is each thread's own."""
        torch.set_num_threads(max(1, self.config.integer("INTRA_OP_THREAD_COUNT", 1)))

    def decode(self, tensor: DlpackInput) -> Array:
        """A view of the shared memory."""
        return from_dlpack(tensor)

    def encode(self, array: Array) -> Any:
        """The tensor itself: torch's DLPack capsules are what the stub expects."""
        return array if array.numel() else array.as_strided(array.shape, row_major(array.shape))

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Join along the first axis."""
        return torch.cat(list(parts))

    def run(self, feed: Arrays, outputs: Sequence[str]) -> Arrays:
        """One call of `forward`, whose every result has to be what the configuration says, asked for or not.

        Raises `ValueError` where one is not.
        """
        arguments = {name: torch.as_tensor(feed[name], device=self._device) for name, _ in self._inputs}
        with self._guard():
            result = self._module(arguments) if self._dictionary else self._module(*arguments.values())
        results = result if isinstance(result, tuple) else (result,)
        for name, position in self._outputs.items():
            self._check(name, position, results)
        return {name: results[self._outputs[name]].contiguous().cpu() for name in outputs}

    def _check(self, name: str, position: int, results: tuple[Any, ...]) -> None:
        if position >= len(results):
            raise ValueError(f"output `{name}` is number {position}, the module has {len(results)} outputs")
        tensor = results[position]
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"output `{name}` is a {type(tensor).__name__}, not a tensor")
        if tensor.dtype != self._types[name]:
            raise ValueError(f"output `{name}` is {tensor.dtype}, the configuration says {self._types[name]}")
        if tensor.dim() == 0:
            raise ValueError(f"output `{name}` is a scalar, which is not supported")

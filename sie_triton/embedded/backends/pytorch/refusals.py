"""Why NVIDIA's PyTorch backend would not serve a model, in words for Triton's log."""

from __future__ import annotations

from collections.abc import Sequence

from sie_triton.backends.pytorch.parameters import BOOLEANS, THREADS
from sie_triton.backends.pytorch.signature import TORCH_TYPES, Argument, argument_problems
from sie_triton.backends.received import ReceivedConfig, repeated


def refusals(config: ReceivedConfig, arguments: Sequence[Argument], *, gpu: bool = True) -> list[str]:
    """Every reason for which the backend would not serve this model; empty if it would.

    `arguments` are those of `forward`, `gpu` is whether the machine has one.
    """
    found = [f"the configuration has no {role}" for role in ("input", "output") if not getattr(config, f"{role}s")]
    found += [
        f"{tensor.role} `{tensor.name}` is {tensor.data_type}, which the backend does not support"
        for tensor in (*config.inputs, *config.outputs)
        if tensor.data_type not in TORCH_TYPES
    ]
    found += [f"input `{name}` is listed {count} times" for name, count in sorted(repeated(config.inputs).items())]
    found += _parameter_refusals(config)
    found += argument_problems(config, arguments)
    if not gpu:
        found += ["`instance_group` asks for KIND_GPU, and there is no GPU"] * config.instance_kinds.count("KIND_GPU")
    return found


def _parameter_refusals(config: ReceivedConfig) -> list[str]:
    found = []
    for key in (*BOOLEANS, *THREADS):
        try:
            if key in THREADS:
                config.integer(key, 0)
            else:
                config.boolean(key, False)
        except ValueError as error:
            found.append(str(error))
    return found

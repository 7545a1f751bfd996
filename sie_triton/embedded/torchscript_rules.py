"""How NVIDIA's `pytorch` backend maps configured tensors to a TorchScript `forward`, and what it refuses.

Names are tried in three ways, as the backend does: all inputs are named like arguments of `forward`; else all are
`NAME__INDEX`; else the order of the configuration counts. Outputs have no argument names, so only the last two.
Targets of `batch_input` have no say in the way and go by it.
Stricter in one place: two inputs at one position, or one beyond the last, load there and fail at the first request.

No import beyond the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sie_triton.embedded.model_config import batch_targets, boolean_parameter, integer_parameter

# config.pbtxt's types that the backend of 24.10 knows -> torch's name. UINT16 to UINT64 and BF16 are not among them.
TORCH_TYPES: Mapping[str, str] = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_INT8": "int8",
    "TYPE_INT16": "int16",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
    "TYPE_FP64": "float64",
}
# Those of every release from 24.10 on; a release ignores what it does not know.
_BOOLEANS = (
    "DISABLE_OPTIMIZED_EXECUTION",
    "INFERENCE_MODE",
    "ENABLE_WEIGHT_SHARING",
    "ENABLE_CACHE_CLEANING",
    "ENABLE_JIT_EXECUTOR",
    "ENABLE_JIT_PROFILING",
    "ENABLE_TENSOR_FUSER",
    "ENABLE_NVFUSER",
    "DISABLE_CUDNN",
)
_INTEGERS = ("INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of `forward`, without `self`. `kind` is TorchScript's: `TensorType`, `DictType`, ..."""

    name: str
    kind: str


def takes_dictionary(arguments: Sequence[Argument]) -> bool:
    """Whether `forward` has one `Dict[str, Tensor]`, which takes every configured input under its own name."""
    return len(arguments) == 1 and arguments[0].kind == "DictType"


def input_positions(config: Mapping[str, Any], arguments: Sequence[Argument]) -> dict[str, int]:
    """Input name -> position among the arguments of `forward`; `batch_input` targets follow the same names."""
    inputs, targets = _tensor_names(config, "input"), [*batch_targets(config, "batch_input")]
    by_argument = {argument.name: position for position, argument in enumerate(arguments)}
    if not takes_dictionary(arguments) and all(name in by_argument for name in inputs):
        # A target that is no argument stays unset there, which is position 0.
        return {name: by_argument.get(name, 0) for name in (*inputs, *targets)}
    return _indexed_or_ordered(inputs, targets)


def output_positions(config: Mapping[str, Any]) -> dict[str, int]:
    """Output name -> position in the tuple that `forward` returns."""
    return _indexed_or_ordered(_tensor_names(config, "output"))


def refusals(config: Mapping[str, Any], arguments: Sequence[Argument], *, gpu: bool = True) -> list[str]:
    """Every reason for which the `pytorch` backend would not serve this model; empty if it would."""
    found = [f"the configuration has no {role}" for role in ("input", "output") if not config.get(role)]
    found += [
        f"{role} `{tensor['name']}` is {tensor['data_type']}, which the backend does not support"
        for role in ("input", "output")
        for tensor in config.get(role, ())
        if tensor["data_type"] not in TORCH_TYPES
    ]
    names = _tensor_names(config, "input")
    found += [
        f"input `{name}` is listed {names.count(name)} times" for name in sorted({*names}) if names.count(name) > 1
    ]
    for key in _BOOLEANS + _INTEGERS:
        try:
            if key in _INTEGERS:
                integer_parameter(config, key, 0)
            else:
                boolean_parameter(config, key, False)
        except ValueError as error:
            found.append(str(error))
    found += argument_refusals(config, arguments)
    found += [
        "`instance_group` asks for KIND_GPU, and there is no GPU"
        for group in config.get("instance_group", ())
        if group.get("kind") == "KIND_GPU" and not gpu
    ]
    return found


def argument_refusals(config: Mapping[str, Any], arguments: Sequence[Argument]) -> list[str]:
    """Why the inputs of a configuration are not what `forward` takes."""
    if takes_dictionary(arguments):
        return []
    found = [
        f"argument `{argument.name}` of `forward` is a {argument.kind}; it must be a tensor, or the only argument a "
        "`Dict[str, Tensor]`"
        for argument in arguments
        if argument.kind != "TensorType"
    ]
    positions = input_positions(config, arguments)
    if len(positions) != len(arguments):
        found.append(f"the configuration has {len(positions)} inputs, `forward` takes {len(arguments)}")
    elif sorted(positions.values()) != list(range(len(arguments))):
        places = ", ".join(f"`{name}` at {position}" for name, position in positions.items())
        found.append(f"the inputs do not fill the {len(arguments)} arguments of `forward`: {places}")
    return found


def _indexed_or_ordered(names: Sequence[str], followers: Sequence[str] = ()) -> dict[str, int]:
    everyone = [*names, *followers]
    if any(_index(name) is None for name in names):
        return {name: position for position, name in enumerate(everyone)}
    return {name: _index(name) or 0 for name in everyone}


def _index(name: str) -> int | None:
    """The number behind the first `__`, None where there is none; nothing at all counts as 0 there."""
    _, separator, digits = name.partition("__")
    if not separator or not (digits == "" or (digits.isascii() and digits.isdigit())):
        return None
    return int(digits or 0)


def _tensor_names(config: Mapping[str, Any], role: str) -> list[str]:
    return [tensor["name"] for tensor in config.get(role, ())]

"""How the PyTorch backend maps configured tensors to a TorchScript `forward`, and which it cannot map.

Names are tried in three ways, as the backend does: all inputs are named like arguments of `forward`; else all are
`NAME__INDEX`; else the order of the configuration counts. Outputs have no argument names, so only the last two.
Targets of `batch_input` have no say in the way and go by it.
Stricter in one place: two inputs at one position, or one beyond the last, load there and fail at the first request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sie_triton.backends.received import ReceivedConfig, targets

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
SERVED_TYPES = (*TORCH_TYPES, "TYPE_STRING")
"""The types that the backend takes; strings are lists to torch, not tensors."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of `forward`, without `self`. `kind` is TorchScript's: `TensorType`, `DictType`, ..."""

    name: str
    kind: str


def takes_dictionary(arguments: Sequence[Argument]) -> bool:
    """Whether `forward` has one `Dict[str, Tensor]`, which takes every configured input under its own name."""
    return len(arguments) == 1 and arguments[0].kind == "DictType"


def input_positions(config: ReceivedConfig, arguments: Sequence[Argument]) -> dict[str, int]:
    """Input name -> position among the arguments of `forward`; `batch_input` targets follow the same names."""
    inputs, made = [t.name for t in config.inputs], [*targets(config.batch_inputs)]
    by_argument = {argument.name: position for position, argument in enumerate(arguments)}
    if not takes_dictionary(arguments) and all(name in by_argument for name in inputs):
        # A target that is no argument stays unset there, which is position 0.
        return {name: by_argument.get(name, 0) for name in (*inputs, *made)}
    return _indexed_or_ordered(inputs, made)


def output_positions(config: ReceivedConfig) -> dict[str, int]:
    """Output name -> position in the tuple that `forward` returns."""
    return _indexed_or_ordered([t.name for t in config.outputs])


def argument_problems(config: ReceivedConfig, arguments: Sequence[Argument]) -> list[str]:
    """Why the inputs of a configuration are not what `forward` takes; empty where they are."""
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


def named_position(name: str) -> int | None:
    """The number behind the first `__` of a name, None where there is none; nothing at all counts as 0 there."""
    _, separator, digits = name.partition("__")
    if not separator or not (digits == "" or (digits.isascii() and digits.isdigit())):
        return None
    return int(digits or 0)


def _indexed_or_ordered(names: Sequence[str], followers: Sequence[str] = ()) -> dict[str, int]:
    everyone = [*names, *followers]
    if any(named_position(name) is None for name in names):
        return {name: position for position, name in enumerate(everyone)}
    return {name: named_position(name) or 0 for name in everyone}

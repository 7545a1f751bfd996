"""A configuration as Triton hands it to a backend: the JSON form of `ModelConfig`, read once into types.

Integers of 64 bits arrive as strings or numbers, enumerations as their names; absent fields mean proto3's defaults.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["input", "output"]

_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,10}\s*")
_TRUE, _FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True, slots=True)
class ConfigTensor:
    """An input or output of a configuration, at `index` among those of its role.

    `dims` are as written (no batch dimension), -1 is any size. What is not written is "", `TYPE_INVALID` or no dims.
    """

    role: Role
    index: int
    name: str
    data_type: str
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None
    optional: bool = False
    ragged: bool = False

    @property
    def graph_dims(self) -> tuple[int, ...]:
        """The dims that the graph itself sees: those of `reshape` where there is one."""
        return self.dims if self.reshape is None else self.reshape


@dataclass(frozen=True, slots=True)
class BatchTensor:
    """An entry of `batch_input` or `batch_output`: tensors that tell of, or are cut by, how requests were joined."""

    kind: str
    data_type: str
    targets: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReceivedConfig:
    """The fields that backends read. `sequence_inputs` are the graph inputs that sequence batching feeds.

    The accelerators map names to parameters; of two with one name the last counts.
    """

    max_batch_size: int
    inputs: tuple[ConfigTensor, ...]
    outputs: tuple[ConfigTensor, ...]
    batch_inputs: tuple[BatchTensor, ...]
    batch_outputs: tuple[BatchTensor, ...]
    is_sequence: bool
    sequence_inputs: tuple[str, ...]
    parameters: Mapping[str, str]
    graph_level: int
    gpu_accelerators: Mapping[str, Mapping[str, str]]
    cpu_accelerators: Mapping[str, Mapping[str, str]]
    op_libraries: tuple[str, ...]
    instance_kinds: tuple[str, ...]
    default_model_filename: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ReceivedConfig:
        """Read the JSON form; a field that is absent has its default."""
        sequence = config.get("sequence_batching") or {}
        optimization = config.get("optimization", {})
        accelerators = optimization.get("execution_accelerators", {})
        return cls(
            max_batch_size=int(config.get("max_batch_size", 0)),
            inputs=_tensors(config, "input"),
            outputs=_tensors(config, "output"),
            batch_inputs=_batch_tensors(config, "batch_input"),
            batch_outputs=_batch_tensors(config, "batch_output"),
            is_sequence=bool(config.get("sequence_batching")),
            sequence_inputs=(
                *(str(control.get("name", "")) for control in sequence.get("control_input", ())),
                *(str(state.get("input_name", "")) for state in sequence.get("state", ())),
            ),
            parameters={
                str(key): str(value.get("string_value", ""))
                for key, value in sorted(config.get("parameters", {}).items())
            },
            graph_level=int(optimization.get("graph", {}).get("level", 0)),
            gpu_accelerators=_accelerators(accelerators.get("gpu_execution_accelerator", ())),
            cpu_accelerators=_accelerators(accelerators.get("cpu_execution_accelerator", ())),
            op_libraries=tuple(map(str, config.get("model_operations", {}).get("op_library_filename", ()))),
            instance_kinds=tuple(str(group.get("kind", "KIND_AUTO")) for group in config.get("instance_group", ())),
            default_model_filename=str(config.get("default_model_filename", "")),
        )

    def integer(self, key: str, default: int) -> int:
        """The parameter as an integer.

        Raises:
            ValueError: it is something else; the message names the key.
        """
        if key not in self.parameters:
            return default
        number = read_integer(self.parameters[key])
        if number is None:
            raise ValueError(f"parameter `{key}` is `{self.parameters[key]}`, not an integer")
        return number

    def boolean(self, key: str, default: bool) -> bool:
        """The parameter as a switch.

        Raises:
            ValueError: it is something else; the message names the key.
        """
        if key not in self.parameters:
            return default
        switch = read_boolean(self.parameters[key])
        if switch is None:
            raise ValueError(f"parameter `{key}` is `{self.parameters[key]}`, neither true nor false")
        return switch


def read_integer(text: str) -> int | None:
    """The number that the C++ backends read as an `int`; None where they cannot."""
    number = int(text) if _INTEGER.fullmatch(text) else None
    return number if number is not None and abs(number) < 2**31 else None


def read_boolean(text: str) -> bool | None:
    """`true` and `1`, `false` and `0`, in any case; None for anything else."""
    lowered = text.lower()
    return lowered in _TRUE if lowered in _TRUE + _FALSE else None


def targets(entries: Iterable[BatchTensor]) -> dict[str, BatchTensor]:
    """Target tensor name -> its `batch_input` or `batch_output` entry."""
    return {name: entry for entry in entries for name in entry.targets}


def repeated(tensors: Iterable[ConfigTensor]) -> dict[str, int]:
    """Name -> how often it is listed, of those that are listed more than once."""
    return {name: count for name, count in Counter(t.name for t in tensors if t.name).items() if count > 1}


def _tensors(config: Mapping[str, Any], role: Role) -> tuple[ConfigTensor, ...]:
    return tuple(
        ConfigTensor(
            role=role,
            index=index,
            name=str(entry.get("name", "")),
            data_type=str(entry.get("data_type", "TYPE_INVALID")),
            dims=tuple(map(int, entry.get("dims", ()))),
            reshape=tuple(map(int, entry["reshape"].get("shape", ()))) if entry.get("reshape") is not None else None,
            optional=bool(entry.get("optional")),
            ragged=bool(entry.get("allow_ragged_batch")),
        )
        for index, entry in enumerate(config.get(role, ()))
    )


def _batch_tensors(config: Mapping[str, Any], field: str) -> tuple[BatchTensor, ...]:
    default = "BATCH_ELEMENT_COUNT" if field == "batch_input" else "BATCH_SCATTER_WITH_INPUT_SHAPE"
    return tuple(
        BatchTensor(
            kind=str(entry.get("kind", default)),
            data_type=str(entry.get("data_type", "TYPE_INVALID")),
            targets=tuple(map(str, entry.get("target_name", ()))),
            sources=tuple(map(str, entry.get("source_input", ()))),
        )
        for entry in config.get(field, ())
    )


def _accelerators(entries: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, str]]:
    return {
        str(entry.get("name", "")): {str(k): str(v) for k, v in entry.get("parameters", {}).items()}
        for entry in entries
    }

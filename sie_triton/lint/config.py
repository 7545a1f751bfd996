"""One `config.pbtxt`: its text, its protobuf message, where its fields stand, and what a backend reads in it.

Triton's own message definitions come with `tritonclient`; its `grpc` package imports the gRPC runtime, which the
linter does not need, so the generated module is loaded from its file.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import tritonclient
from google.protobuf import json_format, text_format

from sie_triton.backends.received import ConfigTensor, ReceivedConfig
from sie_triton.lint.pbtxt import FieldLines

ConfigMessage = Any
"""`inference.ModelConfig` of Triton's `model_config.proto`; the generated class carries no types."""

_MODULE = "_sie_triton_model_config_pb2"


@cache
def model_config_pb2() -> ModuleType:
    """The generated module of `model_config.proto`.

    Raises:
        ImportError: the installed `tritonclient` does not ship it.
    """
    for folder in tritonclient.__path__:
        file = Path(folder) / "grpc" / "model_config_pb2.py"
        spec = importlib.util.spec_from_file_location(_MODULE, file) if file.is_file() else None
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            sys.modules[_MODULE] = module
            spec.loader.exec_module(module)
            return module
    raise ImportError("`tritonclient` is installed without `grpc/model_config_pb2.py`; reinstall `tritonclient`")


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """Why a configuration is no `ModelConfig`."""

    message: str
    line: int | None


@dataclass(frozen=True)
class ConfigFile:
    """A configuration and its file. `written` is False where there is no file and Triton would complete everything."""

    path: Path
    text: str
    message: ConfigMessage
    lines: FieldLines
    written: bool = True

    @cached_property
    def received(self) -> ReceivedConfig:
        """The configuration as Triton hands it to a backend."""
        return ReceivedConfig.of(json_format.MessageToDict(self.message, preserving_proto_field_name=True))

    @property
    def inputs(self) -> tuple[ConfigTensor, ...]:
        """The inputs that are written."""
        return self.received.inputs

    @property
    def outputs(self) -> tuple[ConfigTensor, ...]:
        """The outputs that are written."""
        return self.received.outputs

    @property
    def max_batch_size(self) -> int:
        """The number that is written, else 0."""
        return self.received.max_batch_size

    @property
    def is_ensemble(self) -> bool:
        """Whether the model is an ensemble, by its platform or by its steps."""
        return bool(self.message.HasField("ensemble_scheduling")) or str(self.message.platform) == "ensemble"

    @property
    def parameters(self) -> Mapping[str, str]:
        """The `parameters` map in the order of its keys, values as text."""
        return self.received.parameters


def parse(path: Path, raw: bytes) -> ConfigFile | ParseFailure:
    """Read the bytes of a configuration; never raises for what is in them."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return ParseFailure(f"the file is not UTF-8 text: byte {error.start} is 0x{raw[error.start]:02x}", None)
    message = model_config_pb2().ModelConfig()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        return ParseFailure(_explain(str(error)), error.GetLine())
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        return ParseFailure(f"the file is no `ModelConfig`: {error}", None)
    return ConfigFile(path, text, message, FieldLines.read(text))


def absent(path: Path) -> ConfigFile:
    """The empty configuration of a model folder without `config.pbtxt`."""
    return ConfigFile(path, "", model_config_pb2().ModelConfig(), FieldLines(), written=False)


def enum_name(enum: Any, value: int) -> str:
    """Name of a value of a generated enum; its number as text where the enum has no such value."""
    return str(enum.Name(value)) if value in enum.values() else str(value)


def _explain(error: str) -> str:
    """Protobuf's message without its position, with the field or value that was probably meant."""
    error = re.sub(r"^\d+:\d+ : ", "", error).strip().rstrip(".")
    unknown = re.search(r'Message type "([\w.]+)" has no field named "([^"]*)"', error)
    if unknown:
        names = _fields(unknown[1])
        close = difflib.get_close_matches(unknown[2], names, n=1)
        did_you_mean = f"; did you mean `{close[0]}`?" if close else ""
        kind = unknown[1].removeprefix("inference.")
        return f"`{unknown[2]}` is no field of `{kind}`{did_you_mean}"
    return " ".join(error.split())


def _fields(type_name: str) -> list[str]:
    pool = model_config_pb2().DESCRIPTOR.pool
    try:
        return [str(f.name) for f in pool.FindMessageTypeByName(type_name).fields]
    except KeyError:
        return []

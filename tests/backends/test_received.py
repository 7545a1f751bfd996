"""Configurations in the JSON form that Triton hands to its backends."""

from __future__ import annotations

import pytest
from google.protobuf import json_format, text_format

from sie_triton.backends.received import (
    BatchTensor,
    ConfigTensor,
    ReceivedConfig,
    read_boolean,
    read_integer,
    repeated,
    targets,
)
from sie_triton.lint.config import model_config_pb2

TEXT = """
backend: "onnxruntime"
max_batch_size: 8
default_model_filename: "encoder.onnx"
input [
  { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true },
  { name: "w" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } optional: true }
]
output [ { name: "y" data_type: TYPE_FP16 dims: [ -1, 8 ] } ]
batch_input [ { target_name: "n" data_type: TYPE_INT32 source_input: "ids" } ]
batch_output [ { target_name: "y" source_input: "ids" } ]
sequence_batching {
  control_input [ { name: "start" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] } ]
  state [ { input_name: "memory" output_name: "memory_out" data_type: TYPE_FP32 dims: 4 } ]
}
instance_group [ { kind: KIND_CPU count: 2 }, { count: 1 } ]
parameters { key: "b" value { string_value: "2" } }
parameters { key: "a" value { string_value: "True" } }
model_operations { op_library_filename: "libmine.so" }
optimization {
  graph { level: -1 }
  execution_accelerators {
    gpu_execution_accelerator [ { name: "cuda" parameters { key: "use_tf32" value: "0" } } ]
    cpu_execution_accelerator [ { name: "openvino" } ]
  }
}
"""


def received(text: str, *, with_defaults: bool = False) -> ReceivedConfig:
    message = text_format.Parse(text, model_config_pb2().ModelConfig())
    config = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=with_defaults
    )
    return ReceivedConfig.of(config)


def test_every_field_is_read() -> None:
    assert received(TEXT) == ReceivedConfig(
        max_batch_size=8,
        inputs=(
            ConfigTensor("input", 0, "ids", "TYPE_INT64", (-1,), None, ragged=True),
            ConfigTensor("input", 1, "w", "TYPE_FP32", (1,), (), optional=True),
        ),
        outputs=(ConfigTensor("output", 0, "y", "TYPE_FP16", (-1, 8), None),),
        batch_inputs=(BatchTensor("BATCH_ELEMENT_COUNT", "TYPE_INT32", ("n",), ("ids",)),),
        batch_outputs=(BatchTensor("BATCH_SCATTER_WITH_INPUT_SHAPE", "TYPE_INVALID", ("y",), ("ids",)),),
        is_sequence=True,
        sequence_inputs=("start", "memory"),
        parameters={"a": "True", "b": "2"},
        graph_level=-1,
        gpu_accelerators={"cuda": {"use_tf32": "0"}},
        cpu_accelerators={"openvino": {}},
        op_libraries=("libmine.so",),
        instance_kinds=("KIND_CPU", "KIND_AUTO"),
        default_model_filename="encoder.onnx",
    )


@pytest.mark.parametrize("text", [TEXT, ""])
def test_defaults_may_be_written_or_absent(text: str) -> None:
    assert received(text, with_defaults=True) == received(text)


def test_parameters_are_read_or_named() -> None:
    config = received(TEXT)
    assert config.integer("b", 7) == 2
    assert config.integer("absent", 7) == 7
    assert config.boolean("a", False) is True
    assert config.boolean("absent", True) is True
    with pytest.raises(ValueError, match="`a` is `True`, not an integer"):
        config.integer("a", 7)
    with pytest.raises(ValueError, match="`b` is `2`, neither true nor false"):
        config.boolean("b", True)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        (" +07 ", 7),
        ("-3", -3),
        ("2147483647", 2147483647),
        ("2147483648", None),
        ("9" * 5000, None),
        ("two", None),
        ("", None),
        ("1.0", None),
        ("٣", None),
    ],
)
def test_integers_are_those_of_c(text: str, number: int | None) -> None:
    assert read_integer(text) == number


@pytest.mark.parametrize(
    ("text", "switch"), [("true", True), ("FALSE", False), ("1", True), ("0", False), ("on", None), ("", None)]
)
def test_switches(text: str, switch: bool | None) -> None:
    assert read_boolean(text) is switch


def test_names_are_counted_and_targets_found() -> None:
    twice = received('input [ { name: "x" }, { name: "x" }, { name: "z" }, { }, { } ]')
    assert repeated(twice.inputs) == {"x": 2}
    assert targets(received(TEXT).batch_inputs).keys() == {"n"}

"""What NVIDIA's C++ ONNX Runtime backend refuses, as a pure function of a configuration and a graph's signature.

The embedded server's Python backend applies it when it loads a model, a repository linter without loading
anything. The rules are those of tritonserver 24.10 (ONNX Runtime 1.19), the oldest release we promise; each was
seen to be enforced there. Stricter in three places where the C++ backend loads a model that cannot work: an
integer parameter with trailing text, a `batch_input` whose target the graph lacks or types differently, and
`optional` inputs.

Inputs are counted there, not matched by name: those of the configuration without the `optional` ones, and those that
`batch_input` makes, must be as many as the graph requires. An initializer that is also a graph input (from IR version
4 on callers may override it) is not among these.

No import beyond the standard library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sie_triton.embedded.model_config import (
    batch_targets,
    boolean_parameter,
    dims,
    integer_parameter,
    max_batch_size,
)
from sie_triton.embedded.onnx_operators import MAX_ML_OPSET, foreign

MAX_IR_VERSION = 10
MAX_OPSET = 21
_ONNX_RUNTIME = (1, 19)
_CPU_ACCELERATORS = ("openvino",)

# What ONNX Runtime calls an element type -> what config.pbtxt calls it.
DATATYPES: Mapping[str, str] = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
    "tensor(bfloat16)": "TYPE_BF16",
}
_SUPPORTED = frozenset(DATATYPES.values()) - {"TYPE_BF16"}
_BATCH_INPUT_KINDS = frozenset(
    {
        "BATCH_ELEMENT_COUNT",
        "BATCH_ACCUMULATED_ELEMENT_COUNT",
        "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
        "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
        "BATCH_ITEM_SHAPE",
        "BATCH_ITEM_SHAPE_FLATTEN",
    }
)


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """One input or output of a graph, after ONNX Runtime's shape inference.

    `datatype` is config.pbtxt's name (`TYPE_FP32`), or ONNX Runtime's own (`seq(tensor(float))`) where Triton has
    none. A dimension is a number, or a symbol or None where it is dynamic.
    """

    name: str
    datatype: str
    shape: tuple[int | str | None, ...]

    @property
    def triton_shape(self) -> tuple[int, ...]:
        """The shape with -1 for every dynamic dimension."""
        return tuple(dim if isinstance(dim, int) else -1 for dim in self.shape)


def refusals(
    config: Mapping[str, Any],
    inputs: Sequence[GraphTensor],
    outputs: Sequence[GraphTensor],
    *,
    ir_version: int,
    opset: int,
    ml_opset: int = 0,
    operators: Iterable[tuple[str, str]] = (),
    overridable: Collection[str] = (),
    gpu: bool = True,
) -> list[str]:
    """Every reason for which the C++ backend would not load this model; empty if it would.

    `config` is a ModelConfig as JSON, `opset` that of the default ONNX domain, `ml_opset` of `ai.onnx.ml`, `operators`
    the graph's as (domain, type), `overridable` its inputs that have an initializer, `gpu` whether the machine has one.
    """
    graph_inputs = {tensor.name: tensor for tensor in inputs}
    graph_outputs = {tensor.name: tensor for tensor in outputs}
    return [
        *_version_refusals(ir_version, opset, ml_opset),
        *_operator_refusals(config, operators),
        *_parameter_refusals(config),
        *_accelerator_refusals(config),
        *_type_refusals([*inputs, *outputs]),
        *_repeated_refusals(config),
        *_input_refusals(config, graph_inputs, overridable),
        *_batch_input_refusals(config, graph_inputs),
        *_output_refusals(config, graph_outputs),
        *_batch_output_refusals(config),
        *_instance_refusals(config, gpu),
    ]


def _version_refusals(ir_version: int, opset: int, ml_opset: int) -> list[str]:
    found = []
    if ir_version > MAX_IR_VERSION:
        found.append(f"the graph has IR version {ir_version}, ONNX Runtime 1.19 reads at most {MAX_IR_VERSION}")
    if opset > MAX_OPSET:
        found.append(f"the graph needs opset {opset}, ONNX Runtime 1.19 has at most {MAX_OPSET}")
    if ml_opset > MAX_ML_OPSET:
        found.append(f"the graph needs opset {ml_opset} of `ai.onnx.ml`, ONNX Runtime 1.19 has at most {MAX_ML_OPSET}")
    return found


def _operator_refusals(config: Mapping[str, Any], operators: Iterable[tuple[str, str]]) -> list[str]:
    """Operators of other domains than ONNX's own; a library of `model_operations` may bring any."""
    if op_libraries(config):
        return []
    reasons = [foreign(domain, operator, _ONNX_RUNTIME) for domain, operator in sorted(operators)]
    return [
        f"the graph needs {reason}; `model_operations` can name a library that has it" for reason in reasons if reason
    ]


def op_libraries(config: Mapping[str, Any]) -> list[str]:
    """The libraries of custom operators that the configuration names."""
    return [str(name) for name in config.get("model_operations", {}).get("op_library_filename", ())]


def _accelerator_refusals(config: Mapping[str, Any]) -> list[str]:
    found = config.get("optimization", {}).get("execution_accelerators", {}).get("cpu_execution_accelerator", ())
    known = ", ".join(f"`{name}`" for name in _CPU_ACCELERATORS)
    return [
        f"`{entry.get('name', '')}` is no `cpu_execution_accelerator`; there is {known}"
        for entry in found
        if entry.get("name", "") not in _CPU_ACCELERATORS
    ]


def _repeated_refusals(config: Mapping[str, Any]) -> list[str]:
    """The backend counts the entries: an input that stands there twice is one more than the graph has."""
    counts = Counter(tensor["name"] for tensor in config.get("input", ()))
    return [f"input `{name}` is listed {count} times" for name, count in counts.items() if count > 1]


def _parameter_refusals(config: Mapping[str, Any]) -> list[str]:
    found = []
    checks: list[tuple[Callable[[Mapping[str, Any], str, Any], Any], str]] = [
        (integer_parameter, "intra_op_thread_count"),
        (integer_parameter, "inter_op_thread_count"),
        (integer_parameter, "execution_mode"),
        (boolean_parameter, "enable_mem_arena"),
        (boolean_parameter, "enable_mem_pattern"),
    ]
    for read, key in checks:
        try:
            value = read(config, key, 0)
        except ValueError as error:
            found.append(str(error))
            continue
        if key == "execution_mode" and value not in (0, 1):
            found.append(f"parameter `execution_mode` is {value}; 0 (sequential) and 1 (parallel) are all there is")
    return found


def _type_refusals(tensors: Sequence[GraphTensor]) -> list[str]:
    return [
        f"the graph's `{tensor.name}` is a `{tensor.datatype}`; only dense tensors can pass through Triton"
        for tensor in tensors
        if not tensor.datatype.startswith("TYPE_")
    ]


def _input_refusals(
    config: Mapping[str, Any], graph: Mapping[str, GraphTensor], overridable: Collection[str]
) -> list[str]:
    found = []
    rows = max_batch_size(config)
    configured = {tensor["name"]: tensor for tensor in config.get("input", ())}
    if unlisted := sorted(graph.keys() - configured.keys() - batch_targets(config, "batch_input").keys()):
        found.append(f"the graph's inputs {_names(unlisted)} are not in the configuration, which must list them all")
    for name, tensor in configured.items():
        if name not in graph and name in overridable:
            found.append(
                f"input `{name}` is an initializer of the graph, which the backend does not count among its inputs: "
                "do not list it, or take the initializer out of the graph"
            )
            continue
        if name not in graph:
            found.append(f"input `{name}` is not in the graph, which has {_names(graph)}")
            continue
        if tensor.get("optional"):
            found.append(f"input `{name}` is `optional`, which the backend does not support")
        found += _datatype_refusals("input", tensor, graph[name])
        shape = graph[name].triton_shape
        if tensor.get("allow_ragged_batch"):
            if shape != (-1,):
                found.append(
                    f"ragged input `{name}` must have one dynamic dimension in the graph, which has {_shape(shape)}: "
                    "all requests arrive concatenated"
                )
        else:
            found += _shape_refusals("input", name, shape, dims(tensor), rows, exact=False)
    return found


def _batch_input_refusals(config: Mapping[str, Any], graph: Mapping[str, GraphTensor]) -> list[str]:
    found = []
    inputs = {tensor["name"] for tensor in config.get("input", ())}
    for entry in config.get("batch_input", ()):
        targets, sources = list(entry.get("target_name", ())), list(entry.get("source_input", ()))
        kind, datatype = entry.get("kind", "BATCH_ELEMENT_COUNT"), entry.get("data_type", "TYPE_INVALID")
        if len(targets) != 1:
            found.append(f"`batch_input` with targets {_names(targets)}: write one entry per target")
        if len(sources) != 1 or sources[0] not in inputs:
            found.append(f"`batch_input` for {_names(targets)} needs one configured input as its `source_input`")
        if kind not in _BATCH_INPUT_KINDS:
            found.append(f"`batch_input` for {_names(targets)} has the unknown kind `{kind}`")
        if datatype not in ("TYPE_INT32", "TYPE_FP32"):
            found.append(f"`batch_input` for {_names(targets)} is {datatype}; only TYPE_INT32 and TYPE_FP32 exist")
        for target in targets:
            if target not in graph:
                found.append(f"`batch_input` target `{target}` is not an input of the graph, which has {_names(graph)}")
            elif graph[target].datatype != datatype:
                found.append(
                    f"`batch_input` target `{target}` is {datatype} in the configuration, "
                    f"{graph[target].datatype} in the graph"
                )
    return found


def _output_refusals(config: Mapping[str, Any], graph: Mapping[str, GraphTensor]) -> list[str]:
    found = []
    scattered = batch_targets(config, "batch_output")
    for tensor in config.get("output", ()):
        name = tensor["name"]
        if name not in graph:
            found.append(f"output `{name}` is not in the graph, which has {_names(graph)}")
            continue
        found += _datatype_refusals("output", tensor, graph[name])
        if name not in scattered:
            shape = graph[name].triton_shape
            found += _shape_refusals("output", name, shape, dims(tensor), max_batch_size(config), exact=True)
    return found


def _batch_output_refusals(config: Mapping[str, Any]) -> list[str]:
    found = []
    inputs = {tensor["name"] for tensor in config.get("input", ())}
    outputs = {tensor["name"] for tensor in config.get("output", ())}
    for entry in config.get("batch_output", ()):
        targets, sources = list(entry.get("target_name", ())), list(entry.get("source_input", ()))
        if len(targets) != 1 or targets[0] not in outputs:
            found.append(f"`batch_output` for {_names(targets)} needs one configured output as its `target_name`")
        if len(sources) != 1 or sources[0] not in inputs:
            found.append(f"`batch_output` for {_names(targets)} needs one configured input as its `source_input`")
    return found


def _instance_refusals(config: Mapping[str, Any], gpu: bool) -> list[str]:
    if gpu:
        return []
    return [
        "`instance_group` asks for KIND_GPU, and there is no GPU"
        for group in config.get("instance_group", ())
        if group.get("kind") == "KIND_GPU"
    ]


def _datatype_refusals(role: str, tensor: Mapping[str, Any], graph: GraphTensor) -> list[str]:
    datatype = tensor.get("data_type", "TYPE_INVALID")
    if datatype not in _SUPPORTED:
        return [f"{role} `{graph.name}` is {datatype}, which the backend does not support before release 26.03"]
    if datatype != graph.datatype and graph.datatype.startswith("TYPE_"):
        return [f"{role} `{graph.name}` is {datatype} in the configuration, {graph.datatype} in the graph"]
    return []


def _shape_refusals(
    role: str, name: str, graph: tuple[int, ...], configured: tuple[int, ...], rows: int, *, exact: bool
) -> list[str]:
    if rows and not graph:
        return [
            f"{role} `{name}` is a scalar in the graph, or has no shape there; with `max_batch_size` {rows} it needs a "
            "batch dimension"
        ]
    if not graph:
        if all(dim == 1 for dim in configured):
            return []
        return [
            f"{role} `{name}` is a scalar in the graph, or has no shape there, so its dims may hold only ones, not "
            f"{_shape(configured)}"
        ]
    if rows and graph[0] != -1:
        return [
            f"{role} `{name}` has the fixed first dimension {graph[0]} in the graph; with `max_batch_size` {rows} it "
            "must be dynamic"
        ]
    full = (-1, *configured) if rows else configured
    if len(full) == len(graph) and all(
        have == want or (want == -1 and not exact) for have, want in zip(full, graph, strict=True)
    ):
        return []
    hint = ""
    if rows and len(graph) == 1 and configured == (1,):
        hint = "; add `reshape { shape: [ ] }`"
    elif exact and len(full) == len(graph):
        hint = "; they must be equal, so declare the number in the graph or -1 in the configuration"
    return [
        f"{role} `{name}` has shape {_shape(full)} in the configuration"
        f"{' (with the batch)' if rows else ''}, {_shape(graph)} in the graph{hint}"
    ]


def _names(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _shape(shape: Sequence[int]) -> str:
    return "[" + ", ".join(str(dim) for dim in shape) + "]"

"""Why NVIDIA's ONNX Runtime backend would not load a model, in words for Triton's log.

The rules are those of the oldest release that we promise; each was seen to be enforced there. Stricter in two places
where the C++ backend loads a model that cannot work: a `batch_input` whose target the graph lacks or types
differently, and `optional` inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from sie_triton.backends import batching
from sie_triton.backends.onnxruntime import parameters, types
from sie_triton.backends.onnxruntime.header import OnnxHeader
from sie_triton.backends.onnxruntime.operators import MAX_ML_OPSET, foreign
from sie_triton.backends.onnxruntime.signature import (
    GraphTensor,
    Misfit,
    misfit,
    types_differ,
    unfed_inputs,
    unknown_inputs,
    unknown_outputs,
)
from sie_triton.backends.received import BatchTensor, ConfigTensor, ReceivedConfig, repeated, targets
from sie_triton.backends.releases import OLDEST, onnx_runtime

_RUNTIME = onnx_runtime(OLDEST)
_NAME = "ONNX Runtime {}.{}".format(*_RUNTIME.minor)


def header_refusals(config: ReceivedConfig, header: OnnxHeader) -> list[str]:
    """What needs no session: a session cannot be made from a wrong parameter or operator."""
    return [
        *_version_refusals(header),
        *_operator_refusals(config, header),
        *_parameter_refusals(config),
        *_accelerator_refusals(config),
    ]


def signature_refusals(
    config: ReceivedConfig,
    inputs: Sequence[GraphTensor],
    outputs: Sequence[GraphTensor],
    *,
    overridable: Collection[str] = (),
    gpu: bool = True,
) -> list[str]:
    """What the graph's inputs and outputs, after ONNX Runtime's shape inference, say against the configuration.

    `overridable` are the graph's inputs that have an initializer, `gpu` is whether the machine has one.
    """
    graph_inputs = {tensor.name: tensor for tensor in inputs}
    graph_outputs = {tensor.name: tensor for tensor in outputs}
    kinds = () if gpu else config.instance_kinds
    return [
        *_kind_refusals([*inputs, *outputs]),
        *(f"input `{name}` is listed {count} times" for name, count in repeated(config.inputs).items()),
        *_input_refusals(config, graph_inputs, overridable),
        *_batch_input_refusals(config, graph_inputs),
        *_output_refusals(config, graph_outputs),
        *_batch_output_refusals(config),
        *("`instance_group` asks for KIND_GPU, and there is no GPU" for kind in kinds if kind == "KIND_GPU"),
    ]


def _version_refusals(header: OnnxHeader) -> list[str]:
    found = []
    if header.ir_version > _RUNTIME.max_ir_version:
        found.append(f"the graph has IR version {header.ir_version}, {_NAME} reads at most {_RUNTIME.max_ir_version}")
    if header.opset > _RUNTIME.max_opset:
        found.append(f"the graph needs opset {header.opset}, {_NAME} has at most {_RUNTIME.max_opset}")
    if header.ml_opset > MAX_ML_OPSET:
        found.append(f"the graph needs opset {header.ml_opset} of `ai.onnx.ml`, {_NAME} has at most {MAX_ML_OPSET}")
    return found


def _operator_refusals(config: ReceivedConfig, header: OnnxHeader) -> list[str]:
    """Operators of other domains than ONNX's own; a library of `model_operations` may bring any."""
    if config.op_libraries:
        return []
    reasons = [foreign(domain, operator, _RUNTIME.minor) for domain, operator in sorted(header.operators)]
    return [
        f"the graph needs {reason}; `model_operations` can name a library that has it" for reason in reasons if reason
    ]


def _parameter_refusals(config: ReceivedConfig) -> list[str]:
    found = []
    for key in (*parameters.INTEGERS, *parameters.BOOLEANS):
        try:
            if key in parameters.BOOLEANS:
                config.boolean(key, False)
            elif (value := config.integer(key, 0)) not in parameters.EXECUTION_MODES and key == "execution_mode":
                found.append(f"parameter `execution_mode` is {value}; 0 (sequential) and 1 (parallel) are all there is")
        except ValueError as error:
            found.append(str(error))
    return found


def _accelerator_refusals(config: ReceivedConfig) -> list[str]:
    return [
        f"`{name}` is no `cpu_execution_accelerator`; there is {_names(parameters.CPU_ACCELERATORS)}"
        for name in config.cpu_accelerators
        if name not in parameters.CPU_ACCELERATORS
    ]


def _kind_refusals(tensors: Sequence[GraphTensor]) -> list[str]:
    return [
        f"the graph's `{tensor.name}` is a `{tensor.kind}`; only dense tensors can pass through Triton"
        for tensor in tensors
        if tensor.kind != "tensor"
    ]


def _input_refusals(
    config: ReceivedConfig, graph: Mapping[str, GraphTensor], overridable: Collection[str]
) -> list[str]:
    found = []
    if unfed := unfed_inputs(config, graph):
        found.append(f"the graph's inputs {_names(unfed)} are not in the configuration, which must list them all")
    made = targets(config.batch_inputs)
    for name in unknown_inputs(config, graph):
        if name in made:
            found.append(f"`batch_input` target `{name}` is not an input of the graph, which has {_names(graph)}")
        elif name in overridable:
            found.append(
                f"input `{name}` is an initializer of the graph, which the backend does not count among its inputs: "
                "do not list it, or take the initializer out of the graph"
            )
        else:
            found.append(f"input `{name}` is not in the graph, which has {_names(graph)}")
    for tensor in config.inputs:
        if tensor.name in graph:
            if tensor.optional:
                found.append(f"input `{tensor.name}` is `optional`, which the backend does not support")
            found += _tensor_refusals(config, tensor, graph[tensor.name])
    return found


def _batch_input_refusals(config: ReceivedConfig, graph: Mapping[str, GraphTensor]) -> list[str]:
    found = []
    for entry in config.batch_inputs:
        if not batching.has_one_target(entry):
            found.append(f"`batch_input` with targets {_names(entry.targets)}: write one entry per target")
        if not _has_configured_source(config, entry):
            found.append(f"`batch_input` for {_names(entry.targets)} needs one configured input as its `source_input`")
        if entry.kind not in batching.KINDS:
            found.append(f"`batch_input` for {_names(entry.targets)} has the unknown kind `{entry.kind}`")
        if entry.data_type not in batching.TYPES:
            there = " and ".join(batching.TYPES)
            found.append(f"`batch_input` for {_names(entry.targets)} is {entry.data_type}; only {there} exist")
        found += [
            f"`batch_input` target `{target}` is {entry.data_type} in the configuration, "
            f"{graph[target].data_type} in the graph"
            for target in entry.targets
            if target in graph and graph[target].data_type != entry.data_type
        ]
    return found


def _output_refusals(config: ReceivedConfig, graph: Mapping[str, GraphTensor]) -> list[str]:
    found = [
        f"output `{tensor.name}` is not in the graph, which has {_names(graph)}"
        for tensor in unknown_outputs(config, graph)
    ]
    for tensor in config.outputs:
        if tensor.name in graph:
            found += _tensor_refusals(config, tensor, graph[tensor.name])
    return found


def _batch_output_refusals(config: ReceivedConfig) -> list[str]:
    found = []
    for entry in config.batch_outputs:
        if not batching.has_one_target(entry) or batching.unknown_targets(entry, config.outputs):
            found.append(f"`batch_output` for {_names(entry.targets)} needs one configured output as its `target_name`")
        if not _has_configured_source(config, entry):
            found.append(f"`batch_output` for {_names(entry.targets)} needs one configured input as its `source_input`")
    return found


def _has_configured_source(config: ReceivedConfig, entry: BatchTensor) -> bool:
    return batching.has_one_source(entry) and not batching.unknown_sources(entry, config.inputs)


def _tensor_refusals(config: ReceivedConfig, tensor: ConfigTensor, found: GraphTensor) -> list[str]:
    """What type and dims of a configured tensor say against the graph's."""
    if found.kind != "tensor":
        return []
    role, reasons = f"{tensor.role} `{tensor.name}`", []
    if not types.serves(tensor.data_type, OLDEST):
        reasons.append(
            f"{role} is {tensor.data_type}, which the backend does not support before release {types.BF16_SINCE}"
        )
    elif types_differ(tensor, found):
        reasons.append(f"{role} is {tensor.data_type} in the configuration, {found.data_type} in the graph")
    if (wrong := misfit(config, tensor, found)) is not None:
        reasons.append(_misfit_refusal(config, tensor, found.dims or (), wrong))
    return reasons


def _misfit_refusal(config: ReceivedConfig, tensor: ConfigTensor, theirs: tuple[int, ...], wrong: Misfit) -> str:
    rows, ours, role = config.max_batch_size, tensor.graph_dims, f"{tensor.role} `{tensor.name}`"
    if wrong is Misfit.RAGGED:
        return (
            f"ragged {role} must have one dynamic dimension in the graph, which has {_shape(theirs)}: all requests "
            "arrive concatenated"
        )
    if wrong is Misfit.NO_BATCH:
        missing = f"with `max_batch_size` {rows} it needs a batch dimension"
        return f"{role} is a scalar in the graph, or has no shape there; {missing}"
    if wrong is Misfit.SCALAR:
        allowed = f"so its dims may hold only ones, not {_shape(ours)}"
        return f"{role} is a scalar in the graph, or has no shape there, {allowed}"
    if wrong is Misfit.FIXED_BATCH:
        needed = f"with `max_batch_size` {rows} it must be dynamic"
        return f"{role} has the fixed first dimension {theirs[0]} in the graph; {needed}"
    full, hint = ((-1, *ours) if rows else ours), ""
    if wrong is Misfit.VECTOR and ours == (1,):
        hint = "; add `reshape { shape: [ ] }`"
    elif tensor.role == "output" and len(full) == len(theirs):
        hint = "; they must be equal, so declare the number in the graph or -1 in the configuration"
    batch = " (with the batch)" if rows else ""
    return f"{role} has shape {_shape(full)} in the configuration{batch}, {_shape(theirs)} in the graph{hint}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _shape(shape: Sequence[int]) -> str:
    return "[" + ", ".join(str(dim) for dim in shape) + "]"

"""Typed mirror of the parts of Triton's `ModelConfig` that we use; the field names are the protobuf's.

Nothing is left to Triton's auto-completion: what is not written here is not meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from sie_triton.backends.embedded import ALONE_THREADS, STREAMS, WIDEST_ROW
from sie_triton.embedded.openvino_engine import ACCELERATOR as OPENVINO
from sie_triton.embedded.openvino_engine import PRECISION_KEY, engine_precision
from sie_triton.formats import Device, Format
from sie_triton.planning.plan import GraphPlan, TritonPlan
from sie_triton.planning.tensors import Tensor

# A batch should fit a CPU's cache; a GPU is filled up to the bundle's own ceiling.
CPU_RUN_TOKENS = 512
MAX_INSTANCES = 4
# A run that is alone may have so many threads; more were not measured.
MAX_ALONE_THREADS = 2
# A CPU instance is a session with its own copy of the weights: past this size, threads are cheaper than copies.
INSTANCE_WEIGHT_BYTES = 256 * 1024 * 1024

# What a repository can be served on. Triton takes `configs/NAME.pbtxt` in place of `config.pbtxt` when it is started
# with `--model-config-name=NAME`; a machine's configuration has its name, the default one none.
Machine = Literal["cpu", "cuda", "cuda-tensorrt"]
# The embedded server on a CPU has a configuration of its own, which differs in how several runs are computed at once.
ConfigName = Literal["", "cpu", "cuda", "cuda-tensorrt", "embedded"]
Parameters: TypeAlias = "tuple[tuple[str, str], ...]"


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """`ModelInput` and `ModelOutput`."""

    name: str
    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DynamicBatching:
    """`ModelDynamicBatching`. Triton merges requests of equal shape only, and waits for none of them here.

    There is no queue policy, since with one the batcher prepares nothing ahead, and a query may wait beside an idle
    instance until another's run ends. The frontend has the limit, and never has more runs under way than it was given.
    """

    max_queue_delay_microseconds: int = 0


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """`ModelInstanceGroup`: how many copies run, on which kind of device."""

    count: int
    kind: str = "KIND_CPU"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One `gpu_execution_accelerator` or `cpu_execution_accelerator` of `ModelOptimizationPolicy`."""

    name: str
    parameters: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class EnsembleStepConfig:
    """`ModelEnsembling.Step`."""

    model_name: str
    input_map: tuple[tuple[str, str], ...]
    output_map: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TritonModelConfig:
    """One `config.pbtxt`: either a graph (`backend`) or an ensemble (`steps`)."""

    name: str
    max_batch_size: int
    input: tuple[TensorConfig, ...]
    output: tuple[TensorConfig, ...]
    backend: str = ""
    platform: str = ""
    default_model_filename: str = ""
    instance_group: InstanceGroup | None = None
    dynamic_batching: DynamicBatching | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    cpu_accelerators: tuple[Accelerator, ...] = ()
    steps: tuple[EnsembleStepConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class CpuShape:
    """How a CPU's cores are used: `instances` sessions with `threads` threads each, and `express` more.

    An express session computes what is small while the others are busy with bulk: it takes a share of their cores for
    a moment, so that a query does not wait for a run to end.
    """

    instances: int
    threads: int
    express: int = 0


def cpu_shape(cores: int, weight_bytes: int) -> CpuShape:
    """One-threaded instances while their weights are small, else fewer instances with more threads.

    `instances * threads <= cores`: in a container ONNX Runtime would see the host's cores, so the numbers are written.
    An express instance comes on top where one more copy of the weights is cheap.
    """
    affordable = max(1, INSTANCE_WEIGHT_BYTES // max(1, weight_bytes))
    instances = max(1, min(cores, affordable, MAX_INSTANCES))
    return CpuShape(instances, max(1, cores // instances), express=int(affordable > 1))


def run_tokens(machine: Machine, max_batch_tokens: int, row_tokens: int = 1) -> int:
    """What one run may cost on a kind of machine: told in tokens, or in rows where all take `row_tokens` of them."""
    tokens = min(CPU_RUN_TOKENS, max_batch_tokens) if machine == "cpu" else max_batch_tokens
    return max(1, tokens // row_tokens)


def max_batch_size(max_batch_tokens: int, buckets: tuple[int, ...], run_tokens: int) -> int:
    """Rows that one Triton batch may hold.

    `max_batch_tokens // longest bucket` rows keep a full batch of the longest texts within the bundle's ceiling; at
    least `run_tokens // shortest bucket` rows let the frontend fill one run with the shortest ones. The frontend never
    sends a request that costs more than `run_tokens` tokens, so only requests that queue up and have equal shapes are
    merged beyond that, and this number bounds them.
    """
    return max(1, max_batch_tokens // buckets[-1], run_tokens // buckets[0])


def device_rows(plan: TritonPlan, machine: Machine) -> int:
    """`max_batch_size` of every Triton model of a plan on a kind of machine."""
    most = plan.max_batch_tokens // plan.row_tokens
    if machine == "cuda-tensorrt":
        # TensorRT reserves memory for its largest shape, which is this many rows of the longest bucket.
        return max(1, most // plan.buckets[-1])
    return max_batch_size(most, plan.buckets, run_tokens(machine, plan.max_batch_tokens, plan.row_tokens))


def machines(plan: TritonPlan) -> dict[Machine, ConfigName]:
    """The kinds of machine that a plan has configurations for, with their names; the first one's is the default."""
    found: list[Machine] = list(plan.precisions)
    if "cuda" in found and plan.graph_format.accelerated:
        found.append("cuda-tensorrt")
    return {machine: "" if index == 0 else machine for index, machine in enumerate(found)}


def device_of(machine: Machine) -> Device:
    """What kind of device computes there."""
    return "cpu" if machine == "cpu" else "cuda"


def triton_configs(plan: TritonPlan, cpu: CpuShape, tag: str) -> Mapping[ConfigName, tuple[TritonModelConfig, ...]]:
    """Per configuration name, that of each graph of a plan and, last, of its ensemble if it has one.

    `tag` tells builds apart: what a server caches for one must never be used for another.
    """
    found = {name: _machine_configs(plan, machine, cpu, tag) for machine, name in machines(plan).items()}
    if "cpu" in plan.precisions:
        of_cpu = found[machines(plan)["cpu"]]
        encoders = {graph.triton_model for graph in plan.graphs if graph.has_encoder}
        found["embedded"] = tuple(
            _embedded(config, plan, cpu) if config.name in encoders else config for config in of_cpu
        )
    return found


def _embedded(config: TritonModelConfig, plan: TritonPlan, cpu: CpuShape) -> TritonModelConfig:
    """A CPU's configuration for the embedded server: one process and one copy of the weights, whatever the streams.

    Runs of several threads share those of one session, so that it has as many as all streams together.
    """
    threads = 1 if cpu.threads == 1 else cpu.threads * cpu.instances
    parameters = (*CPU_PARAMETERS[plan.format](threads), (STREAMS, str(cpu.instances + cpu.express)))
    if threads == 1 and cpu.instances > 1 and plan.format == "onnx":
        parameters = (*parameters, (ALONE_THREADS, str(min(cpu.instances, MAX_ALONE_THREADS))))
        if any(accelerator.name == OPENVINO for accelerator in config.cpu_accelerators):
            parameters = (*parameters, (WIDEST_ROW, str(plan.buckets[-1])))
    return replace(config, instance_group=InstanceGroup(1), parameters=parameters)


def _machine_configs(plan: TritonPlan, machine: Machine, cpu: CpuShape, tag: str) -> tuple[TritonModelConfig, ...]:
    rows = device_rows(plan, machine)
    graphs = tuple(_graph_config(plan, graph, rows, machine, cpu, tag) for graph in plan.graphs)
    if not plan.steps:
        return graphs
    ensemble = TritonModelConfig(
        name=plan.name,
        platform="ensemble",
        max_batch_size=rows,
        input=tuple(_tensor(t) for t in plan.inputs),
        output=tuple(_tensor(t) for t in plan.outputs),
        steps=tuple(
            EnsembleStepConfig(s.triton_model, tuple(s.input_map.items()), tuple(s.output_map.items()))
            for s in plan.steps
        ),
    )
    return (*graphs, ensemble)


def _graph_config(
    plan: TritonPlan, graph: GraphPlan, rows: int, machine: Machine, cpu: CpuShape, tag: str
) -> TritonModelConfig:
    fmt = plan.graph_format
    if machine == "cpu":
        # One session of a head serves all the instances of its encoder.
        instances = InstanceGroup(cpu.instances + cpu.express if graph.has_encoder else 1)
        parameters = CPU_PARAMETERS[plan.format](cpu.threads if graph.has_encoder else 1)
    else:
        instances = InstanceGroup(1, "KIND_GPU")
        parameters = CUDA_PARAMETERS[plan.format]
    return TritonModelConfig(
        name=graph.triton_model,
        backend=fmt.backend,
        platform=fmt.platform,
        default_model_filename=fmt.filename(plan.precisions[device_of(machine)]),
        max_batch_size=rows,
        input=tuple(_tensor(t, fmt.tensor_name(t.name, index)) for index, t in enumerate(graph.inputs)),
        output=tuple(_tensor(t, fmt.tensor_name(t.name, index)) for index, t in enumerate(graph.outputs)),
        instance_group=instances,
        dynamic_batching=DynamicBatching(),
        parameters=parameters,
        accelerators=_accelerators(plan, graph, rows, machine, tag),
        cpu_accelerators=_cpu_accelerators(plan, machine),
    )


def _tensor(tensor: Tensor, name: str | None = None) -> TensorConfig:
    return TensorConfig(name or tensor.name, f"TYPE_{tensor.datatype}", tensor.dims)


# What each backend reads of `parameters` and of the accelerators; docs/formats.md gives the reasons.


def _onnx_cpu(threads: int) -> Parameters:
    return (("intra_op_thread_count", str(threads)),)


def _torchscript_cpu(threads: int) -> Parameters:
    # Never INTER_OP_THREAD_COUNT: libtorch sets it once a process, and the second model that asks aborts NVIDIA's
    # server. A traced graph forks nothing, so it would have no effect either.
    return (("INTRA_OP_THREAD_COUNT", str(threads)), *TORCHSCRIPT_PARAMETERS)


# The optimising executor compiles for the shapes that it sees first, and ours change with every run.
TORCHSCRIPT_PARAMETERS: Parameters = (("DISABLE_OPTIMIZED_EXECUTION", "true"), ("INFERENCE_MODE", "true"))
# Threads are always written: a backend would take every core of the host for each instance.
CPU_PARAMETERS: Mapping[Format, Callable[[int], Parameters]] = {"onnx": _onnx_cpu, "torchscript": _torchscript_cpu}
CUDA_PARAMETERS: Mapping[Format, Parameters] = {
    # Any `parameters` block resets these two where an accelerator sets them, so they are here, as numbers: the arena
    # grows by what is asked (1), not by doubling, and no search runs at the first sight of each shape (2).
    "onnx": (("intra_op_thread_count", "1"), ("arena_extend_strategy", "1"), ("cudnn_conv_algo_search", "2")),
    "torchscript": (*TORCHSCRIPT_PARAMETERS, ("ENABLE_WEIGHT_SHARING", "true")),
}
# Outside of the repository, which is read-only: an engine holds for one kind of GPU and one release of TensorRT.
ENGINE_CACHE = "/var/cache/triton/tensorrt"
ENGINE_WORKSPACE_BYTES = 4 << 30


def _accelerators(plan: TritonPlan, graph: GraphPlan, rows: int, machine: Machine, tag: str) -> tuple[Accelerator, ...]:
    if machine == "cpu" or not plan.graph_format.accelerated:
        return ()
    # TensorRT gets the graphs that it can take whole, and not the small ones.
    whole = graph.has_encoder and all(head.fits_tensorrt for head in graph.heads)
    if machine == "cuda" or not whole:
        # float32 on CUDA would round the factors of its products to 10 bits.
        return (Accelerator("cuda", (("use_tf32", "0"),)),)
    shapes = {
        "min": (1, plan.buckets[0]),
        "opt": (max(1, rows // 2), plan.buckets[len(plan.buckets) // 2]),
        "max": (rows, plan.buckets[-1]),
    }
    profiles = tuple(
        (f"trt_profile_{which}_shapes", ",".join(f"{t.name}:{_shape(t, batch, length)}" for t in graph.inputs))
        for which, (batch, length) in shapes.items()
    )
    precision = "FP16" if plan.precisions["cuda"] == "float16" else "FP32"
    return (
        Accelerator(
            "tensorrt",
            (
                ("precision_mode", precision),
                ("max_workspace_size_bytes", str(ENGINE_WORKSPACE_BYTES)),
                ("trt_engine_cache_enable", "1"),
                ("trt_engine_cache_path", f"{ENGINE_CACHE}/{graph.triton_model}-{tag}"),
                ("trt_timing_cache_enable", "1"),
                ("trt_timing_cache_path", ENGINE_CACHE),
                ("trt_layer_norm_fp32_fallback", "1"),
                *profiles,
            ),
        ),
    )


def _cpu_accelerators(plan: TritonPlan, machine: Machine) -> tuple[Accelerator, ...]:
    """The engine of a CPU. Of its parameters NVIDIA's backend reads none, and computes float32 then."""
    if machine != "cpu" or plan.engine != OPENVINO:
        return ()
    computed_in = engine_precision(plan.precisions["cpu"])
    return (Accelerator(OPENVINO, ((PRECISION_KEY, computed_in),) if computed_in else ()),)


def _shape(tensor: Tensor, batch: int, length: int) -> str:
    """The shape of a tensor as TensorRT's profiles write it; what varies beside the batch is the rows' length."""
    return "x".join(str(size) for size in (batch, *(length if dim < 0 else dim for dim in tensor.dims)))

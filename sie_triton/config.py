"""Typed mirror of the parts of Triton's `ModelConfig` that we use; the field names are the protobuf's.

Nothing is left to Triton's auto-completion: what is not written here is not meant.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from sie_triton.plan import GraphPlan, Tensor, TritonPlan

CPU_RUN_TOKENS = 512
MAX_INSTANCES = 4
# A CPU instance is a session with its own copy of the weights: past this size, threads are cheaper than copies.
INSTANCE_WEIGHT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """`ModelInput` and `ModelOutput`."""

    name: str
    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """`ModelQueuePolicy`: what waits longer, or beyond the size, is rejected. It covers queueing only."""

    default_timeout_microseconds: int = 60_000_000
    max_queue_size: int = 1024


@dataclass(frozen=True, slots=True)
class DynamicBatching:
    """`ModelDynamicBatching`. Triton merges requests of equal shape only, and waits for none of them here."""

    max_queue_delay_microseconds: int = 0
    default_queue_policy: QueuePolicy = field(default_factory=QueuePolicy)


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """`ModelInstanceGroup`: how many copies run, on which kind of device."""

    count: int
    kind: str = "KIND_CPU"


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
    steps: tuple[EnsembleStepConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class CpuShape:
    """How a CPU's cores are used: `instances` sessions with `threads` threads each."""

    instances: int
    threads: int


def cpu_shape(cores: int, weight_bytes: int) -> CpuShape:
    """One-threaded instances while their weights are small, else fewer instances with more threads.

    `instances * threads <= cores`: in a container ONNX Runtime would see the host's cores, so the numbers are written.
    """
    affordable = max(1, INSTANCE_WEIGHT_BYTES // max(1, weight_bytes))
    instances = max(1, min(cores, affordable, MAX_INSTANCES))
    return CpuShape(instances, max(1, cores // instances))


def available_cores() -> int:
    """The cores that this process may use, not those of the host."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def max_batch_size(max_batch_tokens: int, buckets: tuple[int, ...], run_tokens: int) -> int:
    """Rows that one Triton batch may hold.

    `max_batch_tokens // longest bucket` rows keep a full batch of the longest texts within the bundle's ceiling; at
    least `run_tokens // shortest bucket` rows let the frontend fill one run with the shortest ones. The frontend never
    sends more than `run_tokens` padded tokens in a request, so only requests that queue up and have equal shapes are
    merged beyond that, and this number bounds them.
    """
    return max(1, max_batch_tokens // buckets[-1], run_tokens // buckets[0])


def triton_configs(plan: TritonPlan, cpu: CpuShape) -> tuple[TritonModelConfig, ...]:
    """The configurations of a plan's graphs and, last, of its ensemble."""
    rows = max_batch_size(plan.max_batch_tokens, plan.buckets, CPU_RUN_TOKENS)
    graphs = tuple(_graph_config(graph, rows, cpu) for graph in plan.graphs)
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


def _graph_config(graph: GraphPlan, rows: int, cpu: CpuShape) -> TritonModelConfig:
    is_encoder = graph.module.kind == "encoder"
    return TritonModelConfig(
        name=graph.triton_model,
        backend="onnxruntime",
        platform="onnxruntime_onnx",
        default_model_filename="model.onnx",
        max_batch_size=rows,
        input=tuple(_tensor(t) for t in graph.inputs),
        output=tuple(_tensor(t) for t in graph.outputs),
        # Heads cost next to nothing beside the encoder: one session serves all its instances.
        instance_group=InstanceGroup(cpu.instances if is_encoder else 1),
        dynamic_batching=DynamicBatching(),
        parameters=(("intra_op_thread_count", str(cpu.threads if is_encoder else 1)),),
    )


def _tensor(tensor: Tensor) -> TensorConfig:
    return TensorConfig(tensor.name, f"TYPE_{tensor.datatype}", tensor.dims)

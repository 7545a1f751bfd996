"""How much CPU and memory a repository needs, from its files and its configurations.

The memory estimate is meant to be safe, not tight. Measured on the CPU with all-MiniLM-L6-v2 (two encoder instances
and a head, 87 MB of weights, batches of 16 x 256 tokens under load) the server held 606 MiB; the estimate is 1280.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sie_frontend.manifest import Manifest
from sie_frontend.modalities import MODALITIES
from sie_frontend.setting_values import as_size

from sie_triton.deploy.options import Deployment, Device
from sie_triton.lint.pbtxt import FieldLines

MIB = 1024 * 1024
_SERVER = 128 * MIB
_PROCESS = 64 * MIB
# Of the size of the weights: ONNX Runtime packs matrices for its kernels, and keeps what it was given for a while.
_WEIGHTS = 1.25
# A run's tensors. Heads compute next to nothing.
_RUN = 256 * MIB
_HEAD_RUN = 32 * MIB
_HEAD_WEIGHTS = MIB
# With CUDA the weights pass through the host's memory, and the driver's libraries take their share of it.
_CUDA_HOST = 2048 * MIB
_FRONTEND = 256 * MIB
# A tokenizer's tables in memory against its JSON file.
_TOKENIZER = 10
_SHM_PER_INSTANCE = 32 * MIB
# torch, transformers and the reference that a build is compared with.
_BUILDER = 2048 * MIB
# The backends' names for the threads of one instance.
_THREADS = ("intra_op_thread_count", "INTRA_OP_THREAD_COUNT")


@dataclass(frozen=True, slots=True)
class ModelSize:
    """One graph of the repository: its weights on disk, and how often and with how many threads it is loaded.

    `express` of the instances are meant to share the cores of the others.
    """

    name: str
    weight_bytes: int
    instances: int
    threads: int
    express: int = 0


@dataclass(frozen=True, slots=True)
class RepositorySize:
    """The sizes that serving a repository depends on. `models` leaves out ensembles, which compute nothing."""

    models: tuple[ModelSize, ...]
    repository_bytes: int
    tokenizer_bytes: int


@dataclass(frozen=True, slots=True)
class Needs:
    """Requests of one container; bytes."""

    cpus: int
    memory: int
    shm: int = 0

    @property
    def memory_limit(self) -> int:
        """In bytes, one and a half times the request: a container beyond that leaks, and a restart helps."""
        return _rounded(self.memory * 3 // 2)

    @property
    def memory_quantity(self) -> str:
        """The memory as Kubernetes writes it."""
        return quantity(self.memory)

    @property
    def limit_quantity(self) -> str:
        """The limit as Kubernetes writes it."""
        return quantity(self.memory_limit)


def measure(repository: Path, manifest: Manifest, device: Device) -> RepositorySize:
    """Read the sizes and the configurations of a repository's Triton models."""
    models = []
    for name, model in manifest.triton_models.items():
        if model.depends_on:
            continue
        config = _config(repository / name, device)
        models.append(
            ModelSize(
                name,
                weight_bytes=_graph_bytes(repository / name, config.text("default_model_filename") or "model.onnx"),
                instances=(instances := config.whole("instance_group", "count", default=1)),
                threads=max(config.parameter(key, default=1) for key in _THREADS),
                express=min(instances - 1, _express(manifest, name, device)),
            )
        )
    tokenizers = {
        path
        for model in manifest.models.values()
        for name, entry in model.inputs.items()
        for path in MODALITIES[name].files(entry.reads)
    }
    return RepositorySize(
        tuple(models),
        repository_bytes=sum(path.stat().st_size for path in repository.rglob("*") if path.is_file()),
        tokenizer_bytes=sum((repository / path).stat().st_size for path in tokenizers),
    )


def _graph_bytes(folder: Path, filename: str) -> int:
    """The graph that a configuration names and the weights beside it, `NAME.data`; not those of other precisions."""
    files = (path for path in folder.glob("*/*") if path.name in (filename, f"{filename}.data"))
    return sum(path.stat().st_size for path in files)


def _express(manifest: Manifest, triton_model: str, device: Device) -> int:
    """How many of a graph's instances are there for small runs."""
    for model in manifest.models.values():
        for entry in model.inputs.values():
            served = (entry.triton_model, *manifest.triton_models[entry.triton_model].depends_on)
            if triton_model in served and device in entry.batching:
                return entry.batching[device].express
    return 0


def triton_needs(size: RepositorySize, deployment: Deployment) -> Needs:
    """Of a container with tritonserver and every model loaded."""
    if deployment.device == "cuda":
        weights = sum(model.weight_bytes for model in size.models)
        return Needs(cpus=2, memory=_rounded(_CUDA_HOST + int(weights * _WEIGHTS)))
    memory = _SERVER
    for model in size.models:
        run = _HEAD_RUN if model.weight_bytes < _HEAD_WEIGHTS else _RUN
        memory += model.instances * (_PROCESS + int(model.weight_bytes * _WEIGHTS) + run)
    # Models share the cores: the busy one uses them.
    cpus = max(((model.instances - model.express) * model.threads for model in size.models), default=1)
    shm = 0
    if deployment.engine == "embedded":
        shm = _rounded(_SHM_PER_INSTANCE * sum(model.instances for model in size.models))
    return Needs(cpus, _rounded(memory + shm), shm)


def on_demand_needs(size: RepositorySize, deployment: Deployment) -> Needs:
    """Of a container with tritonserver and as many models as the memory budget holds; without one, every model.

    On a GPU the budget is that of the GPU's memory, and the weights pass through the host's all the same.
    """
    whole = triton_needs(size, deployment)
    if deployment.memory_budget is None or deployment.device == "cuda":
        return whole
    budget = as_size(deployment.memory_budget)
    return Needs(whole.cpus, min(whole.memory, _rounded(_SERVER + budget + whole.shm)), whole.shm)


def both_needs(first: Needs, second: Needs) -> Needs:
    """Of one container that does the work of two."""
    return Needs(first.cpus + second.cpus, first.memory + second.memory, first.shm + second.shm)


def builder_needs(size: RepositorySize) -> Needs:
    """Of a container that compiles the repository's models one after the other: torch, and some copies of a model."""
    largest = max((model.weight_bytes for model in size.models), default=0)
    return Needs(cpus=1, memory=_rounded(_BUILDER + 6 * largest))


def fetcher_needs() -> Needs:
    """Of a container that copies a repository."""
    return Needs(cpus=1, memory=512 * MIB)


def frontend_needs(size: RepositorySize) -> Needs:
    """Of a container with one frontend process, which holds every tokenizer."""
    return Needs(cpus=1, memory=_rounded(_FRONTEND + _TOKENIZER * size.tokenizer_bytes))


def start_seconds(size: RepositorySize) -> int:
    """How long tritonserver may take to load everything, from a slow disk or an object store at 20 MB/s."""
    return 120 + size.repository_bytes // (20 * MIB)


def claim_bytes(size: RepositorySize) -> int:
    """Of a volume that holds the repository and, while it is replaced, the next one."""
    return _rounded(2 * size.repository_bytes, step=1024 * MIB)


def quantity(count: int) -> str:
    """A number of bytes as Kubernetes writes it, in MiB."""
    return f"{math.ceil(count / MIB)}Mi"


def _rounded(count: int, step: int = 128 * MIB) -> int:
    return max(1, math.ceil(count / step)) * step


class _Config:
    """The few numbers that sizing reads from one of our `config.pbtxt` files."""

    def __init__(self, text: str) -> None:
        self._values = FieldLines.read(text).values

    def whole(self, field: str, inner: str, default: int) -> int:
        """The sum of `inner` over the elements of `field`."""
        found = [int(v) for path, v in self._values.items() if path[0] == field and path[-2] == inner]
        return sum(found) or default

    def text(self, field: str) -> str | None:
        """A single string."""
        return next((value for path, value in self._values.items() if path[0] == field), None)

    def parameter(self, key: str, default: int) -> int:
        """The value of one of `parameters`."""
        for path, value in self._of("parameters", "key"):
            if value == key:
                return next((int(v) for p, v in self._of("parameters", "string_value") if p[:2] == path[:2]), default)
        return default

    def _of(self, field: str, last: str) -> Iterable[tuple[tuple[str | int, ...], str]]:
        return ((path, value) for path, value in self._values.items() if path[0] == field and path[-2] == last)


def _config(folder: Path, device: Device) -> _Config:
    """The configuration that `--model-config-name` selects for the device, else the model's own."""
    named = folder / "configs" / f"{device}.pbtxt"
    path = named if named.is_file() else folder / "config.pbtxt"
    return _Config(path.read_text(encoding="utf-8"))

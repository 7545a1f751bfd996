"""Requests follow from the files and configurations of the repository, not from constants."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from sie_frontend.manifest import read_manifest

from deploy.conftest import NAME, WEIGHTS, graph_config, write_repository
from sie_triton.deploy.options import DeployOptions
from sie_triton.deploy.sizing import MIB, ModelSize, claim_bytes, frontend_needs, measure, quantity, triton_needs

CPU = DeployOptions().checked("kubernetes")
CUDA = DeployOptions(device="cuda").checked("kubernetes")


def test_graphs_are_measured_and_ensembles_are_not(repository: Path) -> None:
    size = measure(repository, read_manifest(repository), "cpu")
    assert {model.name: (model.instances, model.threads) for model in size.models} == {
        f"{NAME}.encoder": (2, 3),
        f"{NAME}.dense": (1, 1),
    }
    [encoder] = [model for model in size.models if model.name.endswith(".encoder")]
    assert encoder.weight_bytes == WEIGHTS
    assert size.tokenizer_bytes == 700_000
    assert size.repository_bytes == sum(p.stat().st_size for p in repository.rglob("*") if p.is_file())


def test_the_configuration_for_the_device_decides(repository: Path) -> None:
    (repository / f"{NAME}.encoder" / "configs").mkdir()
    (repository / f"{NAME}.encoder" / "configs" / "cuda.pbtxt").write_text(graph_config("x", 4, 1))
    manifest = read_manifest(repository)
    for device, instances in (("cpu", 2), ("cuda", 4)):
        models = measure(repository, manifest, device).models  # type: ignore[arg-type]
        assert [model.instances for model in models if model.name.endswith(".encoder")] == [instances]


def test_a_graph_of_another_precision_weighs_nothing(repository: Path) -> None:
    (repository / f"{NAME}.encoder" / "1" / "model.float16.onnx").write_bytes(b" " * 1000)
    (repository / f"{NAME}.encoder" / "1" / "model.onnx.data").write_bytes(b" " * 10)
    models = measure(repository, read_manifest(repository), "cpu").models
    assert [model.weight_bytes for model in models if model.name.endswith(".encoder")] == [WEIGHTS + 10]


def test_express_instances_ask_for_no_cores_of_their_own(repository: Path) -> None:
    manifest = read_manifest(repository)
    (model,) = manifest.models.values()
    entry = model.inputs["text"]
    express = msgspec.structs.replace(entry.batching["cpu"], express=1)
    entry = msgspec.structs.replace(entry, batching={"cpu": express})
    model = msgspec.structs.replace(model, inputs={"text": entry})
    size = measure(repository, msgspec.structs.replace(manifest, models={"m": model}), "cpu")
    [encoder] = [graph for graph in size.models if graph.name.endswith(".encoder")]
    assert (encoder.instances, encoder.express) == (2, 1)
    assert triton_needs(size, CPU).cpus == encoder.threads


@pytest.mark.parametrize(("instances", "threads"), [(1, 1), (2, 3), (4, 2)])
def test_cpu_needs(tmp_path: Path, instances: int, threads: int) -> None:
    repository = write_repository(tmp_path / "r", instances=instances, threads=threads)
    needs = triton_needs(measure(repository, read_manifest(repository), "cpu"), CPU)
    assert needs.cpus == instances * threads
    assert needs.memory >= instances * WEIGHTS
    assert needs.memory % (128 * MIB) == 0
    assert needs.memory_limit >= needs.memory * 1.4
    assert needs.shm > 0


def test_what_was_measured_fits_the_estimate(repository: Path) -> None:
    """606 MiB under load with this shape of repository; an estimate of more than thrice that would waste machines."""
    needs = triton_needs(measure(repository, read_manifest(repository), "cpu"), CPU)
    assert 606 * MIB < needs.memory < 3 * 606 * MIB


def test_cuda_needs_host_memory_once_per_weight(repository: Path) -> None:
    size = measure(repository, read_manifest(repository), "cuda")
    needs = triton_needs(size, CUDA)
    assert needs.memory > WEIGHTS
    assert needs.shm == 0
    bigger = ModelSize("x", 10 * WEIGHTS, 1, 1)
    grown = triton_needs(type(size)((*size.models, bigger), 0, 0), CUDA)
    assert grown.memory - needs.memory >= 10 * WEIGHTS


def test_a_claim_holds_the_repository_twice(repository: Path) -> None:
    size = measure(repository, read_manifest(repository), "cpu")
    assert claim_bytes(size) >= 2 * size.repository_bytes
    assert frontend_needs(size).memory >= 256 * MIB
    assert quantity(claim_bytes(size)) == "1024Mi"
    assert quantity(MIB + 1) == "2Mi"

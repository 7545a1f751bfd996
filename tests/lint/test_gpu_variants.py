"""One repository for a CPU, a GPU and a GPU with TensorRT: as it should be, and with what goes wrong in practice."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from sie_triton.lint import Machine, lint_repository

from .builders import (
    ENCODER,
    ENSEMBLE,
    POOLING,
    RepositoryBuilder,
    encoder_graph,
    model,
    pooling_graph,
    replaced,
    tensor,
)

CPU = Machine(cores=4)
GPU = Machine(cores=16, gpus=1)
THREADS = 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }'
ARENA = 'parameters { key: "arena_extend_strategy" value { string_value: "1" } }'
FILE = 'backend: "onnxruntime"\ndefault_model_filename: "model.float16.onnx"'


def accelerated(name: str, **options: str) -> str:
    written = "\n".join(f'      parameters {{ key: "{key}" value: "{value}" }}' for key, value in options.items())
    return (
        f'optimization {{ execution_accelerators {{\n  gpu_execution_accelerator [ {{\n    name: "{name}"\n{written}\n'
        "  } ]\n} }\n"
    )


def on_gpu(config: str, accelerator: str) -> str:
    return replaced(replaced(config, "KIND_CPU", "KIND_GPU"), THREADS, f"{THREADS}\n{ARENA}\n{accelerator}")


CUDA = accelerated("cuda", use_tf32="0")
TENSORRT = accelerated(
    "tensorrt",
    precision_mode="FP16",
    max_workspace_size_bytes="4294967296",
    trt_engine_cache_enable="1",
    trt_engine_cache_path="/var/cache/triton/tensorrt/encoder-0123abcd",
    trt_timing_cache_enable="1",
    trt_timing_cache_path="/var/cache/triton/tensorrt",
    trt_layer_norm_fp32_fallback="1",
    trt_profile_min_shapes="input_ids:1x16,attention_mask:1x16",
    trt_profile_opt_shapes="input_ids:4x128,attention_mask:4x128",
    trt_profile_max_shapes="input_ids:8x512,attention_mask:8x512",
)


def float16_encoder() -> onnx.ModelProto:
    """The encoder with its table in half precision, and float32 at its border."""
    table = helper.make_tensor("table", TensorProto.FLOAT16, [50, 8], [0.01 * i for i in range(400)])
    return model(
        [tensor("input_ids", ["b", "s"], TensorProto.INT64), tensor("attention_mask", ["b", "s"], TensorProto.INT64)],
        [tensor("last_hidden_state", ["b", "s", 8])],
        [
            helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT16),
            helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
            helper.make_node("Mul", ["embedded", "wide"], ["half"]),
            helper.make_node("Cast", ["half"], ["last_hidden_state"], to=TensorProto.FLOAT),
        ],
        [table, helper.make_tensor("last", TensorProto.INT64, [1], [-1])],
    )


@pytest.fixture
def repository(tmp_path: Path) -> RepositoryBuilder:
    return RepositoryBuilder(tmp_path)


def build(repository: RepositoryBuilder, tensorrt: str = TENSORRT, ensemble: str = ENSEMBLE) -> None:
    cpu = replaced(ENCODER, 'backend: "onnxruntime"', 'backend: "onnxruntime"\ndefault_model_filename: "model.onnx"')
    half = replaced(ENCODER, 'backend: "onnxruntime"', FILE)
    head = on_gpu(POOLING, CUDA)
    repository.add(
        "encoder",
        cpu,
        encoder_graph(),
        files={
            "configs/cuda.pbtxt": on_gpu(half, CUDA),
            "configs/cuda-tensorrt.pbtxt": on_gpu(half, tensorrt),
            "1/model.float16.onnx": float16_encoder().SerializeToString(),
        },
    )
    repository.add(
        "pooling",
        POOLING,
        pooling_graph(),
        files={"configs/cuda.pbtxt": head, "configs/cuda-tensorrt.pbtxt": head},
    )
    repository.add("model", ENSEMBLE, files={"configs/cuda.pbtxt": ensemble, "configs/cuda-tensorrt.pbtxt": ensemble})


@pytest.mark.parametrize("triton", ["24.10", "25.02", "25.09", "26.03", "26.11"])
@pytest.mark.parametrize("machine", [None, CPU, GPU])
def test_a_repository_for_three_kinds_of_machines_is_right(
    repository: RepositoryBuilder, triton: str, machine: Machine | None
) -> None:
    build(repository)
    assert [str(f) for f in lint_repository(repository.path, triton=triton, machine=machine)] == []


@pytest.mark.parametrize(
    ("old", "new", "rule_id"),
    [
        ('"4294967296"', '"4GiB"', "L716"),
        ("precision_mode", "trt_fp16_enable", "L709"),
        ('value: "/var/cache/triton/tensorrt/encoder-0123abcd"', 'value: "tensorrt"', "L712"),
        ("input_ids:8x512,", "", "L717"),
        ("8x512,attention_mask:8x512", "4x512,attention_mask:4x512", "L718"),
        ("trt_timing_cache_enable", "trt_cuda_graph_enable", "L719"),
    ],
)
def test_what_goes_wrong_with_tensorrt(repository: RepositoryBuilder, old: str, new: str, rule_id: str) -> None:
    build(repository, tensorrt=replaced(TENSORRT, old, new))
    found = lint_repository(repository.path, machine=GPU)
    assert {(f.rule_id, f.path.name) for f in found} == {(rule_id, "cuda-tensorrt.pbtxt")}


def test_an_ensemble_that_shows_half_precision_to_its_clients(repository: RepositoryBuilder) -> None:
    build(repository, ensemble=replaced(ENSEMBLE, "TYPE_FP32", "TYPE_FP16"))
    found = lint_repository(repository.path, machine=GPU)
    # Clients see another type (L121), and the pooling head still writes float32 (L313).
    assert {f.rule_id for f in found} == {"L121", "L313"}

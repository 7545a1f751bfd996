"""Rules on execution accelerators."""

from __future__ import annotations

from onnx import TensorProto

from lint.builders import identity_config, replaced, weighted_graph
from lint.builds import copies, two_models
from lint.configs import CACHE, PROFILES, accelerator, group, profiles, tensorrt
from sie_triton.lint import Machine

from .case import GPU, Case, texts

CASES: dict[str, Case] = {
    "L736": texts(
        accelerator("openvino", ("inference_precision", "bf16"), device="cpu", kind="KIND_CPU"),
        accelerator("openvino", device="cpu", kind="KIND_CPU"),
    ),
    "L705": texts(
        accelerator("cuda", ("arena_extend_strategy", "kSameAsRequested")),
        replaced(
            accelerator("cuda", ("arena_extend_strategy", "kSameAsRequested")),
            "parameters {",
            'parameters { key: "arena_extend_strategy" value { string_value: "1" } }\nparameters {',
        ),
        machine=GPU,
    ),
    "L707": texts(accelerator("tensorrt"), accelerator("tensorrt", *CACHE), machine=GPU),
    "L708": texts(accelerator("tensorrt", *CACHE), accelerator("tensorrt", *CACHE, *PROFILES), machine=GPU),
    "L709": texts(accelerator("tensort"), accelerator("tensorrt"), machine=GPU),
    "L712": texts(
        accelerator("tensorrt", ("trt_engine_cache_enable", "1"), ("trt_engine_cache_path", "cache")),
        accelerator("tensorrt", *CACHE),
        machine=GPU,
    ),
    "L713": texts(accelerator("cuda", kind="KIND_CPU"), accelerator("cuda"), machine=GPU),
    "L714": texts(accelerator("cuda", ("use_tf_32", "0")), accelerator("cuda", ("use_tf32", "0")), machine=GPU),
    "L715": texts(accelerator("cuda", ("use_tf32", "off")), accelerator("cuda", ("use_tf32", "0")), machine=GPU),
    "L716": texts(
        tensorrt(("trt_timing_cache_enable", "TRUE")), tensorrt(("trt_timing_cache_enable", "true")), machine=GPU
    ),
    "L717": texts(
        tensorrt(*profiles("x:1x4", "x:4x4", "x:2x4")), tensorrt(*profiles("x:1x4", "x:2x4", "x:8x4")), machine=GPU
    ),
    "L718": texts(
        tensorrt(*profiles("x:1x4", "x:2x4", "x:4x4")), tensorrt(*profiles("x:1x4", "x:2x4", "x:8x4")), machine=GPU
    ),
    "L719": texts(
        accelerator("cuda", ("enable_cuda_graph", "1")), accelerator("cuda", ("enable_cuda_graph", "0")), machine=GPU
    ),
    "L720": texts(
        identity_config(more="optimization { cuda { graphs: true } }"),
        identity_config(more="optimization { input_pinned_memory { enable: true } }"),
        line=8,
    ),
    "L721": Case(
        copies(group("kind: KIND_GPU count: 1"), weighted_graph(TensorProto.FLOAT)),
        copies(accelerator("cuda", ("use_tf32", "0")), weighted_graph(TensorProto.FLOAT)),
        machine=GPU,
    ),
    "L722": Case(
        copies(tensorrt(("precision_mode", "FP16")), weighted_graph(TensorProto.FLOAT, mask=-3.4e38)),
        copies(tensorrt(("precision_mode", "FP16")), weighted_graph(TensorProto.FLOAT, mask=-65504.0)),
        machine=GPU,
    ),
    "L723": texts(
        tensorrt(("precision_mode", "BF16")),
        tensorrt(("precision_mode", "BF16")),
        machine=GPU,
        triton="25.08",
        good_triton="25.09",
    ),
    "L724": texts(accelerator("tensorrt"), tensorrt(), machine=Machine(cores=8, gpus=2)),
    "L725": Case(
        two_models(tensorrt(), tensorrt()),
        two_models(tensorrt(), tensorrt(("trt_engine_cache_prefix", "other"))),
        machine=GPU,
    ),
}

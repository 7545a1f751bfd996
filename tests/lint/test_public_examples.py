"""Repositories that NVIDIA's documentation teaches, rebuilt small from their signatures: what the linter says of them.

The quick start's repository is in `test_repository.py`. Graphs here compute nothing useful; they have the names, types
and dimensions that the documentation gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from sie_triton.lint import Machine, Violation, lint_repository

from .builders import RepositoryBuilder, model, replaced, script_file, tensor

CPU = Machine(cores=8)
GPU = Machine(cores=8, gpus=1)


@pytest.fixture
def repository(tmp_path: Path) -> RepositoryBuilder:
    return RepositoryBuilder(tmp_path)


def said(repository: RepositoryBuilder, machine: Machine) -> list[tuple[str, str, int | None]]:
    """Model, rule and line of every finding."""
    return [(f.path.relative_to(repository.path).parts[0], f.rule_id, f.line) for f in found(repository, machine)]


def line_of(text: str, part: str) -> int:
    """Line of the only place of `part`."""
    assert text.count(part) == 1
    return text[: text.index(part)].count("\n") + 1


def found(repository: RepositoryBuilder, machine: Machine) -> list[Violation]:
    return lint_repository(repository.path, triton="24.10", machine=machine)


# --- the conceptual guide's part 5: text detection and recognition in one ensemble -----------------------------------

DETECTION = """\
name: "text_detection"
platform: "onnxruntime_onnx"
max_batch_size: 256
input [ { name: "input_images:0" data_type: TYPE_FP32 dims: [ -1, -1, 3 ] } ]
output [ { name: "feature_fusion/Conv_7/Sigmoid:0" data_type: TYPE_FP32 dims: [ -1, -1, 1 ] } ]
output [ { name: "feature_fusion/concat_3:0" data_type: TYPE_FP32 dims: [ -1, -1, 5 ] } ]
"""
RECOGNITION = """\
name: "text_recognition"
platform: "onnxruntime_onnx"
max_batch_size: 256
input [ { name: "input.1" data_type: TYPE_FP32 dims: [ 1, 32, 100 ] } ]
output [ { name: "308" data_type: TYPE_FP32 dims: [ 26, 37 ] } ]
"""
PIPELINE = """\
name: "ensemble_model"
platform: "ensemble"
max_batch_size: 256
input [ { name: "input_image" data_type: TYPE_UINT8 dims: [ -1 ] } ]
output [ { name: "recognized_text" data_type: TYPE_STRING dims: [ -1 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "detection_preprocessing" model_version: -1
      input_map { key: "detection_preprocessing_input" value: "input_image" }
      output_map { key: "detection_preprocessing_output" value: "preprocessed_image" }
    },
    {
      model_name: "text_detection" model_version: -1
      input_map { key: "input_images:0" value: "preprocessed_image" }
      output_map { key: "feature_fusion/Conv_7/Sigmoid:0" value: "Sigmoid:0" }
      output_map { key: "feature_fusion/concat_3:0" value: "concat_3:0" }
    },
    {
      model_name: "detection_postprocessing" model_version: -1
      input_map { key: "detection_postprocessing_input_1" value: "Sigmoid:0" }
      input_map { key: "detection_postprocessing_input_2" value: "concat_3:0" }
      input_map { key: "detection_postprocessing_input_3" value: "preprocessed_image" }
      output_map { key: "detection_postprocessing_output" value: "cropped_images" }
    },
    {
      model_name: "text_recognition" model_version: -1
      input_map { key: "input.1" value: "cropped_images" }
      output_map { key: "308" value: "recognition_output" }
    },
    {
      model_name: "recognition_postprocessing" model_version: -1
      input_map { key: "recognition_postprocessing_input" value: "recognition_output" }
      output_map { key: "recognition_postprocessing_output" value: "recognized_text" }
    }
  ]
}
"""
# Python models of the pipeline: input and output tensors.
PYTHON: Mapping[str, tuple[str, str]] = {
    "detection_preprocessing": (
        '{ name: "detection_preprocessing_input" data_type: TYPE_UINT8 dims: [ -1 ] }',
        '{ name: "detection_preprocessing_output" data_type: TYPE_FP32 dims: [ -1, -1, 3 ] }',
    ),
    "detection_postprocessing": (
        ",".join(
            f'{{ name: "detection_postprocessing_input_{i}" data_type: TYPE_FP32 dims: [ -1, -1, {channels} ] }}'
            for i, channels in ((1, 1), (2, 5), (3, 3))
        ),
        '{ name: "detection_postprocessing_output" data_type: TYPE_FP32 dims: [ -1, -1, -1 ] }',
    ),
    "recognition_postprocessing": (
        '{ name: "recognition_postprocessing_input" data_type: TYPE_FP32 dims: [ 26, 37 ] }',
        '{ name: "recognition_postprocessing_output" data_type: TYPE_STRING dims: [ -1 ] }',
    ),
}


def python_config(name: str) -> str:
    inputs, outputs = PYTHON[name]
    return (
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 256\ninput [ {inputs} ]\noutput [ {outputs} ]\n'
        "instance_group [ { kind: KIND_CPU } ]\n"
    )


def detection_graph() -> onnx.ModelProto:
    """`[b, h, w, 3]` to `[b, h, w, 1]` and `[b, h, w, 5]`."""
    score, boxes = "feature_fusion/Conv_7/Sigmoid:0", "feature_fusion/concat_3:0"
    return model(
        [tensor("input_images:0", ["b", "h", "w", 3])],
        [tensor(score, ["b", "h", "w", 1]), tensor(boxes, ["b", "h", "w", 5])],
        [
            helper.make_node("ReduceMean", ["input_images:0"], [score], axes=[3], keepdims=1),
            helper.make_node("Concat", [score] * 5, [boxes], axis=3),
        ],
    )


def recognition_graph(batch: str | int = "b") -> onnx.ModelProto:
    """`[b, 1, 32, 100]` to `[b, 26, 37]`."""
    return model(
        [tensor("input.1", [batch, 1, 32, 100])],
        [tensor("308", [batch, 26, 37])],
        [
            helper.make_node("ReduceMean", ["input.1"], ["mean"], axes=[2, 3], keepdims=1),
            helper.make_node("Squeeze", ["mean", "last"], ["row"]),
            helper.make_node("Mul", ["row", "ones"], ["308"]),
        ],
        [
            helper.make_tensor("last", TensorProto.INT64, [1], [3]),
            helper.make_tensor("ones", TensorProto.FLOAT, [1, 26, 37], [1.0] * (26 * 37)),
        ],
    )


def pipeline(repository: RepositoryBuilder, ensemble: str = PIPELINE, recognition: str = RECOGNITION) -> None:
    repository.add("ensemble_model", ensemble)
    repository.add("text_detection", DETECTION, detection_graph())
    repository.add("text_recognition", recognition, recognition_graph())
    for name in PYTHON:
        repository.add(name, python_config(name), files={"1/model.py": ""})


def test_the_text_recognition_pipeline_is_right(repository: RepositoryBuilder) -> None:
    """`Conceptual_Guide/Part_5-Model_Ensembles` of NVIDIA's tutorials.

    Right as it is on a GPU, if the Python step cuts every crop to the 1 x 32 x 100 that the recognition takes and its
    own configuration does not promise (L316). On a CPU nobody says how many threads and instances the ONNX models get:
    L505 and L506.
    """
    pipeline(repository)
    crops = ("ensemble_model", "L316", line_of(PIPELINE, 'key: "input.1"'))
    assert said(repository, GPU) == [crops]
    assert said(repository, CPU) == [
        crops,
        ("text_detection", "L505", None),
        ("text_detection", "L506", None),
        ("text_recognition", "L505", None),
        ("text_recognition", "L506", None),
    ]


def test_the_pipeline_after_another_export(repository: RepositoryBuilder) -> None:
    """The recognition's output is a number that PyTorch's exporter gave it, 307 or 308 in the guide's history.

    Triton refuses an ensemble that kept the other number (L307); the output of that name is then dropped (L318).
    """
    pipeline(repository, replaced(PIPELINE, '"308"', '"307"'))
    assert said(repository, GPU) == [
        ("ensemble_model", "L318", line_of(PIPELINE, '"308"') - 3),
        ("ensemble_model", "L316", line_of(PIPELINE, 'key: "input.1"')),
        ("ensemble_model", "L307", line_of(PIPELINE, '"308"')),
    ]


def test_batching_before_the_graph_can(repository: RepositoryBuilder) -> None:
    """Part 2 of the guide switches batching on, for a graph that part 1 exported with a batch of 1."""
    repository.add("text_recognition", RECOGNITION, recognition_graph(batch=1))
    assert {r for _, r, _ in said(repository, GPU)} == {"L212"}


# --- part 4 of the guide: ONNX Runtime with TensorRT ----------------------------------------------------------------

ACCELERATED = (
    replaced(RECOGNITION, "max_batch_size: 256", "max_batch_size: 16")
    + """\
model_warmup {
  name: "text_recognition"
  batch_size: 16
  inputs { key: "input.1" value { data_type: TYPE_FP32 dims: 1 dims: 32 dims: 100 zero_data: true } }
}
optimization {
  graph { level: 1 }
  execution_accelerators {
    gpu_execution_accelerator [ {
      name: "tensorrt"
      parameters { key: "precision_mode" value: "FP16" }
      parameters { key: "max_workspace_size_bytes" value: "1073741824" }
    } ]
  }
}
"""
)


def test_the_tensorrt_example_builds_engines_while_requests_wait(repository: RepositoryBuilder) -> None:
    """`Conceptual_Guide/Part_4-inference_acceleration`, its `ORT_TRT_config.pbtxt`.

    It warms up 16 rows. The first request with another number of rows builds an engine, and so does every start: the
    linter asks for a cache (L707) and for profiles (L708). With both, as below, it has nothing left to say.
    """
    repository.add("text_recognition", ACCELERATED, recognition_graph())
    accelerator = line_of(ACCELERATED, "gpu_execution")
    assert said(repository, GPU) == [
        ("text_recognition", "L707", accelerator),
        ("text_recognition", "L708", accelerator),
    ]
    more = """\
      parameters { key: "trt_engine_cache_enable" value: "1" }
      parameters { key: "trt_engine_cache_path" value: "/var/cache/triton/text_recognition" }
      parameters { key: "trt_profile_min_shapes" value: "input.1:1x1x32x100" }
      parameters { key: "trt_profile_opt_shapes" value: "input.1:8x1x32x100" }
      parameters { key: "trt_profile_max_shapes" value: "input.1:16x1x32x100" }
    } ]"""
    mended = replaced(ACCELERATED, "    } ]", more)
    repository.add("text_recognition", mended)
    assert said(repository, GPU) == []


def test_the_cuda_example(repository: RepositoryBuilder) -> None:
    """The same part's `ORT_cuda_ep_config.pbtxt`: options as `parameters`, with numbers. Right, with nothing to add."""
    parameters = """\
parameters { key: "cudnn_conv_algo_search" value: { string_value: "0" } }
parameters { key: "gpu_mem_limit" value: { string_value: "4294967200" } }
"""
    config = replaced(RECOGNITION, "max_batch_size: 256", "max_batch_size: 16") + parameters
    repository.add("text_recognition", config, recognition_graph())
    assert said(repository, GPU) == []
    repository.add("text_recognition", replaced(config, 'string_value: "0"', 'string_value: "EXHAUSTIVE"'))
    (problem,) = found(repository, GPU)
    assert (problem.rule_id, problem.message) == (
        "L706",
        "`cudnn_conv_algo_search` is `EXHAUSTIVE`, not one of 0, 1, 2",
    )


# --- a vision transformer from the Hugging Face hub ---------------------------------------------------------------

VIT_PREPROCESSING = """\
name: "preprocessing"
backend: "python"
max_batch_size: 8
input [ { name: "image" data_type: TYPE_FP32 dims: [ -1, -1, -1 ] } ]
output [ { name: "pixel_values" data_type: TYPE_FP32 dims: [ -1, -1, -1 ] } ]
instance_group [ { kind: KIND_GPU } ]
"""
VIT_ENSEMBLE = """\
name: "ensemble_model"
platform: "ensemble"
max_batch_size: 4
input [ { name: "image" data_type: TYPE_FP32 dims: [ -1, -1, -1 ] } ]
output [ { name: "last_hidden_state" data_type: TYPE_FP32 dims: [ -1, -1 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "preprocessing" model_version: 1
      input_map { key: "image" value: "image" }
      output_map { key: "pixel_values" value: "pixel_values" }
    },
    {
      model_name: "vit" model_version: 1
      input_map { key: "pixel_values" value: "pixel_values" }
      output_map { key: "last_hidden_state" value: "last_hidden_state" }
    }
  ]
}
"""
VIT = """\
name: "vit"
platform: "onnxruntime_onnx"
max_batch_size: 4
input [ { name: "pixel_values" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]
output [ { name: "last_hidden_state" data_type: TYPE_FP32 dims: [ 197, 768 ] } ]
"""


def vit_graph() -> onnx.ModelProto:
    """`[b, 3, 224, 224]` to `[b, 197, 768]`."""
    return model(
        [tensor("pixel_values", ["b", 3, 224, 224])],
        [tensor("last_hidden_state", ["b", 197, 768])],
        [
            helper.make_node("ReduceMean", ["pixel_values"], ["mean"], axes=[1, 2, 3], keepdims=1),
            helper.make_node("Squeeze", ["mean", "last"], ["row"]),
            helper.make_node("Expand", ["row", "to"], ["last_hidden_state"]),
        ],
        [
            helper.make_tensor("last", TensorProto.INT64, [1], [3]),
            helper.make_tensor("to", TensorProto.INT64, [3], [1, 197, 768]),
        ],
    )


def test_the_hugging_face_ensemble(repository: RepositoryBuilder) -> None:
    """`HuggingFace/ensemble_model_repository` of NVIDIA's tutorials: a Python step and an ONNX vision transformer.

    The transformer has no configuration: Triton completes it. Every version is pinned, and the preprocessing asks for
    a GPU, so that on a CPU the server exits (L501).
    """
    repository.add("preprocessing", VIT_PREPROCESSING, files={"1/model.py": ""})
    repository.add("ensemble_model", VIT_ENSEMBLE)
    repository.add("vit", None, vit_graph())
    assert said(repository, GPU) == []
    assert ("preprocessing", "L501", 6) in said(repository, CPU)

    # With a written configuration of the transformer both of its wires are seen to be open at one end.
    repository.add("vit", VIT, vit_graph())
    assert [r for _, r, _ in said(repository, GPU)] == ["L316"] * 2


# --- PyTorch's own tutorial --------------------------------------------------------------------------------------

RESNET = """\
name: "resnet50"
platform: "pytorch_libtorch"
max_batch_size: 0
input [ { name: "input__0" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] reshape { shape: [ 1, 3, 224, 224 ] } } ]
output [ { name: "output__0" data_type: TYPE_FP32 dims: [ 1, 1000, 1, 1 ] reshape { shape: [ 1, 1000 ] } } ]
"""


def test_the_pytorch_example(repository: RepositoryBuilder) -> None:
    """`Quick_Deploy/PyTorch` of NVIDIA's tutorials: ResNet-50 as TorchScript, one image a request.

    Right. The linter only says that PyTorch deprecated TorchScript (L803). Three changes that people make next:
    names without a position, batching, and the onnxruntime backend's thread count.
    """
    repository.add("resnet50", RESNET, files={"1/model.pt": script_file(("x: Tensor",))})
    assert said(repository, GPU) == [("resnet50", "L803", 2)]

    named = replaced(replaced(RESNET, "input__0", "image"), "output__0", "classes")
    repository.add("resnet50", named)
    assert [r for _, r, _ in said(repository, GPU)] == ["L803", "L117"]

    batched = replaced(RESNET, "max_batch_size: 0", "max_batch_size: 8")
    batched = replaced(batched, " reshape { shape: [ 1, 3, 224, 224 ] }", "")
    batched = replaced(batched, "dims: [ 1, 1000, 1, 1 ] reshape { shape: [ 1, 1000 ] }", "dims: [ 1000 ]")
    threads = 'parameters { key: "intra_op_thread_count" value { string_value: "4" } }\n'
    repository.add("resnet50", batched + threads)
    assert [r for _, r, _ in said(repository, GPU)] == ["L803", "L726", "L729"]

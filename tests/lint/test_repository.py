"""Whole repositories: a correct one, rebuilt public examples, variants, and what is no repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from sie_triton.lint import Machine, Violation, lint_model_config, lint_repository

from .builders import (
    ENCODER,
    RepositoryBuilder,
    encoder_graph,
    identity_config,
    identity_graph,
    model,
    pooling_graph,
    replaced,
    tensor,
)


@pytest.fixture
def repository(tmp_path: Path) -> RepositoryBuilder:
    path = tmp_path / "models"
    path.mkdir()
    return RepositoryBuilder(path)


def by_model(findings: list[Violation], root: Path) -> dict[str, list[str]]:
    """Rule ids, in order, for each model folder."""
    found: dict[str, list[str]] = {}
    for finding in findings:
        found.setdefault(finding.path.relative_to(root).parts[0], []).append(finding.rule_id)
    return {name: sorted(ids) for name, ids in found.items()}


@pytest.mark.parametrize("triton", ["24.10", "25.03", "25.06", "26.03", "26.11", "27.02"])
@pytest.mark.parametrize("machine", [None, Machine(cores=2), Machine(cores=16, gpus=1)])
def test_silent_on_the_reference_ensemble(repository: RepositoryBuilder, triton: str, machine: Machine | None) -> None:
    repository.reference()
    assert [str(f) for f in lint_repository(repository.path, triton=triton, machine=machine)] == []


def test_findings_come_in_the_order_of_places_and_print_them(repository: RepositoryBuilder) -> None:
    repository.add("b", replaced(identity_config("c"), '"y"', '"z"'), identity_graph())
    repository.add("a", "max_batchsize: 4")
    first, *rest = lint_repository(repository.path)
    assert (first.rule_id, first.line) == ("L101", 1)
    assert first.path == repository.path / "a/config.pbtxt"
    assert "did you mean `max_batch_size`" in first.message
    assert str(first).startswith(f"{first.path}:1: error L101: ")
    assert [(f.rule_id, f.line) for f in rest] == [("L104", 1), ("L209", 5), ("L217", 5)]


def test_the_densenet_example(repository: RepositoryBuilder) -> None:
    """The quick start's `densenet_onnx`: a static batch of 1 in the graph, hidden behind `reshape`.

    The published model has the graph input `[1, 3, 224, 224]` and is served with `max_batch_size: 0`. The variant with
    `max_batch_size: 1` was published too; the backend refuses it.
    """
    graph = model(
        [tensor("data_0", [1, 3, 224, 224])],
        [tensor("fc6_1", [1, 1000, 1, 1])],
        [
            helper.make_node("ReduceMean", ["data_0"], ["m"], axes=[1, 2, 3]),
            helper.make_node("Expand", ["m", "to"], ["fc6_1"]),
        ],
        [helper.make_tensor("to", TensorProto.INT64, [4], [1, 1000, 1, 1])],
    )
    config = """\
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 224, 224 ]
    reshape { shape: [ 1, 3, 224, 224 ] }
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 1000 ]
    reshape { shape: [ 1, 1000, 1, 1 ] }
    label_filename: "densenet_labels.txt"
  }
]
"""
    repository.add("densenet_onnx", config, graph, files={"densenet_labels.txt": "cat\n"})
    assert lint_repository(repository.path) == []
    # On a CPU nobody said how many threads and instances: two sessions with the host's cores each.
    assert {f.rule_id for f in lint_repository(repository.path, machine=Machine(4))} == {"L505", "L506"}

    batched = replaced(config, "max_batch_size : 0", "max_batch_size : 1")
    repository.add("densenet_onnx", batched, graph, files={"densenet_labels.txt": "cat\n"})
    (repository.path / "densenet_onnx/densenet_labels.txt").unlink()
    found = lint_repository(repository.path)
    assert [(f.rule_id, f.line) for f in found] == [("L212", 3), ("L212", 3), ("L605", 19)]


def test_the_string_example(repository: RepositoryBuilder) -> None:
    """The quick start's `simple_string`, a TensorFlow graph then, moved to ONNX with its names kept."""
    config = """\
name: "simple_string"
platform: "tensorflow_graphdef"
max_batch_size: 8
input [
  { name: "INPUT0" data_type: TYPE_STRING dims: [ 16 ] },
  { name: "INPUT1" data_type: TYPE_STRING dims: [ 16 ] }
]
output [
  { name: "OUTPUT0" data_type: TYPE_STRING dims: [ 16 ] },
  { name: "OUTPUT1" data_type: TYPE_STRING dims: [ 16 ] }
]
"""
    repository.add("simple_string", config, files={"1/model.graphdef": b""})
    assert by_model(lint_repository(repository.path, triton="25.03"), repository.path) == {"simple_string": ["L801"]}
    shutil.rmtree(repository.path / "simple_string")

    graph = model(
        [tensor(f"INPUT{i}", [-1, 16], TensorProto.STRING) for i in (0, 1)],
        [tensor(f"OUTPUT{i}", ["b", 16], TensorProto.STRING) for i in (0, 1)],
        [helper.make_node("Identity", [f"INPUT{i}"], [f"OUTPUT{i}"]) for i in (0, 1)],
    )
    repository.add("simple_string", replaced(config, "tensorflow_graphdef", "onnxruntime_onnx"), graph)
    found = lint_repository(repository.path, triton="25.03")
    assert by_model(found, repository.path) == {"simple_string": ["L118"] * 4}
    assert {f.severity for f in found} == {"info"}


def test_the_image_ensemble(repository: RepositoryBuilder) -> None:
    """The preprocessing ensemble as published: its steps name models by other names than the folders.

    Its backend was one to be built by oneself; Triton comes without it.
    """
    ensemble = """\
name: "preprocess_resnet50_ensemble"
platform: "ensemble"
max_batch_size: 128
input [ { name: "INPUT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_FP32 dims: [ 1000 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "image_preprocess_nchw_224x224x3_inception"
      model_version: -1
      input_map { key: "INPUT" value: "INPUT" }
      output_map { key: "OUTPUT" value: "preprocessed_image" }
    },
    {
      model_name: "resnet_graphdef"
      model_version: -1
      input_map { key: "input" value: "preprocessed_image" }
      output_map { key: "resnet_v1_50/predictions/Softmax" value: "OUTPUT" }
    }
  ]
}
"""
    preprocess = """\
name: "image_preprocess_nchw_224x224x3_inception"
backend: "imagepreprocess"
max_batch_size: 128
input [ { name: "INPUT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]
"""
    resnet = """\
name: "resnet50_graphdef"
platform: "tensorflow_graphdef"
max_batch_size: 128
input [ { name: "input" data_type: TYPE_FP32 format: FORMAT_NHWC dims: [ 224, 224, 3 ] } ]
output [
  { name: "resnet_v1_50/predictions/Softmax" data_type: TYPE_FP32 dims: [ 1000 ] label_filename: "resnet50_labels.txt" }
]
instance_group [ { kind: KIND_GPU, count: 4 } ]
"""
    repository.add("preprocess_resnet50_ensemble", ensemble)
    repository.add("image_preprocess_nchw_3x224x224_inception", preprocess)
    repository.add("resnet50_graphdef", resnet, files={"1/model.graphdef": b""})
    found = lint_repository(repository.path, machine=Machine(cores=8))
    assert by_model(found, repository.path) == {
        "preprocess_resnet50_ensemble": ["L303", "L303"],
        "image_preprocess_nchw_3x224x224_inception": ["L104", "L124"],
        "resnet50_graphdef": ["L501", "L605", "L802"],
    }

    # With the names mended the wire between the two shows its own mistake: NCHW into NHWC.
    repository.add("preprocess_resnet50_ensemble", replaced(ensemble, '"resnet_graphdef"', '"resnet50_graphdef"'))
    shutil.move(
        repository.path / "image_preprocess_nchw_3x224x224_inception",
        repository.path / "image_preprocess_nchw_224x224x3_inception",
    )
    found = lint_repository(repository.path, machine=Machine(cores=8, gpus=1))
    (wire,) = [f for f in found if f.path.parts[-2] == "preprocess_resnet50_ensemble"]
    assert (wire.rule_id, wire.line) == ("L314", 17)
    assert "[3, 224, 224]" in wire.message
    assert "[224, 224, 3]" in wire.message


def test_variants_are_checked_and_share_findings_on_files(repository: RepositoryBuilder) -> None:
    folder = repository.add(
        "encoder",
        ENCODER,
        encoder_graph(),
        files={"configs/gpu.pbtxt": replaced(ENCODER, "KIND_CPU", "KIND_GPU"), "configs/broken.pbtxt": "name: 3"},
    )
    (folder / "1/model.onnx").chmod(0o600)
    found = lint_repository(repository.path, machine=Machine(cores=2))
    places = [(f.rule_id, f.path.relative_to(folder).as_posix()) for f in found]
    assert places == [
        ("L607", "1/model.onnx"),
        ("L101", "configs/broken.pbtxt"),
        ("L721", "configs/gpu.pbtxt"),
    ]
    # A variant for another machine is no mistake on this one; a default that needs a GPU is.
    repository.add("encoder", replaced(ENCODER, "KIND_CPU", "KIND_GPU"), encoder_graph())
    found = lint_repository(repository.path, machine=Machine(cores=2))
    assert [f.path.name for f in found if f.rule_id == "L501"] == ["config.pbtxt", "gpu.pbtxt"]


def test_an_ensemble_variant_is_checked_against_the_variant_of_its_models(repository: RepositoryBuilder) -> None:
    repository.reference()
    ensemble = (repository.path / "model/config.pbtxt").read_text()
    small = replaced(ENCODER, "max_batch_size: 8", "max_batch_size: 2")
    repository.add("model", ensemble, files={"configs/small.pbtxt": ensemble})
    repository.add("encoder", ENCODER, encoder_graph(), files={"configs/small.pbtxt": small})
    repository.add("pooling", (repository.path / "pooling/config.pbtxt").read_text(), pooling_graph())
    found = lint_repository(repository.path)
    assert [(f.rule_id, f.path.name) for f in found] == [("L315", "small.pbtxt"), ("L321", "small.pbtxt")]


def test_an_ensemble_without_a_variant_is_checked_against_those_of_its_models(repository: RepositoryBuilder) -> None:
    """Where the ensemble has no `configs/cuda.pbtxt` Triton pairs its `config.pbtxt` with the models' variants."""
    repository.reference()
    small = replaced(replaced(ENCODER, "max_batch_size: 8", "max_batch_size: 2"), "TYPE_FP32", "TYPE_FP16")
    repository.add("encoder", ENCODER, encoder_graph(), files={"configs/cuda.pbtxt": small})
    found = [f for f in lint_repository(repository.path) if f.path.parent.name == "model"]
    assert [(f.rule_id, f.path.name, f.line) for f in found] == [
        ("L315", "config.pbtxt", 3),
        ("L313", "config.pbtxt", 21),
    ]
    assert all(f.message.startswith("with `--model-config-name=cuda`: ") for f in found)


def test_only_served_versions_are_opened(repository: RepositoryBuilder) -> None:
    folder = repository.add("copy", identity_config(), identity_graph((8, 4), output=(8, 4)))
    repository.add("copy", identity_config(), identity_graph(), version="2")
    assert lint_repository(repository.path) == []
    config = identity_config(more="version_policy { all { } }")
    (folder / "config.pbtxt").write_text(config)
    assert {f.rule_id for f in lint_repository(repository.path)} == {"L212"}


def test_a_model_without_configuration_is_completed_by_triton(repository: RepositoryBuilder) -> None:
    repository.add("copy", None, identity_graph())
    repository.add("notes", None, version="", files={"readme.txt": ""})
    found = by_model(lint_repository(repository.path), repository.path)
    assert found == {"notes": ["L103", "L601"]}


def test_what_is_no_repository(tmp_path: Path) -> None:
    assert lint_repository(tmp_path) == []
    with pytest.raises(NotADirectoryError, match="no model repository"):
        lint_repository(tmp_path / "absent")


@pytest.mark.parametrize("triton", ["24.09", "2.51", "", "24.13", "newest"])
def test_unknown_releases_are_refused(tmp_path: Path, triton: str) -> None:
    with pytest.raises(ValueError, match="Triton"):
        lint_repository(tmp_path, triton=triton)


def test_one_configuration_alone() -> None:
    assert lint_model_config(ENCODER, machine=Machine(cores=2)) == []
    (finding,) = lint_model_config(replaced(ENCODER, "dims: [ -1 ]", "dims: [ -2 ]"), path=Path("x.pbtxt"))
    assert (finding.rule_id, finding.path, finding.line) == ("L109", Path("x.pbtxt"), 5)
    (failure,) = lint_model_config(b"\xff\xfe")
    assert failure.rule_id == "L101"
    assert "UTF-8" in failure.message

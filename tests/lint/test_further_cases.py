"""Further ways to break a rule, beside the one pair that every rule has."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto

from sie_triton.lint import Machine, lint_repository

from .builders import (
    ENCODER,
    ENSEMBLE,
    POOLING,
    RepositoryBuilder,
    encoder_graph,
    identity_config,
    identity_graph,
    replaced,
    weighted_graph,
)
from .builds import Build, copies, foreign, link, torchscript, two_files, two_models, variant, variant_ensemble
from .configs import (
    CACHE,
    GOOD_WARMUP,
    PROFILES,
    accelerator,
    group,
    half,
    parameter,
    profiles,
    queue,
    ragged,
    scripted,
    tensorrt,
    warm,
    warm_x,
)
from .graphs import external_graph, ragged_graph


def ensemble(old: str, new: str) -> Build:
    return lambda r: r.reference(ensemble=replaced(ENSEMBLE, old, new))


def external(location: str) -> Build:
    graph = external_graph()
    graph.graph.initializer[0].external_data[0].value = location
    raw = graph.SerializeToString()
    return lambda r: r.add("copy", identity_config(), files={"1/model.onnx": raw, "outside.bin": bytes(16)})


def scalar(dims: str, max_batch_size: int) -> Build:
    """A graph of rank 0."""
    return copies(identity_config(dims=dims, max_batch_size=max_batch_size), identity_graph((), output=()))


def bare_accelerator(name: str, *options: tuple[str, str]) -> Build:
    """An accelerator in a model without `parameters`, so that nothing resets it."""
    written = 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }'
    return copies(replaced(accelerator(name, *options), written, ""))


def hidden_in_half(repository: RepositoryBuilder) -> None:
    """A composing model may hand over half precision in one variant: clients see the ensemble."""
    narrow = [replaced(text, "TYPE_FP32", "TYPE_FP16") for text in (ENCODER, POOLING)]
    repository.add("model", ENSEMBLE, files={"configs/cuda.pbtxt": ENSEMBLE})
    repository.add("encoder", ENCODER, files={"configs/cuda.pbtxt": narrow[0], "1/model.onnx": b""})
    repository.add("pooling", POOLING, files={"configs/cuda.pbtxt": narrow[1], "1/model.onnx": b""})


PYTHON_FILES: dict[str, str | bytes] = {"1/model.py": b"", "1/encoder.onnx": b"", "1/head.onnx": b""}

CYCLE = (
    'input_map { key: "attention_mask" value: "attention_mask" }\n      output_map { key: "last_hidden_state"',
    'input_map { key: "attention_mask" value: "dense" }\n      output_map { key: "last_hidden_state"',
)

BREAKS: list[tuple[str, Build, str]] = [
    ("L103", copies(replaced(identity_config(), 'backend: "onnxruntime"', 'platform: "onnx"')), "`onnx` is none"),
    ("L105", ensemble('model_name: "encoder"', 'model_name: "acme/encoder"'), "step 0"),
    ("L108", copies(identity_config(dims="[ ]")), "`dims`"),
    ("L108", copies(replaced(identity_config(), 'name: "x" ', "")), "input `0` has no `name`"),
    ("L110", copies(identity_config(max_batch_size=0, dims="[ 1 ]", more_input="reshape { shape: [ ] }")), "scalar"),
    ("L110", copies(identity_config(more_input="reshape { shape: [ 0 ] }")), "dimension 0"),
    ("L110", copies(identity_config(dims="[ 2, -1 ]", more_input="reshape { shape: [ -1, 2 ] }")), "elements"),
    ("L115", copies('name: "copy" backend: "onnxruntime" max_batch_size: 1 input { name: "x" }'), "no `output`"),
    ("L116", copies(identity_config(more="response_cache { enable: true } sequence_batching { }")), "sequence"),
    ("L117", torchscript("INPUT__0", "OUTPUT__0", 'input { name: "mask" data_type: TYPE_FP32 dims: 4 }'), "`mask`"),
    ("L204", copies(identity_config(), encoder_graph(opset=25)), "knows up to 21"),
    ("L208", copies(identity_config(dims="[ 4, 1 ]", output_dims="[ 4 ]")), "[4, 1] here and [4]"),
    ("L208", scalar("[ 2 ]", 0), "[2] here and []"),
    ("L212", scalar("[ 1 ]", 8), "no dimension"),
    ("L309", ensemble(*CYCLE), "cycle"),
    (
        "L308",
        ensemble(
            'output_map { key: "last_hidden_state" value: "hidden" }',
            'output_map { key: "last_hidden_state" value: "dense" }',
        ),
        "step 0 already",
    ),
    ("L301", ensemble('platform: "ensemble"', 'platform: "ensemble" backend: "onnxruntime"'), "no backend"),
    ("L301", lambda r: r.add("model", 'name: "model" platform: "ensemble" max_batch_size: 0'), "without"),
    ("L302", ensemble("ensemble_scheduling {", "optimization { }\nensemble_scheduling {"), "`optimization`"),
    ("L305", lambda r: r.reference(ensemble=replaced(ENSEMBLE, 'key: "input_ids"', 'key: "ids"')), "is not mapped"),
    ("L402", copies(queue("preferred_batch_size: [ 0 ]")), "size 0"),
    (
        "L405",
        copies(queue("priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 value { } }")),
        "level 3",
    ),
    ("L406", copies(queue(policy="max_queue_size: 1 timeout_action: DELAY")), "no timeout"),
    ("L407", copies(queue(policy="default_timeout_microseconds: 5")), "no `max_queue_size`"),
    (
        "L408",
        copies(queue("preserve_ordering: true", "timeout_action: DELAY default_timeout_microseconds: 5")),
        "delays",
    ),
    ("L414", copies(replaced(ragged(), ' source_input: "x"', ""), ragged_graph()), "0 sources"),
    ("L415", copies(replaced(ragged(), 'target_name: "n"', 'target_name: "x"'), ragged_graph()), "made already"),
    ("L416", copies(ragged(inputs="batch_output [ { } ]"), ragged_graph()), "no target"),
    ("L418", copies(warm("batch_size: 1")), "lacks the input `x`"),
    ("L418", copies(warm_x("data_type: TYPE_FP16 dims: [ 4 ] zero_data: true")), "TYPE_FP16"),
    ("L418", copies(warm_x("data_type: TYPE_FP32 dims: [ -1 ] zero_data: true")), "open"),
    ("L418", copies(replaced(GOOD_WARMUP, 'key: "x"', 'key: "z"')), "`z`, which is no input"),
    (
        "L504",
        copies(group("kind: KIND_CPU", 'parameters { key: "intra_op_thread_count" value { string_value: "2" } }')),
        "2 instances of 2",
    ),
    ("L613", copies(identity_config(more="version_policy { latest { num_versions: 0 } }")), "none of the versions"),
    ("L608", link(lambda folder: "nowhere"), "does not exist"),
    ("L609", external("../outside.bin"), "outside the version folder"),
    ("L701", copies(parameter("execution_mode", "99999999999")), "no integer"),
    ("L701", copies(parameter("inter_op_thread_count", "9" * 5000)), "no integer"),
    ("L703", copies(parameter("enable_mem_aren", "1")), "did you mean `enable_mem_arena`"),
    ("L706", copies(parameter("arena_extend_strategy", "kSameAsRequested")), "not one of 0, 1"),
    ("L706", copies(parameter("gpu_mem_limit", "4G")), "no number of bytes"),
    ("L709", copies(accelerator("tensorrt", *CACHE, *PROFILES, ("trt_fp16", "1"))), "`trt_fp16`"),
    ("L709", copies(accelerator("tensorrt", *CACHE, *PROFILES, ("precision_mode", "fp16"))), "`fp16`"),
    ("L603", variant(identity_config(), half(identity_config())), "lacks `model.float16.onnx`"),
    ("L121", variant(identity_config(), identity_config(max_batch_size=0, dims="[ -1, 4 ]")), "`max_batch_size` is 0"),
    ("L121", variant(identity_config(), replaced(identity_config(), '"y"', '"z"')), "output `z` is not in"),
    ("L121", variant(identity_config(), replaced(identity_config(), '"y"', '"z"')), "`y` of `config.pbtxt` is missing"),
    ("L207", two_files(identity_config(), half(replaced(identity_config(), "TYPE_FP32", "TYPE_FP16"))), "TYPE_FP16"),
    ("L706", copies(parameter("do_copy_in_default_stream", "no")), "no boolean"),
    ("L714", copies(accelerator("cuda", ("trt_fp16_enable", "1"))), "`trt_fp16_enable` is no option"),
    ("L714", copies(accelerator("cuda", ("use_tf_32", "1"))), "did you mean `use_tf32`"),
    ("L715", bare_accelerator("cuda", ("arena_extend_strategy", "1")), "`kSameAsRequested`"),
    ("L715", bare_accelerator("cuda", ("gpu_mem_limit", "4G")), "no number"),
    ("L716", copies(tensorrt(("max_workspace_size_bytes", "4G"))), "no integer"),
    ("L717", copies(tensorrt(*profiles("x:1x4", "x=1x4", "x:8x4"))), "`x=1x4`"),
    ("L717", copies(tensorrt(*profiles("x:1x4", "y:1x4", "x:8x4"))), "do not name the same"),
    ("L717", copies(tensorrt(*profiles("x:1x4", "x:1x4", "x:8"))), "differ in rank"),
    ("L718", copies(tensorrt(*profiles("y:1x4", "y:1x4", "y:8x4"))), "the dynamic input `x` has no shape profile"),
    ("L718", copies(tensorrt(*profiles("y:1x4", "y:1x4", "y:8x4"))), "name `y`, which is no input"),
    ("L718", copies(tensorrt(*profiles("x:2x4", "x:4x4", "x:8x4"))), "begins at 2 rows"),
    ("L718", copies(tensorrt(*profiles("x:1x3", "x:4x3", "x:8x4"))), "does not cover"),
    ("L718", copies(tensorrt(*profiles("x:1", "x:4", "x:8"))), "2 dimensions with the batch"),
    ("L719", copies(tensorrt(("trt_cuda_graph_enable", "1"))), "`trt_cuda_graph_enable`"),
    ("L720", copies(identity_config(more="optimization { eager_batching: true }")), "`optimization.eager_batching`"),
    ("L724", copies(replaced(accelerator("tensorrt"), "count: 1", "count: 1 gpus: [ 1 ]")), "several GPUs"),
    ("L726", foreign(scripted(("intra_op_thread_count", "1")), "model.pt"), "did you mean `INTRA_OP_THREAD_COUNT`"),
    ("L727", foreign(scripted(("INTER_OP_THREAD_COUNT", "two")), "model.pt"), "no integer"),
    ("L709", copies(accelerator("onednn", device="cpu", kind="KIND_CPU")), "`openvino`"),
]


@pytest.mark.parametrize(("rule_id", "build", "part"), BREAKS)
def test_fires_with_these_words(rule_id: str, build: Build, part: str, tmp_path: Path) -> None:
    build(RepositoryBuilder(tmp_path))
    findings = lint_repository(tmp_path, machine=Machine(cores=2, gpus=0))
    assert any(part in f.message for f in findings if f.rule_id == rule_id), [str(f) for f in findings]


ALLOWED: list[tuple[str, Build]] = [
    # Batching ensembles may hold models without batching: the batch is then one of their dims.
    (
        "L314",
        lambda r: r.reference(
            encoder=replaced(
                replaced(
                    replaced(replaced(ENCODER, "max_batch_size: 8", "max_batch_size: 0"), "[ -1 ]", "[ -1, -1 ]"),
                    "[ -1 ]",
                    "[ -1, -1 ]",
                ),
                "[ -1, 8 ]",
                "[ -1, -1, 8 ]",
            )
        ),
    ),
    (
        "L305",
        lambda r: r.reference(encoder=ENCODER + 'input { name: "t" data_type: TYPE_INT64 dims: -1 optional: true }'),
    ),
    ("L103", copies(replaced(identity_config(), 'backend: "onnxruntime"', ""))),
    ("L103", copies(replaced(identity_config(), 'backend: "onnxruntime"', 'backend: "mine" platform: "any"'))),
    ("L208", scalar("[ 1 ]", 0)),
    (
        "L211",
        copies(
            ragged(
                inputs='batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "y" source_input: "x" } ]'
            ),
            ragged_graph(),
        ),
    ),
    ("L211", copies(identity_config(), identity_graph(("b", 4), output=("b", "unknown")))),
    ("L406", copies(queue(policy="max_queue_size: 1 timeout_action: REJECT allow_timeout_override: true"))),
    ("L505", copies(group("kind: KIND_GPU count: 1", parameters=""))),
    ("L121", variant_ensemble(pooling=True)),
    ("L121", hidden_in_half),
    ("L512", copies(group("kind: KIND_GPU count: 1"), weighted_graph())),
    ("L615", lambda r: r.add("copy", identity_config(backend='backend: "python"'), files=PYTHON_FILES)),
    ("L709", copies(accelerator("tensort", kind="KIND_CPU"))),  # never looked at
    ("L714", copies(accelerator("cuda", ("no_such", "1"), kind="KIND_CPU"))),
    ("L715", copies(accelerator("cuda", ("arena_extend_strategy", "1")))),  # reset, so never read: L705
    ("L721", copies(accelerator("cuda", ("use_tf32", "1")), weighted_graph(TensorProto.FLOAT))),
    ("L721", copies(group("kind: KIND_GPU count: 1"), weighted_graph())),
    ("L722", copies(tensorrt(("precision_mode", "FP32")), weighted_graph(TensorProto.FLOAT, mask=-1e9))),
    ("L725", two_models(tensorrt(), half(tensorrt()))),
    ("L729", foreign(identity_config(backend='platform: "torch_aoti"', parameters=""), "model.pt2")),
    ("L703", copies(parameter("memory.enable_memory_arena_shrinkage", "cpu:0"))),
    ("L115", lambda r: r.add("copy", None, identity_graph())),
]


@pytest.mark.parametrize(("rule_id", "build"), ALLOWED)
def test_is_silent(rule_id: str, build: Build, tmp_path: Path) -> None:
    build(RepositoryBuilder(tmp_path))
    assert not [str(f) for f in lint_repository(tmp_path, machine=Machine(cores=2)) if f.rule_id in (rule_id, "L101")]

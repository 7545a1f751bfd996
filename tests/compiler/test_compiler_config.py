from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from compiler.folders import bge_small_facts, minilm_facts
from compiler.golden_files import Golden
from sie_triton.bundle import expand, load_bundles
from sie_triton.cli import shipped_bundles
from sie_triton.compiler.build import plan_models
from sie_triton.compiler.options import BuildOptions, select
from sie_triton.lint import lint_model_config, lint_repository
from sie_triton.lint.config import model_config_pb2
from sie_triton.planning.plan import GraphOptions, bucket_lengths
from sie_triton.repository.config import (
    CPU_RUN_TOKENS,
    INSTANCE_WEIGHT_BYTES,
    MAX_INSTANCES,
    ConfigName,
    CpuShape,
    EnsembleStepConfig,
    TensorConfig,
    TritonModelConfig,
    cpu_shape,
    max_batch_size,
    triton_configs,
)
from sie_triton.repository.processor import instructions, multiplies_bfloat16, multiplies_int8
from sie_triton.repository.render import quote_pbtxt, render

GRAPHS = (GraphOptions(), GraphOptions(layout="ensemble"), GraphOptions(format="torchscript"))
MINILM = ("sentence-transformers/all-MiniLM-L6-v2", minilm_facts)
BGE = ("BAAI/bge-small-en-v1.5", bge_small_facts)


def configs_of(
    model_id: str, facts: Any, folder: Path, graphs: GraphOptions
) -> Mapping[ConfigName, tuple[TritonModelConfig, ...]]:
    bundles, _ = load_bundles(shipped_bundles())
    bundle = bundles[model_id]
    options = BuildOptions(folder / "repository", default_weights=facts(folder / "checkpoint"), graphs=graphs)
    (plan,) = plan_models(select(bundle, expand(bundle)), options)
    return triton_configs(plan, CpuShape(instances=2, threads=1, express=1), tag="0123456789ab")


def parsed(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2().ModelConfig())


@pytest.mark.parametrize(("model_id", "facts"), [MINILM, BGE])
@pytest.mark.parametrize("graphs", GRAPHS, ids=lambda graphs: f"{graphs.format}-{graphs.layout or 'auto'}")
def test_the_shipped_models_are_configured(
    model_id: str, facts: Any, graphs: GraphOptions, tmp_path: Path, golden: Golden
) -> None:
    for name, configs in configs_of(model_id, facts, tmp_path, graphs).items():
        for config in configs:
            suffix = f".{name}" if name else ""
            golden.check(f"{graphs.format}-{graphs.layout or 'auto'}/{config.name}{suffix}.pbtxt", render(config))


@pytest.mark.parametrize(("model_id", "facts"), [MINILM, BGE])
def test_triton_reads_what_was_meant(model_id: str, facts: Any, tmp_path: Path) -> None:
    *graphs, ensemble = configs_of(model_id, facts, tmp_path, GraphOptions(layout="ensemble"))[""]
    for config in (*graphs, ensemble):
        read = parsed(render(config))
        assert (read.name, read.platform, read.backend) == (config.name, config.platform, config.backend)
        assert read.max_batch_size == config.max_batch_size
        for field in ("input", "output"):
            written = [(t.name, t.data_type, tuple(t.dims)) for t in getattr(config, field)]
            types = model_config_pb2().DataType
            assert [(t.name, types.Name(t.data_type), tuple(t.dims)) for t in getattr(read, field)] == written
    for config in graphs:
        read = parsed(render(config))
        assert config.instance_group
        assert [(group.count, group.kind) for group in read.instance_group] == [
            (config.instance_group.count, model_config_pb2().ModelInstanceGroup.KIND_CPU)
        ]
        assert {key: value.string_value for key, value in read.parameters.items()} == dict(config.parameters)
        # With a queue policy the batcher would prepare nothing ahead.
        assert read.HasField("dynamic_batching")
        assert not read.dynamic_batching.HasField("default_queue_policy")
    read = parsed(render(ensemble))
    steps = [(s.model_name, dict(s.input_map), dict(s.output_map)) for s in read.ensemble_scheduling.step]
    assert steps == [(s.model_name, dict(s.input_map), dict(s.output_map)) for s in ensemble.steps]
    # Triton refuses ensembles that have any of these.
    assert not read.instance_group
    assert not read.HasField("dynamic_batching")
    assert not read.HasField("optimization")


def test_the_linter_finds_nothing_to_say(built: Path) -> None:
    findings = lint_repository(built, triton="24.10")
    assert [str(finding) for finding in findings if finding.severity != "info"] == []


# Names

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_any_string_survives_quoting(value: str) -> None:
    quoted = quote_pbtxt(value)
    assert quoted.isascii()
    assert "\n" not in quoted
    assert parsed(f"name: {quoted}").name == value


def test_hostile_names_stay_names() -> None:
    hostile = '"\nmax_batch_size: 999 # \\" {{ 7 * 7 }} {% raw %} \x00\x7f é \u2028'
    tensor = TensorConfig(hostile, "TYPE_FP32", (-1, 3))
    step = EnsembleStepConfig(hostile, ((hostile, hostile),), ((hostile + "2", hostile),))
    config = TritonModelConfig(hostile, 4, (tensor,), (tensor,), platform="ensemble", steps=(step,))
    text = render(config)
    read = parsed(text)
    assert (read.name, read.max_batch_size) == (hostile, 4)
    assert [t.name for t in (*read.input, *read.output)] == [hostile] * 2
    (read_step,) = read.ensemble_scheduling.step
    assert read_step.model_name == hostile
    assert dict(read_step.output_map) == {hostile + "2": hostile}
    assert lint_model_config(text)  # the schema takes it; Triton would not, and the linter says so


def test_what_a_template_does_not_find_is_fatal() -> None:
    with pytest.raises(UndefinedError):
        # An encoder's template asks for an instance group, which this configuration lacks.
        render(replace(TritonModelConfig("m", 1, (), ()), backend="onnxruntime"))


# Numbers


@given(st.integers(1, 256), st.integers(0, 1 << 40))
def test_a_cpu_is_filled_and_not_oversubscribed(cores: int, weight_bytes: int) -> None:
    shape = cpu_shape(cores, weight_bytes)
    assert shape.instances >= 1
    assert shape.threads >= 1
    assert cores / 2 < shape.instances * shape.threads <= cores
    assert shape.instances <= MAX_INSTANCES
    assert shape.instances == 1 or shape.instances * weight_bytes <= INSTANCE_WEIGHT_BYTES


@given(st.integers(1, 200_000), st.integers(1, 9_000))
def test_every_run_of_the_frontend_fits_one_batch(max_batch_tokens: int, max_length: int) -> None:
    buckets = bucket_lengths(max_length)
    rows = max_batch_size(max_batch_tokens, buckets, CPU_RUN_TOKENS)
    assert rows >= max(max(1, CPU_RUN_TOKENS // bucket) for bucket in buckets)
    assert rows * buckets[-1] <= max(max_batch_tokens, buckets[-1]) or rows == max(1, CPU_RUN_TOKENS // buckets[0])


def test_the_shipped_numbers() -> None:
    assert cpu_shape(2, 90_868_376) == CpuShape(2, 1, express=1)
    assert cpu_shape(16, 90_868_376) == CpuShape(2, 8, express=1)
    assert cpu_shape(16, 2_000_000_000) == CpuShape(1, 16, express=0)
    assert cpu_shape(1, 1) == CpuShape(1, 1, express=1)
    assert max_batch_size(16_384, bucket_lengths(256), CPU_RUN_TOKENS) == 64
    assert max_batch_size(16_384, bucket_lengths(8192), CPU_RUN_TOKENS) == 32
    assert max_batch_size(256, bucket_lengths(512), CPU_RUN_TOKENS) == 32


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("model name\t: EPYC\nflags\t\t: fpu avx512f avx512_bf16 amd\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("model name\t: avx512_bf16\n", False),
        ("", False),
    ],
)
def test_bfloat16_is_found_among_the_flags(cpuinfo: str, expected: bool) -> None:
    assert multiplies_bfloat16(cpuinfo) is expected


def test_what_a_processor_multiplies_is_found_among_the_flags() -> None:
    """Flags as `/proc/cpuinfo` gives them of a Zen 4, a Sapphire Rapids, a Haswell and a Graviton 3, in part."""
    assert instructions("flags : avx2 avx512f avx512_vnni avx512_bf16\n") == ("AVX2", "AVX-512", "VNNI", "BF16")
    sapphire = "flags\t: avx2 avx_vnni avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8\n"
    assert instructions(sapphire) == ("AVX2", "AVX-512", "VNNI", "BF16", "AMX")
    assert instructions("flags : fma avx avx2\n") == ("AVX2",) and not multiplies_int8("flags : fma avx avx2\n")
    assert instructions("Features : asimd asimddp bf16 i8mm\n") == ("VNNI", "BF16")
    assert instructions("processor : 0\n") is None and not multiplies_int8("processor : 0\n")

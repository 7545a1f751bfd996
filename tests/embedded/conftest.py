"""One real server with many small models for the whole family: starting it is what takes time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedded.graphs import (
    BOOL,
    DOUBLING_CONFIG,
    FLOAT,
    FLOAT16,
    INT32,
    INT64,
    add_model,
    doubling,
    graph,
    onnx_config,
)
from embedded.started import started
from sie_triton.embedded.server import ServerSpec, TritonServer

BATCHING = "dynamic_batching { preferred_batch_size: [ 3 ] max_queue_delay_microseconds: 2000000 }"
FP32_X = '{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }'


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    add_model(tmp_path / "repository", "double", DOUBLING_CONFIG, doubling())
    return tmp_path / "repository"


@pytest.fixture
def spec(repository: Path, tmp_path: Path) -> ServerSpec:
    return ServerSpec(repository, tmp_path / "triton.log")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("embedded")
    repository = folder / "repository"
    _plain_models(repository)
    _batching_models(repository)
    _row_models(repository)
    _ensemble(repository)
    _torchscript_models(repository)
    with started(ServerSpec(repository, folder / "triton.log")) as running:
        yield running


def _plain_models(repository: Path) -> None:
    add_model(repository, "double", DOUBLING_CONFIG, doubling())
    half = '{ name: "x" data_type: TYPE_FP16 dims: [ 2 ] }'
    add_model(repository, "half", onnx_config(half, half.replace('"x"', '"y"')), doubling(FLOAT16, ("b", 2)))
    flags = '{ name: "x" data_type: TYPE_BOOL dims: [ 2 ] }'
    negation = graph([("Not", ["x"], ["y"])], [("x", BOOL, ("b", 2))], [("y", BOOL, ("b", 2))])
    add_model(repository, "flags", onnx_config(flags, flags.replace('"x"', '"y"')), negation)
    flat = '{ name: "x" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } }'
    named = onnx_config(flat, flat.replace('"x"', '"y"'), 'default_model_filename: "other.onnx"')
    add_model(repository, "reshaped", named, doubling(INT64, ("b",)), "other.onnx")
    unbatched = onnx_config(
        '{ name: "x" data_type: TYPE_FP32 dims: [ 2, -1 ] }',
        '{ name: "sum" data_type: TYPE_FP32 dims: [ 1 ] }',
        'parameters { key: "enable_mem_arena" value { string_value: "0" } }',
        rows=0,
    )
    total = graph([("ReduceSum", ["x"], ["sum"], {"keepdims": 0})], [("x", FLOAT, (2, "n"))], [("sum", FLOAT, ())])
    add_model(repository, "scalar", unbatched, total)
    tuned = """
        optimization { graph { level: 1 } }
        parameters { key: "intra_op_thread_count" value { string_value: "2" } }
        parameters { key: "execution_mode" value { string_value: "1" } }
        parameters { key: "inter_op_thread_count" value { string_value: "1" } }
        parameters { key: "enable_mem_arena" value { string_value: "1" } }
        parameters { key: "enable_mem_pattern" value { string_value: "false" } }
        parameters { key: "memory.enable_memory_arena_shrinkage" value { string_value: "cpu:0" } }
        parameters { key: "unknown" value { string_value: "ignored" } }
    """
    add_model(repository, "tuned", DOUBLING_CONFIG.replace("instance_group", tuned + "instance_group"), doubling())


def _batching_models(repository: Path) -> None:
    add_model(repository, "merged", DOUBLING_CONFIG + BATCHING, doubling())
    lookup = graph(
        [("Gather", ["table", "ids"], ["y"], {"axis": 0})],
        [("ids", INT64, ("b", "n"))],
        [("y", FLOAT, ("b", "n"))],
        {"table": np.asarray([10.0, 11.0, 12.0], np.float32)},
    )
    ids = '{ name: "ids" data_type: TYPE_INT64 dims: [ -1 ] }'
    add_model(
        repository, "lookup", onnx_config(ids, '{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }', BATCHING), lookup
    )
    kinds = {
        "count": "BATCH_ELEMENT_COUNT",
        "end": "BATCH_ACCUMULATED_ELEMENT_COUNT",
        "bounds": "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
        "longest": "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
        "flat": "BATCH_ITEM_SHAPE_FLATTEN",
        "item": "BATCH_ITEM_SHAPE",
    }
    # Every response shall show the whole tensor that the graph received: one row per request, each the same.
    nodes: list[tuple[Any, ...]] = [
        ("Shape", ["item"], ["rows"], {"end": 1}),
        ("Concat", ["rows", "one"], ["tall"], {"axis": 0}),
    ]
    for name in kinds:
        source = name
        if name == "longest":  # only its shape is defined
            nodes += [("Shape", ["longest"], ["longest64"]), ("Cast", ["longest64"], ["length"], {"to": INT32})]
            source = "length"
        nodes += [("Reshape", [source, "row"], [f"{name}_row"]), ("Expand", [f"{name}_row", "tall"], [f"saw_{name}"])]
    nodes += [("Add", ["tokens", "tokens"], ["doubled"])]
    shapes: dict[str, tuple[int | str, ...]] = {name: (name,) for name in kinds} | {"item": ("b", 1)}
    model = graph(
        nodes,
        [("tokens", FLOAT, ("t",)), *((name, INT32, shape) for name, shape in shapes.items())],
        [("doubled", FLOAT, ("t",)), *((f"saw_{name}", INT32, ("b", f"{name}_n")) for name in kinds)],
        {"one": np.asarray([1]), "row": np.asarray([1, -1])},
    )
    entries = "".join(
        f'batch_input {{ kind: {kind} target_name: "{name}" data_type: TYPE_INT32 source_input: "tokens" }}\n'
        for name, kind in kinds.items()
    )
    scatter = 'batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "doubled" source_input: "tokens" }'
    outputs = ", ".join(f'{{ name: "saw_{name}" data_type: TYPE_INT32 dims: [ -1 ] }}' for name in kinds)
    config = onnx_config(
        '{ name: "tokens" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }',
        '{ name: "doubled" data_type: TYPE_FP32 dims: [ -1 ] }, ' + outputs,
        entries + scatter + "\n" + BATCHING,
    )
    add_model(repository, "ragged", config, model)


def _row_models(repository: Path) -> None:
    config = onnx_config(FP32_X, '{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }', BATCHING)
    outputs = [("y", FLOAT, ("rows", "n"))]
    inputs = [("x", FLOAT, ("b", "n"))]
    twice = graph([("Concat", ["x", "x"], ["y"], {"axis": 0})], inputs, outputs)
    add_model(repository, "surplus", config, twice)
    first = graph(
        [("Slice", ["x", "from", "to"], ["y"])], inputs, outputs, {"from": np.asarray([0]), "to": np.asarray([1])}
    )
    add_model(repository, "first_row", config, first)


def _ensemble(repository: Path) -> None:
    for name, operator in (("encoder", "Neg"), ("head_a", "Abs"), ("head_b", "Exp")):
        model = graph([(operator, ["x"], ["y"])], [("x", FLOAT, ("b", "n"))], [("y", FLOAT, ("b", "n"))])
        add_model(repository, name, DOUBLING_CONFIG, model)
    heads = "".join(
        f"""{{ model_name: "head_{head}" model_version: -1
               input_map {{ key: "x" value: "hidden" }} output_map {{ key: "y" value: "{head}" }} }},"""
        for head in "ab"
    )
    add_model(
        repository,
        "ensemble",
        f"""
        platform: "ensemble"
        max_batch_size: 8
        input [ {FP32_X} ]
        output [ {FP32_X.replace('"x"', '"a"')}, {FP32_X.replace('"x"', '"b"')} ]
        ensemble_scheduling {{ step [
            {{ model_name: "encoder" model_version: -1
               input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "hidden" }} }},
            {heads.rstrip(",")}
        ] }}
        """,
    )


def _torchscript_models(repository: Path) -> None:
    torch = pytest.importorskip("torch")

    class Scale(torch.nn.Module):  # type: ignore[name-defined, misc]
        def forward(self, values: torch.Tensor, factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[name-defined]
            return values * factor, values.to(torch.int64)

    scripted = torch.jit.script(Scale())
    indexed, by_argument = ("B__1", "A__0"), ("factor", "values")
    for name, (first, second) in (("indexed", indexed), ("by_argument", by_argument), ("mistyped", by_argument)):
        config = f"""
            platform: "pytorch_libtorch"
            backend: "pytorch"
            max_batch_size: 8
            input [ {{ name: "{first}" data_type: TYPE_FP32 dims: [ 1 ] }},
                    {{ name: "{second}" data_type: TYPE_FP32 dims: [ -1 ] }} ]
            output [ {{ name: "WHOLE__1" data_type: TYPE_{"FP32" if name == "mistyped" else "INT64"} dims: [ -1 ] }},
                     {{ name: "SCALED__0" data_type: TYPE_FP32 dims: [ -1 ] }} ]
            instance_group [ {{ kind: KIND_CPU count: 1 }} ]
            parameters {{ key: "INTRA_OP_THREAD_COUNT" value {{ string_value: "1" }} }}
            dynamic_batching {{ }}
            """
        add_model(repository, name, config)
        if name == "by_argument":  # what the other one computes in execute, this one does in streams
            streams = repository / name / "configs" / "embedded.pbtxt"
            streams.parent.mkdir()
            streams.write_text(config + 'parameters { key: "streams" value { string_value: "2" } }')
        scripted.save(str(repository / name / "1" / "model.pt"))

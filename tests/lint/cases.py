"""For every rule a repository that breaks it and one, as close as possible, that does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from sie_triton.lint import Machine

from .builders import (
    ENCODER,
    ENSEMBLE,
    POOLING,
    RepositoryBuilder,
    Shape,
    encoder_graph,
    identity_config,
    identity_graph,
    model,
    pooling_graph,
    replaced,
    script_file,
    tensor,
    weighted_graph,
)

Build = Callable[[RepositoryBuilder], object]

CPU = Machine(cores=2)
GPU = Machine(cores=16, gpus=1)


@dataclass(frozen=True)
class Case:
    """`bad` breaks the rule, `good` does not; `line` is the reported line where it is worth stating."""

    bad: Build
    good: Build
    triton: str = "24.10"
    good_triton: str | None = None
    machine: Machine | None = CPU
    line: int | None = None


def copies(config: str, graph: onnx.ModelProto | None = None) -> Build:
    return lambda repository: repository.add("copy", config, graph or identity_graph())


def texts(bad: str, good: str | None = None, **case: object) -> Case:
    """Two configurations of one identity graph."""
    return Case(copies(bad), copies(good or identity_config()), **case)  # type: ignore[arg-type]


def graphs(
    bad: onnx.ModelProto, good: onnx.ModelProto | None = None, config: str | None = None, **case: object
) -> Case:
    """Two graphs behind one configuration."""
    text = config or identity_config()
    return Case(copies(text, bad), copies(text, good or identity_graph()), **case)  # type: ignore[arg-type]


def wires(old: str, new: str, text: str = ENSEMBLE, **case: object) -> Case:
    """The reference ensemble with one edit, and without."""
    edited = replaced(text, old, new)
    key = {ENSEMBLE: "ensemble", ENCODER: "encoder", POOLING: "pooling"}[text]
    return Case(lambda r: r.reference(**{key: edited}), lambda r: r.reference(), **case)  # type: ignore[arg-type]


def foreign(config: str, file: str) -> Build:
    """A model of another backend, with an empty model file; TorchScript is a whole one."""
    content = script_file() if file == "model.pt" else b""
    return lambda repository: repository.add("copy", config, files={f"1/{file}": content})


def queue(more: str = "", policy: str = "max_queue_size: 64") -> str:
    """An identity with a dynamic batcher; fixed dims, so that all requests merge."""
    return identity_config(more=f"dynamic_batching {{ {more} default_queue_policy {{ {policy} }} }}")


def ragged(*, batch_input: str | None = None, more_input: str = "", batching: bool = True, inputs: str = "") -> str:
    """A ragged identity: the graph gets all elements and the lengths."""
    if batch_input is None:
        batch_input = (
            'batch_input [ { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_INT32 source_input: "x" } ]'
        )
    queue_text = "dynamic_batching { default_queue_policy { max_queue_size: 9 } }" if batching else ""
    return identity_config(
        dims="[ -1 ]",
        more_input=f"allow_ragged_batch: true {more_input}",
        more=f"{batch_input}\n{inputs}\n{queue_text}",
    )


def ragged_graph(shape: Shape = ("t",)) -> onnx.ModelProto:
    """Cuts the elements `x` into as many rows as there are lengths `n`."""
    return model(
        [tensor("x", shape), tensor("n", ["r"], TensorProto.INT32)],
        [tensor("y", ["b", "s"])],
        [
            helper.make_node("Shape", ["n"], ["rows"]),
            helper.make_node("Concat", ["rows", "rest"], ["cut"], axis=0),
            helper.make_node("Reshape", ["x", "cut"], ["y"]),
        ],
        [helper.make_tensor("rest", TensorProto.INT64, [1], [-1])],
    )


def raggeds(bad: str, good: str | None = None) -> Case:
    return Case(copies(bad, ragged_graph()), copies(good or ragged(), ragged_graph()))


def warm(sample: str) -> str:
    return identity_config(more=f'model_warmup [ {{ name: "w" {sample} }} ]')


def warm_x(data: str, batch_size: int = 1) -> str:
    return warm(f'batch_size: {batch_size} inputs {{ key: "x" value {{ {data} }} }}')


GOOD_WARMUP = warm_x("data_type: TYPE_FP32 dims: [ 4 ] zero_data: true")


def group(text: str, parameters: str | None = None) -> str:
    if parameters is None:
        return identity_config(group=f"instance_group [ {{ {text} }} ]")
    return identity_config(group=f"instance_group [ {{ {text} }} ]", parameters=parameters)


def parameter(key: str, value: str) -> str:
    return identity_config(more=f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}')


def accelerator(name: str, *options: tuple[str, str], device: str = "gpu", kind: str = "KIND_GPU") -> str:
    pairs = " ".join(f'parameters {{ key: "{key}" value: "{value}" }}' for key, value in options)
    text = f'{device}_execution_accelerator [ {{ name: "{name}" {pairs} }} ]'
    return identity_config(
        group=f"instance_group [ {{ kind: {kind} count: 1 }} ]",
        more=f"optimization {{ execution_accelerators {{ {text} }} }}",
    )


def half(config: str) -> str:
    """`config` with another file."""
    return replaced(config, 'name: "copy"', 'name: "copy"\ndefault_model_filename: "model.float16.onnx"')


def variant(config: str, other: str, **files: str | bytes) -> Build:
    """A model with the two configurations `config.pbtxt` and `configs/cuda.pbtxt`; `__` in a name is a `/`."""
    named = {name.replace("__", "/"): content for name, content in files.items()}
    return lambda r: r.add("copy", config, identity_graph(), files={"configs/cuda.pbtxt": other, **named})


def two_files(config: str, other: str) -> Build:
    """A float32 and a float16 graph in one version."""
    raw = weighted_graph().SerializeToString()
    return lambda r: r.add(
        "copy", config, weighted_graph(), files={"configs/cuda.pbtxt": other, "1/model.float16.onnx": raw}
    )


def tensorrt(*options: tuple[str, str]) -> str:
    """A model behind TensorRT with a cache, and more options."""
    return accelerator("tensorrt", *CACHE, *options)


def profiles(low: str, best: str, high: str) -> tuple[tuple[str, str], ...]:
    bounds = zip(("min", "opt", "max"), (low, best, high), strict=True)
    return tuple((f"trt_profile_{bound}_shapes", text) for bound, text in bounds)


def two_models(config: str, other: str, graph: onnx.ModelProto | None = None) -> Build:
    """The models `copy` and `other`."""

    def build(repository: RepositoryBuilder) -> None:
        repository.add("copy", config, graph or identity_graph())
        repository.add("other", replaced(other, '"copy"', '"other"'), graph or identity_graph())

    return build


def scripted(*parameters: tuple[str, str], dims: str = "[ 4 ]") -> str:
    """A TorchScript model with its parameters."""
    written = "\n".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters
    )
    text = identity_config(backend='backend: "pytorch"', parameters=written, dims=dims)
    return replaced(replaced(text, '"x"', '"INPUT__0"'), '"y"', '"OUTPUT__0"')


def scripts(bad: str, good: str) -> Case:
    return Case(foreign(bad, "model.pt"), foreign(good, "model.pt"))


def two_scripts(ours: str, theirs: str) -> Build:
    def build(repository: RepositoryBuilder) -> None:
        repository.add("copy", ours, files={"1/model.pt": script_file()})
        repository.add("other", replaced(theirs, '"copy"', '"other"'), files={"1/model.pt": script_file()})

    return build


def script_versions(config: str, *contents: bytes) -> Build:
    """A TorchScript model with one version for each content; both of two are served."""
    more = "version_policy { all { } }\n" if len(contents) > 1 else ""
    files: dict[str, str | bytes] = {f"{number}/model.pt": content for number, content in enumerate(contents, 1)}
    return lambda r: r.add("copy", config + more, files=files)


def variant_ensemble(*, pooling: bool) -> Build:
    """The reference ensemble with a variant, which the pooling head has or lacks."""

    def build(repository: RepositoryBuilder) -> None:
        repository.add("model", ENSEMBLE, files={"configs/cuda.pbtxt": ENSEMBLE})
        repository.add("encoder", ENCODER, encoder_graph(), files={"configs/cuda.pbtxt": ENCODER})
        more = {"configs/cuda.pbtxt": POOLING} if pooling else {}
        repository.add("pooling", POOLING, pooling_graph(), files=dict(more))

    return build


# A Python model that completes nothing.
PYTHON_MODEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
CACHE = (("trt_engine_cache_enable", "1"), ("trt_engine_cache_path", "/var/cache/engines"))
PROFILES = tuple((f"trt_profile_{bound}_shapes", "x:1x4") for bound in ("min", "opt", "max"))


def sequence_graph() -> onnx.ModelProto:
    """Gives a sequence of tensors, as exported classifiers do with their probabilities."""
    made = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, ["b", 4])
    return model(
        [tensor("x", ["b", 4])],
        [tensor("y", ["b", 4]), made],
        [
            helper.make_node("Identity", ["x"], ["y"]),
            helper.make_node("SequenceConstruct", ["x"], ["parts"]),
        ],
    )


def unshaped_graph() -> onnx.ModelProto:
    """Its output comes out of an operator that ONNX does not know."""
    return model(
        [tensor("x", ["b", 4])],
        [tensor("y", ["b", "d"])],
        [helper.make_node("Mystery", ["x"], ["y"], domain="com.example")],
        custom_domain="com.example",
    )


def two_outputs_graph() -> onnx.ModelProto:
    return model(
        [tensor("x", ["b", 4])],
        [tensor("y", ["b", 4]), tensor("z", ["b", 4])],
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
    )


def ir(ir_version: int) -> onnx.ModelProto:
    graph = identity_graph()
    graph.ir_version = ir_version
    return graph


def opset(version: int) -> onnx.ModelProto:
    graph = identity_graph()
    graph.opset_import[0].version = version
    return graph


def external_graph() -> onnx.ModelProto:
    """Its weights are in the file `weights.bin`."""
    graph = model(
        [tensor("x", ["b", 4])],
        [tensor("y", ["b", 4])],
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [helper.make_tensor("w", TensorProto.FLOAT, [4], [0.0] * 4)],
    )
    weights = graph.graph.initializer[0]
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
    return graph


def with_weights(*, present: bool) -> Build:
    def build(repository: RepositoryBuilder) -> None:
        # `onnx.save` refuses dangling external data, so the bytes are written as they are.
        files: dict[str, str | bytes] = {"1/model.onnx": external_graph().SerializeToString()}
        if present:
            files["1/weights.bin"] = bytes(16)
        repository.add("copy", identity_config(), files=files)

    return build


def sparse_file(size: int) -> Build:
    def build(repository: RepositoryBuilder) -> None:
        file = repository.add("copy", identity_config(), identity_graph()) / "1/model.onnx"
        with file.open("r+b") as opened:
            opened.truncate(size)

    return build


def mode(path: str, bits: int) -> Build:
    def build(repository: RepositoryBuilder) -> None:
        (repository.add("copy", identity_config(), identity_graph()) / path).chmod(bits)

    return build


def link(target: Callable[[Path], Path | str]) -> Build:
    """`copy/1/extra` is a link."""

    def build(repository: RepositoryBuilder) -> None:
        folder = repository.add("copy", identity_config(), identity_graph(), files={"here.txt": "here"})
        (repository.path.parent / "outside.txt").write_text("outside")
        (folder / "1/extra").symlink_to(target(folder))

    return build


def plain(**files: str | bytes) -> Build:
    """A correct model with more files; `__` in a name is a folder's `/`."""
    named = {name.replace("__", "/"): content for name, content in files.items()}
    return lambda repository: repository.add("copy", identity_config(), identity_graph(), files=named)


INNER = """\
name: "again"
platform: "ensemble"
max_batch_size: 8
input [
  { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [ { name: "last_hidden_state" data_type: TYPE_FP32 dims: [ -1, 8 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "encoder"
      model_version: -1
      input_map { key: "input_ids" value: "input_ids" }
      input_map { key: "attention_mask" value: "attention_mask" }
      output_map { key: "last_hidden_state" value: "last_hidden_state" }
    }
  ]
}
"""


def circle(second: str) -> Build:
    """The ensemble `model` contains the ensemble `again`, which contains `second`."""
    inner = replaced(INNER, 'model_name: "encoder"', f'model_name: "{second}"')

    def build(repository: RepositoryBuilder) -> None:
        repository.reference(ensemble=replaced(ENSEMBLE, 'model_name: "encoder"', 'model_name: "again"'))
        repository.add("again", inner)

    return build


def sequence(values: str) -> Build:
    """A sequence model with a start flag."""
    control = f"control [ {{ kind: CONTROL_SEQUENCE_START {values} }} ]"
    graph = model(
        [tensor("x", ["b", 4]), tensor("start", ["b", 1], TensorProto.INT32)],
        [tensor("y", ["b", 4])],
        [helper.make_node("Identity", ["x"], ["y"])],
    )
    more = f'sequence_batching {{ control_input [ {{ name: "start" {control} }} ] }}'
    return copies(identity_config(more=more), graph)


def sequences(*controls: str) -> Build:
    """A Python model with these sequence controls."""
    body = ", ".join(f'{{ name: "c{index}" control [ {{ {text} }} ] }}' for index, text in enumerate(controls))
    text = identity_config(
        backend='backend: "python"', parameters="", more=f"sequence_batching {{ control_input [ {body} ] }}"
    )
    return lambda r: r.add("copy", text, files={"1/model.py": PYTHON_MODEL})


START = "kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ]"
END = "kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ]"


def correlation(data_type: str) -> str:
    return f"kind: CONTROL_SEQUENCE_CORRID {data_type}"


def added(
    *, as_input: bool = True, ir_version: int = 8, unshaped: bool = False, initialized: bool = True
) -> onnx.ModelProto:
    """`y = x + w`, where `w` is an initializer, an input, or both."""
    inputs = [tensor("x", None if unshaped else ["b", 4]), *([tensor("w", [4])] if as_input else [])]
    weights = [helper.make_tensor("w", TensorProto.FLOAT, [4], [0.0] * 4)] if initialized else []
    return model(
        inputs,
        [tensor("y", ["b", 4])],
        [helper.make_node("Add", ["x", "w"], ["y"])],
        weights,
        ir_version=ir_version,
    )


def with_w(more: str = "", *, batching: bool = True) -> str:
    """The configuration of `added` that lists `w` too."""
    written = f'input {{ name: "w" data_type: TYPE_FP32 dims: 4 {more} }}'
    return (
        identity_config(more=written) if batching else identity_config(max_batch_size=0, dims="[ -1, 4 ]", more=written)
    )


def operator(name: str, domain: str = "", version: int = 1) -> onnx.ModelProto:
    """An identity of another operator, its domain imported in this version."""
    graph = model(
        [tensor("x", ["b", 4])], [tensor("y", ["b", 4])], [helper.make_node(name, ["x"], ["y"], domain=domain)]
    )
    if domain:
        graph.opset_import.append(helper.make_opsetid(domain, version))
    return graph


def imported(domain: str, version: int) -> onnx.ModelProto:
    """An identity that imports what it does not use."""
    graph = identity_graph()
    graph.opset_import.append(helper.make_opsetid(domain, version))
    return graph


def cut_weights(size: int) -> Build:
    """External weights of 16 bytes from byte 4 on, in a file of `size` bytes."""
    graph = external_graph()
    graph.graph.initializer[0].external_data.add(key="offset", value="4")
    graph.graph.initializer[0].external_data.add(key="length", value="16")
    files: dict[str, str | bytes] = {"1/model.onnx": graph.SerializeToString(), "1/weights.bin": bytes(size)}
    return lambda r: r.add("copy", identity_config(), files=files)


def python_model(name: str, inputs: Sequence[str], *, decoupled: bool = False) -> tuple[str, str]:
    """Name and configuration of a Python model with one output `y`."""
    listed = ", ".join(f'{{ name: "{tensor}" data_type: TYPE_INT32 dims: [ -1 ] }}' for tensor in inputs)
    policy = "model_transaction_policy { decoupled: true }" if decoupled else ""
    return name, (
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 0\n{policy}\ninput [ {listed} ]\n'
        'output [ { name: "y" data_type: TYPE_INT32 dims: [ -1 ] } ]\n'
    )


def decoupled(second: str, joined: str) -> Build:
    """`stream` answers many times; `second` and `join` work on what comes of it and of the request."""

    def build(repository: RepositoryBuilder) -> None:
        models = [
            python_model("stream", "x", decoupled=True),
            python_model("plain", "x"),
            python_model("join", ("x", "z")),
        ]
        for name, text in models:
            repository.add(name, text, files={"1/model.py": PYTHON_MODEL})
        steps = (("stream", {"x": "x"}, "a"), (second, {"x": joined}, "b"), ("join", {"x": "a", "z": "b"}, "y"))
        wires = ", ".join(
            f'{{ model_name: "{name}" model_version: -1 '
            + " ".join(f'input_map {{ key: "{key}" value: "{value}" }}' for key, value in reads.items())
            + f' output_map {{ key: "y" value: "{writes}" }} }}'
            for name, reads, writes in steps
        )
        ensemble = (
            'name: "flow"\nplatform: "ensemble"\nmax_batch_size: 0\n'
            'input [ { name: "x" data_type: TYPE_INT32 dims: [ -1 ] } ]\n'
            'output [ { name: "y" data_type: TYPE_INT32 dims: [ -1 ] } ]\n'
            f"ensemble_scheduling {{ step [ {wires} ] }}\n"
        )
        repository.add("flow", ensemble)

    return build


def torchscript(x: str, y: str, more: str = "") -> Build:
    text = replaced(
        replaced(identity_config(backend='backend: "pytorch"', more=more), '"x"', f'"{x}"'), '"y"', f'"{y}"'
    )
    return foreign(text, "model.pt")


def without(name: str) -> Build:
    """The reference ensemble with a composing model left out."""

    def build(repository: RepositoryBuilder) -> None:
        repository.add("model", ENSEMBLE)
        for text, graph in ((ENCODER, encoder_graph()), (POOLING, None)):
            if f'name: "{name}"' not in text:
                repository.add("encoder" if text is ENCODER else "pooling", text, graph)

    return build


def reference(repository: RepositoryBuilder) -> None:
    repository.reference()


SCHEMA: dict[str, Case] = {
    "L101": texts(identity_config(more="max_batchsize: 4"), line=8),
    "L102": Case(
        lambda r: r.reference(ensemble=replaced(ENSEMBLE, "step [", "max_inflight_requests: 4 step [")),
        lambda r: r.reference(ensemble=replaced(ENSEMBLE, "step [", "max_inflight_requests: 4 step [")),
        triton="25.10",
        good_triton="25.11",
    ),
    "L103": texts(identity_config(backend='backend: "onnxruntime" platform: "pytorch_libtorch"'), line=2),
    "L104": texts(identity_config("kopie"), line=1),
    "L105": texts(identity_config("acme/copy"), line=1),
    "L106": texts(
        identity_config(max_batch_size=None, dims="[ -1, 4 ]"), identity_config(max_batch_size=0, dims="[ -1, 4 ]")
    ),
    "L107": texts(identity_config(max_batch_size=-1), line=3),
    "L108": texts(replaced(identity_config(), "data_type: TYPE_FP32 ", ""), line=4),
    "L109": texts(identity_config(dims="[ 0 ]"), line=4),
    "L110": texts(
        identity_config(more_input="reshape { shape: [ 3 ] }"), identity_config(more_input="reshape { shape: [ 4 ] }")
    ),
    "L111": texts(identity_config(more='input { name: "x" data_type: TYPE_FP32 dims: 4 }'), line=8),
    "L112": texts(identity_config(more_input="format: FORMAT_NCHW")),
    "L113": texts(identity_config(more_input="is_shape_tensor: true")),
    "L114": Case(
        copies(identity_config(data_type="TYPE_BF16"), identity_graph(kind=TensorProto.BFLOAT16)),
        copies(identity_config(data_type="TYPE_BF16"), identity_graph(kind=TensorProto.BFLOAT16)),
        triton="26.02",
        good_triton="26.03",
    ),
    "L115": texts('name: "copy"\nbackend: "onnxruntime"\nmax_batch_size: 8\n'),
    "L116": texts(
        identity_config(more="response_cache { enable: true } model_transaction_policy { decoupled: true }"),
        identity_config(more="response_cache { enable: true }"),
    ),
    "L117": Case(torchscript("INPUT__0", "OUTPUT"), torchscript("INPUT__0", "OUTPUT__0")),
    "L118": Case(
        copies(identity_config(data_type="TYPE_STRING"), identity_graph(kind=TensorProto.STRING)),
        copies(identity_config()),
    ),
    "L119": Case(
        copies(with_w("optional: true"), added()),
        copies(with_w("optional: true", batching=False), added()),
        line=8,
    ),
    "L121": Case(
        variant(identity_config(), replaced(identity_config(), "TYPE_FP32", "TYPE_FP16")),
        variant(identity_config(), group("kind: KIND_GPU count: 1")),
        machine=GPU,
        line=4,
    ),
    "L122": Case(sequences(START, START), sequences(START, END)),
    "L123": Case(sequences(correlation("data_type: TYPE_FP32")), sequences(correlation("data_type: TYPE_STRING"))),
    "L124": Case(
        foreign(identity_config(backend='backend: "onnxrutime"', parameters=""), "model.onnx"),
        foreign(identity_config(backend='backend: "mine"', parameters=""), "libtriton_mine.so"),
        line=2,
    ),
    "L120": Case(sequence("int32_false_true: [ 0 ]"), sequence("int32_false_true: [ 0, 1 ]")),
}

GRAPH: dict[str, Case] = {
    "L202": Case(
        lambda r: r.add(
            "copy", identity_config(), files={"1/model.onnx": b"version https://git-lfs.github.com/spec/v1"}
        ),
        copies(identity_config()),
    ),
    "L203": graphs(ir(11), ir(10), triton="24.10"),
    "L204": graphs(opset(22), opset(21), triton="24.10"),
    "L205": graphs(
        model(
            [tensor("x", ["b", 4]), tensor("left", ["b"])],
            [tensor("y", ["b", 4])],
            [helper.make_node("Identity", ["x"], ["y"])],
        )
    ),
    "L206": texts(identity_config(more='input { name: "extra" data_type: TYPE_FP32 dims: 4 }'), line=8),
    "L207": texts(replaced(identity_config(), "TYPE_FP32", "TYPE_FP16"), line=4),
    "L208": Case(
        copies(identity_config(dims="[ -1 ]", output_dims="[ 4 ]")),
        # a dynamic graph may be narrowed
        copies(identity_config(), identity_graph(("b", "n"), output=("b", 4))),
        line=4,
    ),
    "L209": texts(replaced(identity_config(), '"y"', '"z"'), line=5),
    "L210": texts(replaced(identity_config(), '"y" data_type: TYPE_FP32', '"y" data_type: TYPE_FP16'), line=5),
    "L211": Case(
        copies(identity_config(), identity_graph(("b", "Div_1"), output=("b", "Div_1"))),
        copies(identity_config(output_dims="[ -1 ]"), identity_graph(("b", "Div_1"), output=("b", "Div_1"))),
        line=5,
    ),
    "L212": graphs(identity_graph((8, 4), output=(8, 4)), line=3),
    "L213": Case(
        copies(identity_config(dims="[ 1 ]"), identity_graph(("b",), output=("b",))),
        copies(
            identity_config(dims="[ 1 ]", more_input="reshape { shape: [ ] }", more_output="reshape { shape: [ ] }"),
            identity_graph(("b",), output=("b",)),
        ),
    ),
    "L214": graphs(sequence_graph()),
    "L215": graphs(unshaped_graph()),
    "L216": Case(
        copies(identity_config(data_type="TYPE_BF16"), identity_graph(kind=TensorProto.BFLOAT16)),
        copies(identity_config(data_type="TYPE_BF16"), identity_graph(kind=TensorProto.BFLOAT16)),
        triton="26.02",
        good_triton="26.03",
    ),
    "L217": graphs(two_outputs_graph()),
    "L218": Case(
        copies(with_w(), added()),
        copies(with_w("optional: true", batching=False), added()),
        line=8,
    ),
    "L219": Case(copies(identity_config(), added(as_input=False, unshaped=True)), copies(identity_config(), added())),
    "L220": Case(
        copies(identity_config(), operator("BertTokenizer", "ai.onnx.contrib")),
        copies(
            identity_config(more='model_operations { op_library_filename: "libcustom.so" }'),
            operator("BertTokenizer", "ai.onnx.contrib"),
        ),
    ),
    "L221": graphs(imported("ai.onnx.ml", 6), imported("ai.onnx.ml", 5)),
    "L222": Case(
        copies(with_w("optional: true", batching=False), added(initialized=False)),
        copies(with_w("optional: true", batching=False), added()),
    ),
}

ENSEMBLES: dict[str, Case] = {
    "L301": wires('platform: "ensemble"', 'platform: "onnxruntime_onnx"'),
    "L302": wires("ensemble_scheduling {", "instance_group [ { count: 1 } ]\nensemble_scheduling {", line=9),
    "L303": Case(without("encoder"), reference, line=12),
    "L304": wires("model_version: -1", "model_version: 3", line=13),
    "L305": wires('      input_map { key: "attention_mask" value: "attention_mask" }\n', ""),
    "L306": wires(
        'input_map { key: "input_ids" value: "input_ids" }', 'input_map { key: "ids" value: "input_ids" }', line=14
    ),
    "L307": wires('output_map { key: "dense" value: "dense" }', 'output_map { key: "vector" value: "dense" }', line=23),
    "L308": wires('value: "hidden"', 'value: "input_ids"', line=16),
    "L309": wires(
        'input_map { key: "last_hidden_state" value: "hidden" }',
        'input_map { key: "last_hidden_state" value: "hiden" }',
        line=21,
    ),
    "L310": wires("output [", 'input { name: "extra" data_type: TYPE_FP32 dims: 1 }\noutput ['),
    "L311": wires(
        "ensemble_scheduling {",
        'output { name: "sparse" data_type: TYPE_FP32 dims: 8 }\nensemble_scheduling {',
        line=9,
    ),
    "L312": wires('value: "dense"', 'value: "lost"'),
    "L313": wires("TYPE_FP32", "TYPE_FP16"),
    "L314": wires("dims: [ 8 ]", "dims: [ 16 ]"),
    "L315": wires("max_batch_size: 8", "max_batch_size: 16", line=3),
    "L316": wires("dims: [ 8 ]", "dims: [ -1 ]"),
    "L317": Case(circle("model"), circle("encoder")),
    "L318": Case(
        lambda r: r.reference(encoder=ENCODER + 'output { name: "pooled" data_type: TYPE_FP32 dims: 8 }\n'), reference
    ),
    "L319": wires('      output_map { key: "dense" value: "dense" }\n', ""),
    "L320": Case(
        lambda r: r.reference(ensemble=ENSEMBLE + "response_cache { enable: true }\n"),
        lambda r: r.reference(ensemble=ENSEMBLE + "response_cache { enable: true }\n"),
        triton="25.08",
        good_triton="25.09",
    ),
    "L322": Case(decoupled("plain", "x"), decoupled("plain", "a")),
    "L321": Case(variant_ensemble(pooling=False), variant_ensemble(pooling=True)),
}

BATCHING: dict[str, Case] = {
    "L401": Case(
        copies(replaced(queue(), "dims: [ 4 ]", "dims: [ -1 ]"), identity_graph(("b", "n"), output=("b", 4))),
        copies(queue()),
    ),
    "L402": texts(queue("preferred_batch_size: [ 16 ]"), queue("preferred_batch_size: [ 8 ]")),
    "L403": texts(queue("preferred_batch_size: [ 8 ]"), queue()),
    "L404": texts(queue("max_queue_delay_microseconds: 500000"), queue("max_queue_delay_microseconds: 500")),
    "L405": texts(
        queue("priority_levels: 2 default_priority_level: 3"), queue("priority_levels: 2 default_priority_level: 2")
    ),
    "L406": texts(
        queue(policy="max_queue_size: 64 timeout_action: REJECT"),
        queue(policy="max_queue_size: 64 timeout_action: REJECT default_timeout_microseconds: 1000"),
    ),
    "L407": texts(queue(policy="default_timeout_microseconds: 1000"), queue(), line=8),
    "L408": texts(
        queue("preserve_ordering: true priority_levels: 2 default_priority_level: 1"),
        queue("preserve_ordering: true priority_levels: 1 default_priority_level: 1"),
    ),
    "L409": texts(replaced(queue(), "max_batch_size: 8", "max_batch_size: 1"), queue()),
    "L410": Case(copies(ragged(), ragged_graph(("b", "t"))), copies(ragged(), ragged_graph())),
    "L411": raggeds(ragged(batch_input="")),
    "L412": raggeds(ragged(more_input="optional: true")),
    "L413": raggeds(replaced(ragged(), "TYPE_INT32", "TYPE_INT64")),
    "L414": raggeds(replaced(ragged(), 'source_input: "x"', 'source_input: "nobody"')),
    "L415": raggeds(replaced(ragged(), 'target_name: "n"', 'target_name: [ "n", "m" ]')),
    "L416": raggeds(
        ragged(inputs='batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "z" source_input: "x" } ]'),
        ragged(inputs='batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "y" source_input: "x" } ]'),
    ),
    "L417": raggeds(ragged(batching=False)),
    "L418": texts(warm_x("data_type: TYPE_FP32 dims: [ 5 ] zero_data: true"), GOOD_WARMUP),
    "L419": texts(warm_x("data_type: TYPE_FP32 dims: [ 4 ] zero_data: true", 9), GOOD_WARMUP),
    "L420": texts(
        queue("preserve_ordering: true"), queue("preserve_ordering: true"), triton="26.08", good_triton="26.09"
    ),
    "L421": texts(warm_x("data_type: TYPE_FP32 dims: [ 4 ] zero_data: true", 0), GOOD_WARMUP),
    "L422": texts(
        identity_config(
            more="dynamic_batching { default_queue_policy { max_queue_size: 64 } }",
            group="instance_group [ { kind: KIND_CPU count: 2 } ]",
        ),
        identity_config(more="dynamic_batching { }", group="instance_group [ { kind: KIND_CPU count: 2 } ]"),
    ),
}

INSTANCES: dict[str, Case] = {
    "L501": Case(copies(group("kind: KIND_GPU count: 1")), copies(group("kind: KIND_CPU count: 1")), line=6),
    "L502": texts(group("kind: KIND_GPU gpus: [ 1 ]"), group("kind: KIND_GPU gpus: [ 0 ]"), machine=GPU),
    "L503": texts(group("kind: KIND_CPU count: 1 gpus: [ 0 ]")),
    "L504": texts(group("kind: KIND_CPU count: 3"), group("kind: KIND_CPU count: 2")),
    "L505": texts(group("kind: KIND_CPU count: 1", parameters="")),
    "L506": texts(group("kind: KIND_CPU")),
    "L507": texts(group("kind: KIND_CPU count: 0")),
    "L508": texts(group("kind: KIND_CPU count: 2")),
    "L509": texts(group('kind: KIND_CPU count: 1 profile: [ "0" ]')),
    "L511": texts(group("kind: KIND_GPU count: 2"), group("kind: KIND_GPU count: 1"), machine=GPU),
    "L513": texts(
        group("kind: KIND_GPU count: 1", parameters=""), group("kind: KIND_GPU count: 1"), machine=GPU, line=6
    ),
    "L512": Case(
        copies(identity_config(), weighted_graph()),
        copies(identity_config(), weighted_graph(TensorProto.FLOAT)),
    ),
    "L510": texts(group('kind: KIND_CPU count: 1 rate_limiter { resources [ { name: "R" count: 1 } ] }')),
}

FILES: dict[str, Case] = {
    "L601": Case(lambda r: r.add("copy", identity_config(), version=""), copies(identity_config())),
    "L602": Case(plain(**{"v2__model.onnx": b"", "01__model.onnx": b""}), plain(**{"assets__model.onnx": b""})),
    "L603": Case(lambda r: r.add("copy", identity_config(), files={"1/encoder.onnx": b""}), copies(identity_config())),
    "L604": texts(
        identity_config(more="version_policy { specific { versions: [ 1, 2 ] } }"),
        identity_config(more="version_policy { specific { versions: [ 1 ] } }"),
        line=8,
    ),
    "L605": Case(
        copies(identity_config(more_output='label_filename: "labels.txt"')),
        lambda r: r.add(
            "copy",
            identity_config(more_output='label_filename: "labels.txt"'),
            identity_graph(),
            files={"labels.txt": "a\nb\n"},
        ),
    ),
    "L606": Case(
        copies(warm_x('data_type: TYPE_FP32 dims: [ 4 ] input_data_file: "x.bin"')),
        lambda r: r.add(
            "copy",
            warm_x('data_type: TYPE_FP32 dims: [ 4 ] input_data_file: "x.bin"'),
            identity_graph(),
            files={"warmup/x.bin": bytes(16)},
        ),
    ),
    "L607": Case(mode("1/model.onnx", 0o640), mode("1/model.onnx", 0o644)),
    "L608": Case(link(lambda folder: folder.parent.parent / "outside.txt"), link(lambda folder: folder / "here.txt")),
    "L609": Case(with_weights(present=False), with_weights(present=True)),
    "L610": Case(sparse_file(2**31), copies(identity_config())),
    "L611": Case(plain(**{"config.pbtxt.txt": ""}), plain(**{"configs__gpu.pbtxt": identity_config()})),
    "L612": Case(
        lambda r: r.add("copy", None, identity_graph(), files={"configs/cpu.pbtxt": identity_config()}),
        plain(**{"configs__cpu.pbtxt": identity_config()}),
    ),
    "L613": texts(
        identity_config(more="version_policy { specific { versions: [ 2 ] } }"),
        identity_config(more="version_policy { specific { versions: [ 2, 1 ] } }"),
        line=8,
    ),
    "L616": Case(cut_weights(19), cut_weights(20)),
    "L614": Case(
        two_files(identity_config(), half(group("kind: KIND_GPU"))),
        two_files(replaced(half(identity_config()), "model.float16.onnx", "model.onnx"), half(group("kind: KIND_GPU"))),
        machine=GPU,
    ),
    "L615": Case(
        plain(**{"1__model.float16.onnx": b""}),
        two_files(identity_config(), half(group("kind: KIND_GPU"))),
        machine=GPU,
    ),
}

PARAMETERS: dict[str, Case] = {
    "L701": texts(parameter("inter_op_thread_count", "two"), parameter("inter_op_thread_count", "2"), line=8),
    "L702": texts(parameter("execution_mode", "2"), parameter("execution_mode", "1")),
    "L703": texts(parameter("intra_op_threads_count", "2")),
    "L704": texts(
        parameter("session.use_device_allocator_for_initializers", "1"),
        parameter("session.use_device_allocator_for_initializers", "1"),
        triton="25.01",
        good_triton="25.02",
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
    "L706": texts(parameter("enable_mem_arena", "off"), parameter("enable_mem_arena", "false")),
    "L707": texts(accelerator("tensorrt"), accelerator("tensorrt", *CACHE), machine=GPU),
    "L708": texts(accelerator("tensorrt", *CACHE), accelerator("tensorrt", *CACHE, *PROFILES), machine=GPU),
    "L709": texts(accelerator("tensort"), accelerator("tensorrt"), machine=GPU),
    "L710": texts(
        identity_config(more="optimization { graph { level: 99 } }"),
        identity_config(more="optimization { graph { level: 1 } }"),
    ),
    "L711": texts(
        parameter("inter_op_thread_count", "2"),
        parameter("inter_op_thread_count", "2") + 'parameters { key: "execution_mode" value { string_value: "1" } }\n',
    ),
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
    "L726": scripts(scripted(("intra_op_thread_count", "1")), scripted(("INTRA_OP_THREAD_COUNT", "1"))),
    "L727": scripts(scripted(("INFERENCE_MODE", "on")), scripted(("INFERENCE_MODE", "True"))),
    "L728": Case(
        two_scripts(scripted(("INTRA_OP_THREAD_COUNT", "1")), scripted(("INTRA_OP_THREAD_COUNT", "2"))),
        two_scripts(scripted(("INTRA_OP_THREAD_COUNT", "1")), scripted()),
    ),
    "L729": scripts(scripted(), scripted(("DISABLE_OPTIMIZED_EXECUTION", "true"))),
    "L730": Case(
        two_scripts(scripted(("INTER_OP_THREAD_COUNT", "1")), scripted(("INTER_OP_THREAD_COUNT", "1"))),
        two_scripts(scripted(("INTER_OP_THREAD_COUNT", "1")), scripted(("INTER_OP_THREAD_COUNT", "0"))),
    ),
    "L731": scripts(scripted(("INTER_OP_THREAD_COUNT", "1")), scripted(("INTRA_OP_THREAD_COUNT", "1"))),
    "L732": Case(
        script_versions(scripted(), script_file()[:-30]),
        script_versions(scripted(), script_file()),
    ),
    "L733": Case(
        script_versions(scripted(), script_file(("x: Tensor", "z: Tensor"))),
        script_versions(scripted(), script_file(("x: Dict[str, Tensor]",))),
    ),
    "L734": Case(
        foreign(replaced(scripted(), "TYPE_FP32", "TYPE_UINT32"), "model.pt"),
        foreign(replaced(scripted(), "TYPE_FP32", "TYPE_FP64"), "model.pt"),
    ),
    "L735": Case(
        foreign(replaced(scripted(), "OUTPUT__0", "OUTPUT__1"), "model.pt"),
        script_versions(replaced(scripted(), "OUTPUT__0", "OUTPUT__1"), script_file(returns="Tuple[Tensor, Tensor]")),
    ),
}

TENSORFLOW = identity_config(backend='platform: "tensorflow_savedmodel"')
IMAGES = identity_config(max_batch_size=128, dims="[ 3, 224, 224 ]")
IMAGES_GRAPH = identity_graph(("b", 3, 224, 224), output=("b", 3, 224, 224))

OPERATIONS: dict[str, Case] = {
    "L801": Case(
        foreign(TENSORFLOW, "model.savedmodel/saved_model.pb"),
        foreign(TENSORFLOW, "model.savedmodel/saved_model.pb"),
        triton="25.03",
        good_triton="25.02",
    ),
    "L802": Case(foreign(TENSORFLOW, "model.savedmodel/saved_model.pb"), copies(identity_config()), triton="25.02"),
    "L803": Case(torchscript("INPUT__0", "OUTPUT__0"), copies(identity_config())),
    "L804": Case(
        foreign(identity_config(backend='platform: "torch_aoti"'), "model.pt2"),
        foreign(identity_config(backend='platform: "torch_aoti"'), "model.pt2"),
        triton="26.02",
        good_triton="26.03",
    ),
    "L805": Case(copies(IMAGES, IMAGES_GRAPH), copies(replaced(IMAGES, "128", "32"), IMAGES_GRAPH), triton="25.06"),
    "L806": texts(identity_config(more="response_cache { enable: true }")),
}

CASES: dict[str, Case] = {**SCHEMA, **GRAPH, **ENSEMBLES, **BATCHING, **INSTANCES, **FILES, **PARAMETERS, **OPERATIONS}

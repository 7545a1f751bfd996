"""Small model repositories for the linter's tests."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

Shape = Sequence[str | int | None]

ENCODER = """\
name: "encoder"
backend: "onnxruntime"
max_batch_size: 8
input [
  { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [ { name: "last_hidden_state" data_type: TYPE_FP32 dims: [ -1, 8 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""

POOLING = """\
name: "pooling"
backend: "onnxruntime"
max_batch_size: 8
input [
  { name: "last_hidden_state" data_type: TYPE_FP32 dims: [ -1, 8 ] },
  { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [ { name: "dense" data_type: TYPE_FP32 dims: [ 8 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""

ENSEMBLE = """\
name: "model"
platform: "ensemble"
max_batch_size: 8
input [
  { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [ { name: "dense" data_type: TYPE_FP32 dims: [ 8 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "encoder"
      model_version: -1
      input_map { key: "input_ids" value: "input_ids" }
      input_map { key: "attention_mask" value: "attention_mask" }
      output_map { key: "last_hidden_state" value: "hidden" }
    },
    {
      model_name: "pooling"
      model_version: -1
      input_map { key: "last_hidden_state" value: "hidden" }
      input_map { key: "attention_mask" value: "attention_mask" }
      output_map { key: "dense" value: "dense" }
    }
  ]
}
"""


def tensor(name: str, shape: Shape | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    ir_version: int = 8,
    opset: int = 17,
    custom_domain: str | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", opset)]
    if custom_domain:
        opsets.append(helper.make_opsetid(custom_domain, 1))
    return helper.make_model(graph, ir_version=ir_version, opset_imports=opsets)


def encoder_graph(*, ir_version: int = 8, opset: int = 17, hidden: Shape | None = ("b", "s", 8)) -> onnx.ModelProto:
    """Embeds ids and zeroes padding: `[b, s]` and `[b, s]` to `[b, s, 8]`."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [50, 8], [0.01 * i for i in range(400)])
    last = helper.make_tensor("last", TensorProto.INT64, [1], [-1])
    return model(
        [tensor("input_ids", ["b", "s"], TensorProto.INT64), tensor("attention_mask", ["b", "s"], TensorProto.INT64)],
        [tensor("last_hidden_state", hidden)],
        [
            helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
            helper.make_node("Mul", ["embedded", "wide"], ["last_hidden_state"]),
        ],
        [table, last],
        ir_version=ir_version,
        opset=opset,
    )


def pooling_graph() -> onnx.ModelProto:
    """Sums tokens: `[b, s, 8]` and `[b, s]` to `[b, 8]`."""
    last = helper.make_tensor("last", TensorProto.INT64, [1], [-1])
    tokens = helper.make_tensor("tokens", TensorProto.INT64, [1], [1])
    return model(
        [tensor("last_hidden_state", ["b", "s", 8]), tensor("attention_mask", ["b", "s"], TensorProto.INT64)],
        [tensor("dense", ["b", 8])],
        [
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
            helper.make_node("Mul", ["last_hidden_state", "wide"], ["masked"]),
            helper.make_node("ReduceSum", ["masked", "tokens"], ["dense"], keepdims=0),
        ],
        [last, tokens],
    )


def identity_graph(
    shape: Shape | None = ("b", 4),
    *,
    output: Shape | None = ("b", 4),
    kind: int = TensorProto.FLOAT,
    names: tuple[str, str] = ("x", "y"),
) -> onnx.ModelProto:
    """Copies its input."""
    return model(
        [tensor(names[0], shape, kind)],
        [tensor(names[1], output, kind)],
        [helper.make_node("Identity", [names[0]], [names[1]])],
    )


def weighted_graph(weights: int = TensorProto.FLOAT16, *, mask: float = -1.0) -> onnx.ModelProto:
    """Adds weights of one type and a float32 constant to its float32 input, `[b, 4]` to `[b, 4]`."""
    return model(
        [tensor("x", ["b", 4])],
        [tensor("y", ["b", 4])],
        [
            helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["x", "wide"], ["sum"]),
            helper.make_node("Add", ["sum", "mask"], ["y"]),
        ],
        [
            helper.make_tensor("w", weights, [4], [1.0, 2.0, 3.0, 4.0]),
            helper.make_tensor("mask", TensorProto.FLOAT, [1], [mask]),
        ],
    )


def script_file(
    arguments: Sequence[str] = ("x: Tensor",), returns: str = "Tensor", *, without: Sequence[str] = ()
) -> bytes:
    """A TorchScript archive as `torch.jit.save` writes it, of a module that only has a signature."""
    listed = "".join(f",\n    {argument}" for argument in arguments)
    code = (
        "class Copy(Module):\n  __parameters__ = []\n  __buffers__ = []\n  training : bool\n"
        f"  def forward(self: __torch__.Copy{listed}) -> {returns}:\n    return x\n"
    )
    files = {
        "data.pkl": b"\x80\x02c__torch__\nCopy\nq\x00)\x81}(X\x08\x00\x00\x00trainingq\x01\x89ubq\x02.",
        "code/__torch__.py": code.encode(),
        "constants.pkl": b"\x80\x02).",
        "version": b"3\n",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            if name not in without:
                archive.writestr(f"copy/{name}", content)
    return buffer.getvalue()


def identity_config(
    name: str = "copy",
    *,
    data_type: str = "TYPE_FP32",
    dims: str = "[ 4 ]",
    output_dims: str | None = None,
    max_batch_size: int | None = 8,
    more: str = "",
    more_input: str = "",
    more_output: str = "",
    group: str = "instance_group [ { kind: KIND_CPU count: 1 } ]",
    parameters: str = 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }',
    backend: str = 'backend: "onnxruntime"',
) -> str:
    """A configuration that fits `identity_graph`, with whatever a test changes."""
    batch = "" if max_batch_size is None else f"max_batch_size: {max_batch_size}\n"
    return (
        f'name: "{name}"\n{backend}\n{batch}'
        f'input [ {{ name: "x" data_type: {data_type} dims: {dims} {more_input} }} ]\n'
        f'output [ {{ name: "y" data_type: {data_type} dims: {output_dims or dims} {more_output} }} ]\n'
        f"{group}\n{parameters}\n{more}\n"
    )


def replaced(text: str, old: str, new: str) -> str:
    """`text` with one `old` made `new`; a test that no longer changes anything must fail."""
    assert text.count(old) >= 1, f"{old!r} is not in the text"
    return text.replace(old, new, 1)


@dataclass(frozen=True)
class RepositoryBuilder:
    """Writes model folders below `path`."""

    path: Path

    def add(
        self,
        name: str,
        config: str | bytes | None,
        graph: onnx.ModelProto | None = None,
        *,
        version: str = "1",
        files: dict[str, str | bytes] | None = None,
    ) -> Path:
        folder = self.path / name
        if version:
            _make(folder / version)
        _make(folder)
        everything: dict[str, str | bytes] = dict(files or {})
        if config is not None:
            everything["config.pbtxt"] = config
        for relative, content in everything.items():
            _make((folder / relative).parent)
            raw = content.encode() if isinstance(content, str) else content
            (folder / relative).write_bytes(raw)
            (folder / relative).chmod(0o644)
        if graph is not None:
            onnx.save(graph, folder / version / "model.onnx")
            (folder / version / "model.onnx").chmod(0o644)
        return folder

    def reference(self, *, encoder: str = ENCODER, pooling: str = POOLING, ensemble: str = ENSEMBLE) -> None:
        """The correct ensemble of an encoder and a pooling head, with what a test changes."""
        self.add("encoder", encoder, encoder_graph())
        self.add("pooling", pooling, pooling_graph())
        self.add("model", ensemble)


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)

"""The linter and the real tritonserver on the same models: what one refuses, the other refuses.

The server's Python backend judges what the core checks (sequence controls, ensembles, backends, completion), and the
embedded backends what NVIDIA's C++ backends check of ONNX and TorchScript.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from sie_triton.lint import lint_repository

from .builders import RepositoryBuilder, identity_config, identity_graph, replaced
from .configs import PYTHON_MODEL, with_w
from .graphs import added, imported, operator
from .judge import Judge, StrictJudge, verdicts

pytestmark = pytest.mark.e2e

COMPLETES = """\
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "A", "data_type": "TYPE_FP32", "dims": [4]})
        for name in ("B", "C"):
            config.add_output({"name": name, "data_type": "TYPE_FP32", "dims": [4]})
        return config

    def execute(self, requests):
        return []
"""
IO = (
    'input [ { name: "A" data_type: TYPE_INT32 dims: [ -1 ] } ]\n'
    'output [ { name: "B" data_type: TYPE_INT32 dims: [ -1 ] } ]\n'
)
TWO_INPUTS = replaced(IO, "} ]\noutput", '}, { name: "A2" data_type: TYPE_INT32 dims: [ -1 ] } ]\noutput')


def python(body: str, *, backend: str = 'backend: "python"', rows: int = 4) -> str:
    return f"{backend}\nmax_batch_size: {rows}\n{body}"


def controls(*inputs: str) -> str:
    return python(f"sequence_batching {{ control_input [ {', '.join(inputs)} ] }}\n{IO}")


def control(name: str, *kinds: str) -> str:
    return f'{{ name: "{name}" control [ {", ".join(kinds)} ] }}'


def flag(kind: str) -> str:
    return f"{{ kind: CONTROL_SEQUENCE_{kind} int32_false_true: [ 0, 1 ] }}"


def correlation(data_type: str) -> str:
    return f"{{ kind: CONTROL_SEQUENCE_CORRID {data_type} }}"


Step = tuple[str, dict[str, str], dict[str, str]]


def flow(*steps: Step) -> str:
    def maps(field: str, wires: dict[str, str]) -> str:
        return " ".join(f'{field} {{ key: "{key}" value: "{value}" }}' for key, value in wires.items())

    written = ", ".join(
        f'{{ model_name: "{name}" model_version: -1 {maps("input_map", reads)} {maps("output_map", writes)} }}'
        for name, reads, writes in steps
    )
    return python(f"{IO}ensemble_scheduling {{ step [ {written} ] }}\n", backend='platform: "ensemble"', rows=0)


STREAM: Step = ("stream", {"A": "A"}, {"B": "x"})
JOIN: Step = ("join", {"A": "x", "A2": "y"}, {"B": "B"})
ID_TYPES = ("UINT64", "INT64", "UINT32", "INT32", "STRING")
ONE_INPUT = 'input [ { name: "A" data_type: TYPE_FP32 dims: 4 } ]'
RAGGED = "allow_ragged_batch: true"

# Configurations of Python models and ensembles, and whether Triton loads them in its default mode.
CORE: dict[str, tuple[str, bool]] = {
    "plain": (python(IO, rows=0), True),
    "join": (python(TWO_INPUTS, rows=0), True),
    "stream": (python(f"model_transaction_policy {{ decoupled: true }}\n{IO}", rows=0), True),
    "stream2": (python(f"model_transaction_policy {{ decoupled: true }}\n{IO}", rows=0), True),
    **{
        f"two_{kind}": (controls(control("a", flag(kind)), control("b", flag(kind))), False)
        for kind in ("START", "END", "READY")
    },
    "twice_in_one": (controls(control("a", flag("START"), flag("START"))), False),
    "two_in_one": (controls(control("a", flag("START"), flag("END"))), True),
    "control_is_input": (controls(control("A", flag("START"))), True),
    "no_control": (controls('{ name: "a" }'), True),
    "two_ids": (
        controls(*(control(name, correlation("data_type: TYPE_UINT64")) for name in "ab")),
        False,
    ),
    **{
        f"id_{kind}": (controls(control("a", correlation(f"data_type: TYPE_{kind}"))), kind in ID_TYPES)
        for kind in (*ID_TYPES, "FP32", "FP64", "BOOL", "UINT8", "INT16")
    },
    "id_untyped": (controls(control("a", correlation(""))), False),
    "partial": (python('output [ { name: "B" data_type: TYPE_FP32 }, { name: "C" dims: [ 4 ] } ]'), True),
    "partial_input": (python('input [ { name: "A" } ]\noutput [ { name: "B" data_type: TYPE_FP32 } ]'), True),
    "nothing_written": (python(""), True),
    "partial_uncompleted": (python(ONE_INPUT + ' output [ { name: "B" } ]'), False),
    "nameless": (python(ONE_INPUT + " output [ { dims: [ 4 ] } ]"), False),
    "output_twice": (python(IO + replaced(IO, IO.splitlines()[0] + "\n", "")), True),
    "misspelt": (python(IO, backend='backend: "onnxrutime"'), False),
    "foreign": (python(IO, backend='backend: "mine"\nplatform: "any"'), False),
    "ragged_optional": (
        python(
            f'input [ {{ name: "A" data_type: TYPE_INT32 dims: [ -1 ] {RAGGED} }}, '
            f'{{ name: "A2" data_type: TYPE_INT32 dims: [ -1 ] {RAGGED} optional: true }} ]\n'
            'output [ { name: "B" data_type: TYPE_INT32 dims: [ -1 ] } ]\ndynamic_batching { }'
        ),
        True,
    ),
    "joins_two": (flow(STREAM, ("stream2", {"A": "A"}, {"B": "y"}), JOIN), False),
    "joins_one_twice": (flow(STREAM, ("stream", {"A": "A"}, {"B": "y"}), JOIN), False),
    "joins_request": (flow(STREAM, ("join", {"A": "x", "A2": "A"}, {"B": "B"})), False),
    "joins_plain": (flow(STREAM, ("plain", {"A": "A"}, {"B": "y"}), JOIN), False),
    "one_stream": (flow(STREAM, ("plain", {"A": "x"}, {"B": "y"}), JOIN), True),
    "chain": (flow(STREAM, ("stream2", {"A": "x"}, {"B": "B"})), True),
    "chain_joined": (flow(STREAM, ("stream2", {"A": "x"}, {"B": "y"}), JOIN), False),
}
CODE = {"partial": COMPLETES, "partial_input": COMPLETES, "nothing_written": COMPLETES, "nameless": COMPLETES}


def both(
    builder: RepositoryBuilder, log: Path, judge: type[Judge] = Judge
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Triton's verdicts, and the linter's errors by model."""
    errors: dict[str, list[str]] = {}
    for finding in lint_repository(builder.path):
        if finding.severity == "error":
            errors.setdefault(finding.path.relative_to(builder.path).parts[0], []).append(str(finding))
    return verdicts(builder.path, log, judge), errors


@pytest.fixture
def builder(tmp_path: Path) -> RepositoryBuilder:
    (tmp_path / "models").mkdir()
    return RepositoryBuilder(tmp_path / "models")


def test_the_core(builder: RepositoryBuilder, tmp_path: Path) -> None:
    for name, (config, _) in CORE.items():
        files: dict[str, str | bytes] = {} if "ensemble" in config else {"1/model.py": CODE.get(name, PYTHON_MODEL)}
        builder.add(name, config, files=files)
    judged, errors = both(builder, tmp_path / "triton.log")
    assert {name: not judged[name] for name in CORE} == {name: loads for name, (_, loads) in CORE.items()}
    assert {name: name not in errors for name in CORE} == {name: loads for name, (_, loads) in CORE.items()}, errors


def test_without_completion_a_partly_written_tensor_is_refused(builder: RepositoryBuilder, tmp_path: Path) -> None:
    """What the linter then says is a warning: it cannot know with which mode the server is started."""
    builder.add("partial", CORE["partial"][0], files={"1/model.py": COMPLETES})
    assert verdicts(builder.path, tmp_path / "triton.log", StrictJudge)["partial"]
    assert {f.rule_id for f in lint_repository(builder.path) if f.severity == "warning"} == {"L115"}


def cut(size: int) -> dict[str, str | bytes]:
    """A graph with 16 bytes of weights in another file, from byte 4 on."""
    graph = added(as_input=False)
    weights = graph.graph.initializer[0]
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "4"), ("length", "16")):
        weights.external_data.add(key=key, value=value)
    return {"1/model.onnx": graph.SerializeToString(), **({"1/w.bin": bytes(size)} if size else {})}


def accelerated(name: str) -> str:
    listed = f'cpu_execution_accelerator [ {{ name: "{name}" }} ]'
    return identity_config(name="", more=f"optimization {{ execution_accelerators {{ {listed} }} }}")


def named(config: str) -> str:
    return replaced(config, 'name: "copy"', "")


TEXT_DOMAIN = operator("BertTokenizer", "ai.onnx.contrib")
TWICE = named(identity_config(more='input { name: "x" data_type: TYPE_FP32 dims: 4 }'))
# Configuration, graph, and whether the backend loads them.
ONNX: dict[str, tuple[str, onnx.ModelProto, bool]] = {
    "right": (named(identity_config()), identity_graph(), True),
    "listed_twice": (TWICE, identity_graph(), False),
    "accelerator": (accelerated("onednn"), identity_graph(), False),
    "unknown_domain": (named(identity_config()), TEXT_DOMAIN, False),
    "unknown_operator": (named(identity_config()), operator("Identitty"), False),
    "gone_operator": (named(identity_config()), operator("Scatter"), False),
    "microsoft_operator": (named(identity_config()), operator("QuickGelu", "com.microsoft"), True),
    "no_microsoft_operator": (named(identity_config()), operator("QuickerGelu", "com.microsoft"), False),
    "newer_microsoft_operator": (named(identity_config()), operator("LinearAttention", "com.microsoft"), False),
    "ml_opset": (named(identity_config()), imported("ai.onnx.ml", 6), False),
    "ml_opset_known": (named(identity_config()), imported("ai.onnx.ml", 5), True),
    "unused_domain": (named(identity_config()), imported("com.example", 99), True),
    "initializer": (named(with_w()), added(), False),
    "initializer_unlisted": (named(identity_config()), added(), True),
    "initializer_constant": (named(with_w()), added(as_input=False), False),
    "initializer_old": (named(with_w()), added(ir_version=3), False),
    "no_shape": (named(identity_config()), added(as_input=False, unshaped=True), False),
}


def test_onnx(builder: RepositoryBuilder, tmp_path: Path) -> None:
    for name, (config, graph, _) in ONNX.items():
        builder.add(name, config, files={"1/model.onnx": graph.SerializeToString()})
    loads = {name: loaded for name, (_, _, loaded) in ONNX.items()}
    for name, size in (("weights", 20), ("weights_cut", 19), ("weights_missing", 0)):
        builder.add(name, named(identity_config()), files=cut(size))
        loads[name] = size == 20
    judged, errors = both(builder, tmp_path / "triton.log", StrictJudge)
    assert {name: not judged[name] for name in loads} == loads, judged
    assert {name: name not in errors for name in loads} == loads, errors

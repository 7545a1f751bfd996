"""Rules on ensembles."""

from __future__ import annotations

from lint.builders import ENCODER, ENSEMBLE, POOLING, RepositoryBuilder, encoder_graph, replaced
from lint.builds import Build, variant_ensemble
from lint.configs import PYTHON_MODEL, python_model

from .case import Case


def wires(old: str, new: str, text: str = ENSEMBLE, **case: object) -> Case:
    """The reference ensemble with one edit, and without."""
    edited = replaced(text, old, new)
    key = {ENSEMBLE: "ensemble", ENCODER: "encoder", POOLING: "pooling"}[text]
    return Case(lambda r: r.reference(**{key: edited}), lambda r: r.reference(), **case)  # type: ignore[arg-type]


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


CASES: dict[str, Case] = {
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
    "L321": Case(variant_ensemble(pooling=False), variant_ensemble(pooling=True)),
    "L322": Case(decoupled("plain", "x"), decoupled("plain", "a")),
}

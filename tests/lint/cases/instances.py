"""Rules on instance groups."""

from __future__ import annotations

from onnx import TensorProto

from lint.builders import identity_config, weighted_graph
from lint.builds import copies
from lint.configs import group

from .case import GPU, Case, texts

CASES: dict[str, Case] = {
    "L501": Case(copies(group("kind: KIND_GPU count: 1")), copies(group("kind: KIND_CPU count: 1")), line=6),
    "L502": texts(group("kind: KIND_GPU gpus: [ 1 ]"), group("kind: KIND_GPU gpus: [ 0 ]"), machine=GPU),
    "L503": texts(group("kind: KIND_CPU count: 1 gpus: [ 0 ]")),
    "L504": texts(group("kind: KIND_CPU count: 3"), group("kind: KIND_CPU count: 2")),
    "L505": texts(group("kind: KIND_CPU count: 1", parameters="")),
    "L506": texts(group("kind: KIND_CPU")),
    "L507": texts(group("kind: KIND_CPU count: 0")),
    "L508": texts(group("kind: KIND_CPU count: 2")),
    "L509": texts(group('kind: KIND_CPU count: 1 profile: [ "0" ]')),
    "L510": texts(group('kind: KIND_CPU count: 1 rate_limiter { resources [ { name: "R" count: 1 } ] }')),
    "L511": texts(group("kind: KIND_GPU count: 2"), group("kind: KIND_GPU count: 1"), machine=GPU),
    "L512": Case(
        copies(identity_config(), weighted_graph()),
        copies(identity_config(), weighted_graph(TensorProto.FLOAT)),
    ),
    "L513": texts(
        group("kind: KIND_GPU count: 1", parameters=""), group("kind: KIND_GPU count: 1"), machine=GPU, line=6
    ),
}

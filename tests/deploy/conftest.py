"""A repository as the compiler leaves it, without the weights' bytes: sizes and configurations are what counts here."""

from __future__ import annotations

from pathlib import Path

import pytest
from sie_frontend.manifest import (
    SCHEMA_VERSION,
    Batching,
    Built,
    Certificate,
    Manifest,
    Model,
    ModelInput,
    TensorSpec,
    TritonModel,
    dump_manifest,
)
from sie_frontend.outputs.dense import DenseHead, Pooled
from sie_frontend.text.entry import Prompting, TextInput, Tokenization

ROOT = Path(__file__).resolve().parents[2]
MODEL_ID = "sentence-transformers/all-MiniLM-L6-v2"
NAME = "sentence-transformers__all-MiniLM-L6-v2"
WEIGHTS = 87_000_000
IDS = (TensorSpec("input_ids", "INT64", (-1,)), TensorSpec("attention_mask", "INT64", (-1,)))
DENSE = (TensorSpec("dense", "FP32", (384,)), TensorSpec("dense_unnormalized", "FP32", (384,)))


def graph_config(name: str, instances: int, threads: int) -> str:
    """The parts of a graph's `config.pbtxt` that matter for its size."""
    return f"""\
name: "{name}"
backend: "onnxruntime"
instance_group [ {{ count: {instances} kind: KIND_CPU }} ]
parameters {{ key: "inter_op_thread_count" value: {{ string_value: "9" }} }}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{threads}" }} }}
"""


def dense_model(name: str, tokenizer: str, *, limit: int = 256, **changes: object) -> Model:
    """A dense text model's entry in the manifest."""
    tokenization = Tokenization(tokenizer, limit, 0, ("input_ids", "attention_mask"), tuple(sorted({16, limit})))
    reads = TextInput(tokenization, Prompting("sentence_transformer"), "")
    fields: dict[str, object] = {
        "adapter": "SentenceTransformerDenseAdapter",
        "declared_inputs": ("text",),
        "outputs": ("dense",),
        "dims": {"dense": 384},
        "max_sequence_length": 256,
        "revision": None,
        "profiles": {"default": {}},
        "inputs": {"text": ModelInput(name, reads, {"cpu": Batching(64, 512, 2)})},
        "heads": {
            "dense": DenseHead(
                pooling="mean",
                pooling_names={},
                poolings={"mean": Pooled("dense", "dense_unnormalized")},
                normalize=True,
            ),
        },
    }
    return Model(**{**fields, **changes})  # type: ignore[arg-type]


def write_repository(folder: Path, *, instances: int = 2, threads: int = 3) -> Path:
    """An encoder of `WEIGHTS` bytes (a sparse file), a head and their ensemble."""
    encoder, head = f"{NAME}.encoder", f"{NAME}.dense"
    for name, size in ((encoder, WEIGHTS), (head, 2_000)):
        (folder / name / "1").mkdir(parents=True)
        with (folder / name / "1" / "model.onnx").open("wb") as file:
            file.truncate(size)
    (folder / encoder / "config.pbtxt").write_text(graph_config(encoder, instances, threads))
    (folder / head / "config.pbtxt").write_text(graph_config(head, 1, 1))
    (folder / NAME / "1").mkdir(parents=True)
    (folder / NAME / "config.pbtxt").write_text(f'name: "{NAME}"\nplatform: "ensemble"\n')
    (folder / NAME / "1" / "tokenizer.json").write_bytes(b" " * 700_000)
    files = {"1/model.onnx": "0" * 64, "config.pbtxt": "1" * 64}
    hidden = (TensorSpec("last_hidden_state", "FP32", (-1, 384)),)
    manifest = Manifest(
        SCHEMA_VERSION,
        models={MODEL_ID: dense_model(NAME, f"{NAME}/1/tokenizer.json")},
        triton_models={
            encoder: TritonModel(IDS, hidden, files),
            head: TritonModel((*hidden, IDS[1]), DENSE, files),
            NAME: TritonModel(IDS, DENSE, {"1/tokenizer.json": "2" * 64}, depends_on=(encoder, head)),
        },
        built={
            NAME: Built(
                "k" * 64,
                "sha256:0",
                {"cpu": "float32"},
                {"cpu": ""},
                "onnx",
                "ensemble",
                {},
                {},
                (encoder, head, NAME),
                Certificate("sentence-transformers", "0" * 64, 1, ("vectors",)),
            )
        },
    )
    (folder / "manifest.json").write_bytes(dump_manifest(manifest))
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "repository")

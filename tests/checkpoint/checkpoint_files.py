"""Small checkpoints as bytes: right in structure, with arbitrary numbers in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def safetensors(tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The format by its specification: header length (8 bytes, little endian), JSON header, the tensors' bytes."""
    header, data = {}, b""
    for name, array in tensors.items():
        raw = array.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def weights(megabytes: float = 0.001, seed: int = 0) -> bytes:
    generator = np.random.default_rng(seed)
    return safetensors({"w": generator.standard_normal(int(megabytes * 250_000), dtype=np.float32)})


def bert() -> dict[str, bytes]:
    """A sentence-transformers model, and beside it what hubs also hold and nobody here wants."""
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    return {
        "config.json": json.dumps({"model_type": "bert", "architectures": ["BertModel"]}).encode(),
        "model.safetensors": weights(),
        "tokenizer.json": b'{"model": {}}',
        "tokenizer_config.json": b"{}",
        "vocab.txt": b"[PAD]\n[UNK]\n",
        "modules.json": json.dumps(modules).encode(),
        "sentence_bert_config.json": b'{"max_seq_length": 256}',
        "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
        "README.md": b"# read me",
        "pytorch_model.bin": b"\x80pickle",
        "tf_model.h5": b"tf",
        "onnx/model.onnx": b"onnx",
        "openvino/openvino_model.bin": b"ov",
        "modeling_own.py": b"raise SystemExit",
    }


WANTED = (
    "1_Pooling/config.json",
    "config.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
"""What of `bert()` decides what the model computes."""


def sharded(count: int = 2) -> dict[str, bytes]:
    files = {name: content for name, content in bert().items() if name != "model.safetensors"}
    shards = {f"model-{n:05}-of-{count:05}.safetensors": weights(seed=n) for n in range(1, count + 1)}
    weight_map = {f"w{n}": name for n, name in enumerate(shards)}
    return files | shards | {"model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()}


def without(files: Mapping[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name not in names}


TRANSFORMER = "sentence_transformers.models.Transformer"


def in_folder(folder: str = "0_Transformer", kind: str = TRANSFORMER) -> dict[str, bytes]:
    """`bert()` with the transformer's files in a folder of their own, as sentence-transformers before 1.0 saved it."""
    moved = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}
    moved |= {"sentence_bert_config.json"}
    files = {f"{folder}/{name}" if name in moved else name: content for name, content in bert().items()}
    modules = json.loads(files["modules.json"])
    modules[0] |= {"path": folder, "type": kind}
    return without(files, "pytorch_model.bin") | {"modules.json": json.dumps(modules).encode()}


def odd_shards() -> dict[str, bytes]:
    """Shards under names of the author's choice; transformers reads whatever the index names."""
    files = without(sharded(), *(name for name in sharded() if name.startswith("model-")), "pytorch_model.bin")
    parts = {"part_1.safetensors": weights(seed=1), "part_2.safetensors": weights(seed=2)}
    index = {"weight_map": {"w1": "part_1.safetensors", "w2": "part_2.safetensors"}}
    return files | parts | {"model.safetensors.index.json": json.dumps(index).encode()}


def write(files: Mapping[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder

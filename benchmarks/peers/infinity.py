"""infinity over HTTP, with its torch engine or its ONNX one (`optimum`) on the same graph."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.peers import Files, HttpServer


def server(files: Files, port: int, variant: str, cache: Path) -> HttpServer:
    """Defaults where they give the right vectors; the ONNX engine would pool `cls` where the model says `mean`."""
    folder = files.checkpoint if variant == "torch" else str(_flat(Path(files.checkpoint), cache))
    command = ["infinity_emb", "v2", "--model-id", ".", "--served-model-name", "model"]
    command += ["--engine", variant, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    if variant == "optimum":
        command += ["--pooling-method", "mean"]
    else:
        command += ["--no-bettertransformer", "--dtype", "float32"]
    return HttpServer(
        command=command,
        port=port,
        path="/embeddings",
        ready_path="/health",
        content_type="application/json",
        request=_request,
        vectors=_vectors,
        environment={"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(files.cores)},
        directory=folder,
    )


def _flat(checkpoint: Path, cache: Path) -> Path:
    """The checkpoint with its graph beside the rest: the ONNX engine finds no other in a local folder."""
    folder = cache / "checkpoint-flat"
    if not folder.exists():
        shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("onnx"))
    shutil.copyfile(checkpoint / "onnx" / "model.onnx", folder / "model.onnx")
    return folder


def _request(texts: Sequence[str]) -> bytes:
    return msgspec.json.encode({"model": "model", "input": list(texts)})


def _vectors(answer: bytes) -> list[list[float]]:
    data = msgspec.json.decode(answer)["data"]
    return [entry["embedding"] for entry in sorted(data, key=lambda entry: int(entry["index"]))]

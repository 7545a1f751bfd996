"""The in-process limit below float32: the graphs of our repositories in int8 and bfloat16, with nothing around them.

As `limit`, one-threaded streams take sorted runs. ONNX Runtime and OpenVINO read the very files that are served, which
end in unit vectors. OpenVINO is there where its package is.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.peers import Embed, Files
from benchmarks.peers.limit import embed_in_streams, open_tokenizer, padded

RUN_TOKENS = 512

Run: TypeAlias = "Callable[[dict[str, Any]], Any]"
"""Inputs to vectors [rows, dim]; as many threads as there are streams may call it."""


def load(files: Files) -> dict[str, Embed]:
    """A variant for each rung whose graph lies beside the checkpoint, by the name of what serves it."""
    folder = Path(files.checkpoint, "onnx")
    float32, int8 = folder / "model.fused.onnx", folder / "model.fused.int8.onnx"
    opened: dict[str, Run] = {}
    if int8.exists():
        opened["int8"] = _by_onnxruntime(int8)
    if importlib.util.find_spec("openvino"):
        opened["openvino float32"] = _by_openvino(float32, "f32", files.cores)
        opened["openvino bfloat16"] = _by_openvino(float32, "bf16", files.cores)
        if int8.exists():
            opened["openvino int8"] = _by_openvino(int8, "bf16", files.cores)  # as a build has it
    tokenizer = open_tokenizer(files)

    def embed(run: Run, texts: Sequence[str]) -> Any:
        return embed_in_streams(lambda rows: run(padded(rows)), tokenizer, RUN_TOKENS, files.cores, texts)

    return {name: partial(embed, run) for name, run in opened.items()}


def _by_onnxruntime(path: Path) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(["dense"], feed)[0]


def _by_openvino(path: Path, precision: str, streams: int) -> Run:
    from sie_triton.embedded.openvino_engine import OpenVinoGraph

    graph = OpenVinoGraph(path, threads=streams, precision=precision, streams=streams)
    return lambda feed: graph.run(["dense"], feed)[0]

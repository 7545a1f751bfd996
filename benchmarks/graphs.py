"""What the graph itself decides, in process and on one thread: padded against packed, and what int8 does to vectors.

    python -m benchmarks.graphs

Prints, for runs of several kinds, tokens a second of MiniLM's encoder as peers get it and as `build` packs it; the
price of a padded position in the graph that is served, which pools inside; then the cosines to float32 of products in
int8 with a scale for each token and each column.
With `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` before it, weights lie on huge pages, as the embedded server has them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from tokenizers import Tokenizer

from benchmarks.corpora import MAX_TOKENS, make_corpus
from benchmarks.load import ROOT
from benchmarks.run import MODEL, prepare

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Feed: TypeAlias = dict[str, Array]

_ROUNDS = 15
_WIDTHS = (32, 64, 128, 256)
# Which products are in int8: by the shape of their weights, [inputs, outputs].
_PARTS: dict[str, Callable[[tuple[int, ...]], bool]] = {
    "all": lambda shape: True,
    "the widest alone": lambda shape: shape[1] > shape[0],
}


def open_graph(graph: str | bytes) -> ort.InferenceSession:
    """A session of one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def feed_of(rows: Sequence[Sequence[int]]) -> Feed:
    """Rows of token ids, padded to the longest."""
    width = max(map(len, rows))
    ids, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def seconds_of(sessions: Sequence[ort.InferenceSession], runs: Sequence[Feed]) -> list[float]:
    """The median over alternating rounds, for each session, of all runs."""
    found: list[list[float]] = [[] for _ in sessions]
    for number in range(_ROUNDS + 1):
        for session, times in zip(sessions, found, strict=True):
            begun = time.perf_counter()
            for run in runs:
                session.run(None, run)
            if number:  # the first time warms up
                times.append(time.perf_counter() - begun)
    return [statistics.median(times) for times in found]


def compare_speeds(padded: ort.InferenceSession, packed: ort.InferenceSession, short: Any, mixed: Any) -> None:
    """Tokens a second of both graphs, for rows in their order and sorted."""
    ascending = sorted(short, key=len)
    kinds: dict[str, list[list[list[int]]]] = {
        "one text": [[row] for row in short[:24]],
        "8 short texts in order": [short[n : n + 8] for n in range(0, 64, 8)],
        "16 short texts in order": [short[n : n + 16] for n in range(0, 96, 16)],
        "12 short texts, sorted": [ascending[n : n + 12] for n in range(0, len(ascending) - 12, 60)],
        "5 mixed texts, sorted": [sorted(mixed, key=len)[n : n + 5] for n in range(0, len(mixed) - 5, 30)],
    }
    print(
        "| run | padding over tokens | padded: tokens/s | packed: tokens/s | packed / padded |\n|---|---|---|---|---|"
    )
    for name, runs in kinds.items():
        feeds = [feed_of(rows) for rows in runs]
        tokens = sum(len(row) for rows in runs for row in rows)
        positions = sum(feed["input_ids"].size for feed in feeds)
        slow, fast = (tokens / seconds for seconds in seconds_of((padded, packed), feeds))
        print(f"| {name} | {positions / tokens - 1:.2f} | {slow:.0f} | {fast:.0f} | {fast / slow:.2f} |")


def price_padding(packed: ort.InferenceSession) -> None:
    """What a padded position costs in the packed graph: rows half as long, beside one whole row and without it."""
    print("\n| longest row | a padded position costs, of a token |\n|---|---|")
    for width in _WIDTHS:
        count = max(2, 512 // width)
        whole, half = [[2000] * width] * count, [[2000] * (width // 2)]
        rows = [whole[0], *(half * (2 * (count - 1)))]
        times = [seconds_of((packed,), [feed_of(kind)])[0] for kind in (whole, rows, half * (2 * count))]
        padding = len(rows) * width - sum(map(len, rows))
        print(f"| {width} | {(times[1] - times[2]) / padding / (times[0] / (width * count)):.2f} |")


def quantized(path: Path, bits: int, chosen: Callable[[tuple[int, ...]], bool]) -> bytes:
    """The graph with the chosen products in int8: weights of `bits` bits, a scale a column and a scale a token."""
    model = onnx.load(str(path))
    weights = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if len(tensor.dims) == 2
    }
    constants: dict[str, Array] = {"i8_least": np.float32(1e-12), "i8_most": np.float32(127), "i8_axis": np.array([-1])}
    nodes: list[Any] = []
    scaled: set[str] = set()

    def add(op_type: str, inputs: list[str], output: str, **attributes: int) -> str:
        nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    for number, node in enumerate(model.graph.node):
        weight = weights.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or not chosen(weight.shape):
            nodes.append(node)
            continue
        limit = 2 ** (bits - 1) - 1
        scale = np.maximum(np.abs(weight).max(0) / limit, 1e-12)
        constants[f"i8_w{number}"] = np.clip(np.rint(weight / scale), -limit, limit).astype(np.int8)
        constants[f"i8_s{number}"] = (scale / 127).astype(np.float32)
        states = node.input[0]
        if states not in scaled:
            scaled.add(states)
            sizes = add("Abs", [states], f"{states}_size")
            largest = add("ReduceMax", [sizes, "i8_axis"], f"{states}_largest", keepdims=1)
            most = add("Max", [largest, "i8_least"], f"{states}_most")
            inverse = add("Div", ["i8_most", most], f"{states}_inverse")
            spread = add("Mul", [states, inverse], f"{states}_spread")
            add("Cast", [add("Round", [spread], f"{states}_round")], f"{states}_i8", to=onnx.TensorProto.INT8)
        whole = add("MatMulInteger", [f"{states}_i8", f"i8_w{number}"], f"i8_whole{number}")
        real = add("Cast", [whole], f"i8_real{number}", to=onnx.TensorProto.FLOAT)
        columns = add("Mul", [real, f"i8_s{number}"], f"i8_columns{number}")
        add("Mul", [columns, f"{states}_most"], node.output[0])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
    content: bytes = model.SerializeToString()
    return content


def compare_int8(path: Path, rows: Sequence[Sequence[int]]) -> None:
    """The smallest and the median cosine of mean-pooled vectors to float32's."""

    def vectors(session: ort.InferenceSession) -> Array:
        means = np.array([session.run(None, feed_of([row]))[0][0].mean(0) for row in rows])
        unit: Array = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit

    expected = vectors(open_graph(str(path)))
    print("\n| products in int8 | bits of the weights | smallest cosine | median |\n|---|---|---|---|")
    for part, chosen in _PARTS.items():
        for bits in (8, 7):
            cosines = np.sum(vectors(open_graph(quantized(path, bits, chosen))) * expected, axis=1)
            print(f"| {part} | {bits} | {cosines.min():.4f} | {np.median(cosines):.4f} |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.graphs", description=__doc__.splitlines()[0])
    parser.add_argument("--peer-cache", type=Path, default=ROOT / ".cache" / "benchmarks", help="graphs are kept here")
    cache: Path = parser.parse_args().peer_cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    files, repositories = prepare(cache, None, 1, {"ours"})
    folder = Path(files.checkpoint)
    tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)

    def ids_of(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]

    short, mixed = (
        ids_of(make_corpus(name, 192, lambda texts: [len(ids) for ids in ids_of(texts)]).texts)
        for name in ("short", "mixed")
    )
    padded, packed = (open_graph(str(folder / "onnx" / name)) for name in ("model.onnx", "model.packed.onnx"))
    compare_speeds(padded, packed, short, mixed)
    served = repositories["ours"] / MODEL.replace("/", "__") / "1" / "model.onnx"
    price_padding(open_graph(str(served)))
    compare_int8(folder / "onnx" / "model.packed.onnx", mixed)


if __name__ == "__main__":
    main()

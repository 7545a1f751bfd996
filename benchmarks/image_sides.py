"""One side of `benchmarks.images` that runs in process: commands in on stdin, answers out on stdout, a JSON a line.

    python -m benchmarks.image_sides SIDE FILES-AS-JSON

A command has `repeat`, how often all photographs are embedded; the answer has the seconds that it took, and `vectors`
of one pass if they were asked for. Every side begins with the bytes of the files.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

Embed: TypeAlias = "Callable[[Sequence[bytes]], Any]"
"""Encoded pictures to float32 `[pictures, dim]`; None where no vectors are made."""

# Pictures of one run; the best is told.
RUNS = (2, 8)


@dataclass(frozen=True)
class Files:
    """What every side gets. `graph` reads uint8 pictures, and `onnx` is a folder with what Fastembed reads."""

    checkpoint: str
    graph: str
    onnx: str
    photographs: str
    cores: int

    def as_json(self) -> str:
        """As the command line has it."""
        return json.dumps(asdict(self))


def _decoded(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        rgb: Image.Image = picture if picture.mode == "RGB" else picture.convert("RGB")
        return rgb


def _pixels(data: bytes, size: int = 224) -> Any:
    """As CLIP's processor on Pillow has it."""
    picture = _decoded(data)
    shorter, longer = sorted(picture.size)
    scaled = int(size * longer / shorter)
    fit = (size, scaled) if picture.width <= picture.height else (scaled, size)
    picture = picture.resize(fit, Image.Resampling.BICUBIC)
    left, top = ((edge - size) // 2 for edge in picture.size)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def limit(files: Files) -> dict[str, Embed]:
    """What this machine can do in float32, by ONNX Runtime; and what Pillow alone can do."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(files.graph, options, providers=["CPUExecutionProvider"])
    pool = ThreadPoolExecutor(files.cores)

    def pillow(pictures: Sequence[bytes]) -> Any:
        list(pool.map(_pixels, pictures))

    return {"Pillow alone": pillow} | _limits(
        pool, "", lambda pixels: session.run(["dense"], {"pixels": np.stack(pixels)})[0]
    )


def limit_bfloat16(files: Files) -> dict[str, Embed]:
    """What this machine can do in bfloat16, by OpenVINO."""
    from sie_triton.embedded.openvino_engine import OpenVinoGraph

    graph = OpenVinoGraph(Path(files.graph), threads=files.cores, precision="bf16", streams=files.cores)
    return _limits(
        ThreadPoolExecutor(files.cores), " in bfloat16", lambda p: graph.run(["dense"], {"pixels": np.stack(p)})[0]
    )


def _limits(pool: ThreadPoolExecutor, called: str, compute: Callable[[Sequence[Any]], Any]) -> dict[str, Embed]:
    """The graph alone, and with Pillow before it, by one-threaded workers, one for each core.

    `compute` makes vectors of pixels.
    """

    def whole(part: Sequence[bytes]) -> Any:
        return compute([_pixels(data) for data in part])

    def both(run: int) -> Embed:
        return lambda pictures: np.concatenate(list(pool.map(whole, _parts(pictures, run))))

    def graph(run: int) -> Embed:
        made: dict[bytes, Any] = {}

        def embed(pictures: Sequence[bytes]) -> Any:
            for data in pictures:
                if data not in made:
                    made[data] = _pixels(data)
            return np.concatenate(list(pool.map(compute, _parts([made[data] for data in pictures], run))))

        return embed

    alone = {f"graph alone{called}, {run} a run": graph(run) for run in RUNS}
    return alone | {f"limit{called}, {run} a run": both(run) for run in RUNS}


def sentence_transformers(files: Files, *, halved: bool = False) -> dict[str, Embed]:
    """Its CLIP module, with torch on all cores and its own batch of 32; `halved`: with weights in bfloat16."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules.clip_model import CLIPModel

    torch.set_num_threads(files.cores)
    model = SentenceTransformer(modules=[CLIPModel(files.checkpoint)], device="cpu")
    if halved:
        model.to(torch.bfloat16)

    def embed(pictures: Sequence[bytes]) -> Any:
        given: Any = [_decoded(data) for data in pictures]
        return model.encode(given, batch_size=32, normalize_embeddings=True, show_progress_bar=False)

    return {f"sentence-transformers{' in bfloat16' if halved else ''}": embed}


def fastembed(files: Files) -> dict[str, Embed]:
    """Its own class for this architecture, pointed at the folder with our random weights."""
    from fastembed import ImageEmbedding

    model = ImageEmbedding("Qdrant/clip-ViT-B-32-vision", specific_model_path=files.onnx, threads=files.cores)

    def embed(pictures: Sequence[bytes]) -> Any:
        return np.stack(list(model.embed([_decoded(data) for data in pictures])))

    return {"fastembed": embed}


SIDES: dict[str, Callable[[Files], dict[str, Embed]]] = {
    "limit": limit,
    "limit-bfloat16": limit_bfloat16,
    "sentence_transformers": sentence_transformers,
    "sentence_transformers-bfloat16": partial(sentence_transformers, halved=True),
    "fastembed": fastembed,
}


def _parts(rows: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def main() -> None:
    # Libraries print; only answers may reach the runner.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    files = Files(**json.loads(sys.argv[2]))
    pictures = [path.read_bytes() for path in sorted(Path(files.photographs).glob("*.jpg"))]
    sides = SIDES[sys.argv[1]](files)
    for embed in sides.values():
        embed(pictures)
    print(json.dumps({"sides": list(sides)}), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        begun = time.perf_counter()
        found = sides[command["side"]](pictures * command["repeat"])
        answer: dict[str, Any] = {"seconds": time.perf_counter() - begun}
        if command.get("vectors"):
            answer["vectors"] = np.asarray(found, dtype=np.float64)[: len(pictures)].tolist()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""Ten models at once: what a load over all of them gets beside what one of them gets, and how long a start takes.

    python -m benchmarks.ten
    python -m benchmarks.ten --size tiny --rounds 2 --seconds 1

Makes a dense, a sparse, a ColBERT model and a reranker with random weights of MiniLM's size, builds them for a CPU as a
user does, and copies their folders under further ids until there are ten: a server cannot tell them from built ones.
Serves one alone, and then all ten. In each round as many clients as models ask, in turn, one model of each kind alone
and all ten at once, a client each. A model's share is its texts a second of the mixed load by those that it gets alone;
the shares' sum is what all get of the machine, where 1 is what one model gets. Prints Markdown; ends with 1 if the
median of the rounds is below `--aim`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_inputs import minilm
from benchmarks.random_models import SIZES, Size, write_bert

KINDS = ("dense", "sparse", "ColBERT", "reranker")
MODELS, TEXTS = 10, 16
_ADAPTERS = {
    "dense": "bert_flash:BertFlashAdapter",
    "sparse": "splade_flash.adapter:SPLADEFlashAdapter",
    "ColBERT": "colbert:ColBERTAdapter",
    "reranker": "bert_flash_cross_encoder:BertFlashCrossEncoderAdapter",
}
_CLASSES = {"sparse": "BertForMaskedLM", "reranker": "BertForSequenceClassification"}
_TOKEN_WIDTH = 128


def write_kind(folder: Path, kind: str, tokenizer_of: Path, size: Size, seed: int) -> None:
    """A checkpoint of a kind: ColBERT's has its body under `bert.`, and a linear layer beside it."""
    write_bert(folder, tokenizer_of, size, seed=seed, kind=_CLASSES.get(kind, "BertModel"))
    if kind != "ColBERT":
        return
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(path).items()}
    random = torch.Generator().manual_seed(seed)
    tensors["linear.weight"] = torch.randn(_TOKEN_WIDTH, size.width, generator=random) / size.width**0.5
    save_file(tensors, path, metadata={"format": "pt"})


def bundle(name: str, kind: str, folder: Path, size: Size) -> str:
    """Its YAML, as SIE writes it for the kind."""
    outputs = {
        "dense": f"encode: {{dense: {{dim: {size.width}}}}}",
        "sparse": "encode: {sparse: {dim: 30522}}",
        "ColBERT": f"encode: {{multivector: {{dim: {_TOKEN_WIDTH}}}}}",
        "reranker": "score: {}",
    }
    options = f"\n    adapter_options: {{loadtime: {{token_dim: {_TOKEN_WIDTH}}}}}" if kind == "ColBERT" else ""
    pooling = "\n    adapter_options: {runtime: {pooling: mean}}" if kind == "dense" else ""
    return (
        f"sie_id: {name}\nweights_path: {folder}\ninputs: {{text: true}}\ntasks: {{{outputs[kind]}}}\n"
        f"max_sequence_length: {min(size.positions, 256)}\nprofiles:\n  default:\n    max_batch_tokens: 8192\n"
        f"    compute_precision: null\n    adapter_path: sie_server.adapters.{_ADAPTERS[kind]}{options}{pooling}\n"
    )


def built(folder: Path, size: Size) -> Path:
    """A repository of one model of each kind."""
    tokenizer_of, bundles, wanted = minilm(), folder / "bundles", []
    bundles.mkdir(parents=True, exist_ok=True)
    for number, kind in enumerate(KINDS):
        name = f"m{number:03}"
        write_kind(folder / name, kind, tokenizer_of, size, number)
        (bundles / f"{name}.yaml").write_text(bundle(name, kind, folder / name, size), encoding="utf-8")
        wanted += ["-m", name]
    command = [sys.executable, "-m", "sie_triton.cli", "build", "--bundles", str(bundles), *wanted]
    command += ["-r", str(folder / "built"), "--device", "cpu"]
    subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return folder / "built"


def kind_of(name: str) -> str:
    """Copies follow each other as the kinds do."""
    return KINDS[int(name[1:]) % len(KINDS)]


def rates(url: str, names: Sequence[str], texts: Sequence[str], *, clients: int, seconds: float) -> dict[str, float]:
    """Texts a second of each of the models, all asked at once; `clients` ask each of them."""
    import msgspec

    from benchmarks.load import Plan, finish, start

    host, port = url.removeprefix("http://").split(":")
    running = {}
    for name in names:
        kind = kind_of(name)
        bodies = []
        for first in range(0, len(texts) - TEXTS + 1, TEXTS):
            items = [{"text": text} for text in texts[first : first + TEXTS]]
            asked: dict[str, Any] = {"items": items}
            if kind == "reranker":
                asked["query"] = {"text": "what is it?"}
            else:
                asked["params"] = {"output_types": ["multivector" if kind == "ColBERT" else kind]}
            bodies.append(msgspec.msgpack.encode(asked))
        path = f"/v1/{'score' if kind == 'reranker' else 'encode'}/{name}"
        running[name] = start(Plan(host, int(port), path, "application/msgpack", bodies, clients, seconds, warmup=1))
    results = {name: finish(process) for name, process in running.items()}
    return {name: len(result.numbers) * TEXTS / result.wall_s for name, result in results.items()}


def main() -> None:
    """Build, serve, take turns, print."""
    parser = argparse.ArgumentParser(prog="benchmarks.ten", description="ten models at once")
    parser.add_argument("--size", choices=tuple(SIZES), default="small", help="of the random models")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--aim", type=float, default=0.9, help="the least sum of shares")
    parser.add_argument("--keep", type=Path, help="a folder for checkpoints and repositories, used again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(compared(given.keep or Path(temporary), given) < given.aim)


def compared(folder: Path, given: argparse.Namespace) -> float:
    """The median over the rounds of the shares' sum, after the tables are printed."""
    from benchmarks.hundred import copied, serving
    from benchmarks.triton_paths import texts_for

    repository = folder / "built"
    if not (repository / "manifest.json").exists():
        repository = built(folder, SIZES[given.size])
    kinds = [f"m{number:03}" for number in range(len(KINDS))]
    copied(repository, folder / "one", kinds[:1], 1)
    copied(repository, folder / "ten", kinds, MODELS)
    names, texts = [f"m{number:03}" for number in range(MODELS)], texts_for(256)
    with serving(folder / "one", folder / "one.log", "--device", "cpu") as server:
        first = server.ready_s
    sums: list[float] = []
    alone: dict[str, list[float]] = {}
    mixed: dict[str, list[float]] = {}
    with serving(folder / "ten", folder / "ten.log", "--device", "cpu") as server:
        ready, megabytes = server.ready_s, server.megabytes
        for name in names:
            rates(server.url, [name], texts, clients=1, seconds=0.2)
        for _ in range(given.rounds):
            lone = {}
            for kind, name in zip(KINDS, kinds, strict=True):
                lone[kind] = rates(server.url, [name], texts, clients=MODELS, seconds=given.seconds)[name]
                alone.setdefault(kind, []).append(lone[kind])
            together = rates(server.url, names, texts, clients=1, seconds=given.seconds)
            shares = 0.0
            for name, rate in together.items():
                kind = kind_of(name)
                mixed.setdefault(kind, []).append(rate)
                shares += rate / lone[kind]
            sums.append(shares)
    print(f"\n{MODELS} models of the size {given.size}, {len(os.sched_getaffinity(0))} cores, {given.rounds} rounds.\n")
    print("| texts/s | alone | each of ten at once |\n|---|---|---|")
    for kind in KINDS:
        print(f"| {kind} | {statistics.median(alone[kind]):.0f} | {statistics.median(mixed[kind]):.1f} |")
    told = f"{statistics.median(sums):.2f} ({min(sums):.2f} to {max(sums):.2f})"
    print(f"\nSum of the shares, where 1 is what one model gets: {told}. Ready after {first:.1f} s with one model, ")
    print(f"after {ready:.1f} s with ten, which took {megabytes:.0f} MB of memory.")
    return statistics.median(sums)


if __name__ == "__main__":
    main()

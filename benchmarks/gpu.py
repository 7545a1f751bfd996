"""The GPU beside its own limit and beside sentence-transformers; without a GPU, the same on the CPU.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --size tiny
    python -m benchmarks.gpu --pack .cache/gpu.tar.xz --minutes 9 --json gpu.json

Builds MiniLM, and a random BERT of base size: as TorchScript in float16 and bfloat16, and as ONNX where ONNX Runtime
computes on the device. Serves each with the real tritonserver of the `nvidia-pytriton` package, asks it with 1, 32 and
256 clients of one text each and with eight of 64 texts, and prints tokens a second, how much of the time the device
computed, the lowest cosine to sentence-transformers in float32 on the same device, and what sentence-transformers gives
with the best of some batch sizes in the same precision. Then the float32 ONNX graph on 1 to 16 of the machine's cores.
Prints Markdown as it goes and needs no network. What does not fit into `--minutes` is left out, and said. `--size tiny`
is the short form: one small random model on the CPU. `--pack` is an archive that `benchmarks.gpu_pack` made elsewhere,
for a machine that has PyTorch with CUDA, sentence-transformers and pip, and nothing of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_inputs import MOST_TEXTS, checkpoints_for, corpus_for
from benchmarks.gpu_pack import unpack

KEEP = 32


class Clock:
    """The time that is left of what was given."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes
        self.left_out: list[str] = []

    def has(self, seconds: float, what: str) -> bool:
        """Whether so much is left; what does not fit is remembered."""
        if time.monotonic() + seconds < self._end:
            return True
        self.left_out.append(what)
        return False


@dataclass(frozen=True)
class Machine:
    """What is measured on, and how long each figure is measured."""

    device: str
    name: str
    seconds: float
    batches: tuple[int, ...]
    clients: tuple[int, ...]
    texts: int

    @classmethod
    def here(cls, *, short: bool) -> Machine:
        """A GPU where torch has one."""
        import torch

        if torch.cuda.is_available() and not short:
            return cls("cuda", torch.cuda.get_device_name(), 6.0, (32, 128, 512, 2048), (1, 32, 256), MOST_TEXTS)
        seconds = 0.3 if short else 3.0
        return cls("cpu", f"{len(os.sched_getaffinity(0))} cores", seconds, (8, 32), (1, 32), 64 if short else 512)


@dataclass(frozen=True)
class Case:
    """One model in one format and precision."""

    model: str
    checkpoint: Path
    format: str
    precision: str
    served_as: str = ""

    @property
    def id(self) -> str:
        """The id that clients ask for: a folder's name, where no other is given."""
        return self.served_as or self.checkpoint.name

    @property
    def named(self) -> str:
        """For the table."""
        return f"{self.model}, {self.format}, {self.precision}"


@dataclass
class Found:
    """What was measured of a case."""

    case: str
    ready_s: float = 0.0
    min_cosine: float = 0.0
    tokens_per_second: dict[str, float] = field(default_factory=dict)
    computing: float | None = None
    peer: dict[str, float] = field(default_factory=dict)


def cases(machine: Machine, checkpoints: dict[str, Path]) -> list[Case]:
    """What the device can compute: the formats that the embedded server has there."""
    from sie_triton.serving.gpus import gpu_obstacle

    found = []
    halves = ("float16", "bfloat16") if machine.device == "cuda" else ("bfloat16",)
    for model, folder in checkpoints.items():
        found += [Case(model, folder, "torchscript", precision) for precision in halves]
        if machine.device == "cpu" or gpu_obstacle("cuda", ["onnx"]) is None:
            found.append(Case(model, folder, "onnx", "float32" if machine.device == "cpu" else "float16"))
    return found


def built(case: Case, folder: Path, device: str, cores: Sequence[int] | None = None) -> subprocess.Popen[bytes]:
    """Begin to build a repository of one model."""
    command = [sys.executable, "-m", "sie_triton.cli", "build", "-m", str(case.checkpoint), "-r", str(folder)]
    command += ["--format", case.format, "--precision", case.precision, "--device", device]
    log = folder.with_suffix(".build.log").open("wb")
    with affinity(cores):
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a build. Raises `SystemExit` with the end of its log where it failed."""
    if process.wait():
        raise SystemExit(folder.with_suffix(".build.log").read_text(encoding="utf-8", errors="replace")[-3000:])


@contextmanager
def affinity(cores: Sequence[int] | None) -> Iterator[None]:
    """Children of this block may use these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def busy() -> Iterator[list[float]]:
    """The share of the time in which a kernel ran, as the driver samples it; empty without a driver."""
    samples: list[float] = []
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    try:
        watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        yield samples
        return
    try:
        yield samples
    finally:
        watching.terminate()
        lines = watching.communicate()[0].splitlines()
        samples += [float(line) / 100 for line in lines if line.strip().isdigit()]


def load(url: str, model: str, texts: Sequence[str], *, clients: int, seconds: float, each: int = 1) -> list[float]:
    """Requests that were answered by text number, as how often each text was."""
    import msgspec

    from benchmarks.load import Plan, run

    parts = [texts[start : start + each] for start in range(0, len(texts) - each + 1, each)]
    bodies = [msgspec.msgpack.encode({"items": [{"text": text} for text in part]}) for part in parts]
    host, port = url.removeprefix("http://").split(":")
    plan = Plan(host, int(port), f"/v1/encode/{model}", "application/msgpack", bodies, clients, seconds, warmup=2)
    result = run(plan)
    answered = [0.0] * len(texts)
    for number in result.numbers:
        for place in range(number * each, (number + 1) * each):
            answered[place] += 1 / result.wall_s
    return answered


def served(case: Case, repository: Path, machine: Machine, texts: Sequence[str], lengths: Sequence[int]) -> Found:
    """Serve one repository, ask it in every way, and its peer once it is gone."""
    from benchmarks.hundred import serving

    with serving(repository, repository.with_suffix(".log"), "--device", machine.device) as server:
        found, vectors = asked(server.url, case, machine, texts, lengths)
        found.ready_s = server.ready_s
    compare(found, vectors, peer(str(case.checkpoint), asked_of_peer(case, machine, texts, sum(lengths))))
    return found


def asked(
    url: str, case: Case, machine: Machine, texts: Sequence[str], lengths: Sequence[int]
) -> tuple[Found, NDArray[np.float32]]:
    """What a server gives: speeds, and the vectors of the first texts."""
    from sie_sdk import SIEClient
    from sie_sdk.types import Item

    found = Found(case.named)
    with SIEClient(url) as client:
        answers = client.encode(case.id, [Item(text=text) for text in texts[:KEEP]])
    for clients in machine.clients:
        rate = load(url, case.id, texts, clients=clients, seconds=machine.seconds)
        found.tokens_per_second[f"{clients} x 1"] = float(np.dot(rate, lengths))
    each = min(64, len(texts))
    with busy() as samples:
        rate = load(url, case.id, texts, clients=8, seconds=machine.seconds, each=each)
    found.tokens_per_second[f"8 x {each}"] = float(np.dot(rate, lengths))
    found.computing = float(np.mean(samples)) if samples else None
    return found, np.stack([answer["dense"] for answer in answers])


def compare(found: Found, vectors: NDArray[np.float32], told: dict[str, Any]) -> None:
    """Beside what the peer told."""
    theirs = np.asarray(told["vectors"])
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(theirs, axis=1)
    found.min_cosine = float(((vectors * theirs).sum(1) / lengths).min())
    found.peer = told["tokens_per_second"]


def asked_of_peer(case: Case, machine: Machine, texts: Sequence[str], tokens: int) -> dict[str, Any]:
    """The same device and texts, in the same precision."""
    return {
        "texts": list(texts),
        "tokens": tokens,
        "device": machine.device,
        "precision": case.precision,
        "batches": [size for size in machine.batches if size <= len(texts)],
        "seconds": machine.seconds / 2,
        "keep": KEEP,
    }


def peer(checkpoint: str, asked: dict[str, Any]) -> dict[str, Any]:
    """sentence-transformers in a process of its own, so that the memory is free afterwards."""
    command = [sys.executable, "-m", "benchmarks.gpu_peer", checkpoint]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, env=environment, check=True
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def line(found: Found) -> str:
    """A line of the table."""
    best = max(found.peer, key=lambda size: found.peer[size])
    rates = [f"{rate:.0f}" for rate in found.tokens_per_second.values()]
    bulk = list(found.tokens_per_second.values())[-1]
    share = "" if found.computing is None else f"{found.computing:.0%}"
    theirs = f"{found.peer[best]:.0f} in batches of {best}"
    cells = [f"{found.min_cosine:.6f}", *rates, share, theirs, f"{bulk / found.peer[best]:.2f}"]
    return f"| {found.case} | {' | '.join(cells)} |"


def over_cores(
    checkpoint: Path, folder: Path, texts: Sequence[str], lengths: Sequence[int], machine: Machine, clock: Clock
) -> Iterator[str]:
    """Tokens a second of the float32 ONNX graph on the CPU, and how much of a core the frontend took."""
    from benchmarks.hundred import serving
    from benchmarks.measure import cpu_seconds

    cores = sorted(os.sched_getaffinity(0))
    case = Case(checkpoint.name, checkpoint, "onnx", "float32")
    counts = [count for count in (1, 2, 4, 8, 16) if count <= len(cores)]
    for count in counts if machine.texts > KEEP * 2 else counts[-1:]:
        if not clock.has(30 + 2 * machine.seconds, f"{count} cores"):
            continue
        repository = folder / f"cores-{count}"
        finish(built(case, repository, "cpu", cores[:count]), repository)
        with ExitStack() as stack:
            with affinity(cores[:count]):
                log = repository.with_suffix(".log")
                server = stack.enter_context(serving(repository, log, "--device", "cpu"))
            frontend = _frontend(server.tree())
            before = cpu_seconds(frontend), time.monotonic()
            single = np.dot(load(server.url, checkpoint.name, texts, clients=64, seconds=machine.seconds), lengths)
            share = (cpu_seconds(frontend) - before[0]) / (time.monotonic() - before[1])
            each = min(64, len(texts))
            bulk = load(server.url, checkpoint.name, texts, clients=8, seconds=machine.seconds, each=each)
        yield f"| {count} | {single:.0f} | {share:.0%} | {np.dot(bulk, lengths):.0f} |"


def _frontend(tree: Sequence[int]) -> int:
    """The process that answers HTTP: the one that runs `sie_frontend`, or the command that runs it in itself."""
    for pid in tree:
        if b"sie_frontend" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return tree[0]


def _versions() -> str:
    names = ("torch", "sentence-transformers", "nvidia-pytriton", "onnxruntime", "onnxruntime-gpu")
    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def measure(folder: Path, given: argparse.Namespace) -> None:
    """Build all at once, serve one after the other, print."""
    clock, machine = Clock(given.minutes), Machine.here(short=given.size == "tiny")
    print(f"{machine.name}; Python {platform.python_version()}, {_versions()}\n", flush=True)
    checkpoints = checkpoints_for(folder, given.pack, given.size)
    told = given.pack / "texts.json" if given.pack else None
    texts, lengths = corpus_for(next(iter(checkpoints.values())), machine.texts, told)
    chosen = [case for case in cases(machine, checkpoints) if given.only in case.named]
    repositories = [folder / f"repository-{number}" for number in range(len(chosen))]
    # On a machine of few cores, builds beside each other only take each other's time.
    together = max(1, len(os.sched_getaffinity(0)) // 4)
    results: list[Found] = []
    for start in range(0, len(chosen), together):
        part = list(zip(chosen, repositories, strict=True))[start : start + together]
        for process, (_, repository) in [(built(case, place, machine.device), (case, place)) for case, place in part]:
            finish(process, repository)
    each = min(64, len(texts))
    heads = ["", "cosine", *(f"{count} x 1" for count in machine.clients), f"8 x {each}", "computing"]
    print(f"| {' | '.join([*heads, 'sentence-transformers', 'ratio'])} |\n|{'---|' * (len(heads) + 2)}")
    for case, repository in zip(chosen, repositories, strict=True):
        if clock.has(20 + 8 * machine.seconds, case.named):
            results.append(served(case, repository, machine, texts, lengths))
            print(line(results[-1]), flush=True)
    print("\n| cores | 64 x 1 | of a core: frontend | 8 x 64 |\n|---|---|---|---|")
    for row in over_cores(next(iter(checkpoints.values())), folder, texts, lengths, machine, clock):
        print(row, flush=True)
    if clock.left_out:
        print(f"\nLeft out, since the time was over: {', '.join(clock.left_out)}.")
    if given.json:
        found = [{**vars(one)} for one in results]
        given.json.write_text(json.dumps({"machine": machine.name, "found": found}, indent=1), encoding="utf-8")


def main() -> None:
    """Parse, unpack, measure."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description="the GPU beside its own limit and its peer")
    parser.add_argument("--size", choices=("tiny", "small", "base"), default="base", help="of the random model")
    parser.add_argument("--minutes", type=float, default=9.0, help="what does not fit is left out")
    parser.add_argument("--only", default="", help="cases with this in their names")
    parser.add_argument("--pack", type=Path, help="an archive that `benchmarks.gpu_pack` made")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.pack:
            given.pack = unpack(given.pack, Path(folder) / "pack")
        measure(Path(folder), given)


if __name__ == "__main__":
    main()

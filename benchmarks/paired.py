"""Several states of this project side by side: memory, bulk, many clients, a lone query, queries beside bulk.

    python -m benchmarks.paired --side before=../old --side after=. --repository model_repository --rounds 5

A side is `NAME=CHECKOUT[:REPOSITORY]`. All are served at once, idle but for the one that is measured, and take turns in
every round: on a machine that others use only ratios of one round say anything. Peers in process, as `--peer limit`,
join as they do in `benchmarks.run`, whose cache they use.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import load, scenarios
from benchmarks.contestant import Contestant, OverHttp, start
from benchmarks.corpora import Corpus
from benchmarks.environment import Environment, find_environment
from benchmarks.measure import descendants, pss_bytes
from benchmarks.peers import PEERS, Files, Peer, ours
from benchmarks.run import MODEL, ROOT, make_corpora, prepare, say
from sie_triton.embedded.ports import free_port

Measure = Callable[[Contestant], "dict[str, float]"]
_MEGA = 1e6
_NAMES = ("alone", "many", "bulk", "beside", "memory")


def main() -> None:
    """Measure and print a table: the median of each figure, and of its ratio to the first side's."""
    options = _parse()
    cache = options.peer_cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    files, _ = prepare(cache, None, 2, set()) if options.peer else (Files(MODEL, str(options.checkpoint), 2), {})
    corpora = make_corpora(files, replace(scenarios.SHORT, texts={"short": 512, "mixed": options.texts, "long": 64}))
    with ExitStack() as stack:
        contestants = [_serve(side, files, options.repository, cache, stack) for side in options.side]
        for peer in (peer for peer in PEERS if peer.name in options.peer):
            started = start(peer, find_environment(peer, cache, say), files, cache)
            stack.callback(started[0].close)
            contestants += started
        found: dict[str, dict[str, list[float]]] = {one.name: {} for one in contestants}
        for number in range(options.rounds):
            for measure in _measures(corpora, options.seconds, options.measure):
                for one in contestants:
                    for key, value in measure(one).items():
                        found[one.name].setdefault(key, []).append(value)
            say(f"round {number + 1} of {options.rounds} done")
    _print(found)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.paired", description=__doc__.splitlines()[0])
    parser.add_argument("--side", action="append", required=True, help="NAME=CHECKOUT[:REPOSITORY]; repeatable")
    parser.add_argument("--repository", type=Path, help="what the sides serve that name no other")
    parser.add_argument("--checkpoint", type=Path, help="folder with the model's tokenizer.json; without peers only")
    parser.add_argument("--peer", action="append", default=[], choices=[peer.name for peer in PEERS if not peer.http])
    parser.add_argument("--peer-cache", type=Path, default=ROOT / ".cache" / "benchmarks")
    parser.add_argument("--measure", action="append", default=[], choices=_NAMES, help="these alone; repeatable")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=192, help="of a bulk job; a long one shows what its ends cost")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement with single texts")
    return parser.parse_args()


def _serve(side: str, files: Files, repository: Path | None, cache: Path, stack: ExitStack) -> Contestant:
    name, _, place = side.partition("=")
    checkout, _, own = place.partition(":")
    folder = Path(own) if own else repository
    assert folder is not None, "no repository was named"
    root = Path(checkout).resolve()
    logs = cache / name
    logs.mkdir(exist_ok=True)
    server = ours.server(files, free_port(), str(folder.resolve()), logs)
    path = ":".join(str(root / part) for part in (".", "frontend", "sdk"))
    server = replace(server, environment={"PYTHONPATH": path})
    one = OverHttp(Peer(name, "ours", http=True), server, Environment(Path(sys.executable)), cache / f"{name}.log")
    stack.callback(one.close)
    say(f"{name} is ready after {one.start_s:.1f} s")
    return one


def _measures(corpora: dict[str, Corpus], seconds: float, names: Sequence[str]) -> list[Measure]:
    short, mixed = corpora["short"], corpora["mixed"]

    def alone(one: Contestant) -> dict[str, float]:
        latencies = sorted(one.online(short, clients=1, seconds=seconds).latencies)
        return {
            "alone p50 ms": 1000 * statistics.median(latencies),
            "alone p95 ms": 1000 * latencies[int(len(latencies) * 0.95)],
        }

    def many(one: Contestant) -> dict[str, float]:
        if not isinstance(one, OverHttp):
            return {}
        sample = one.online(short, clients=32, seconds=seconds)
        return {"32 clients texts/s": sample.texts / sample.wall_s}

    def bulk(one: Contestant) -> dict[str, float]:
        sample = one.bulk(mixed, clients=4, texts_per_request=scenarios.TEXTS_PER_REQUEST)
        return {"bulk tokens/s": sample.tokens_per_s}

    def beside(one: Contestant) -> dict[str, float]:
        if not isinstance(one, OverHttp):
            return {}
        job = one.start_bulk(mixed, clients=4, texts_per_request=scenarios.TEXTS_PER_REQUEST, seconds=seconds + 2)
        time.sleep(1)
        latencies = sorted(one.online(short, clients=1, seconds=seconds).latencies)
        load.finish(job)
        return {"beside bulk p95 ms": 1000 * latencies[int(len(latencies) * 0.95)]}

    def memory(one: Contestant) -> dict[str, float]:
        return {"PSS MB": pss_bytes(one.pid) / _MEGA, "processes": float(len(descendants(one.pid)))}

    every = (alone, many, bulk, beside, memory)
    return [measure for measure in every if measure.__name__ in (names or _NAMES)]


def _print(found: dict[str, dict[str, list[float]]]) -> None:
    first = next(iter(found.values()))
    print("| | " + " | ".join(found) + " |")
    print("|---|" + "---|" * len(found))
    for key, base in first.items():
        cells = []
        for values in found.values():
            if key not in values:
                cells.append("")
                continue
            ratio = statistics.median(value / one for value, one in zip(values[key], base, strict=True))
            cells.append(f"{statistics.median(values[key]):.1f} ({ratio:.2f})")
        print(f"| {key} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

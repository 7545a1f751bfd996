"""What is measured, in rounds that alternate between the contestants, so that a busy machine disturbs all alike."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import load
from benchmarks.contestant import Contestant, OverHttp, Sample
from benchmarks.corpora import Corpus

Announce = Callable[[str], None]
TEXTS_PER_REQUEST = 64


@dataclass(frozen=True)
class Measurement:
    """One sample and where it belongs."""

    contestant: str
    scenario: str
    corpus: str
    clients: int
    round: int
    sample: Sample
    load_average: float


@dataclass(frozen=True)
class Sizes:
    """How much is done: texts of each corpus in bulk, seconds of each online sample, how often all is repeated."""

    texts: dict[str, int]
    online_seconds: float
    rounds: int
    bulk_clients: tuple[int, ...]
    online_clients: tuple[int, ...]


SHORT = Sizes({"short": 512, "mixed": 192, "long": 64}, 2.0, 2, (4,), (1, 32))
FULL = Sizes({"short": 2048, "mixed": 768, "long": 256}, 6.0, 3, (1, 4), (1, 8, 32, 128))


def measure_all(
    contestants: Sequence[Contestant], corpora: dict[str, Corpus], sizes: Sizes, announce: Announce
) -> list[Measurement]:
    """Bulk and online, everything in every round."""
    found: list[Measurement] = []
    for number in range(sizes.rounds):
        for name, corpus in corpora.items():
            for contestant in contestants:
                for clients in sizes.bulk_clients if isinstance(contestant, OverHttp) else (1,):
                    sample = contestant.bulk(
                        corpus.part(sizes.texts[name]), clients=clients, texts_per_request=TEXTS_PER_REQUEST
                    )
                    found.append(_measurement(contestant, "bulk", name, clients, number, sample))
        for clients in sizes.online_clients:
            for contestant in contestants:
                if clients > 1 and not isinstance(contestant, OverHttp):
                    continue
                sample = contestant.online(corpora["short"], clients=clients, seconds=sizes.online_seconds)
                found.append(_measurement(contestant, "online", "short", clients, number, sample))
        announce(f"round {number + 1} of {sizes.rounds} done, load average {os.getloadavg()[0]:.1f}")
    return found


def measure_fidelity(contestants: Sequence[Contestant], reference: Contestant, corpus: Corpus) -> dict[str, float]:
    """The minimum cosine to the reference over `corpus`, by contestant."""
    wanted = np.asarray(reference.vectors(corpus.texts))
    cosines = {}
    for contestant in contestants:
        found = np.asarray(contestant.vectors(corpus.texts))
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
        cosines[contestant.name] = float(np.min(np.sum(found * wanted, axis=1) / norms))
    return cosines


@dataclass(frozen=True)
class Beside:
    """The 95th percentile of single queries in seconds: alone, and while four bulk clients keep the server busy."""

    contestant: str
    idle_p95_s: float
    busy_p95_s: float


def measure_beside(contestant: OverHttp, corpora: dict[str, Corpus], seconds: float, rounds: int) -> Beside:
    """Single queries of one client with and without a bulk job beside them; medians over alternating rounds."""
    idle, busy = [], []
    for _ in range(rounds):
        idle.append(_p95(contestant.online(corpora["short"], clients=1, seconds=seconds)))
        # A bulk request lasts seconds: it begins before the queries and outlasts them.
        bulk = contestant.start_bulk(
            corpora["mixed"], clients=4, texts_per_request=TEXTS_PER_REQUEST, seconds=seconds + 2
        )
        time.sleep(1)
        busy.append(_p95(contestant.online(corpora["short"], clients=1, seconds=seconds)))
        load.finish(bulk)
    return Beside(contestant.name, statistics.median(idle), statistics.median(busy))


def measure_linearity(contestant: Contestant, corpus: Corpus, counts: Sequence[int]) -> dict[int, Sample]:
    """Bulk by four clients of 1,000, 10,000 … texts: the corpus over and over, since it has only so many sentences."""
    samples = {}
    for count in counts:
        numbers = [number % len(corpus.texts) for number in range(count)]
        texts, lengths = zip(*((corpus.texts[n], corpus.lengths[n]) for n in numbers), strict=True)
        repeated = Corpus(corpus.name, texts, lengths)
        samples[count] = contestant.bulk(repeated, clients=4, texts_per_request=TEXTS_PER_REQUEST)
    return samples


@dataclass(frozen=True)
class Soak:
    """Memory after the first tenth of the requests and after the last, in bytes."""

    requests: int
    early_pss: int
    late_pss: int


def measure_soak(contestant: OverHttp, corpus: Corpus, requests: int, pss: Callable[[int], int]) -> Soak:
    """`requests` single texts of random lengths in random order by eight clients; what grows is a leak."""
    rng = random.Random(requests)
    numbers = [rng.randrange(len(corpus.texts)) for _ in range(requests)]
    shuffled = Corpus(corpus.name, tuple(corpus.texts[n] for n in numbers), tuple(corpus.lengths[n] for n in numbers))
    tenth = requests // 10
    contestant.bulk(shuffled.part(tenth), clients=8, texts_per_request=1)
    early = pss(contestant.pid)
    rest = Corpus(corpus.name, shuffled.texts[tenth:], shuffled.lengths[tenth:])
    contestant.bulk(rest, clients=8, texts_per_request=1)
    return Soak(requests, early, pss(contestant.pid))


def _measurement(
    contestant: Contestant, scenario: str, corpus: str, clients: int, number: int, sample: Sample
) -> Measurement:
    return Measurement(contestant.name, scenario, corpus, clients, number, sample, os.getloadavg()[0])


def _p95(sample: Sample) -> float:
    return load.percentile(sample.latencies, 95)
